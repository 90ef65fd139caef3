"""Datasets, before they are planned with."""

import sys
from typing import Annotated, Any

import typer

from equigrid.grid.cli import streams
from equigrid.grid.cli.inputs import print_json
from equigrid.grid.cli.options import Json
from equigrid.grid.errors import UserError

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
    as_json: Json = False,
) -> None:
    """Show what a set looks like to us: classes, counts, sizes, copies, broken files, columns."""
    from equigrid.grid.datasets import catalogue, inspection
    from equigrid.grid.spec import load

    if place.endswith((".yaml", ".yml")):
        spec: Any = load(place).dataset
    else:
        spec = inspection.guess(place)
    if options := _options(option or []):
        spec = {**({spec: None} if isinstance(spec, str) else spec), **options}
    src = catalogue.source(spec)
    try:
        found = inspection.inspect(src, None if as_json else _progress)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f"dataset: {error}") from error
    if as_json:
        print_json(found)
    else:
        streams.say(inspection.text(found))


def _options(texts: list[str]) -> dict:
    """NAME=VALUE as YAML reads the value. Raises UserError."""
    import yaml

    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"--option {text!r}: write NAME=VALUE, such as size=32")
        try:
            found[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--option {text!r}: the value is no YAML") from error
    return found


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 500 == 0 or done == total):
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{done:,} of {total:,} images{end}")
        sys.stderr.flush()
