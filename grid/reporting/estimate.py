"""What a plan will take: device-seconds and bytes per kind of job, from what the store has seen,
else from the spec.

Finished jobs speak for those that are like them: trainings of a generator and shards of its pools
for the same configuration, else for the same kind, by training steps and evaluations of the
network; trials for the same classifier on the same dataset, by steps. Where they ran on several
devices, those on the most frequent one count.

No result says how many trials shared its GPU: the seconds of trials that did count as if each had
had it for itself.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median, mode
from typing import NamedTuple

from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.generators import registry
from equigrid.grid.ids import canonical_json
from equigrid.grid.jobs import shard
from equigrid.grid.planning.pending import pending
from equigrid.grid.planning.planner import KINDS, WANTED, Job, Plan
from equigrid.grid.spec import Execution
from equigrid.grid.store import Store, layout, results

PART_BYTES = 16_000  # a result's part, before compaction
MANIFESTS = {
    "reference": layout.REFERENCE_CLASSIFIERS.manifest,
    "quality": layout.QUALITY.manifest,
    "domain": layout.DOMAIN_GAPS.manifest,
}
WORK = {
    "generator": "training_steps",
    "shard": "evaluations_per_image",
}  # of cost_facts: what seconds grow with
COLUMNS = ["status", "fingerprint", "classifier", "steps", "seconds", "device", "world_size"]


@dataclass(frozen=True)
class Line:
    """One kind of job in a plan. seconds: device-seconds, a slot's by its share of a GPU; money:
    these at the spec's prices. None where nothing is known.
    """

    kind: str
    total: int
    done: int
    todo: int
    cells: int
    shared: int
    seconds: float | None
    calibrated: bool
    bytes: int | None
    money: float | None


def lines(store: Store | None, plan: Plan) -> list[Line]:
    """One line per kind of job, in the order in which they run."""
    todo, done = pending(store, plan) if store else (list(plan.jobs.values()), set())
    serves = _cells_served(plan)
    speeds = _Speeds(store, plan)
    found = []
    for kind in KINDS:
        every, left = list(plan.of_kind(kind)), [job for job in todo if job.kind == kind]
        if not every:
            continue
        found.append(
            Line(
                kind=kind,
                total=len(every),
                done=sum(job.id in done for job in every),
                todo=len(left),
                cells=sum(serves.get(job.id, 0) for job in every)
                if kind == "trial"
                else len(plan.cells),
                shared=sum(serves.get(job.id, 0) > 1 for job in every),
                seconds=None if kind == "ingest" else _sum(speeds.device_s(job) for job in left),
                calibrated=any(speeds.like(job) for job in every),
                bytes=_bytes(plan, kind, left, speeds),
                money=_sum(speeds.money(job) for job in left)
                if speeds.prices and kind != "ingest"
                else None,
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


def _sum(values: Iterator[float | None]) -> float | None:
    """The sum; None if one of them is."""
    values = list(values)
    return None if None in values else sum(values)


class _Took(NamedTuple):
    """What a finished job took: seconds of all its workers together per unit of its work, and on
    which device.

    bytes: of a generator's weights.
    """

    seconds: float
    device: str
    bytes: float = 0.0


class _Speeds:
    """What jobs take: by those like them that the store has seen finish, else by the spec."""

    def __init__(self, store: Store | None, plan: Plan):
        self.plan, self.spec = plan, plan.resolved.spec
        self.prices = self.spec.prices
        self.gpus = gpus_of_a_slot(self.spec.execution)
        self.facts: dict[str, dict] = {}
        self.seen = _typical(self._finished(store)) if store else {}

    def like(self, job: Job) -> _Took | None:
        """What the finished jobs most like this one took."""
        return next((self.seen[key] for key in self._keys(job) if key in self.seen), None)

    def held_s(self, job: Job) -> float | None:
        """Seconds for which the job's slot or worker group will hold its devices."""
        if like := self.like(job):
            return like.seconds * self._work(job) / self._workers(job)
        return getattr(self.spec.expected_seconds, job.kind)

    def device_s(self, job: Job) -> float | None:
        seconds = self.held_s(job)
        return None if seconds is None else seconds * devices_held(self._workers(job), self.gpus)

    def money(self, job: Job) -> float | None:
        seconds, like = self.device_s(job), self.like(job)
        price = price_per_hour(self.prices, like and like.device)
        return None if seconds is None or price is None else seconds / 3600 * price

    def _workers(self, job: Job) -> int:
        return getattr(self.spec.execution.workers, job.kind, 1)

    # What is alike --------------------------------------------------------------------------------

    def _keys(self, job: Job) -> list[tuple]:
        """What a job is like, the closest first."""
        if job.kind == "trial":
            return [("trial", job.payload["classifier"])]
        if job.kind in WORK:
            mapping = job.payload["mapping"]
            return [(job.kind, canonical_json(mapping)), (job.kind, mapping["kind"])]
        return [(job.kind,)]

    def _work(self, job: Job) -> int:
        """How much there is to do, in units that are alike for all jobs of one key."""
        if job.kind == "trial":
            mix = [
                job.payload[part]["n"] for part in ("real", "syn", "copies") if job.payload[part]
            ]
            return ResolvedRecipe.model_validate(job.payload["recipe"]).total_steps(sum(mix))
        if job.kind in WORK:
            return self._cost_facts(job).get(WORK[job.kind], 1)
        return 1

    def _cost_facts(self, job: Job) -> dict:
        """`cost_facts` of a generator's training or of a pool's sampling; once for all shards of a
        pool.
        """
        subset = job.payload.get("subset")
        name = job.payload.get("pool", job.id)
        if name not in self.facts:
            config, shape = registry.config(job.payload["mapping"]), self.plan.resolved.shape
            image = (shape.height, shape.width, shape.channels)
            self.facts[name] = config.cost_facts(*image, len(shape.classes), subset and subset["n"])
        return self.facts[name]

    # What the store has seen ----------------------------------------------------------------------

    def _finished(self, store: Store) -> Iterator[tuple[list[tuple], _Took]]:
        """(keys, what it took) of each finished job."""
        for job in self.plan.of_kind("generator"):
            if content := store.get_json(layout.GENERATORS.manifest(job.id)):
                seconds = content["train_seconds"] * content["world_size"] / self._work(job)
                yield self._keys(job), _Took(seconds, content["device"], 4 * content["values"])
        for pool in self.plan.pools.values():
            if cost := shard.cost(store, pool.id):
                job = self.plan.jobs[pool.shard_id(0)]
                yield self._keys(job), _Took(cost["seconds"] / self._work(job), cost["device"])
        for kind, name_of in MANIFESTS.items():
            for job in self.plan.of_kind(kind):
                if content := store.get_json(name_of(job.id)):
                    yield self._keys(job), _Took(content["seconds"], content["device"])
        for row in results.read(store, COLUMNS).to_pylist():
            if (
                row["status"] == "ok"
                and row["steps"]
                and row["fingerprint"] == self.plan.resolved.fingerprint
            ):
                seconds = row["seconds"] * row["world_size"] / row["steps"]
                yield [("trial", row["classifier"])], _Took(seconds, row["device"])


