"""Which ready jobs go next, and where to: a slot, or a worker group that slots make room for."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from ray.actor import ActorHandle

from equigrid.grid.jobs.kinds import KINDS, on_slots, rank
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.reporting.estimate import devices_held
from equigrid.grid.running.attempts import Attempts
from equigrid.grid.running.budget import Budget, Cost
from equigrid.grid.running.outputs import Outputs, shards_of
from equigrid.grid.running.packing import Packing
from equigrid.grid.running.queue import JobQueue, QueuedJob, State

DEPTH = 2  # requests a slot holds: one runs, one waits, so that a slot never idles for the driver
SHARE = [name for name, kind in on_slots().items() if kind.shares_device]  # trials
BEFORE = [name for name in on_slots() if rank(name) < min(map(rank, SHARE))]


def workers_of(the_plan: Plan, job: Job) -> int:
    """Devices that a job runs on at once; more than one are a worker group."""
    return the_plan.resolved.spec.execution.workers_of(job.kind)


def queue_of(the_plan: Plan, todo: Iterable[Job]) -> JobQueue:
    """A plan as the queue sees it, with these of its jobs to do."""
    jobs = [
        QueuedJob(
            id=job.id,
            kind=job.kind,
            rank=rank(job.kind),
            needs=job.needs,
            shards=shards_of(the_plan, job),
            group=workers_of(the_plan, job) > 1,
            alike=KINDS[job.kind].alike(job.payload),
        )
        for job in the_plan.jobs.values()
    ]
    return JobQueue(jobs, [job.id for job in todo], the_plan.resolved.spec.execution.retries)


class Dispatcher:
    """Sends off what is ready, as far as there is room and the budget affords it."""

    def __init__(
        self,
        the_plan: Plan,
        queue: JobQueue,
        budget: Budget,
        outputs: Outputs,
        attempts: Attempts,
        packing: Packing,
    ) -> None:
        self._plan, self._queue, self._budget = the_plan, queue, budget
        self._outputs, self._attempts, self._packing = outputs, attempts, packing
        self._pool = attempts.pool
        # How long a job likely takes; None where nothing is known of it.
        self.expected_s: Callable[[Job], float | None] = lambda job: None
        # Run before their turn: of each kind of which nothing is known one job, for the forecast.
        self.scouts: list[str] = []

    def send(self) -> Iterator[Job]:
        """Sends what can be sent now; these are the jobs."""
        yield from self._send_to_group()
        yield from self._send_to_slots()

    def next_cost(self) -> Cost | None:
        """What the job that goes next will likely cost; None if none is ready."""
        job = self._job(self._queue.next_for_slot() or self._queue.next_for_group())
        return None if job is None else self._cost(job)

    # Worker groups --------------------------------------------------------------------------------

    def _send_to_group(self) -> Iterator[Job]:
        """Slots make room for one group at a time."""
        if self._attempts.of_group:
            return
        job = self._job(self._queue.next_for_group())
        if job is None:
            self._pool.limit = None
        elif self._budget.affords(self._cost(job)):
            self._pool.limit = max(0, self._pool.capacity - workers_of(self._plan, job))
            if len(self._pool.slots) <= self._pool.limit:
                yield from self._send([job], None)

    # Slots ----------------------------------------------------------------------------------------

    def _send_to_slots(self) -> Iterator[Job]:
        if self._packing.shares:
            self._pool.gpus = self._packing.share if self._only_sharers_may_run() else 1.0
        self._pool.resize(self._queue.ready_for_slots + self._attempts.on_slots)
        while job := self._job(self._scout() or self._queue.next_for_slot()):
            slot = self._slot_for(job)
            if slot is None or not (together := self._affordable(self._with_those_beside(job))):
                return
            yield from self._send(together, slot)

    def _with_those_beside(self, job: Job) -> list[Job]:
        """The job, and others that share its request; fewer, or none, where that would leave slots
        without any.
        """
        most = self._packing.branches
        if not self._packing.exact:
            most = min(most, self._queue.ready_for_slots // max(1, len(self._pool.slots)))
        if most <= 1 or job.id in self._attempts.alone:
            return [job]
        beside = [i for i in self._queue.ready_beside(job.id) if i not in self._attempts.alone]
        return [job, *(self._plan.jobs[i] for i in beside[: most - 1])]

    def _affordable(self, alike: list[Job]) -> list[Job]:
        """As many of these, the first ones, as the budget has room for."""
        while alike and not self._budget.affords(self._cost(*alike)):
            alike = alike[:-1]
        return alike

    def _scout(self) -> str | None:
        """The next job that goes before its turn, if it is ready and a slot can take it."""
        while self.scouts:
            job_id = self.scouts[0]
            ready = self._queue.state(job_id) is State.READY
            if ready and workers_of(self._plan, self._plan.jobs[job_id]) == 1:
                return job_id
            self.scouts.pop(0)
        return None

    def _only_sharers_may_run(self) -> bool:
        """Several trials share a device, once what comes before them is done and for as long as
        they are not; all else has the device for itself.
        """
        left = self._queue.left
        return any(map(left, SHARE)) and not any(map(left, BEFORE))

    def _slot_for(self, job: Job) -> ActorHandle | None:
        shares = KINDS[job.kind].shares_device
        if self._packing.shares and self._pool.gpus < 1 and not shares:
            return None  # it has a whole device, once the last trials have left it
        # Trials queue behind trials and nothing else does: behind a generator they would wait while
        # slots idle.
        deep = shares and self._queue.ready_for_slots > len(self._pool.slots)
        return self._attempts.free_slot(DEPTH if deep else 1)

    # Both -----------------------------------------------------------------------------------------

    def _send(self, alike: Sequence[Job], slot: ActorHandle | None) -> Iterator[Job]:
        """alike: one job, or several that share a request. slot: None for a worker group. Where an
        input is not there after all, that is made again instead, and the jobs wait for it.
        """
        job = alike[0]  # what one takes in, the others do
        if absent := self._outputs.absent(job):
            self._outputs.remake(absent)
            return
        workers, gpus = workers_of(self._plan, job), self._pool.gpus
        if slot is None:  # each worker of a group has a device for itself
            self._attempts.send_to_group(job, workers=workers, gpus=1 if gpus else 0)
        else:
            self._attempts.send_to_slot(alike, slot, gpus=gpus)
        all_of_them = self._cost(*alike)
        # Each holds its part of the slot, for as long as all of them take.
        own = Cost(all_of_them.devices / len(alike), all_of_them.seconds)
        for job in alike:
            self._budget.begin(job.id, own)
            self._queue.start(job.id)
        yield from alike

    def _job(self, job_id: str | None) -> Job | None:
        return None if job_id is None else self._plan.jobs[job_id]

    def _cost(self, *alike: Job) -> Cost:
        """Of one request: a job's seconds are its share of those that share it."""
        devices = devices_held(workers_of(self._plan, alike[0]), self._pool.gpus)
        known = [seconds for job in alike if (seconds := self.expected_s(job)) is not None]
        return Cost(devices, sum(known) if known else None)
