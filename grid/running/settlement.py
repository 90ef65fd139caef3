"""What came back of an attempt: done, failed for good, or to be tried again; and who is told."""

from datetime import UTC, datetime

from ray.actor import ActorHandle

from equigrid.grid import jobs
from equigrid.grid.errors import StoreError
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.reporting.summary import Failure, Summary
from equigrid.grid.running import cluster
from equigrid.grid.running.attempts import Attempt, Attempts
from equigrid.grid.running.budget import Budget
from equigrid.grid.running.compaction import Compaction
from equigrid.grid.running.observers import Observers
from equigrid.grid.running.outputs import Outputs
from equigrid.grid.running.packing import Packing
from equigrid.grid.running.queue import JobQueue, State
from equigrid.grid.running.shard_cache import ShardCache
from equigrid.grid.store import Store


class Settlement:
    """Moves what attempts ended with into the queue, the budget, the outputs and the summary."""

    def __init__(
        self,
        the_plan: Plan,
        store: Store,
        queue: JobQueue,
        budget: Budget,
        cache: ShardCache,
        outputs: Outputs,
        attempts: Attempts,
        packing: Packing,
        observers: Observers,
        summary: Summary,
    ) -> None:
        self.plan, self.store, self.queue, self.budget = the_plan, store, queue, budget
        self.cache, self.outputs, self.attempts = cache, outputs, attempts
        self.packing, self.observers, self.summary = packing, observers, summary
        self.losses = cluster.Losses()
        self.compaction = Compaction(store)
        self.errors: dict[str, str] = {}  # by job that failed

    def charge_losses(self) -> None:
        """A process that was lost while its machine lives on costs its job a try."""
        for job_id in self.losses.of_living_machines():
            self.queue.charge(job_id)

    def settle(self, attempt: Attempt, outcome: dict) -> None:
        """Raises StoreError where the store is gone, which every other job needs too."""
        self.budget.end(attempt.job.id)
        if attempt.slot is not None:
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
        lost = outcome.get("lost")
        if outcome.get("lost_process") and not self.losses.is_certain(attempt.nodes):
            self.losses.add(job.id, attempt.nodes)
            lost = True
        if lost:
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

    def failures(self) -> list[Failure]:
        """Each with the cells that lack a result for it. What several failures block counts with
        the first.
        """
        cells, found, counted = self.plan.cells_by_trial(), [], set[str]()
        for job_id in self.queue.failed():
            without = [job_id, *(i for i in self.queue.blocked_by(job_id) if i not in counted)]
            counted.update(without)
            named = tuple(str(cell) for i in without for cell in cells.get(i, ()))
            job = self.plan.jobs[job_id]
            found.append(Failure(job_id, job.kind, self.errors[job_id], named))
        return found
