"""The driver: plans again, runs what has no finished output, and nothing else.

Truth is in the store. The driver keeps only what it needs to hand out work: which jobs wait, are
ready, run or failed. It may die at any moment; the next one plans the same grid and finds what is
done. Submission is windowed (two requests a slot), so neither Ray's nor the driver's memory grows
with the grid.
"""

import heapq
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import ray
from rich.console import Console

from equigrid.grid import jobs
from equigrid.grid.datasets import ingest, shards
from equigrid.grid.errors import StoreError, UserError
from equigrid.grid.ids import new_attempt
from equigrid.grid.planning.pending import pending
from equigrid.grid.planning.planner import KINDS, Job, Plan, plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting import estimate, trackers
from equigrid.grid.reporting.metrics import GridMetrics
from equigrid.grid.reporting.progress import Progress, ReadingProgress, Stage
from equigrid.grid.reporting.summary import Failure, Summary
from equigrid.grid.running import cluster
from equigrid.grid.running.cluster import Losses
from equigrid.grid.running.packing import Packing
from equigrid.grid.running.requests import Requests, manifest_of, shards_of
from equigrid.grid.running.slots import ShardCache, SlotPool, launch_group
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store, results
from equigrid.grid.store.lock import Lock

MEASURES = KINDS[KINDS.index("trial") + 1 :]
DEPTH = 2  # requests a slot holds: one runs, one waits, so that a slot never idles for the driver
COMPACT_EVERY = 1000  # loose parts
LOOP_S = 0.25  # the longest the loop waits for an outcome


def run(
    spec: GridSpec,
    store: Store,
    *,
    console: Console,
    analyst: Callable[[Store, Plan], object] | None = None,
    max_trials: int | None = None,
    max_device_hours: float | None = None,
    lock: Lock | None = None,
) -> tuple[Summary, Plan]:
    """Runs all of `spec` that has no finished output in `store`. Ray must be connected.

    analyst: makes an actor with `add(rows)`, or None. max_trials: stop after so many (for tests).
    max_device_hours: stop before the slots have held their devices for longer. lock: what this
    driver holds; the run ends once another has taken it over. Raises UserError for bad input. An
    interrupt ends the run early: the summary says so.
    """
    try:
        trackers.check(spec.trackers)
    except ValueError as error:
        raise UserError(str(error)) from error
    store.put_json(f"grids/{spec.name}/spec.json", spec.model_dump(mode="json"))
    resolved = resolve(spec, store)
    plan(resolved)  # what is wrong with the spec is said before anything runs
    cluster.check_all_nodes_see(store)
    if resolved.dataset is None:
        with ReadingProgress(resolved.source.name, console) as progress:
            resolved = resolved.with_dataset(
                ingest.with_ray(store, resolved.source, progress.update)
            )
    for line in resolved.dataset.told:
        console.print(f"{resolved.source.name}: {line}", highlight=False, soft_wrap=True)
    for warning in resolved.dataset.warnings:
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    the_plan = plan(resolved)
    execution = _Run(the_plan, store, console, max_trials, max_device_hours, lock)
    with _terminating_signals_interrupt():
        try:
            execution.start(analyst)
            execution.loop()
        except KeyboardInterrupt:
            execution.summary.interrupted = True
        finally:
            execution.close()
    return execution.summary, the_plan


