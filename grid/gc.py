"""What a store holds that no grid in it needs, and removing that. Results and measures are never
touched.

Needed is what the plan of any recorded spec (`grids/*/spec.json`) names. Of a training that is done
only the output is needed: its checkpoints go, as do its leftovers of attempts that came to nothing.
What was written within the last hour stays, since its manifest may be on its way, and so does all
that belongs to a grid that runs.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from equigrid.grid.errors import UserError
from equigrid.grid.jobs.kind import JobKind
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.pending import done_jobs
from equigrid.grid.planning.recorded import as_run, recorded_spec
from equigrid.grid.store import Entry, Store, documents, layout, lock, results

YOUNG_S = 3600.0

NOT_NEEDED = "no grid in the store needs it"
TRAINED = "its training is done"
LEFTOVER = "left by an attempt whose output is another"
OVERCOME = "the job failed here and succeeded later"
REPLACED = "a newer table of results replaced it"
UNFINISHED = "a writer that died left it"


class Garbage(NamedTuple):
    """An object that may go. why: in words."""

    name: str
    bytes: int
    why: str


def recorded(store: Store) -> list[Plan]:
    """The plans of all grids in the store. Raises UserError if one cannot be planned: then nothing
    may go.
    """
    plans, unknown = [], {}
    for name in sorted(filter(layout.is_spec, store.list(layout.GRIDS))):
        try:
            spec = recorded_spec(store, layout.grid_of(name))
            if spec is None:
                continue  # it went meanwhile
            the_plan = as_run(spec, store)
        except ValueError as error:
            unknown[name] = "; ".join(str(error).splitlines()[:3])
            continue
        plans.append(the_plan)
        if the_plan.resolved.dataset is None:
            unknown[name] = _NO_DATASET[0]
    known = {folder for one in plans for folder in one.dataset_folders()}
    of_others = [n for n in _datasets(store) if layout.dataset_folder(n) not in known]
    for name, why in unknown.items():
        # A first start that failed in its dataset left nothing. But a dataset that no grid needs
        # might be its own, from before its files were changed or moved.
        if of_others or not why.startswith(_NO_DATASET) or _began(store, layout.grid_of(name)):
            right = f"run it again, or remove {name} if it is not wanted any more"
            raise UserError(f"gc: {name}: {why}; what it needs is not known: {right}")
    if not plans:
        raise UserError(
            f"gc: store {store.uri} records no grid, so all of it would go; "
            "remove it yourself if you like"
        )
    return plans


_NO_DATASET = ("its dataset is not in the store", "dataset")  # how it is said


def _began(store: Store, grid: str) -> bool:
    """Whether a grid came further than being recorded."""
    first = {layout.spec(grid), layout.lock(grid)}
    return any(name not in first for name in store.list(layout.grid_folder(grid)))


def _datasets(store: Store) -> list[str]:
    return [name for name in store.list(layout.DATASETS) if layout.is_dataset_manifest(name)]


def plan_gc(store: Store, plans: list[Plan], *, now: float | None = None) -> list[Garbage]:
    """What may go if only `plans` count, by name. now: by the store's clock, which is asked without
    it.
    """
    now = store.check() if now is None else now
    needs = _Needs(store, plans)
    found = []
    for prefix, reasons in _reasons().items():
        entries = list(store.entries(prefix))
        why = dict(reasons(needs, entries))
        asides = dict.fromkeys(store.asides(prefix), UNFINISHED)
        candidates = {entry: why[entry.name] for entry in entries if entry.name in why} | asides
        found += [
            Garbage(e.name, e.bytes, word)
            for e, word in candidates.items()
            if now - e.modified_s >= YOUNG_S
        ]
    return sorted(found)


def collect(store: Store, garbage: Iterable[Garbage]) -> int:
    """Removes it; returns the bytes freed. Manifests go first, so that none is left without its
    data.
    """
    garbage = list(garbage)
    names = [item.name for item in garbage]
    store.delete(*filter(layout.is_manifest, names))
    store.delete(*(name for name in names if not layout.is_manifest(name)))
    return sum(item.bytes for item in garbage)


class _Needs:
    """What the plans name, what of it is done, and what belongs to a grid that runs now."""

    def __init__(self, store: Store, plans: list[Plan]):
        self.store = store
        self.jobs = {job_id for the_plan in plans for job_id in the_plan.jobs}
        self.done = {job_id for the_plan in plans for job_id in done_jobs(store, the_plan)}
        self.busy = {
            job_id for the_plan in plans if _runs(store, the_plan) for job_id in the_plan.jobs
        }
        self.datasets = {folder for the_plan in plans for folder in the_plan.dataset_folders()}
        self.replaced = set(results.replaced(store))

    def of_datasets(self, entries: list[Entry]) -> Iterator[tuple[str, str]]:
        for entry in entries:
            if layout.dataset_folder(entry.name) not in self.datasets:
                yield entry.name, NOT_NEEDED

    def of_kind(self, entries: list[Entry], kind: JobKind) -> Iterator[tuple[str, str]]:
        outputs = kind.outputs
        if outputs is None:
            return
        for entry in entries:
            job_id = outputs.owner(entry.name)
            if job_id not in self.jobs:
                yield entry.name, NOT_NEEDED
            elif job_id in self.done - self.busy and outputs.is_for_training(entry.name):
                yield entry.name, TRAINED
        for part, key in kind.leftovers.items():
            beside = [entry.name for entry in entries if part in entry.name]
            yield from self._leftovers(outputs, beside, key)

    def _leftovers(
        self, outputs: layout.Files, names: list[str], key: str
    ) -> Iterator[tuple[str, str]]:
        """Of jobs that are done: files beside the one that the manifest names under `key`."""
        by_job: dict[str, list[str]] = {}
        for name in names:
            by_job.setdefault(outputs.owner(name), []).append(name)
        for job_id, beside in by_job.items():
            if len(beside) > 1 and job_id in self.done - self.busy:
                name = outputs.manifest(job_id)
                content = documents.readable(self.store, name, documents.Manifest)
                if content is not None:
                    named = content.model_dump().get(key)
                    yield from ((name, LEFTOVER) for name in beside if name != named)

    def of_checkpoints(self, entries: list[Entry]) -> Iterator[tuple[str, str]]:
        for entry in entries:
            job_id = layout.checkpointed_job(entry.name)
            if job_id not in self.jobs:
                yield entry.name, NOT_NEEDED
            elif job_id in self.done - self.busy:
                yield entry.name, TRAINED

    def of_failures(self, entries: list[Entry]) -> Iterator[tuple[str, str]]:
        for entry in entries:
            if not layout.is_failure(entry.name):
                continue
            job_id = layout.failed_job(entry.name)
            if job_id not in self.jobs:
                yield entry.name, NOT_NEEDED
            elif job_id in self.done:
                yield entry.name, OVERCOME

    def of_parts(self, entries: list[Entry]) -> Iterator[tuple[str, str]]:
        return ((entry.name, REPLACED) for entry in entries if entry.name in self.replaced)

    def of_tables(self, entries: list[Entry]) -> Iterator[tuple[str, str]]:
        yield from self.of_parts(entries)
        names = {entry.name for entry in entries}
        for name in names - self.replaced:
            manifest = layout.generation_manifest(layout.generation_of(name))
            if manifest not in names:
                yield name, UNFINISHED


Reasons = Callable[[_Needs, list[Entry]], Iterator[tuple[str, str]]]


def _reasons() -> dict[str, Reasons]:
    """By the folder that they are asked about; of measures and results nothing but what was
    replaced ever goes.
    """
    of_kinds = {
        kind.outputs.root: partial(_Needs.of_kind, kind=kind)
        for kind in KINDS.values()
        if kind.outputs and not kind.kept
    }
    return {
        layout.DATASETS: _Needs.of_datasets,
        **of_kinds,
        layout.CHECKPOINTS: _Needs.of_checkpoints,
        layout.FAILURES: _Needs.of_failures,
        layout.TABLES: _Needs.of_tables,
        layout.PARTS: _Needs.of_parts,
    }


def _runs(store: Store, the_plan: Plan) -> bool:
    found = lock.holder(store, the_plan.resolved.spec.name)
    return found is not None and found.alive
