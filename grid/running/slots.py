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
from collections import deque
from collections.abc import Callable

import ray

from equigrid.grid import jobs
from equigrid.grid.datasets import catalogue, shards
from equigrid.grid.datasets.shards import ShardRef
from equigrid.grid.errors import ClusterError, StoreError
from equigrid.grid.jobs.checkpoints import leaving
from equigrid.grid.store import Store

log = logging.getLogger("equigrid.slot")
RELEASE_AFTER_S = (
    30.0  # what a slot idles before it is let go: about as long as a new one takes to be warm
)
MOST_FAILED_STARTS = 5  # one after another, while no slot is up: the cause is not a lost machine


class Slot:
    """The actor. `run` takes a request whose shard handles are object references, and returns an
    outcome.
    """

    def __init__(self, store: Store, memory_fraction: float | None):
        import torch  # once, while the driver still plans  # noqa: F401
        from ray.train.torch import TorchTrainer  # noqa: F401

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        logging.getLogger("ray.train").setLevel(
            logging.WARNING
        )  # a page of start-up text for every trial
        self.store, self.busy = store, False
        signal.signal(signal.SIGTERM, self._told_to_leave)
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

    def _told_to_leave(self, *_) -> None:
        """A spot instance's notice: the job's state is saved between two steps, then its attempt
        ends.
        """
        if not self.busy:
            os._exit(0)
        leaving.set()

    def run(self, request: jobs.Request, cell: str) -> dict:
        log.info("%s %s: %s", request.kind, request.id, cell)
        self.busy = True
        if request.kind != "shard":
            _let_samplers_go()
        try:
            outcome = jobs.run(self.store, request)
        finally:
            self.busy = False
        if request.gpus:
            import torch

            torch.cuda.empty_cache()
        log.info("%s %s: %s", request.kind, request.id, outcome.get("error") or outcome["status"])
        return outcome


def _let_samplers_go() -> None:
    """What sampling keeps ready between two shards would take a training's memory."""
    backends = sys.modules.get("equigrid.generators.registry")
    if backends:
        backends.release()


