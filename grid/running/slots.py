"""Slots: long-lived actors that each hold one device (or a fraction, or CPU cores) and run job
after job on it.

Actors, not tasks: CUDA reads CUDA_VISIBLE_DEVICES once per process, so a task process that Ray
re-uses for another GPU would go on computing on its first. A slot keeps its device and its warm
imports for life, is replaced after an out-of-memory or when its process dies, and is let go when
nothing is left for it, so that nodes are released.
"""

import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

from equigrid.grid import jobs
from equigrid.grid.errors import ClusterError, StoreError, UserError
from equigrid.grid.jobs import shard
from equigrid.grid.jobs.checkpoints import leaving
from equigrid.grid.reporting import logs
from equigrid.grid.running import cluster
from equigrid.grid.spec import Execution
from equigrid.grid.store import Store

log = logging.getLogger("equigrid.slot")
# What a slot idles before it is let go: about as long as a new one takes to be warm.
RELEASE_AFTER_S = 30.0
MOST_FAILED_STARTS = 5  # one after another, while no slot is up: the cause is not a lost machine


class Slot:
    """The actor. `run` takes requests whose shard handles are object references, and returns
    outcomes.
    """

    def __init__(self, store: Store, memory_fraction: float | None) -> None:
        import torch  # once, while the driver still plans  # noqa: F401
        from ray.train.torch import TorchTrainer  # noqa: F401

        logs.prepare()
        logging.getLogger("ray.train").setLevel(logging.WARNING)  # else a page for every trial
        self.store, self.busy = store, False
        signal.signal(signal.SIGTERM, self._told_to_leave)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
        if memory_fraction and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(memory_fraction)

    def whoami(self) -> dict:
        """Which process and devices this slot is: its first word to the driver. Raises StoreError
        if it does not see the driver's store: on its node, a folder may be another one.
        """
        self.store.check_identity()
        return {
            "pid": os.getpid(),
            "gpus": ray.get_gpu_ids(),
            "node": ray.get_runtime_context().get_node_id(),
        }

    def _told_to_leave(self, *_: object) -> None:
        """A spot instance's notice: the job's state is saved between two steps, then its attempt
        ends.
        """
        if not self.busy:
            os._exit(0)
        leaving.set()

    def run(self, requests: Sequence[jobs.Request], titles: Sequence[str]) -> list[dict]:
        """Makes an attempt at a job, or at several that are alike beside each other. titles: what
        the log calls them.
        """
        for request, title in zip(requests, titles):
            log.info("%s %s: %s", request.kind, request.id, title)
        self.busy = True
        if requests[0].kind != shard.KIND.name:
            _let_samplers_go()
        try:
            outcomes = jobs.run_together(self.store, requests)
        finally:
            self.busy = False
        if requests[0].gpus:
            _tidy_device(outcomes)
        for request, outcome in zip(requests, outcomes):
            what = outcome.get("error") or outcome["status"]
            log.info("%s %s: %s", request.kind, request.id, what)
        return outcomes


def _tidy_device(outcomes: list[dict]) -> None:
    """The memory that jobs' allocations have left, for the slots beside this one; or, where that
    is no longer safe in this process, the wish for another one.
    """
    graphs = sys.modules.get("equigrid.classifiers.training.cuda_graphs")
    if graphs and graphs.process_is_broken():
        for outcome in outcomes:
            outcome["fresh_slot"] = True
        return
    import torch

    torch.cuda.empty_cache()


def _let_samplers_go() -> None:
    """What sampling keeps ready between two shards would take a training's memory."""
    registry = sys.modules.get("equigrid.generators.registry")
    if registry:
        registry.release()


def launch_group(store: Store, request: jobs.Request) -> list[dict]:
    """A job on several devices: a task that holds none itself starts Ray Train's worker group and
    waits for it.
    """
    logs.prepare()
    return [jobs.run(store, request)]


@dataclass(slots=True)
class Held:
    """What the driver knows of a slot that it holds."""

    gpus: float  # the GPU or the share of one that is the slot's; 0: CPU cores
    idle_since_s: float
    node: str | None = None  # Ray's name of its machine; None until it has come up
    requests: list[ray.ObjectRef] = field(default_factory=list)  # the first runs, others wait

    @property
    def devices(self) -> float:
        """Devices that it holds; CPU cores count as one."""
        return self.gpus or 1


