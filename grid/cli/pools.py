"""Pools of synthetic images, out of a store."""

from typing import Annotated

import typer

from equigrid.grid.cli import streams
from equigrid.grid.cli.inputs import open_filled, planned, print_json
from equigrid.grid.cli.options import DEFAULT_STORE, Json, StoreOption

app = typer.Typer(
    name="pool", help="Take synthetic images out.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _pool() -> None:
    """Take synthetic images out."""


@app.command()
def export(
    grid: Annotated[
        str, typer.Argument(metavar="GRID", help="A grid in the store, a preset or a YAML file.")
    ],
    generator: Annotated[
        str, typer.Argument(metavar="GENERATOR", help="Its name in the grid's spec.")
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="PLACE", help="A new folder, a file ….parquet, or hf://datasets/OWNER/NAME."
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
    n: Annotated[int | None, typer.Option(min=1, help="The first N images [all]")] = None,
    n_base: Annotated[int | None, typer.Option(help="Of the generator of this base size.")] = None,
    subset_seed: Annotated[int | None, typer.Option(help="Of this subset seed.")] = None,
    generator_seed: Annotated[int | None, typer.Option(help="Of this generator seed.")] = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Parquet files in the folder, no class folders.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a generator's images as class folders or Parquet files, with a card."""
    from equigrid.grid.datasets.shards import ShardCorrupt
    from equigrid.grid.errors import StoreError
    from equigrid.grid.exporting import card, pools, writing

    opened = open_filled(store)
    chosen = pools.chosen(
        opened, planned(grid, opened), generator,
        n=n, n_base=n_base, subset_seed=subset_seed, generator_seed=generator_seed,
    )  # fmt: skip
    try:
        names = writing.write(opened, chosen, to, parquet=parquet)
    except ShardCorrupt as error:
        raise StoreError(f"{error}; the next run of the grid makes it again") from error
    share = card.memorised(chosen)
    if as_json:
        found = {"to": to, "images": chosen.n, "pool": chosen.pool.id, "memorised": share}
        print_json({**found, "files": len(names)})
        return
    streams.say(f"{chosen.n:,} images of {generator} in {len(chosen.classes)} classes: {to}")
    if share:
        streams.say(f"warning: {share:.1%} of those looked at copy a training image: see the card")
