"""The driver: plans again, runs what has no finished output, and nothing else.

Truth is in the store. The driver keeps only what it needs to hand out work, in a queue, and moves
the queue's events to and from Ray. It may die at any moment; the next one plans the same grid and
finds what is done. Submission is windowed (two requests a slot), so neither Ray's nor the driver's
memory grows with the grid.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType

from ray.actor import ActorHandle
from rich.console import Console

from equigrid.grid import jobs
from equigrid.grid.datasets import ingest
from equigrid.grid.errors import StoreError, UserError
from equigrid.grid.ids import new_attempt
from equigrid.grid.jobs import trial
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.planning.pending import pending
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting import estimate, trackers
from equigrid.grid.reporting.progress import ReadingProgress
from equigrid.grid.reporting.summary import Failure, Summary
from equigrid.grid.running import cluster
from equigrid.grid.running.attempts import Attempt, Attempts
from equigrid.grid.running.budget import Budget
from equigrid.grid.running.compaction import Compaction
from equigrid.grid.running.dispatch import Dispatcher, queue_of
from equigrid.grid.running.interrupts import terminating_signals_interrupt
from equigrid.grid.running.observers import Observers
from equigrid.grid.running.outputs import Outputs
from equigrid.grid.running.packing import Packing
from equigrid.grid.running.queue import State
from equigrid.grid.running.requests import Requests
from equigrid.grid.running.shard_cache import ShardCache
from equigrid.grid.running.slots import SlotPool
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store, layout
from equigrid.grid.store.lock import Lock

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
    driver holds; the run ends once another has taken it over.

    Raises UserError for bad input. An interrupt ends the run early: the summary says so.
    """
    the_plan = _planned(spec, store, console)
    driver = Driver(the_plan, store, console, max_trials, max_device_hours, lock)
    with terminating_signals_interrupt(), driver:
        driver.start(analyst)
        driver.loop()
    return driver.summary, the_plan


def _planned(spec: GridSpec, store: Store, console: Console) -> Plan:
    """The plan of a spec, whose dataset is read where it is not in the store yet."""
    try:
        trackers.check(spec.trackers)
    except ValueError as error:
        raise UserError(str(error)) from error
    store.put_json(layout.spec(spec.name), spec.model_dump(mode="json"))
    resolved = resolve(spec, store)
    plan(resolved)  # what is wrong with the spec is said before anything runs
    cluster.check_all_nodes_see(store)
    if resolved.dataset is None:
        with ReadingProgress(resolved.source.name, console) as progress:
            dataset = ingest.with_ray(store, resolved.source, progress.update)
        resolved = resolved.with_dataset(dataset)
    assert resolved.dataset
    for line in resolved.dataset.told:
        console.print(f"{resolved.source.name}: {line}", highlight=False, soft_wrap=True)
    for warning in resolved.dataset.warnings:
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    return plan(resolved)


class TakenOver(Exception):
    """Another driver has the grid's lock now: this one leaves."""