def launch_group(store: Store, request: jobs.Request) -> dict:
    """A job on several devices: a task that holds none itself starts Ray Train's worker group and
    waits for it.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    return jobs.run(store, request)


class SlotPool:
    """The slots of one run. `capacity` says how many are wanted at most; `room`, how many the
    present nodes have room for; `limit` is lowered while a worker group needs room.

    A slot that waits for a node is what an autoscaler sees. It is given no work before it has come
    up: a machine may never come. gpus: what a new slot holds, and what a slot must hold to be given
    work; others are let go once idle.
    """

    def __init__(
        self,
        store: Store,
        *,
        cpus: float,
        gpus: float,
        threads: int,
        capacity: Callable[[], int],
        room: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.store, self.gpus, self.capacity, self.room, self.clock = (
            store,
            gpus,
            capacity,
            room,
            clock,
        )
        self.limit: int | None = None
        self._idle_since_s: dict[ray.actor.ActorHandle, float] = {}
        self._holds: dict[ray.actor.ActorHandle, float] = {}
        self._coming: dict[ray.ObjectRef, ray.actor.ActorHandle] = {}
        self._node: dict[ray.actor.ActorHandle, str] = {}  # of those that are up
        self._failed_starts = 0  # since one came up
        self.slots: dict[ray.actor.ActorHandle, list[ray.ObjectRef]] = {}
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._actor = ray.remote(Slot)  # once: each time Ray would export the class anew
        self._options = {
            "num_cpus": cpus,
            "max_concurrency": 1,
            "runtime_env": {"env_vars": environment},
        }

    def _create(self):
        fraction = self.gpus if 0 < self.gpus < 1 else None
        slot = self._actor.options(num_gpus=self.gpus, **self._options).remote(self.store, fraction)
        self.slots[slot], self._idle_since_s[slot], self._holds[slot] = [], self.clock(), self.gpus
        self._coming[slot.whoami.remote()] = slot

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
        come = (
            ray.wait(self.coming, num_returns=len(self._coming), timeout=0)[0]
            if self._coming
            else []
        )
        for ref in come:
            slot = self._coming.pop(ref)
            try:
                self._node[slot] = ray.get(ref)["node"]
                self._failed_starts, self._idle_since_s[slot] = 0, self.clock()
            except ray.exceptions.RayError as error:
                self.drop(slot)
                self._start_failed(error)

    def _start_failed(self, error: ray.exceptions.RayError) -> None:
        cause = getattr(error, "cause", None)
        if isinstance(cause, StoreError):
            raise StoreError(str(cause)) from error
        self._failed_starts += 1
        if self._failed_starts >= MOST_FAILED_STARTS and not self._node:
            raise ClusterError(
                f"no slot comes up, {MOST_FAILED_STARTS} died on the way: {jobs.one_line(error)}"
            )

    def node_of(self, slot) -> str | None:
        """The id of the node that a slot lives on, or None if it never came to say so."""
        return self._node.get(slot)

    @property
    def devices_held(self) -> float:
        """Devices that the slots hold now; a slot without a GPU counts as one.

        A slot that is coming holds its device while it imports, but none while it waits for a node:
        Ray does not say which it does, so as many are counted as the present nodes have room for.
        """
        up = [self._holds[slot] or 1 for slot in self._node]
        coming = [self._holds[slot] or 1 for slot in self._coming.values()]
        return sum(up) + sum(coming[: max(0, self.room() - len(up))])

    @property
    def target(self) -> int:
        return self.capacity() if self.limit is None else min(self.limit, self.capacity())

    def resize(self, wanted: int) -> None:
        """Starts slots up to `wanted` and the target; lets idle ones go, those first that are not
        up: at once beyond the target or with another share of a device than slots have now, and
        beyond `wanted` when they idled for a while, since a generator about to finish may have work
        for them.
        """
        idle = sorted(
            (slot for slot, busy in self.slots.items() if not busy),
            key=lambda slot: slot in self._node,
        )
        for slot in [slot for slot in idle if self._holds[slot] != self.gpus]:
            self.drop(slot)
        idle = [slot for slot in idle if slot in self.slots]
        for slot in idle[: max(0, len(self.slots) - self.target)]:
            self.drop(slot)
        long = self.clock() - RELEASE_AFTER_S
        for slot in [slot for slot in idle if self._idle_since_s.get(slot, self.clock()) <= long]:
            if len(self.slots) > wanted:
                self.drop(slot)
        while len(self.slots) < min(wanted, self.target):
            self._create()

    def idle(
        self, depth: int, is_short: Callable[[ray.ObjectRef], bool] = lambda ref: True
    ) -> ray.actor.ActorHandle | None:
        """The slot that is up with the fewest requests, if that is fewer than `depth` and all of
        them are short.
        """
        fit = [
            slot
            for slot in self._node
            if self._holds[slot] == self.gpus and all(map(is_short, self.slots[slot]))
        ]
        if not fit or len(self.slots) > self.target:
            return None
        slot = min(fit, key=lambda s: len(self.slots[s]))
        return slot if len(self.slots[slot]) < depth else None

    def submit(self, slot, request: jobs.Request, stage: str, cell: str) -> ray.ObjectRef:
        ref = slot.run.options(name=stage).remote(request, cell)
        self.slots[slot].append(ref)
        return ref

    def done(self, slot, ref: ray.ObjectRef) -> None:
        if slot in self.slots:
            self.slots[slot].remove(ref)
            self._idle_since_s[slot] = self.clock()

    def drop(self, slot) -> list[ray.ObjectRef]:
        """Ends a slot; returns the references of requests it had not finished."""
        self._idle_since_s.pop(slot, None)
        self._holds.pop(slot, None)
        self._node.pop(slot, None)
        self._coming = {ref: other for ref, other in self._coming.items() if other is not slot}
        left = self.slots.pop(slot, [])
        ray.kill(slot)
        return left

    def close(self) -> None:
        for slot in list(self.slots):
            self.drop(slot)


class ShardCache:
    """Shards in Ray's object store, as values of `load_shard` tasks: loaded once, dropped after the
    last consumer.

    A task's value, not `ray.put`: Ray copies it to a node once, maps it there without a copy,
    spills it when the store is full, and makes it again by lineage when its node dies. Loads run in
    `lanes`, each after the one before.
    """

    def __init__(self, store: Store, *, lanes: int = 4):
        self.store, self.loads, self.hits = store, 0, 0
        self._refs: dict[str, ray.ObjectRef] = {}
        self._lanes: deque = deque([None] * lanes)
        # No CPU of its own: the slots hold them all, and loading is waiting for the store. Spread:
        # a small head must not be where all images pass.
        self._task = ray.remote(
            num_cpus=0, max_retries=3, num_returns=2, scheduling_strategy="SPREAD"
        )(shards.load_in_lane)
        self._label_task = ray.remote(num_cpus=0, max_retries=3)(catalogue.labels)

    def handle(self, shard: ShardRef, dataset: str) -> ray.ObjectRef:
        """The reference to a shard's arrays; loading begins with the first call."""
        if shard.manifest in self._refs:
            self.hits += 1
        else:
            self.loads += 1
            task = self._task.options(name=f"load_shard:{dataset}")
            self._refs[shard.manifest], token = task.remote(
                self.store, shard, self._lanes.popleft()
            )
            self._lanes.append(token)
        return self._refs[shard.manifest]

    def labels(self, dataset: catalogue.Dataset) -> ray.ObjectRef:
        """The reference to all training labels."""
        name = f"labels of {dataset.manifest}"
        if name not in self._refs:
            task = self._label_task.options(name=f"load_labels:{dataset.name}")
            self._refs[name] = task.remote(self.store, dataset, "train")
        return self._refs[name]

    def drop(self, manifest: str) -> None:
        self._refs.pop(manifest, None)

    def clear(self) -> None:
        """Drops all: what loading could not reach may be reached by now. The lanes too: a load that
        died of its process would end all that wait for it.
        """
        self._refs.clear()
        self._lanes = deque([None] * len(self._lanes))
