"""What there is to know of a kind of job: one object. `equigrid.grid.jobs.kinds` is their table.

What a failed job blocks needs no rule of its own: whatever needs its output, directly or not.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.ids import content_id
from equigrid.grid.jobs.grid_facts import GridFacts
from equigrid.grid.jobs.job import Job, Payload
from equigrid.grid.jobs.pool import PlannedPool
from equigrid.grid.jobs.request import Request
from equigrid.grid.store import Store, documents
from equigrid.grid.store.layout import Files

P = TypeVar("P", bound=Payload)
PART_BYTES = 16_000  # a JSON file, or a result's part before compaction

# What a body may ask for: `train` images with their labels, `syn`, `test`, `val`.
Reads = frozenset[str]
NOTHING: Reads = frozenset()
TRAIN: Reads = frozenset({"train"})
VAL: Reads = frozenset({"val"})
POOL_AND_TRAIN: Reads = frozenset({"train", "syn"})


class Took(NamedTuple):
    """What a finished job took: seconds of all its workers together per unit of its work, and on
    which device. bytes: what it wrote.
    """

    seconds: float
    device: str
    bytes: float | None = None


class Work(NamedTuple):
    """What a job computes: floating-point operations, and whether in networks of hundreds of
    channels (wide), as devices like them.
    """

    flops: float
    wide: bool


Alike = Sequence[Any]
Finished = Iterator[tuple[Alike, Took]]


@dataclass(frozen=True)
class Cost(Generic[P]):
    """On what basis the seconds and bytes of a kind's jobs are estimated."""

    finished: "Callable[[JobKind[P], Store, list[Job], Shape], Finished] | None" = None
    """Of each finished job: what others are like it by, and what it took. None: by the `seconds`
    and `device` in each manifest.
    """
    alike: Callable[[P], Alike] = lambda payload: ("",)
    """What finished jobs are compared by, the closest first."""
    work: Callable[[P, Shape], float] = lambda payload, shape: 1
    """How much there is to do, in units that are alike for all jobs that are alike."""
    bytes: Callable[[P, Took | None, Shape | None], float | None] = lambda payload, like, shape: (
        PART_BYTES
    )
    """What a job will write, given what one like it took; None where that is not known."""
    flops: Callable[[P, Shape], Work | None] = lambda payload, shape: None
    """What it computes, counted before anything ran; None where that is not known."""
    published_s: Callable[[P, Shape, str], float | None] = lambda payload, shape, device: None
    """Seconds by the paper's Table 8 on a device that is named there; None for all else."""


@dataclass(frozen=True)
class Together(Generic[P]):
    """How several jobs of a kind are done by one request, on one device, each as if alone."""

    alike: Callable[[P], Hashable | None]
    """What they must agree in; None for a job that is done by itself."""
    body: Callable[[Store, Sequence[Request[P]]], list[dict | Exception]]
    """Does them; an outcome of each, or what that one failed of. Raises what all failed of."""