class Driver:
    """One run of a plan. On leaving the context all that runs is ended, and what the run did is
    written down; an interrupt goes no further than that.
    """

    def __init__(
        self,
        the_plan: Plan,
        store: Store,
        console: Console,
        max_trials: int | None,
        max_device_hours: float | None,
        lock: Lock | None,
    ) -> None:
        spec = the_plan.resolved.spec
        todo, _ = pending(store, the_plan)
        self.plan, self.store, self.console = the_plan, store, console
        self.max_trials, self.lock = max_trials, lock
        self.has_work = bool(todo)
        self.began_s = time.monotonic()
        self.summary = Summary(spec.name, store.uri)
        self.errors: dict[str, str] = {}  # by job that failed
        self.queue = queue_of(the_plan, todo)
        self.budget = Budget(None if max_device_hours is None else 3600 * max_device_hours)
        self.cache = ShardCache(store, lanes=4 * max(1, len(cluster.alive_nodes())))
        self.outputs = Outputs(the_plan, store, self.cache, self.queue)
        self.pool = SlotPool.of(store, spec.execution)
        requests = Requests(the_plan, self.outputs, self.cache)
        self.attempts = Attempts(store, self.pool, requests)
        self.packing = Packing() if self.pool.gpus and spec.execution.gpus == "auto" else None
        self.dispatcher = Dispatcher(
            the_plan, self.queue, self.budget, self.outputs, self.attempts, self.packing
        )
        self.losses = cluster.Losses()
        self.compaction = Compaction(store)
        self.observers = Observers(the_plan, self.queue, self.budget, self.cache, console, lock)

    def start(self, analyst: Callable[[Store, Plan], object] | None) -> None:
        """Starts who is told of the run. Raises UserError if the cluster is too small for it."""
        if not self.has_work:
            return
        self.pool.check_room(self.plan.resolved.spec.execution)
        if self.budget.limit_s is not None:
            self.dispatcher.expected_s = estimate.expected(self.store, self.plan)
        self.observers.start(self.store, analyst)

    # The loop -------------------------------------------------------------------------------------

    def loop(self) -> None:
        """Each round sends off what may run, takes in what came back, and tells how far it is."""
        with self.observers.progress:
            while self._goes_on():
                self.budget.count(self.attempts.devices_held)
                if self.budget.is_reached(self.dispatcher.next_cost(), within_s=LOOP_S):
                    self.summary.budget_reached = True
                    return
                for job in self.dispatcher.send():
                    self.observers.began(job)
                for job_id in self.losses.of_living_machines():
                    self.queue.charge(job_id)
                for attempt, outcome in self.attempts.ended(within_s=LOOP_S):
                    self._settle(attempt, outcome)
                self.observers.tell(self.attempts.at_work())

    def _goes_on(self) -> bool:
        if self.lock and (owner := self.lock.taken_by):
            who = f"process {owner.pid} of {owner.user} on {owner.host}"
            self.observers.message(f"{who} took over; leaving")
            raise TakenOver
        enough = (
            self.max_trials is not None and self.summary.jobs[trial.KIND.name] >= self.max_trials
        )
        return not (enough or self.queue.is_over)

    # What came back -------------------------------------------------------------------------------

    def _settle(self, attempt: Attempt, outcome: dict) -> None:
        self.budget.end(attempt.job.id)
        if attempt.slot is not None:
            if self.packing:
                self.packing.learn(outcome, attempt.request.gpus)
            if outcome.get("fresh_slot"):
                self._drop_slot(attempt.slot)
        if outcome["status"] == jobs.OK:
            self._succeeded(attempt.job, outcome)
        elif outcome["status"] == jobs.FAILED:
            self.queue.fail(attempt.job.id)
            self._failed(attempt.job, outcome["error"], outcome.get("row"))
        else:
            self._came_back(attempt, outcome)

    def _drop_slot(self, slot: ActorHandle) -> None:
        for waiting in self.attempts.drop_slot(slot):
            self.budget.end(waiting.id)
            self.queue.give_back(waiting.id)

    def _succeeded(self, job: Job, outcome: dict) -> None:
        self.queue.finish(job.id)
        self.outputs.made(job, outcome)
        self.outputs.let_go(job)
        self.observers.succeeded(job, outcome)
        self.summary.jobs[job.kind] += 1
        if "training_s" in outcome:  # a trial's
            self.summary.training_s += outcome["training_s"]
            self.summary.trial_overheads_s.append(outcome["seconds"] - outcome["training_s"])
            self.compaction.part_written()

    def _failed(self, job: Job, error: str, row: dict | None) -> None:
        self.errors[job.id] = error
        for job_id in (job.id, *self.queue.blocked_by(job.id)):
            self.outputs.let_go(self.plan.jobs[job_id])
        self.observers.failed(job, error, row)

    def _came_back(self, attempt: Attempt, outcome: dict) -> None:
        """A job has no output yet, for a reason that another try may mend."""
        job, error = attempt.job, outcome["error"]
        if outcome.get("store"):
            self._wait_for_the_store(*outcome["store"])
        self.summary.retries += 1
        self.observers.message(f"{job.stage}: {error}; trying again")
        if outcome.get("lost_process"):
            self.losses.add(job.id, attempt.nodes)
        if outcome.get("lost_process") or outcome.get("lost"):
            self.queue.lose(job.id)
        else:
            self.queue.retry(job.id)
        if self.queue.state(job.id) is State.FAILED:
            row = jobs.record_failure(self.store, attempt.request, error, datetime.now(UTC), 0.0)
            self._failed(job, error, row)
        elif outcome["status"] == jobs.CORRUPT:
            self.outputs.mend(outcome["manifest"], job)
        elif outcome.get("reload"):  # a load that failed would fail every further try
            self.cache.clear()

    def _wait_for_the_store(self, text: str, permanent: bool) -> None:
        """A job could not use the store, which every other job needs too: the run ends, unless it
        is there again.
        """
        if permanent:
            raise StoreError(text)
        self.store.check()

    # The end --------------------------------------------------------------------------------------

    def __enter__(self) -> "Driver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.summary.interrupted = isinstance(error, KeyboardInterrupt | TakenOver)
        self.summary.taken_over = isinstance(error, TakenOver)
        self.attempts.close()
        self._sum_up()
        self.observers.close(interrupted=self.summary.interrupted)
        if self.has_work and not isinstance(error, StoreError):  # else nothing more can be written
            if not self.summary.interrupted:
                self.compaction.finish(self.console)
            name = layout.run(self.summary.grid, new_attempt())
            ended = {"ended_at": datetime.now(UTC).isoformat()}
            self.store.put_json(name, {**self.summary.to_json(), **ended})
        return self.summary.interrupted

    def _sum_up(self) -> None:
        self.summary.cached = self.observers.cached
        self.summary.failures = self._failures()
        self.summary.blocked = sum(self.queue.count(kind, State.BLOCKED) for kind in KINDS)
        self.summary.shard_loads, self.summary.shard_hits = self.cache.loads, self.cache.hits
        self.summary.device_s = self.budget.used_s
        self.summary.seconds = time.monotonic() - self.began_s

    def _failures(self) -> list[Failure]:
        """A job that several failures block counts with the first."""
        cells, found, counted = self.plan.cells_by_trial(), [], set[str]()
        for job_id in self.queue.failed():
            without = [job_id, *(i for i in self.queue.blocked_by(job_id) if i not in counted)]
            counted.update(without)
            named = tuple(str(cell) for i in without for cell in cells.get(i, ()))
            job = self.plan.jobs[job_id]
            found.append(Failure(job_id, job.kind, self.errors[job_id], named))
        return found
