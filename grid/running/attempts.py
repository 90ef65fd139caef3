"""The attempts that were sent off and have not come back, on slots and worker groups.

Attempts at jobs that are alike may share a request to a slot: it runs them beside each other, they
come back at once, and each has its own outcome.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ray
from ray.actor import ActorHandle

from equigrid.grid import jobs
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Job
from equigrid.grid.running import cluster
from equigrid.grid.running.requests import Requests
from equigrid.grid.running.slots import SlotPool, launch_group
from equigrid.grid.store import Store


@dataclass(frozen=True)
class Attempt:
    """One attempt at one job."""

    job: Job
    request: jobs.Request
    slot: ActorHandle | None  # None: a worker group has it
    nodes: frozenset[str]  # Ray's name of its machine; of a group, of all that it may be on


class Attempts:
    """Sends attempts off, and brings back what came of them."""

    def __init__(self, store: Store, pool: SlotPool, requests: Requests) -> None:
        self.pool = pool
        self._store, self._requests = store, requests
        self._under_way: dict[ray.ObjectRef, tuple[Attempt, ...]] = {}  # by request
        self._ended: dict[ray.ObjectRef, str] = {}  # requests whose process we end, and why
        self._orphans = cluster.Orphans()  # of groups that were lost, an interrupted run's too
        self.alone: set[str] = set()  # jobs that share no request any more: one was lost with them

    @property
    def of_group(self) -> Attempt | None:
        """The attempt that a worker group has; there is one group at a time."""
        return next((one for one, *_ in self._under_way.values() if one.slot is None), None)

    @property
    def on_slots(self) -> int:
        """How many requests slots have: those that run, and those that wait behind them."""
        return sum(one.slot is not None for one, *_ in self._under_way.values())

    @property
    def nodes(self) -> set[str | None]:
        """Where what runs reads its inputs, as Ray calls the machines; None where a worker group
        does, on whichever.
        """
        group: set[str | None] = {None} if self.of_group else set()
        return group | self.pool.nodes.keys()

    @property
    def devices_held(self) -> float:
        """Devices that slots and the worker group hold now; a slot without a GPU counts as one."""
        group = self.of_group
        return self.pool.devices_held + (group.request.workers if group else 0)

    def at_work(self) -> list[Job]:
        """The jobs that devices work on: those of each slot's first request, and the group's."""
        jobs = [one.job for ref in self.pool.running() for one in self._under_way[ref]]
        if group := self.of_group:
            jobs.append(group.job)
        return jobs

    def free_slot(self, depth: int) -> ActorHandle | None:
        """A slot with fewer than `depth` requests, all of them of jobs that may share a device."""
        return self.pool.idle(depth, lambda ref: _shares_device(self._under_way[ref][0].job))

    def send_to_slot(self, alike: Sequence[Job], slot: ActorHandle, *, gpus: float) -> None:
        """One request. alike: one job, or several that may share it. gpus: the slot's, a fraction
        where several share one.
        """
        node = self.pool.node_of(slot)
        requests = [self._requests.make(job, workers=1, gpus=gpus, node=node) for job in alike]
        titles = [self._requests.title(job) for job in alike]
        ref = self.pool.submit(slot, requests, alike[0].stage, titles)
        self._under_way[ref] = tuple(
            Attempt(job, request, slot, frozenset([node])) for job, request in zip(alike, requests)
        )

    def send_to_group(self, job: Job, *, workers: int, gpus: float) -> None:
        """By a task that holds no device, since the workers hold them. gpus: of each worker."""
        request = self._requests.make(job, workers=workers, gpus=gpus, node=None)
        task = ray.remote(num_cpus=0, max_retries=0)(launch_group).options(name=job.stage)
        nodes = frozenset(node["NodeID"] for node in cluster.alive_nodes())
        ref = task.remote(self._store, request)
        self._under_way[ref] = (Attempt(job, request, None, nodes),)

    def ended(self, within_s: float) -> Iterator[tuple[Attempt, dict]]:
        """The attempts that have ended, with their outcomes. Waits for the first of them, or for a
        slot that comes up, but not for longer than that.
        """
        self._orphans.free()
        awaited = [*self._under_way, *self.pool.coming]
        if not awaited:  # no machine has room for a slot now
            time.sleep(within_s)
        elif ray.wait(awaited, num_returns=1, timeout=within_s)[0]:
            self.pool.greet()
            yield from self._there()

    def _there(self) -> Iterator[tuple[Attempt, dict]]:
        """All that have ended: a round of the driver's loop costs more than an outcome."""
        refs = list(self._under_way)
        for ref in ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else ():
            if ref not in self._under_way:
                continue  # it was given back when its slot went
            attempts = self._under_way.pop(ref)
            if attempts[0].slot is not None:
                self.pool.done(attempts[0].slot, ref)
            yield from zip(attempts, self._outcomes(ref, attempts), strict=True)

    def end(self, job_id: str, why: str) -> None:
        """Ends the process that works on a job, with all that it does: their attempts come back as
        lost. Nothing happens if it is ended already.
        """
        for ref, attempts in self._under_way.items():
            if ref not in self._ended and any(one.job.id == job_id for one in attempts):
                self._ended[ref] = why
                if attempts[0].slot is None:
                    ray.cancel(ref, force=True)
                else:
                    ray.kill(attempts[0].slot)

    def drop_slot(self, slot: ActorHandle) -> list[Job]:
        """Ends a slot; these jobs waited on it and had not begun."""
        return [one.job for ref in self.pool.drop(slot) for one in self._under_way.pop(ref)]

    def close(self) -> None:
        """Ends all that runs."""
        for ref, (attempt, *_) in self._under_way.items():
            if attempt.slot is None:
                ray.cancel(ref, force=True)
        self.pool.close()

    def _outcomes(self, ref: ray.ObjectRef, attempts: tuple[Attempt, ...]) -> list[dict]:
        """What the jobs' body returned, or that its process was lost: which of several was at
        fault, shows when they go on alone.
        """
        why = self._ended.pop(ref, None)
        try:
            outcomes = ray.get(ref)
        except ray.exceptions.RayError as error:
            if len(attempts) > 1:
                self.alone.update(attempt.job.id for attempt in attempts)
            lost = {"fresh_slot": True, "lost_process": True}
            outcome = {"status": jobs.RETRY, "error": why or _loss(error), **lost}
            return [dict(outcome) for _ in attempts]
        if why:  # it was over just before: what waits for its slot must not die with it
            outcomes = [{**outcome, "fresh_slot": True} for outcome in outcomes]
        return outcomes


def _shares_device(job: Job) -> bool:
    return KINDS[job.kind].shares_device


def _loss(error: ray.exceptions.RayError) -> str:
    """Of a process that died Ray says that it did, at most."""
    died = ray.exceptions.ActorDiedError | ray.exceptions.WorkerCrashedError
    if isinstance(error, died):
        return (
            "its process died (killed, short of memory, a crash in compiled code, or code that "
            "ends it)"
        )
    return jobs.one_line(error)
