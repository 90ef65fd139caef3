"""What a plan will take: seconds and bytes per kind of job, from what the store has seen, else from the spec."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from classifiers.recipes import ResolvedRecipe
from grid import results
from grid.plan import KINDS, WANTED, Job, Plan
from grid.state import pending
from grid.store import Store
from grid.tasks import domain, quality, reference
from grid.tasks.generators import manifest_name as generator_manifest

PART_BYTES = 16_000  # a result's part, before compaction
MANIFESTS = {
    "reference": reference.manifest_name, "quality": quality.manifest_name, "domain": domain.manifest_name,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One kind of job in a plan. Times are device-seconds; None where nothing is known. money: at the spec's prices."""

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
        seconds = speeds.seconds(kind, left)
        found.append(
            Line(
                kind=kind,
                total=len(every),
                done=sum(job.id in done for job in every),
                todo=len(left),
                cells=sum(serves.get(job.id, 0) for job in every) if kind == "trial" else len(plan.cells),
                shared=sum(serves.get(job.id, 0) > 1 for job in every),
                seconds=seconds,
                calibrated=speeds.calibrated(kind),
                bytes=_bytes(plan, kind, left, speeds),
                money=speeds.money(kind, seconds),
            )
        )
    return found


def expected(store: Store, plan: Plan) -> Callable[[Job], float | None]:
    """A function from a job to the device-seconds it should take, None where nothing is known."""
    speeds = _Speeds(store, plan)
    return lambda job: speeds.seconds(job.kind, [job])


def price_per_hour(prices: dict[str, float], device: str | None) -> float | None:
    """The price of the device: of the longest name in the table that is part of its own, else `default`."""
    named = [name for name in prices if name != "default" and device and name.lower() in device.lower()]
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


class _Speeds:
    """Seconds per job: medians of finished jobs in the store (per step, for trials), else the spec's."""

    def __init__(self, store: Store | None, plan: Plan):
        self.expected = plan.resolved.spec.expected_seconds
        self.per_step: dict[str, float] = {}
        self.per_job: dict[str, float] = {}
        self.weights_bytes: float | None = None
        self.prices = plan.resolved.spec.prices
        self.devices: dict[str, str] = {}
        if store:
            self._calibrate(store, plan)

    def _calibrate(self, store: Store, plan: Plan) -> None:
        manifests = [store.get_json(generator_manifest(job.id)) for job in plan.of_kind("generator")]
        manifests = [content for content in manifests if content]
        if manifests:
            self.per_job["generator"] = median(content["train_seconds"] for content in manifests)
            self.devices["generator"] = manifests[-1]["device"]
            self.weights_bytes = median(4 * content["values"] for content in manifests)
        pools = {pool.id: store.get_json(pool.manifest(0)) for pool in plan.pools.values()}
        if sampled := [content for content in pools.values() if content]:
            self.per_job["shard"] = median(content["seconds"] for content in sampled)
            self.devices["shard"] = sampled[-1]["device"]
        for kind, name_of in MANIFESTS.items():
            found = [store.get_json(name_of(job.id)) for job in plan.of_kind(kind)]
            if found := [content for content in found if content]:
                self.per_job[kind] = median(content["seconds"] for content in found)
                self.devices[kind] = found[-1]["device"]
        table = results.read(store).select(["trial_id", "status", "classifier", "steps", "seconds", "device"])
        by_classifier: dict[str, list[float]] = {}
        for row in table.to_pylist():
            if row["status"] == "ok" and row["steps"]:
                by_classifier.setdefault(row["classifier"], []).append(row["seconds"] / row["steps"])
                self.devices["trial"] = row["device"]
        self.per_step = {name: median(values) for name, values in by_classifier.items()}

    def calibrated(self, kind: str) -> bool:
        return bool(self.per_step) if kind == "trial" else kind in self.per_job

    def money(self, kind: str, seconds: float | None) -> float | None:
        price = price_per_hour(self.prices, self.devices.get(kind))
        return None if price is None or seconds is None else seconds / 3600 * price

    def seconds(self, kind: str, jobs: list[Job]) -> float | None:
        if kind == "ingest":
            return None
        total = 0.0
        for job in jobs:
            seconds = self._trial(job) if kind == "trial" else self.per_job.get(kind)
            seconds = getattr(self.expected, kind) if seconds is None else seconds
            if seconds is None:
                return None
            total += seconds
        return total

    def _trial(self, job: Job) -> float | None:
        per_step = self.per_step.get(job.payload["classifier"])
        if per_step is None:
            return None
        mix = [job.payload[part]["n"] for part in ("real", "syn", "copies") if job.payload[part]]
        return per_step * ResolvedRecipe.model_validate(job.payload["recipe"]).total_steps(sum(mix))


def _bytes(plan: Plan, kind: str, jobs: list[Job], speeds: _Speeds) -> int | None:
    """Bytes that the jobs will write to the store; None where nothing is known."""
    shape = plan.resolved.shape
    if kind in WANTED:
        return PART_BYTES * len(jobs)
    if kind == "reference":
        return None if jobs else 0
    if kind == "generator":
        return None if speeds.weights_bytes is None and jobs else round((speeds.weights_bytes or 0) * len(jobs))
    if shape is None:
        return None
    image = shape.height * shape.width * shape.channels + 8  # and its label
    if kind == "ingest":
        return image * (shape.n_train + shape.n_val + shape.n_test) * len(jobs)
    return sum(image * job.payload["size"] for job in jobs)
