"""Grids as a store recorded them: found by name, planned again, and whether any work is left.

What is heavy is imported where it is used: the command line imports this module for its names.
"""

import re
from typing import TYPE_CHECKING

from equigrid.grid.errors import UserError

if TYPE_CHECKING:
    from equigrid.grid.planning.graph import Plan
    from equigrid.grid.spec import GridSpec
    from equigrid.grid.store import Store

DEFAULT_STORE = "equigrid-store"
STORE_VARIABLE = "EQUIGRID_STORE"  # names another, for the command line and for Python
GRID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as `GridSpec.name` has it


def open_filled(uri: str) -> "Store":
    """The store at `uri`, in which a grid has run. Raises UserError, StoreError."""
    from equigrid.grid.store import Store, layout

    opened = Store(uri)
    if not any(True for _ in opened.list(layout.GRIDS)):
        raise UserError(f"store {uri}: holds no grid yet; run one first, or name another store")
    return opened


def ran(spec: str, store: "Store") -> "GridSpec":
    """A spec as it was last run in `store`, by its grid's name; else as a preset or file says.

    Raises UserError, StoreError.
    """
    from pydantic import ValidationError

    from equigrid.grid.spec import GridSpec, load
    from equigrid.grid.store import layout

    recorded = None
    if GRID_NAME.fullmatch(spec) and not spec.endswith((".yaml", ".yml")):
        recorded = store.get_json(layout.spec(spec))
    if recorded is None:
        return load(spec)
    try:
        return GridSpec.model_validate(recorded)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        why = f"{layout.spec(spec)} is no spec of this version: {where}: {first['msg']}"
        raise UserError(f"store {store.uri}: {why}; name its YAML file instead") from error


def planned(spec: str, store: "Store") -> "Plan":
    """The plan of a spec that `ran` finds. Raises UserError, StoreError."""
    return as_run(ran(spec, store), store)


def as_run(spec: "GridSpec", store: "Store") -> "Plan":
    """The plan of a spec as its last run in `store` found the world, whatever became of the places
    that it names since. Parts that no run has recorded are looked up anew.

    Raises UserError, StoreError.
    """
    from equigrid.grid.planning import recording
    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve

    return plan(resolve(spec, store, recording.read(store, spec.name)))


def record(spec: "GridSpec", store: "Store", the_plan: "Plan") -> None:
    """Keeps what planning found for `spec`, for who reads its results later. Raises StoreError."""
    from equigrid.grid.planning import recording
    from equigrid.grid.planning.resolve import record_of

    recording.write(store, spec.name, record_of(spec, the_plan.resolved))


def nothing_to_do(spec: "GridSpec", store: "Store") -> "Plan | None":
    """The plan of a grid that has no work left, or None: then Ray need not start."""
    from equigrid.grid.planning.pending import pending
    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve

    resolved = resolve(spec, store)
    the_plan = plan(resolved)
    if resolved.dataset is None or pending(store, the_plan)[0]:
        return None
    record(spec, store, the_plan)
    return the_plan
