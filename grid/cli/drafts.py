"""A first spec for one's own images, and the list of a spec's keys."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from equigrid.grid.cli import streams
from equigrid.grid.cli.inputs import GRID_NAME, print_json
from equigrid.grid.cli.options import Json
from equigrid.grid.errors import UserError, near


def init(
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE",
            help="A folder, a table of labels, an .npz file, Parquet files, or a URI.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The spec; - prints it [NAME.yaml]."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The grid's name [the set's].")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column or pattern that says which images belong together; none."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side at which images are stored.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Look at labelled images, and write a first spec for them and this machine."""
    from equigrid.grid.authoring.machine import this_machine
    from equigrid.grid.authoring.proposing import checked, propose
    from equigrid.grid.authoring.writing import text, write

    if name is not None and not GRID_NAME.fullmatch(name):
        raise UserError(f"--name: {name!r}; write letters, digits, '.', '_' and '-', at most 64")
    proposal = propose(place, this_machine(), name=name, group=group, size=size)
    checked(proposal)
    written = text(proposal)
    if out == Path("-") and not as_json:
        sys.stdout.write(written)
        return
    path = None if out == Path("-") else (out or Path(f"{proposal.spec['name']}.yaml"))
    if path is not None:
        write(path, written, force=force, where="--out", right="add --force")
    if as_json:
        print_json({"file": path and str(path), "spec": proposal.spec, "about": proposal.about})
        return
    for line in proposal.about:
        streams.say(line)
    streams.say(f"written: {path}; look at it, then: equigrid plan {path}")


def keys(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Only keys of this name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List every key of a spec, with its type, default and meaning."""
    from equigrid.grid.authoring import keys as listing

    found = [
        {"section": section.title.replace("`", ""), **one._asdict()}
        for section in listing.sections()
        for one in section.keys
        if key is None or one.path == key
    ]
    if not found:
        names = {one.path for section in listing.sections() for one in section.keys}
        raise UserError(f"keys: a spec has no key {key!r}{near(key, names)}")
    if as_json:
        print_json(found)
    else:
        for one in found:
            default = "required" if one["default"] is None else f"default {one['default']}"
            streams.say(
                f"{one['section']}: {one['path']}: {one['type']}; {default}. {one['meaning']}"
            )
