"""Who is told of a run as it goes: terminal, Prometheus, `equigrid status`, analyst, trackers."""

import time
from collections import Counter
from collections.abc import Callable, Mapping

from rich.console import Console

from equigrid.grid.jobs.kinds import KINDS, on_slots
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.reporting import trackers
from equigrid.grid.reporting.forecast import Forecast
from equigrid.grid.reporting.metrics import GridMetrics
from equigrid.grid.reporting.progress import Progress, Stage, Whole
from equigrid.grid.reporting.silence import Listened, Silence
from equigrid.grid.running.budget import Budget
from equigrid.grid.running.queue import JobQueue, State
from equigrid.grid.running.shard_cache import ShardCache
from equigrid.grid.store import Store
from equigrid.grid.store.lock import Lock
from equigrid.grid.units import duration

FORETELL_EVERY_S = 1.0
MOST_TOLD = 64  # running jobs in a heartbeat: it is written every few seconds


class Observers:
    """Keeps what a run has to tell, and tells it once a round. None of them can stop a run.

    stages: the counts of each kind of job, as the terminal shows them.
    """

    def __init__(
        self,
        the_plan: Plan,
        queue: JobQueue,
        budget: Budget,
        cache: ShardCache,
        console: Console,
        lock: Lock | None,
        forecast: Forecast,
    ) -> None:
        self._queue, self._budget, self._cache, self._lock = queue, budget, cache, lock
        self._plan, self._console = the_plan, console
        self.forecast = forecast
        self._began_s = time.monotonic()
        self._running: dict[str, tuple[Job, float]] = {}  # jobs at work, and when they began
        self._shares: dict[str, float] = {}
        self._silence = Silence()
        self._listened = Listened(self._began_s)
        self._hung_after_s = the_plan.resolved.spec.execution.hung_after_s
        self._foretold_s = -FORETELL_EVERY_S
        self._metrics = GridMetrics(the_plan.resolved.spec.name)
        self._actors: list = []  # with `add(rows)`: the analyst, and the trackers
        self._trackers = None
        self._rows: list[dict] = []  # those that the actors were not told of yet
        self.stages = {kind: self._stage(kind) for kind in on_slots()}
        self.whole = Whole()
        self.progress = Progress(self.stages, console, whole=self.whole)

    def _stage(self, kind: str) -> Stage:
        total = sum(1 for _ in self._plan.of_kind(kind))
        return Stage(total=total, cached=total - self._queue.left(kind))

    def start(self, store: Store, analyst: Callable[[Store, Plan], object] | None) -> None:
        """Starts the actors that rows are told to."""
        if analyst:
            self._actors.append(analyst(store, self._plan))
        if places := self._plan.resolved.spec.trackers:
            self._trackers = trackers.start(places, store, self._plan)
            self._actors.append(self._trackers)

    @property
    def cached(self) -> Counter[str]:
        """Jobs that were done before this run, of the kinds that the plan has any of."""
        return Counter({kind: stage.cached for kind, stage in self.stages.items() if stage.total})

    # Events ---------------------------------------------------------------------------------------

    def message(self, text: str) -> None:
        """A line that stays."""
        self.progress.message(text)

    def began(self, job: Job) -> None:
        """A job was sent off, perhaps again."""
        self._running.pop(job.id, None)
        self._silence.forget(job.id)
        self.stages[job.kind].begin(time.monotonic())

    def succeeded(self, job: Job, outcome: dict) -> None:
        """A job has its output."""
        self.stages[job.kind].finish(time.monotonic())
        self.forecast.ended(job.id, outcome.get("seconds"))
        self._metrics.images(job.kind, KINDS[job.kind].images(outcome))
        if row := outcome.get("row"):
            self._rows.append(row)

    def failed(self, job: Job, error: str, row: dict | None) -> None:
        """A job failed for good. row: a trial's, in the results."""
        self.message(f"failed: {job.stage} {job.id}: {error}")
        for job_id in (job.id, *self._queue.blocked_by(job.id)):
            self.forecast.ended(job_id, None)
        if row:
            self._rows.append(row)

    def tell(
        self, at_work: list[Job], shares: Mapping[str, float], devices: float, *, heard: bool
    ) -> None:
        """Tells everybody. at_work: the jobs that devices work on now; shares: how much of them is
        done, as far as they say so; devices: that are held; heard: whether the shares are new.
        """
        now = time.monotonic()
        began = {job_id: at for job_id, (_, at) in self._running.items()}
        self._running = {job.id: (job, began.get(job.id, now)) for job in at_work}
        self._shares = {i: share for i, share in shares.items() if i in self._running}
        self._tell_actors()
        self._count(at_work)
        if now - self._foretold_s >= FORETELL_EVERY_S:
            self._foretold_s = now
            self._foretell(now, devices)
        if heard:
            self._tell_of_silence(now)
        self._tell_metrics()
        self.progress.update()

    def _foretell(self, now_s: float, devices: float) -> None:
        """How long the whole takes still."""
        running = {job_id: (now_s - at, self._shares.get(job_id))
                   for job_id, (_, at) in self._running.items()}  # fmt: skip
        self.whole.elapsed_s = now_s - self._began_s
        self.whole.left_s = self.forecast.seconds_left(running, devices)
        self.whole.device_s_left = self.forecast.device_s_left(running)
        self.whole.at_s = now_s

    def _tell_of_silence(self, now_s: float) -> None:
        self._listened.heard(now_s)
        shares = {job_id: self._shares.get(job_id) for job_id in self._running}
        for job_id, seconds in self._silence.look(shares, self._listened.seconds).items():
            job, _ = self._running[job_id]
            what = (
                f"if it hangs, kill its process (ray::{job.stage} in `ps`), and it is tried again"
                if self._hung_after_s is None
                else f"it is ended after {duration(self._hung_after_s)} (execution.hung_after_s)"
            )
            self.message(
                f"{job.stage} {job_id}: no sign of progress for {duration(seconds)}; {what}"
            )

    @property
    def hung(self) -> list[str]:
        """Jobs at work that have been silent for longer than the spec allows."""
        limit_s = self._hung_after_s
        return [] if limit_s is None else self._silence.since(limit_s, self._listened.seconds)

    def close(self, *, interrupted: bool) -> None:
        """The last that is told."""
        self._count([])
        self.whole.left_s = None
        self._tell_metrics(last=True)
        if self._trackers and not interrupted:
            self._tell_actors()
            for line in trackers.finish(self._trackers):
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    # Telling --------------------------------------------------------------------------------------

    def _count(self, at_work: list[Job]) -> None:
        """A job that is made again adds to its stage's total: it was counted as done before."""
        kinds = Counter(job.kind for job in at_work)
        for kind, stage in self.stages.items():
            stage.running = kinds[kind]
            own = (self._shares.get(job.id) for job in at_work if job.kind == kind)
            stage.shares = tuple(share for share in own if share is not None)
            stage.failed = self._queue.count(kind, State.FAILED)
            stage.blocked = self._queue.count(kind, State.BLOCKED)
            over = stage.cached + stage.done + stage.failed + stage.blocked
            stage.total = over + self._queue.left(kind)

    def _tell_actors(self) -> None:
        for actor in self._actors if self._rows else ():
            actor.add.remote(self._rows)  # nobody waits for it, and its death harms nothing
        self._rows = []

    def _tell_metrics(self, *, last: bool = False) -> None:
        self._metrics.update(
            self.stages,
            shard_hits=self._cache.hits,
            shard_loads=self._cache.loads,
            device_s=self._budget.used_s,
            last=last,
        )
        if self._lock:
            self._lock.progress = self._how_far()

    def _how_far(self) -> dict:
        """What `equigrid status` shows of a run besides what is in the store."""
        now = time.monotonic()
        kinds = {kind: self._of(kind, now) for kind, stage in self.stages.items() if stage.total}
        cached = {"shard_hits": self._cache.hits, "shard_loads": self._cache.loads}
        return {
            "kinds": kinds, "device_s": self._budget.used_s, **cached,
            "left_s": self.whole.left_s, "device_s_left": self.whole.device_s_left,
            "at_work": [
                self._at_work(job, now - at) for job, at in [*self._running.values()][:MOST_TOLD]
            ],
        }  # fmt: skip

    def _at_work(self, job: Job, seconds: float) -> dict:
        return {"id": job.id, "kind": job.kind, "stage": job.stage, "seconds": seconds,
                "share": self._shares.get(job.id)}  # fmt: skip

    def _of(self, kind: str, now_s: float) -> dict:
        stage = self.stages[kind]
        speed = self._metrics.handled[kind] / stage.seconds if stage.seconds else None
        left_s = stage.left_s(now_s)
        return {"running": stage.running, "images_per_s": speed or None, "left_s": left_s}
