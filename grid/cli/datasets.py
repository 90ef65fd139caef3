"""Datasets, before they are planned with."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equigrid.grid.cli import streams
from equigrid.grid.cli.inputs import print_json
from equigrid.grid.cli.options import Json
from equigrid.grid.errors import UserError

if TYPE_CHECKING:
    from equigrid.grid.authoring.looking import Found

app = typer.Typer(
    name="dataset", help="Look at a dataset.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _dataset() -> None:
    """Look at a dataset."""


@app.command()
def inspect(
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE",
            help="A folder, an .npz or Parquet file, a table (.csv), a URI, a set's name, or a "
            "spec's YAML file.",
        ),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="NAME=VALUE",
            help="An option of the dataset as a spec writes it, such as size=32 or test=0.2.",
        ),
    ] = None,
    near_duplicates: Annotated[
        bool,
        typer.Option(
            "--near-duplicates",
            help="Look for images that are another one, saved again, shifted, lighter or darker.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a set looks like to us: classes, counts, sizes, copies, broken files, columns."""
    from equigrid.grid.authoring import looking
    from equigrid.grid.datasets import inspection

    read = _of_spec(place, _options(option or [])) or looking.look(
        place, _options(option or []), keep_groups=False
    )
    try:
        found = inspection.inspect(
            read.source, None if as_json else _progress, near_duplicates=near_duplicates
        )
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f"dataset: {error}") from error
    if as_json:
        print_json({**found, "dataset": read.dataset, "why": read.why})
    else:
        streams.say(inspection.text(found))
        streams.say(f"  in a spec: dataset: {_as_yaml(read.dataset)}")
        for name, reason in read.why.items():
            streams.say(f"  {name}: {reason}")


def _of_spec(place: str, options: dict) -> "Found | None":
    """The dataset of a spec's file; None for another place. Raises UserError."""
    if not place.endswith((".yaml", ".yml")):
        return None
    from equigrid.grid.authoring.looking import Found
    from equigrid.grid.datasets import catalogue
    from equigrid.grid.spec import load

    named: Any = load(place).dataset
    if options:
        named = {**({named: None} if isinstance(named, str) else named), **options}
    return Found(named, catalogue.source(named), {})


def _as_yaml(dataset: Any) -> str:
    """On one line, as one may write it into a spec."""
    import yaml

    text = yaml.safe_dump(
        dataset, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000
    )
    return text.removesuffix("...\n").strip()


def _options(texts: list[str]) -> dict:
    """NAME=VALUE as a spec reads the value. Raises UserError."""
    from equigrid.grid.spec.loading import value_in

    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"--option {text!r}: write NAME=VALUE, such as size=32")
        found[name.strip()] = value_in(value, f"--option {name.strip()[:100]!r}")
    return found


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 500 == 0 or done == total):
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{done:,} of {total:,} images{end}")
        sys.stderr.flush()
