"""The grids that a store holds, a line each."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from equigrid.grid.errors import UserError
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.recorded import as_run, recorded_spec
from equigrid.grid.store import Store, layout, lock, results


@dataclass(frozen=True)
class GridLine:
    """A grid in a store. done, cells: cells with a result, and all. bytes: of its dataset and of
    what its jobs wrote, also where several grids share them. trouble: why it cannot be planned;
    then cells and bytes are None.
    """

    name: str
    dataset: str
    done: int | None
    cells: int | None
    last_result_at: str | None
    running: bool
    bytes: int | None
    trouble: str | None = None


def grids(store: Store) -> list[GridLine]:
    """By name; from the store alone, but for what planning asks of the dataset's place. Raises
    StoreError.
    """
    names = sorted(filter(layout.is_spec, store.list(layout.GRIDS)))
    rows = results.Reader(store, ["trial_id", "status", "finished_at"]).read().to_pylist()
    finished = {row["trial_id"]: row["finished_at"] for row in rows if row["status"] == "ok"}
    sizes = dict(_sizes(store))
    return [_line(store, layout.grid_of(name), finished, sizes) for name in names]


def _line(
    store: Store, name: str, finished: Mapping[str, datetime | None], sizes: Mapping[str, int]
) -> GridLine:
    holder = lock.holder(store, name, now_s=time.time())
    running = holder is not None and holder.alive
    dataset = "not known"
    try:
        spec = recorded_spec(store, name)
        if spec is None:
            raise UserError("its spec is gone")
        dataset = str(spec.dataset)
        the_plan = as_run(spec, store)
    except (ValueError, OSError) as error:
        why = str(error).splitlines()[0]
        return GridLine(name, dataset, None, None, None, running, None, why)
    done = [cell for cell in the_plan.cells if cell.trial_id in finished]
    times = [at for cell in done if (at := finished[cell.trial_id])]
    return GridLine(
        name=name,
        dataset=the_plan.resolved.source.name,
        done=len(done),
        cells=len(the_plan.cells),
        last_result_at=max(times).isoformat(timespec="seconds") if times else None,
        running=running,
        bytes=sum(sizes.get(owner, 0) for owner in _owners(the_plan)),
    )


def _sizes(store: Store) -> Iterator[tuple[str, int]]:
    """Bytes by what they belong to: the id of a job, or the folder of a dataset."""
    datasets = Counter[str]()
    for entry in store.entries(layout.DATASETS):
        datasets[layout.dataset_folder(entry.name)] += entry.bytes
    yield from datasets.items()
    for kind in KINDS.values():
        if kind.outputs is not None:
            jobs = Counter[str]()
            for entry in store.entries(kind.outputs.root):
                jobs[f"{kind.name} {kind.outputs.owner(entry.name)}"] += entry.bytes
            yield from jobs.items()


def _owners(the_plan: Plan) -> Iterator[str]:
    yield from the_plan.dataset_folders()
    for job in the_plan.jobs.values():
        yield f"{job.kind} {job.id}"