class SlotPool:
    """The slots of one run.

    A slot that waits for a node is what an autoscaler sees. It is given no work before it has come
    up: a machine may never come.
    """

    def __init__(
        self,
        store: Store,
        *,
        cpus: float,
        gpus: float,
        threads: int,
        most: int | None,
        room: Callable[[float], int],
        promised: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """most: slots at once, even beyond the present nodes; None for those that have room there,
        or `promised`, which an autoscaler may bring. room: how many slots of so many GPUs the
        present nodes have room for.
        """
        self.slots: dict[ActorHandle, Held] = {}
        self.nodes: Counter[str] = Counter()  # those that have slots, and how many
        self.gpus = gpus  # what a new slot holds, and what one must hold to be given work
        self.most = most
        self.limit: int | None = None  # slots at once while a worker group needs room
        self._store, self._room, self._clock = store, room, clock
        self._promised = promised
        self._coming: dict[ray.ObjectRef, ActorHandle] = {}  # by what they will answer
        self._failed_starts = 0  # since a slot came up
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._actor = ray.remote(Slot)  # once: each time Ray would export the class anew
        self._options = {
            "num_cpus": cpus,
            "max_concurrency": 1,
            "runtime_env": {"env_vars": environment},
        }

    @classmethod
    def of(cls, store: Store, execution: Execution) -> "SlotPool":
        """The slots that a spec asks for, on the cluster that Ray is connected to."""
        gpus = cluster.gpus_of_a_slot(execution)
        return cls(
            store,
            cpus=execution.cpus,
            gpus=gpus,
            threads=execution.threads,
            most=execution.slots,
            room=cluster.Room(execution.cpus).slots,
            promised=cluster.promised_slots(execution.cpus, gpus),
        )

    # How many -------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Slots that there may be while no worker group needs room."""
        return max(self._room(self.gpus), self._promised) if self.most is None else self.most

    def check_room(self, execution: Execution) -> None:
        """Raises UserError if neither the present nodes nor those that an autoscaler may bring have
        room for the largest worker group. (What the spec's `slots` promises, one may bring too.)
        """
        most = execution.most_workers
        if self.most is None and self.capacity < most:
            what = "GPUs" if self.gpus else "CPU cores"
            room = f"the cluster has room for {self.capacity} slots ({what})"
            raise UserError(
                f"execution: {room}, {most} are needed at once; where an autoscaler brings "
                "machines, execution.slots says for how many slots"
            )

    @property
    def target(self) -> int:
        """Slots that there may be now."""
        return self.capacity if self.limit is None else min(self.limit, self.capacity)

    @property
    def devices_held(self) -> float:
        """Devices that the slots hold now; a slot without a GPU counts as one.

        A slot that is coming holds its device while it imports, but none while it waits for a node:
        Ray does not say which it does, so as many are counted as the present nodes have room for.
        """
        up = [held.devices for held in self.slots.values() if held.node]
        coming = [held.devices for held in self.slots.values() if not held.node]
        return sum(up) + sum(coming[: max(0, self._room(self.gpus) - len(up))])

    def resize(self, wanted: int) -> None:
        """Starts slots up to `wanted` and the target; lets idle ones go, those first that are not
        up: at once beyond the target or with another share of a device than slots have now, and
        beyond `wanted` when they idled for a while, since a generator about to finish may have work
        for them.
        """
        for slot in [slot for slot in self._idle() if self.slots[slot].gpus != self.gpus]:
            self.drop(slot)
        for slot in self._idle()[: max(0, len(self.slots) - self.target)]:
            self.drop(slot)
        long = self._clock() - RELEASE_AFTER_S
        for slot in [slot for slot in self._idle() if self.slots[slot].idle_since_s <= long]:
            if len(self.slots) > wanted:
                self.drop(slot)
        while len(self.slots) < min(wanted, self.target):
            self._create()

    def _idle(self) -> list[ActorHandle]:
        """The slots without a request, those first that are not up."""
        idle = [slot for slot, held in self.slots.items() if not held.requests]
        return sorted(idle, key=lambda slot: self.slots[slot].node is not None)

    def _create(self) -> None:
        fraction = self.gpus if 0 < self.gpus < 1 else None
        options = {"num_gpus": self.gpus, **self._options}
        slot: Any = self._actor.options(**options).remote(self._store, fraction)
        self.slots[slot] = Held(self.gpus, self._clock())
        self._coming[slot.whoami.remote()] = slot

    def drop(self, slot: ActorHandle) -> list[ray.ObjectRef]:
        """Ends a slot; returns the references of requests it had not finished."""
        self._coming = {ref: other for ref, other in self._coming.items() if other is not slot}
        held = self.slots.pop(slot, None)
        if held and held.node:
            self.nodes[held.node] -= 1
            self.nodes += Counter()  # those without any leave it
        ray.kill(slot)
        return held.requests if held else []

    def close(self) -> None:
        """Ends all slots."""
        for slot in list(self.slots):
            self.drop(slot)

    # Those that come up ---------------------------------------------------------------------------

    @property
    def coming(self) -> list[ray.ObjectRef]:
        """What slots that are not up yet will answer."""
        return list(self._coming)

    def greet(self) -> None:
        """Takes in the slots that came up, and lets those go that died on the way: others are
        started for them.

        Raises StoreError if a slot does not see the store, ClusterError if none comes up and
        MOST_FAILED_STARTS died.
        """
        coming = self.coming
        for ref in ray.wait(coming, num_returns=len(coming), timeout=0)[0] if coming else ():
            slot = self._coming.pop(ref)
            try:
                node = ray.get(ref)["node"]
            except ray.exceptions.RayError as error:
                self.drop(slot)
                self._start_failed(error)
            else:
                self.slots[slot].node = node
                self.nodes[node] += 1
                self.slots[slot].idle_since_s = self._clock()
                self._failed_starts = 0

    def _start_failed(self, error: ray.exceptions.RayError) -> None:
        cause = getattr(error, "cause", None)
        if isinstance(cause, StoreError):
            raise StoreError(str(cause)) from error
        self._failed_starts += 1
        if self._failed_starts >= MOST_FAILED_STARTS and not any(
            held.node for held in self.slots.values()
        ):
            raise ClusterError(
                f"no slot comes up, {MOST_FAILED_STARTS} died on the way: {jobs.one_line(error)}"
            )

    # Their work -----------------------------------------------------------------------------------

    def idle(
        self, depth: int, is_short: Callable[[ray.ObjectRef], bool] = lambda ref: True
    ) -> ActorHandle | None:
        """The slot that is up with the fewest requests, if that is fewer than `depth` and all of
        them are short.
        """
        if len(self.slots) > self.target:
            return None
        fit = [
            (len(held.requests), slot)
            for slot, held in self.slots.items()
            if held.node and held.gpus == self.gpus and all(map(is_short, held.requests))
        ]
        busy, slot = min(fit, key=lambda pair: pair[0], default=(depth, None))
        return slot if busy < depth else None

    def submit(
        self, slot: ActorHandle, requests: Sequence[jobs.Request], stage: str, titles: Sequence[str]
    ) -> ray.ObjectRef:
        """Sends one or several that run beside each other. stage, titles: what Ray's dashboard and
        the slot's log call them.
        """
        ref: ray.ObjectRef = slot.run.options(name=stage).remote(requests, titles)
        self.slots[slot].requests.append(ref)
        return ref

    def node_of(self, slot: ActorHandle) -> str:
        """Ray's name of the machine of a slot that has come up."""
        node = self.slots[slot].node
        assert node, f"{slot} has not come up"
        return node

    def done(self, slot: ActorHandle, ref: ray.ObjectRef) -> None:
        """A request has ended."""
        if held := self.slots.get(slot):
            held.requests.remove(ref)
            held.idle_since_s = self._clock()

    def running(self) -> Iterator[ray.ObjectRef]:
        """The request that each slot works on."""
        return (held.requests[0] for held in self.slots.values() if held.requests)