@contextmanager
def _terminating_signals_interrupt():
    """SIGTERM ends a run as Ctrl-C does: nothing is lost, and the driver leaves in order.

    SIGINT is set too: a shell that starts a command in the background leaves it ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        name: signal.signal(name, signal.default_int_handler)
        for name in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@dataclass
class _Running:
    job: Job
    request: jobs.Request
    slot: object | None  # None: a worker group
    nodes: frozenset[str]  # the machines that it is on; of a group, those that it may be on
    sent_s: float


class _Run:
    """The state of one run: what waits, is ready, runs, and failed."""

    def __init__(
        self,
        the_plan: Plan,
        store: Store,
        console: Console,
        max_trials: int | None,
        max_device_hours: float | None,
        lock: Lock | None,
    ):
        self.plan, self.store, self.console, self.max_trials = the_plan, store, console, max_trials
        self.lock = lock
        self.max_device_s = None if max_device_hours is None else 3600 * max_device_hours
        self.spec = the_plan.resolved.spec
        self.summary = Summary(self.spec.name, store.uri)
        self.began_s = self.counted_s = time.monotonic()
        self.cells = the_plan.cells_by_trial()
        todo, done = pending(store, the_plan)
        self.place = {job.id: i for i, job in enumerate(todo)}
        self.needs = {job.id: {need for need in job.needs if need in self.place} for job in todo}
        self.dependents: dict[str, list[str]] = {}
        for job in todo:
            for need in self.needs[job.id]:
                self.dependents.setdefault(need, []).append(job.id)
        # Where a trial's shards are not pending, they are done: every shard's consumers are counted
        # all the same.
        self.consumers = Counter(shard for job in todo for shard in shards_of(the_plan, job))
        self.ready: list[tuple[int, int, str]] = []
        self.groups: list[str] = []
        self.running: dict[ray.ObjectRef, _Running] = {}
        self.tries: Counter = Counter()
        self.losses = Losses()
        self.failed: dict[str, Failure] = {}
        self.blocked: set[str] = set()
        self.rows: list[dict] = []
        self.parts_since_compaction = 0
        self.compaction: ray.ObjectRef | None = None  # the last that was begun
        self.stages = {kind: Stage() for kind in KINDS[1:]}
        for kind, stage in self.stages.items():
            stage.total = sum(1 for _ in the_plan.of_kind(kind))
            stage.cached = stage.total - sum(1 for job in todo if job.kind == kind)
            if stage.total:
                self.summary.cached[kind] = stage.cached
        for job in todo:
            if not self.needs[job.id]:
                self._make_ready(job)
        self.pool = self.analyst = self.trackers = None

    # Starting and ending --------------------------------------------------------------------------

    def start(self, analyst: Callable[[Store, Plan], object] | None) -> None:
        execution = self.spec.execution
        resources = ray.cluster_resources()
        auto = execution.gpus == "auto"
        gpus = float(resources.get("GPU", 0) > 0) if auto else execution.gpus
        self.packing = Packing() if auto and gpus else None
        self.metrics = GridMetrics(self.spec.name)
        self.cache = ShardCache(self.store, lanes=4 * max(1, len(cluster.alive_nodes())))
        self.requests = Requests(self.plan, self.store, self.cache)
        room = cluster.Room(execution.cpus)

        def room_now() -> int:
            return room.slots(self.pool.gpus)

        def capacity() -> (
            int
        ):  # `slots` goes beyond the present nodes: waiting actors are what an autoscaler sees
            return room_now() if execution.slots is None else execution.slots

        self.pool = SlotPool(
            self.store,
            cpus=execution.cpus,
            gpus=gpus,
            threads=execution.threads,
            capacity=capacity,
            room=room_now,
        )
        self._check_room()
        self.expected_s = (
            estimate.expected(self.store, self.plan) if self.max_device_s is not None else None
        )
        if self.place and analyst:
            self.analyst = analyst(self.store, self.plan)
        if self.place and self.spec.trackers:
            self.trackers = trackers.start(self.spec.trackers, self.store, self.plan)

    def _check_room(self) -> None:
        most, room = max(self.spec.execution.workers.model_dump().values()), self.pool.capacity()
        if self.place and self.spec.execution.slots is None and room < most:
            what = "GPUs" if self.pool.gpus else "CPU cores"
            raise UserError(
                f"execution: the cluster has room for {room} slots ({what}), {most} are needed at once"
            )

    def close(self) -> None:
        if self.pool:
            for stage in self.stages.values():
                stage.running = 0
            self._tell_metrics(last=True)
            for ref, running in self.running.items():
                if running.slot is None:
                    ray.cancel(ref, force=True)
            self.pool.close()
            self.summary.shard_loads, self.summary.shard_hits = self.cache.loads, self.cache.hits
        self.summary.failures = list(self.failed.values())
        self.summary.blocked = len(self.blocked)
        self.summary.seconds = time.monotonic() - self.began_s
        if self.trackers and not self.summary.interrupted:
            self._tell_analyst()  # what the last round left
            for line in trackers.finish(self.trackers):
                self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        if isinstance(sys.exc_info()[1], StoreError):  # on its way out: nothing more can be written
            return
        if not self.summary.interrupted and self.place:
            try:
                if self.compaction:
                    ray.wait([self.compaction])
                ray.get(self._compact())
            except (
                ray.exceptions.RayError
            ) as error:  # the parts are all there: readers are slower, nothing is lost
                self.console.print(
                    f"results were not compacted: {jobs.one_line(error)}", highlight=False
                )
        if self.place:
            name = f"grids/{self.spec.name}/runs/{new_attempt()}.json"
            self.store.put_json(
                name, {**self.summary.to_json(), "ended_at": datetime.now(UTC).isoformat()}
            )

    # The loop -------------------------------------------------------------------------------------

    def loop(self) -> None:
        with Progress(self.stages, self.console) as self.progress:
            while self._unfinished() and not self._budget_is_spent():
                self._dispatch()
                self._collect()
                self._tell_analyst()
                self._count_running()
                self.progress.update()

    def _unfinished(self) -> bool:
        if self.lock and self.lock.taken_by:
            owner = self.lock.taken_by
            self.progress.message(
                f"process {owner.pid} of {owner.user} on {owner.host} took over; leaving"
            )
            self.summary.interrupted = True
            return False
        if self.max_trials is not None and self.summary.jobs["trial"] >= self.max_trials:
            return False
        return bool(self.ready or self.groups or self.running)

    def _budget_is_spent(self) -> bool:
        """Adds up what the devices are held for; whether another round of the loop could pass the
        budget.
        """
        now = time.monotonic()
        held = self._held()
        self.summary.device_s += held * (now - self.counted_s)
        self.counted_s = now
        if self.max_device_s is None:
            return False
        starved = not self.running and not self._affordable(self._next_job())
        self.summary.budget_reached = (
            starved or self.summary.device_s + held * LOOP_S >= self.max_device_s
        )
        return self.summary.budget_reached

    def _held(self) -> float:
        groups = sum(
            running.request.workers for running in self.running.values() if running.slot is None
        )
        return groups + self.pool.devices_held

    def _next_job(self) -> Job | None:
        if self.ready:
            return self.plan.jobs[self.ready[0][-1]]
        return self.plan.jobs[self.groups[0]] if self.groups else None

    def _affordable(self, job: Job | None) -> bool:
        """Whether a job would likely end within the budget, with all that runs now."""
        if self.max_device_s is None or job is None:
            return True
        now = time.monotonic()
        ahead = sum(
            max(0.0, (self.expected_s(running.job) or 0) - (now - running.sent_s))
            * estimate.devices_held(running.request.workers, running.request.gpus)
            for running in self.running.values()
        )
        wanted = (self.expected_s(job) or 0) * estimate.devices_held(
            self._workers(job), self.pool.gpus
        )
        return self.summary.device_s + ahead + wanted <= self.max_device_s

    def _count_running(self) -> None:
        """What runs now: the first request of each slot (the second waits), and the worker
        group.
        """
        heads = [refs[0] for refs in self.pool.slots.values() if refs]
        kinds = Counter(self.running[ref].job.kind for ref in heads)
        kinds.update(running.job.kind for running in self.running.values() if running.slot is None)
        for kind, stage in self.stages.items():
            stage.running = kinds[kind]
        self._tell_metrics()

    def _tell_metrics(self, *, last: bool = False) -> None:
        self.metrics.update(
            self.stages, shard_hits=self.cache.hits, shard_loads=self.cache.loads,
            device_s=self.summary.device_s, last=last,
        )  # fmt: skip
        if self.lock:
            self.lock.progress = self._how_far()

    def _how_far(self) -> dict:
        """What `equigrid status` shows of a run besides what is in the store."""
        now, kinds = time.monotonic(), {}
        for kind, stage in self.stages.items():
            if stage.total:
                speed = self.metrics.handled[kind] / stage.seconds if stage.seconds else None
                kinds[kind] = {
                    "running": stage.running,
                    "images_per_s": speed or None,
                    "left_s": stage.left_s(now),
                }
        cached = {"shard_hits": self.cache.hits, "shard_loads": self.cache.loads}
        return {"kinds": kinds, "device_s": self.summary.device_s, **cached}

    def _dispatch(self) -> None:
        self._dispatch_group()
        self._pack()
        on_slots = sum(1 for running in self.running.values() if running.slot is not None)
        self.pool.resize(len(self.ready) + on_slots)
        while self.ready and self._affordable(self._next_job()):
            kind = self.plan.jobs[self.ready[0][-1]].kind
            if kind in MEASURES and self.packing and self.pool.gpus < 1:
                return  # a measure has a whole device, once the last trials have left it
            # Trials queue behind trials and nothing else does: behind a generator they would wait
            # while slots idle.
            deep = kind == "trial" and len(self.ready) > len(self.pool.slots)
            slot = self.pool.idle(
                DEPTH if deep else 1, lambda ref: self.running[ref].job.kind == "trial"
            )
            if slot is None:
                return
            job = self.plan.jobs[heapq.heappop(self.ready)[-1]]
            request = self._request(job)
            if request is not None:
                ref = self.pool.submit(slot, request, job.stage, self._cell_text(job))
                self._sent(ref, job, request, slot)

    def _pack(self) -> None:
        """Several trials on one device, once what comes before them is done and until only measures
        are left: all else has the device for itself.
        """
        if self.packing:
            before = KINDS[1 : KINDS.index("trial")]
            alone = any(self.stages[kind].left for kind in before) or not self.stages["trial"].left
            self.pool.gpus = 1.0 if alone else 1 / self.packing.per_device

    def _dispatch_group(self) -> None:
        """Jobs on several devices: slots make room, one group runs at a time."""
        busy = any(running.slot is None for running in self.running.values())
        if not self.groups and not busy:
            self.pool.limit = None
            return
        if busy:
            return
        job = self.plan.jobs[self.groups[0]]
        if not self._affordable(job):
            return
        self.pool.limit = max(0, self.pool.capacity() - self._workers(job))
        if len(self.pool.slots) > self.pool.limit:
            return
        self.groups.pop(0)
        request = self._request(job)
        if request is not None:
            task = ray.remote(num_cpus=0, max_retries=0)(launch_group).options(name=job.stage)
            self._sent(task.remote(self.store, request), job, request, None)

    def _sent(self, ref: ray.ObjectRef, job: Job, request: jobs.Request, slot) -> None:
        now = time.monotonic()
        self.stages[job.kind].begin(now)
        nodes = (
            {self.pool.node_of(slot)}
            if slot is not None
            else {node["NodeID"] for node in cluster.alive_nodes()}
        )
        self.running[ref] = _Running(job, request, slot, frozenset(nodes), now)

    def _collect(self) -> None:
        self.tries.update(self.losses.of_living_machines())
        if not self._something_happened():
            return
        self.pool.greet()
        if not self.running:
            return
        # All that are there: a round of the loop costs more than a result.
        for ref in ray.wait(list(self.running), num_returns=len(self.running), timeout=0)[0]:
            if ref not in self.running:
                continue  # it was given back when its slot went
            running = self.running.pop(ref)
            if running.slot is not None:
                self.pool.done(running.slot, ref)
            try:
                outcome = ray.get(ref)
            except ray.exceptions.RayError as error:
                lost = {"fresh_slot": True, "lost_process": True}
                outcome = {"status": jobs.RETRY, "error": jobs.one_line(error), **lost}
            if outcome.get("lost_process"):
                self.losses.add(running.job.id, running.nodes)
                outcome["lost"] = True
            self._settle(running, outcome)

    def _something_happened(self) -> bool:
        """Waits for LOOP_S at most until a job has ended or a slot has come up."""
        awaited = [*self.running, *self.pool.coming]
        if not awaited:  # no node has room for a slot now
            time.sleep(LOOP_S)
            return False
        return bool(ray.wait(awaited, num_returns=1, timeout=LOOP_S)[0])

    def _settle(self, running: _Running, outcome: dict) -> None:
        job = running.job
        status = outcome["status"]
        if self.packing:
            self._measure(running, outcome)
        if outcome.get("fresh_slot") and running.slot is not None:
            self._give_back(self.pool.drop(running.slot))
        if status == jobs.OK:
            self._succeeded(job, outcome)
        elif status == jobs.FAILED:
            self._failed(job, outcome["error"], outcome.get("row"))
        else:
            if outcome.get("store"):
                self._wait_for_the_store(*outcome["store"])
            self.summary.retries += 1
            self.tries[job.id] += not outcome.get("lost")
            self.progress.message(f"{job.stage}: {outcome['error']}; trying again")
            if self.tries[job.id] > self.spec.execution.retries:
                now = datetime.now(UTC)
                row = jobs.record_failure(self.store, running.request, outcome["error"], now, 0.0)
                self._failed(job, outcome["error"], row)
            elif status == jobs.CORRUPT:
                self._remake(outcome["manifest"], job)
            else:
                if outcome.get("reload"):  # a load that failed would fail every further try
                    self.cache.clear()
                self._make_ready(job)

    def _wait_for_the_store(self, text: str, permanent: bool) -> None:
        """A job could not use the store, which every other job needs too: the run ends, unless it
        is there again.
        """
        if permanent:
            raise StoreError(text)
        self.store.check()

    def _measure(self, running: _Running, outcome: dict) -> None:
        share = running.request.gpus
        if outcome.get("out_of_memory") and share < 1:
            self.packing.out_of_memory()
        if (
            outcome["status"] == jobs.OK
            and outcome.get("device_bytes")
            and running.slot is not None
        ):
            row = outcome["row"]
            self.packing.finished(
                classifier=row["classifier"], per_device=round(1 / share), images_per_s=row["images_per_s"],
                peak_bytes=row["peak_device_bytes"], device_bytes=outcome["device_bytes"],
            )  # fmt: skip

    def _give_back(self, refs: list[ray.ObjectRef]) -> None:
        """Requests that waited on a slot that is gone: they had not begun, so it counts as no
        try.
        """
        for ref in refs:
            self._make_ready(self.running.pop(ref).job)

    def _make_ready(self, job: Job) -> None:
        if self._workers(job) > 1:
            self.groups.append(job.id)
        else:
            heapq.heappush(self.ready, (KINDS.index(job.kind), self.place[job.id], job.id))

    # Outcomes -------------------------------------------------------------------------------------

    def _succeeded(self, job: Job, outcome: dict) -> None:
        self.stages[job.kind].finish(time.monotonic())
        self.summary.jobs[job.kind] += 1
        if job.kind == "trial":
            self.rows.append(outcome["row"])
            self.metrics.images("trial", outcome["row"]["epochs"] * outcome["row"]["n_total"])
            self.summary.training_s += outcome["training_s"]
            self.summary.trial_overheads_s.append(outcome["seconds"] - outcome["training_s"])
            self._compact_now_and_then()
        self._release(job)
        if job.kind == "shard":
            self.requests.made[job.id] = shards.ShardRef(**outcome["shard"])
            self.metrics.images("shard", outcome["shard"]["n"])
        for dependent in self.dependents.get(job.id, ()):
            needs = self.needs[dependent]
            needs.discard(job.id)
            if not needs and dependent not in self.blocked:
                self._make_ready(self.plan.jobs[dependent])
        self.dependents.pop(job.id, None)

    def _failed(self, job: Job, error: str, row: dict | None) -> None:
        self.stages[job.kind].failed += 1
        if row:
            self.rows.append(row)
        blocked = self._block(job.id)
        cells = [str(cell) for i in (job.id, *blocked) for cell in self.cells.get(i, ())]
        self.failed[job.id] = Failure(job.id, job.kind, error, tuple(cells))
        self.progress.message(f"failed: {job.stage} {job.id}: {error}")
        self._release(job)

    def _block(self, job_id: str) -> list[str]:
        """All that waits for a job that failed, directly or not, and was not blocked before."""
        found = []
        for dependent in self.dependents.pop(job_id, ()):
            if dependent not in self.blocked:
                self.blocked.add(dependent)
                self.stages[self.plan.jobs[dependent].kind].blocked += 1
                found += [dependent, *self._block(dependent)]
        return found

    def _release(self, job: Job) -> None:
        for shard_id in shards_of(self.plan, job):
            self.consumers[shard_id] -= 1
            if self.consumers[shard_id] <= 0:
                self.cache.drop(manifest_of(shard_id))

    def _remake(self, manifest: str, job: Job) -> None:
        """A shard turned out wrong: it is made again, and `job` waits for it."""
        self.cache.drop(manifest)
        if manifest.startswith("datasets/"):
            self.requests.dataset = ingest.again(
                self.store, self.plan.resolved.source, self.spec.dataset
            )
            if self.requests.dataset.fingerprint != self.plan.resolved.fingerprint:
                name = self.plan.resolved.source.name
                raise UserError(
                    f"dataset {name}: its content changed while the grid ran; run again to plan anew"
                )
            self.cache.clear()
            self._make_ready(job)
            return
        maker = self.plan.jobs[_job_of(manifest)]
        self.requests.made.pop(maker.id, None)
        self.needs[job.id].add(maker.id)
        waiting = self.dependents.setdefault(maker.id, [])
        waiting.append(job.id)
        if len(waiting) == 1:  # the first to notice
            self.store.delete(manifest)
            self._make_again(maker)

    def _make_again(self, job: Job) -> None:
        """Puts a job that was done back among those to do, and what it needs where that is gone
        too.
        """
        self.stages[job.kind].total += 1
        self.place.setdefault(job.id, len(self.place))
        self.needs[job.id] = set()
        generator = (
            self.plan.jobs.get(job.payload.get("generator")) if job.kind == "shard" else None
        )
        if generator and not self.store.exists(jobs.generators.manifest_name(generator.id)):
            self.needs[job.id].add(generator.id)
            self.dependents.setdefault(generator.id, []).append(job.id)
            if len(self.dependents[generator.id]) == 1:
                self._make_again(generator)
        if not self.needs[job.id]:
            self._make_ready(job)

    def _compact_now_and_then(self) -> None:
        self.parts_since_compaction += 1
        if self.parts_since_compaction < COMPACT_EVERY:
            return
        if self.compaction and not ray.wait([self.compaction], timeout=0)[0]:
            return  # a second one beside it would read the same parts again
        self.compaction = self._compact()
        self.parts_since_compaction = 0

    def _compact(self) -> ray.ObjectRef:
        """In a process of its own: it holds the whole table, and the driver must not grow with the
        grid.
        """
        return ray.remote(num_cpus=0)(results.compact).options(name="compact").remote(self.store)

    def _tell_analyst(self) -> None:
        for actor in (self.analyst, self.trackers):
            if self.rows and actor:
                actor.add.remote(self.rows)  # nobody waits for it, and its death harms nothing
        self.rows = []

    # Requests -------------------------------------------------------------------------------------

    def _request(self, job: Job) -> jobs.Request | None:
        """The next attempt at a job; None if its inputs are not there after all (it then waits for
        them).
        """
        if absent := self.requests.absent(job):
            self._remake(manifest_of(absent), job)
            return None
        workers, gpus = self._workers(job), self.pool.gpus
        share = (
            1 if gpus and workers > 1 else gpus
        )  # each worker of a group has a device for itself
        return self.requests.make(
            job, workers=workers, gpus=share, cells=self.cells.get(job.id, [])
        )

    def _workers(self, job: Job) -> int:
        return getattr(self.spec.execution.workers, job.kind, 1)

    def _cell_text(self, job: Job) -> str:
        cells = self.cells.get(job.id)
        return f"{self.spec.name}: {cells[0]}" if cells else f"{self.spec.name}: {job.stage}"


def _job_of(manifest: str) -> str:
    """The id of the job that writes a manifest: of a pool's shard, of a generator or of a
    reference.
    """
    if manifest.startswith("pools/"):
        return manifest.removeprefix("pools/").removesuffix(".json")
    return manifest.split("/")[1]