@dataclass(frozen=True)
class JobKind(Generic[P]):
    """A kind of job. `name` is in ids and in stores, and never changes.

    words, plural: what people read. payload: see `job`. body: does a job and returns an outcome;
    None where no slot runs it. outputs: where they lie, the manifest of each written last.
    """

    name: str
    payload: type[P]
    body: Callable[[Store, Request[P]], dict] | None
    words: str
    plural: str
    outputs: Files | None = None
    record: type[documents.Document] = documents.JobRecord
    """What its manifests say."""
    wanted: bool = False
    """Whether a grid is run for it; other kinds are run where one of these needs them."""
    reads: Callable[[P], Reads] = lambda payload: POOL_AND_TRAIN
    many_devices: bool = False
    """Whether a worker group may train it: `execution.workers` in a spec."""
    shares_device: bool = False
    """Whether several may share a device, and queue behind one another on a slot. All else has a
    device for itself.
    """
    together: Together[P] | None = None
    """How several of them share a request; None: they do not."""
    plan: Callable[[GridFacts, PlannedPool], Iterable[Job]] | None = None
    """The jobs of this kind for a pool that a grid uses, and all that they need; None for a kind
    that the planner itself makes jobs of.
    """
    id_of: Callable[[P], str] | None = None
    """The id of a job, where it is no hash of the payload's identity."""
    done: Callable[[Store, list[Job]], set[str]] | None = None
    """The ids of the jobs that are done; None: those whose manifest is in the store."""
    record_failure: Callable[[Store, Request[P], str, datetime, float], dict] | None = None
    """Writes a failed attempt, with its error, start and seconds, as a row, and returns that; None:
    a JSON file tells of it.
    """
    images: Callable[[dict], float] = lambda outcome: 0
    """The images that a job handled, by its outcome: for the speed that people see."""
    cost: Cost[P] = field(default_factory=Cost)
    kept: bool = False
    """Whether what it wrote stays though no grid in the store needs it."""
    leftovers: Mapping[str, str] = field(default_factory=dict)
    """By a part of their names, the objects beside a manifest of which one alone counts, which the
    manifest names under this key; the others were left by attempts that came to nothing.
    """

    def job(self, payload: P, needs: Iterable[str], where: str) -> Job:
        """The job of a payload. where: the part of its stage after the kind."""
        own = self.id_of
        job_id = own(payload) if own else content_id(self.name, payload.identity())
        return Job(job_id, self.name, tuple(needs), payload, f"{self.name}:{where}")

    def run(self, store: Store, request: Request[P]) -> dict:
        """Does the job; see `body`."""
        if self.body is None:
            raise ValueError(f"{request.id}: no slot runs {self.plural}")
        return self.body(store, request)

    def run_together(self, store: Store, requests: Sequence[Request[P]]) -> list[dict | Exception]:
        """Does jobs that are alike; see `Together`. One may be of any kind."""
        if len(requests) == 1:
            return [self.run(store, requests[0])]
        assert self.together, f"{self.plural} are done one by one"
        return self.together.body(store, requests)

    def alike(self, payload: P) -> Hashable | None:
        """What a job must agree in with others, to share a request with them; None: it has its
        own.
        """
        return self.together.alike(payload) if self.together else None

    def done_among(self, store: Store, jobs: list[Job]) -> set[str]:
        """The ids of those of its jobs that are done."""
        if self.done is not None:
            return self.done(store, jobs)
        if self.outputs is None or not jobs:
            return set()
        manifests = filter(self.outputs.is_manifest, store.list(self.outputs.root))
        return {self.outputs.owner(name) for name in manifests} & {job.id for job in jobs}

    def finished(self, store: Store, jobs: list[Job], shape: Shape) -> Finished:
        """What its finished jobs are like, and what they took."""
        if self.cost.finished is not None:
            yield from self.cost.finished(self, store, jobs, shape)
        elif self.outputs is not None:
            for job in jobs:
                if content := self.recorded(store, job):
                    seconds = content["seconds"] / self.cost.work(job.payload, shape)
                    yield self.cost.alike(job.payload), Took(seconds, content["device"])

    def recorded(self, store: Store, job: Job) -> dict[str, Any] | None:
        """What the manifest of a job says; None where there is none. A damaged one is told, and
        counts as none. Raises StoreError.
        """
        if self.outputs is None:
            return None
        name = self.outputs.manifest(job.id)
        content = documents.readable(store, name, self.record)
        if content is None:
            return None
        found = content.model_dump()
        # Whole, with its digest, and another pool's: copied here from there, or from another store.
        own = getattr(getattr(job.payload, "syn", job.payload), "pool", None)
        pool = found.get("pool")
        if pool is not None and own is not None and pool != own:
            what = f"{name} is of {pool!s:.60}, not of {own}; {self.record.right}"
            documents.passed_over(f"store {store.uri}: {what}")
            return None
        return found
