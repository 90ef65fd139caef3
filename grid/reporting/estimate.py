"""What a plan will take: device-seconds and bytes per kind of job, from what the store has seen,
else from the spec, from the paper, or from what the jobs compute.

Finished jobs speak for those that are like them: trainings of a generator and shards of its pools
for the same configuration, else for the same kind, by training steps and evaluations of the
network; trials for the same classifier on the same dataset, by steps. Where they ran on several
devices, those on the most frequent one count.

Before any is finished: the seconds that the spec expects; then, on a device that the paper's Table
8 names, its seconds per image; then the operations that a job computes, over the speed of a device
of `devices`. Each figure says which (`basis`), and an estimate its range.

No result says how many trials shared its GPU: the seconds of trials that did count as if each had
had it for itself.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median, mode
from typing import NamedTuple

from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.jobs.kind import Finished, Took
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.planning.pending import pending
from equigrid.grid.reporting.devices import Device
from equigrid.grid.spec import Execution
from equigrid.grid.store import Store

# On what a figure stands, the best first.
MEASURED, EXPECTED, PUBLISHED, ESTIMATED = "measured", "the spec's", "published", "estimated"
BASES = (MEASURED, EXPECTED, PUBLISHED, ESTIMATED)


class Guess(NamedTuple):
    """Device-seconds of a job, and between which they lie; equal where there is no range. basis:
    one of BASES.
    """

    seconds: float
    least: float
    most: float
    basis: str


@dataclass(frozen=True)
class Line:
    """One kind of job in a plan. seconds: device-seconds, a slot's by its share of a GPU;
    seconds_least and seconds_most: between which they lie; money: these at the spec's prices. None
    where nothing is known. basis: on what the figures of the jobs that are left stand, of BASES.
    """

    kind: str
    total: int
    done: int
    todo: int
    cells: int
    shared: int
    seconds: float | None
    seconds_least: float | None
    seconds_most: float | None
    basis: tuple[str, ...]
    bytes: int | None
    money: float | None


def lines(store: Store | None, plan: Plan, device: Device | None = None) -> list[Line]:
    """One line per kind of job, in the order in which they run.

    device: on which what is not known is estimated; None: such seconds stay None.
    """
    todo, done = pending(store, plan) if store else (list(plan.jobs.values()), set())
    serves, cells = _cells_served(plan), plan.cells_by_trial()
    speeds = _Speeds(store, plan, device)
    found = []
    for name, kind in KINDS.items():
        every, left = list(plan.of_kind(name)), [job for job in todo if job.kind == name]
        if not every:
            continue
        guesses = [speeds.guess(job) for job in left] if kind.body else [None]
        money = _sum(speeds.money(job) for job in left) if kind.body and speeds.prices else None
        filled = any(job.id in cells for job in every)
        found.append(
            Line(
                kind=name,
                total=len(every),
                done=sum(job.id in done for job in every),
                todo=len(left),
                cells=sum(serves.get(job.id, 0) for job in every) if filled else len(plan.cells),
                shared=sum(serves.get(job.id, 0) > 1 for job in every),
                seconds=_sum(guess and guess.seconds for guess in guesses),
                seconds_least=_sum(guess and guess.least for guess in guesses),
                seconds_most=_sum(guess and guess.most for guess in guesses),
                basis=tuple(
                    basis for basis in BASES if any(one and one.basis == basis for one in guesses)
                ),
                bytes=speeds.bytes(left),
                money=money,
            )
        )
    return found


def expected(store: Store, plan: Plan) -> Callable[[Job], float | None]:
    """A function from a job to the seconds that it should hold its devices for, None where nothing
    is known.
    """
    return _Speeds(store, plan).held_s


def devices_held(workers: int, gpus: float) -> float:
    """Devices that a job holds: a worker group whole ones, a slot its share; one where that is a
    CPU's, 0.
    """
    return workers if workers > 1 else gpus or 1


def gpus_of_a_slot(execution: Execution) -> float:
    """The share of a GPU that a slot holds; `auto` counts as a whole one, 0 is a CPU."""
    return 1.0 if execution.gpus == "auto" else execution.gpus


def price_per_hour(prices: dict[str, float], device: str | None) -> float | None:
    """The price of the device: of the longest name in the table that is part of its own, else
    `default`.
    """
    named = [
        name for name in prices if name != "default" and device and name.lower() in device.lower()
    ]
    return prices[max(named, key=len)] if named else prices.get("default")


def _cells_served(plan: Plan) -> dict[str, int]:
    """For each job, the number of cells whose trial is it or needs it, directly or not."""
    served: dict[str, int] = {}
    for trial_id, cells in plan.cells_by_trial().items():
        needed = {trial_id}
        for job_id in plan.jobs[trial_id].needs:
            needed |= {job_id, *plan.jobs[job_id].needs}
        for job_id in needed:
            served[job_id] = served.get(job_id, 0) + len(cells)
    return served


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None if one of them is."""
    known = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return sum(known)