def _typical(finished: Iterator[tuple[list[tuple], _Took]]) -> dict[tuple, _Took]:
    """For each key the medians over the jobs on the device that most of them ran on."""
    by_key: dict[tuple, list[_Took]] = defaultdict(list)
    for keys, took in finished:
        for key in keys:
            by_key[key].append(took)
    found = {}
    for key, every in by_key.items():
        device = mode(took.device for took in every)
        alike = [took for took in every if took.device == device]
        found[key] = _Took(
            median(took.seconds for took in alike), device, median(took.bytes for took in alike)
        )
    return found


def _bytes(plan: Plan, kind: str, jobs: list[Job], speeds: _Speeds) -> int | None:
    """Bytes that the jobs will write to the store; None where nothing is known."""
    shape = plan.resolved.shape
    if kind in WANTED:
        return PART_BYTES * len(jobs)
    if kind == "reference":
        return None if jobs else 0
    if kind == "generator":
        likes = [speeds.like(job) for job in jobs]
        return None if None in likes else round(sum(like.bytes for like in likes))
    if shape is None:
        return None
    image = shape.height * shape.width * shape.channels + 8  # and its label
    if kind == "ingest":
        return image * (shape.n_train + shape.n_val + shape.n_test) * len(jobs)
    return sum(image * job.payload["size"] for job in jobs)
