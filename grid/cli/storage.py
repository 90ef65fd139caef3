"""What stores hold."""

from typing import Annotated

import typer

from equigrid.grid.cli.inputs import open_filled, print_json
from equigrid.grid.cli.options import DEFAULT_STORE, Json, StoreOption


def gc(
    store: StoreOption = DEFAULT_STORE,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is shown.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a store holds that no grid in it needs; with --delete, remove it. Results are never
    touched.
    """
    from equigrid.grid import gc as collecting
    from equigrid.grid.reporting.console import show_garbage

    opened = open_filled(store)
    garbage = collecting.plan_gc(opened, collecting.recorded(opened))
    freed = collecting.collect(opened, garbage) if delete else 0
    if as_json:
        print_json({"garbage": [item._asdict() for item in garbage], "freed_bytes": freed})
    else:
        show_garbage(garbage, deleted=delete)


def grids(store: StoreOption = DEFAULT_STORE, as_json: Json = False) -> None:
    """List the grids in a store: how far each is, when it had its last result, its size."""
    from equigrid.grid.reporting.console import show_grids
    from equigrid.grid.reporting.grids import grids as found_in

    lines = found_in(open_filled(store))
    if as_json:
        print_json([line.__dict__ for line in lines])
    else:
        show_grids(lines)