class _Speeds:
    """What jobs take: by those like them that the store has seen finish, else by the spec."""

    def __init__(self, store: Store | None, plan: Plan, device: Device | None = None):
        self.device = device
        self.plan, self.spec = plan, plan.resolved.spec
        self.prices = self.spec.prices
        self.gpus = gpus_of_a_slot(self.spec.execution)
        self.shape = plan.resolved.shape
        self.seen = _typical(_finished(store, plan, self.shape)) if store and self.shape else {}

    def like(self, job: Job) -> Took | None:
        """What the finished jobs most like this one took."""
        keys = ((job.kind, key) for key in KINDS[job.kind].cost.alike(job.payload))
        return next((self.seen[key] for key in keys if key in self.seen), None)

    def held_s(self, job: Job) -> float | None:
        """Seconds for which the job's slot or worker group will hold its devices."""
        like = self.like(job)
        if like and self.shape:
            work = KINDS[job.kind].cost.work(job.payload, self.shape)
            return like.seconds * work / self._workers(job)
        return self.spec.expected_seconds.get(job.kind)

    def guess(self, job: Job) -> Guess | None:
        """Its device-seconds; None where nothing is known."""
        seconds = self.held_s(job)
        if seconds is not None:
            held = seconds * devices_held(self._workers(job), self.gpus)
            return Guess(held, held, held, MEASURED if self.like(job) else EXPECTED)
        if self.device is None or self.shape is None:
            return None
        cost = KINDS[job.kind].cost
        work = cost.flops(job.payload, self.shape)
        if work is None:
            return None
        published = cost.published_s(job.payload, self.shape, self.device.name)
        speed = self.device.wide if work.wide else self.device.narrow
        likely, least, most = (
            work.flops / each for each in (speed.likely, speed.most, speed.least)
        )
        # Table 8's time for Stable Diffusion 2 is less than the card's peak allows at 768×768, the
        # size of our preset: it must be of 512×512.
        if published is not None and published >= least:
            return Guess(published, published, published, PUBLISHED)
        return Guess(likely, least, most, ESTIMATED)

    def money(self, job: Job) -> float | None:
        guess, like = self.guess(job), self.like(job)
        assumed = self.device.name if self.device else None
        price = price_per_hour(self.prices, like.device if like else assumed)
        return None if guess is None or price is None else guess.seconds / 3600 * price

    def bytes(self, jobs: list[Job]) -> int | None:
        """What these jobs will write to the store; None where nothing is known."""
        found = _sum(KINDS[j.kind].cost.bytes(j.payload, self.like(j), self.shape) for j in jobs)
        return None if found is None else round(found)

    def _workers(self, job: Job) -> int:
        return self.spec.execution.workers_of(job.kind)


def _finished(store: Store, plan: Plan, shape: Shape) -> Iterator[tuple[str, Finished]]:
    for name, kind in KINDS.items():
        yield name, kind.finished(store, list(plan.of_kind(name)), shape)


def _typical(finished: Iterator[tuple[str, Finished]]) -> dict[tuple, Took]:
    """By kind and by what jobs are alike in: the medians over those on the device that most of them
    ran on.
    """
    by_key: dict[tuple, list[Took]] = defaultdict(list)
    for kind, jobs in finished:
        for alike, took in jobs:
            for key in alike:
                by_key[kind, key].append(took)
    found = {}
    for key, every in by_key.items():
        device = mode(took.device for took in every)
        same = [took for took in every if took.device == device]
        sizes = [took.bytes for took in same if took.bytes is not None]
        seconds = median(took.seconds for took in same)
        found[key] = Took(seconds, device, median(sizes) if sizes else None)
    return found
