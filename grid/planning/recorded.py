"""Grids as a store recorded them: found by name, planned again, and whether any work is left.

What is heavy is imported where it is used: the command line imports this module for its names.
"""

import re
from typing import TYPE_CHECKING, Any

from equigrid.grid.errors import DocumentError, UnavailableError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from equigrid.grid.planning.graph import Plan
    from equigrid.grid.spec import GridSpec
    from equigrid.grid.store import Store

DEFAULT_STORE = "equigrid-store"
WRITTEN_BY = "equigrid"  # the key of a recorded spec that says which version wrote it
STORE_VARIABLE = "EQUIGRID_STORE"  # names another, for the command line and for Python
GRID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as `GridSpec.name` has it


def open_filled(uri: str) -> "Store":
    """The store at `uri`, in which a grid has run. Raises UserError, StoreError."""
    from equigrid.grid.store import Store, layout

    opened = Store(uri)
    if not any(map(layout.is_spec, opened.list(layout.GRIDS))):
        raise UserError(f"store {uri}: holds no grid yet; run one first, or name another store")
    return opened


def ran(spec: str, store: "Store") -> "GridSpec":
    """A spec as it was last run in `store`, by its grid's name; else as a preset or file says.

    Raises UserError, StoreError.
    """
    from equigrid.grid.spec import load

    found = None
    if GRID_NAME.fullmatch(spec) and not spec.endswith((".yaml", ".yml")):
        found = recorded_spec(store, spec)
    return load(spec) if found is None else found


def record_spec(spec: "GridSpec", store: "Store") -> None:
    """Records a spec, and which version of equigrid understood it so. Raises StoreError."""
    from equigrid import __version__
    from equigrid.grid.store import layout

    content = {**spec.model_dump(mode="json"), WRITTEN_BY: __version__}
    store.put_json(layout.spec(spec.name), content)


def recorded_spec(store: "Store", grid: str) -> "GridSpec | None":
    """The spec of a grid as it was last run in the store; None if it was never.

    Keys that a later version, or an earlier one, wrote are left out, and told. Raises UserError
    for what this version cannot take, DocumentError, StoreError.
    """
    from pydantic import ValidationError

    from equigrid import __version__
    from equigrid.grid.spec import GridSpec
    from equigrid.grid.store import documents, layout

    name = layout.spec(grid)
    found = documents.read(store, name, documents.RecordedSpec)
    if found is None:
        return None
    by = f"equigrid {found.equigrid:.40}" if found.equigrid else "an equigrid that did not say so"
    content, unknown = _known(found.model_dump(exclude={WRITTEN_BY}))
    try:
        spec = GridSpec.model_validate(content)
    except (ValidationError, RecursionError) as error:
        first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        where = ".".join(map(str, first["loc"])) if first else ""
        msg = first["msg"] if first else "it is nested too deeply"
        why = f"{name}, written by {by}, is no spec of this version, {__version__}"
        what = f"{where or 'the whole'}: {msg}"
        raise UserError(f"store {store.uri}: {why}: {what}; name its YAML file instead") from error
    if unknown:
        keys = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        documents.passed_over(
            f"store {store.uri}: {name} was written by {by}; this is {__version__}, which does "
            f"not know {keys}: left out"
        )
    return spec


def _known(content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A recorded spec without what this version does not know, and what that is."""
    from equigrid.classifiers.recipes import Recipe
    from equigrid.generators.registry import KINDS
    from equigrid.grid.spec import GridSpec
    from equigrid.grid.spec.forgiving import without_unknown

    kept, unknown = without_unknown([GridSpec], content)
    for name, entry in list(_items(kept.get("generators"))):
        named = entry.get("kind")
        kind = KINDS.get(named) if isinstance(named, str) else None
        if kind:
            entry, more = without_unknown([kind[0]], entry, also=("kind", "preset", "seeds"))
            kept["generators"] = {**kept["generators"], name: entry}
            unknown += [f"generators.{name}.{key}" for key in more]
    blocks = kept["blocks"] if isinstance(kept.get("blocks"), list) else []
    holders = {"": kept, **{f"blocks.{i}.": block for i, block in enumerate(blocks)}}
    for where, holder in {**holders, "domain_gap.": kept.get("domain_gap")}.items():
        if isinstance(holder, dict) and isinstance(holder.get("recipe"), dict):
            recipe, more = without_unknown([Recipe], holder["recipe"], also=("extends", "name"))
            holder["recipe"] = recipe
            unknown += [f"{where}recipe.{key}" for key in more]
    return kept, unknown


def _items(value: object) -> "Iterator[tuple[str, dict[str, Any]]]":
    if isinstance(value, dict):
        yield from ((key, part) for key, part in value.items() if isinstance(part, dict))


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
    from equigrid.grid.store import documents, layout

    record = recording.read(store, spec.name)
    if record is None:
        return plan(resolve(spec, store))
    try:
        return plan(resolve(spec, store, record))
    except (UserError, UnavailableError):
        raise
    # Its model knows the record's outer form alone: what lies deeper is every kind of generator's
    # own. A fault that is ours comes again without it.
    except Exception as error:
        name, of = layout.planned(spec.name), documents.PlannedRecord
        what = f"{name} is not {of.words}: {type(error).__name__}: {error}; {of.right}"
        documents.passed_over(f"store {store.uri}: {what}")
    return plan(resolve(spec, store))


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

    try:
        resolved = resolve(spec, store)
    except DocumentError:  # the dataset's: the run reads it anew
        return None
    the_plan = plan(resolved)
    if resolved.dataset is None or pending(store, the_plan)[0]:
        return None
    record(spec, store, the_plan)
    return the_plan
