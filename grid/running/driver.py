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

from rich.console import Console

from equigrid.grid.errors import StoreError
from equigrid.grid.ids import new_attempt
from equigrid.grid.jobs import trial
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.pending import pending
from equigrid.grid.reporting import estimate, run_forecast
from equigrid.grid.reporting.summary import Summary
from equigrid.grid.running.attempts import Attempts
from equigrid.grid.running.board import Board
from equigrid.grid.running.budget import Budget
from equigrid.grid.running.dispatch import Dispatcher, queue_of
from equigrid.grid.running.interrupts import terminating_signals_interrupt
from equigrid.grid.running.observers import Observers
from equigrid.grid.running.outputs import Outputs
from equigrid.grid.running.packing import Packing
from equigrid.grid.running.preparation import prepared
from equigrid.grid.running.queue import State
from equigrid.grid.running.requests import Requests
from equigrid.grid.running.settlement import Settlement
from equigrid.grid.running.shard_cache import ShardCache, lanes_of
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
    the_plan = prepared(spec, store, console)
    driver = Driver(the_plan, store, console, max_trials, max_device_hours, lock)
    with terminating_signals_interrupt(), driver:
        driver.start(analyst)
        driver.loop()
    return driver.summary, the_plan


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
        self.queue = queue_of(the_plan, todo)
        self.budget = Budget(None if max_device_hours is None else 3600 * max_device_hours)
        self.cache = ShardCache(store, lanes=lanes_of(the_plan))
        self.outputs = Outputs(the_plan, store, self.cache, self.queue)
        self.pool = SlotPool.of(store, spec.execution)
        self.board = Board() if todo else None
        tell = {"tell": self.board.teller} if self.board else {}
        requests = Requests(the_plan, self.outputs, self.cache, **tell)
        self.attempts = Attempts(store, self.pool, requests)
        packing = Packing.of(
            spec.execution.together,
            on_gpus=self.pool.gpus > 0,
            shares=self.pool.gpus > 0 and spec.execution.gpus == "auto",
            mixes=[trial.mix_of(job.payload) for job in todo if job.kind == trial.KIND.name],
        )
        self.dispatcher = Dispatcher(
            the_plan, self.queue, self.budget, self.outputs, self.attempts, packing
        )
        self.observers = Observers(
            the_plan, self.queue, self.budget, self.cache, console, lock,
            forecast=run_forecast.of(store, the_plan, todo),
        )  # fmt: skip
        self.settlement = Settlement(
            the_plan, store, self.queue, self.budget, self.cache, self.outputs, self.attempts,
            packing, self.observers, self.summary,
        )  # fmt: skip

    def start(self, analyst: Callable[[Store, Plan], object] | None) -> None:
        """Starts who is told of the run. Raises UserError if the cluster is too small for it."""
        if not self.has_work:
            return
        self.pool.check_room(self.plan.resolved.spec.execution)
        if self.budget.limit_s is not None:
            self.dispatcher.expected_s = estimate.expected(self.store, self.plan)
        self.dispatcher.scouts = [task.id for task in self.observers.forecast.unknown()]
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
                self.cache.keep(self.attempts.nodes)
                self.settlement.charge_losses()
                self._take_in()
                self._tell()

    def _take_in(self) -> None:
        """A call of its own: the last attempt must not live on in the loop, with its references to
        what a machine holds that might leave.
        """
        for attempt, outcome in self.attempts.ended(within_s=LOOP_S):
            self.settlement.settle(attempt, outcome)

    def _tell(self) -> None:
        jobs_now = self.attempts.at_work()
        heard = False
        if self.board:
            heard = self.board.look([job.id for job in jobs_now], time.monotonic())
        shares = self.board.shares if self.board else {}
        self.observers.tell(jobs_now, shares, self.attempts.devices_held, heard=heard)
        for job_id in self.observers.hung:
            self.attempts.end(job_id, "no sign of progress for execution.hung_after_s: ended")

    def _goes_on(self) -> bool:
        if self.lock and (owner := self.lock.taken_by):
            who = f"process {owner.pid} of {owner.user} on {owner.host}"
            self.observers.message(f"{who} took over; leaving")
            raise TakenOver
        enough = (
            self.max_trials is not None and self.summary.jobs[trial.KIND.name] >= self.max_trials
        )
        return not (enough or self.queue.is_over)

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
        if self.board:
            self.board.close()
        self._sum_up()
        self.observers.close(interrupted=self.summary.interrupted)
        if self.has_work and not isinstance(error, StoreError):  # else nothing more can be written
            if not self.summary.interrupted:
                self.settlement.compaction.finish(self.console)
            name = layout.run(self.summary.grid, new_attempt())
            ended = {"ended_at": datetime.now(UTC).isoformat()}
            self.store.put_json(name, {**self.summary.to_json(), **ended})
        return self.summary.interrupted

    def _sum_up(self) -> None:
        self.summary.cached = self.observers.cached
        self.summary.failures = self.settlement.failures()
        self.summary.blocked = sum(self.queue.count(kind, State.BLOCKED) for kind in KINDS)
        self.summary.shard_loads, self.summary.shard_hits = self.cache.loads, self.cache.hits
        self.summary.device_s = self.budget.used_s
        self.summary.seconds = time.monotonic() - self.began_s
