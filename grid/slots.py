"""Slots: long-lived actors that each hold one device (or a fraction, or CPU cores) and run job after job on it.

Actors, not tasks: CUDA reads CUDA_VISIBLE_DEVICES once per process, so a task process that Ray re-uses for another
GPU would go on computing on its first. A slot keeps its device and its warm imports for life, is replaced after
an out-of-memory or when its process dies, and is let go when nothing is left for it, so that nodes are released.
"""

import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable

import ray

from grid import datasets, shards, tasks
from grid.shards import ShardRef
from grid.store import Store
from grid.training import leaving

log = logging.getLogger("equigrid.slot")
RELEASE_AFTER_S = 30.0  # what a slot idles before it is let go: about as long as a new one takes to be warm


class Slot:
    """The actor. `run` takes a request whose shard handles are object references, and returns an outcome."""

    def __init__(self, store: Store, memory_fraction: float | None):
        import torch  # once, while the driver still plans  # noqa: F401
        from ray.train.torch import TorchTrainer  # noqa: F401

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        logging.getLogger("ray.train").setLevel(logging.WARNING)  # a page of start-up text for every trial
        self.store, self.busy = store, False
        signal.signal(signal.SIGTERM, self._told_to_leave)
        if memory_fraction and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(memory_fraction)

    def whoami(self) -> dict:
        """Which process and devices this slot is."""
        return {"pid": os.getpid(), "gpus": ray.get_gpu_ids(), "node": ray.get_runtime_context().get_node_id()}

    def _told_to_leave(self, *_) -> None:
        """A spot instance's notice: the job's state is saved between two steps, then its attempt ends."""
        if not self.busy:
            os._exit(0)
        leaving.set()

    def run(self, request: tasks.Request, cell: str) -> dict:
        log.info("%s %s: %s", request.kind, request.id, cell)
        self.busy = True
        if request.kind != "shard":
            _let_pipelines_go()
        try:
            outcome = tasks.run(self.store, request)
        finally:
            self.busy = False
        if request.gpus:
            import torch

            torch.cuda.empty_cache()
        log.info("%s %s: %s", request.kind, request.id, outcome.get("error") or outcome["status"])
        return outcome


def _let_pipelines_go() -> None:
    """What sampling keeps loaded between two shards would take a training's memory."""
    models = sys.modules.get("generators.stable_diffusion.models")
    if models:
        models.release()


def launch_group(store: Store, request: tasks.Request) -> dict:
    """A job on several devices: a task that holds none itself starts Ray Train's worker group and waits for it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    return tasks.run(store, request)


class SlotPool:
    """The slots of one run. `capacity` says how many fit now; `limit` is lowered while a worker group needs room.

    gpus: what a new slot holds, and what a slot must hold to be given work; others are let go once idle.
    """

    def __init__(
        self,
        store: Store,
        *,
        cpus: float,
        gpus: float,
        threads: int,
        capacity: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.store, self.gpus, self.capacity, self.clock = store, gpus, capacity, clock
        self.limit: int | None = None
        self._idle_since_s: dict[ray.actor.ActorHandle, float] = {}
        self._holds: dict[ray.actor.ActorHandle, float] = {}
        self._where: dict[ray.actor.ActorHandle, ray.ObjectRef] = {}
        self.slots: dict[ray.actor.ActorHandle, list[ray.ObjectRef]] = {}
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._actor = ray.remote(Slot)  # once: each time Ray would export the class anew
        self._options = {"num_cpus": cpus, "max_concurrency": 1, "runtime_env": {"env_vars": environment}}

    def _create(self):
        fraction = self.gpus if 0 < self.gpus < 1 else None
        slot = self._actor.options(num_gpus=self.gpus, **self._options).remote(self.store, fraction)
        self.slots[slot], self._idle_since_s[slot], self._holds[slot] = [], self.clock(), self.gpus
        self._where[slot] = slot.whoami.remote()

    def node_of(self, slot) -> str | None:
        """The id of the node that a slot lives on, or None if it never came to say so."""
        try:
            return ray.get(self._where[slot], timeout=0)["node"]
        except (KeyError, ray.exceptions.RayError):
            return None

    @property
    def devices_held(self) -> float:
        """Devices that the slots hold now; a slot without a GPU counts as one."""
        return sum(share or 1 for share in self._holds.values())

    @property
    def target(self) -> int:
        return self.capacity() if self.limit is None else min(self.limit, self.capacity())

    def resize(self, wanted: int) -> None:
        """Starts slots up to `wanted` and the target; lets idle ones go: at once beyond the target or with another
        share of a device than slots have now, and beyond `wanted` when they idled for a while, since a generator
        about to finish may have work for them."""
        idle = [slot for slot, busy in self.slots.items() if not busy]
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

    def idle(self, depth: int) -> ray.actor.ActorHandle | None:
        """The slot with the fewest requests, if that is fewer than `depth`."""
        fit = [slot for slot in self.slots if self._holds[slot] == self.gpus]
        if not fit or len(self.slots) > self.target:
            return None
        slot = min(fit, key=lambda s: len(self.slots[s]))
        return slot if len(self.slots[slot]) < depth else None

    def submit(self, slot, request: tasks.Request, stage: str, cell: str) -> ray.ObjectRef:
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
        self._where.pop(slot, None)
        left = self.slots.pop(slot, [])
        ray.kill(slot)
        return left

    def close(self) -> None:
        for slot in list(self.slots):
            self.drop(slot)


class ShardCache:
    """Shards in Ray's object store, as values of `load_shard` tasks: loaded once, dropped after the last consumer.

    A task's value, not `ray.put`: Ray copies it to a node once, maps it there without a copy, spills it when the
    store is full, and makes it again by lineage when its node dies. Loads run in `lanes`, each after the one before.
    """

    def __init__(self, store: Store, *, lanes: int = 4):
        self.store, self.loads, self.hits = store, 0, 0
        self._refs: dict[str, ray.ObjectRef] = {}
        self._lanes: deque = deque([None] * lanes)
        # No CPU of its own: the slots hold them all, and loading is waiting for the store. Spread: a small head
        # must not be where all images pass.
        self._task = ray.remote(num_cpus=0, max_retries=3, num_returns=2, scheduling_strategy="SPREAD")(
            shards.load_in_lane
        )
        self._label_task = ray.remote(num_cpus=0, max_retries=3)(datasets.labels)

    def handle(self, shard: ShardRef, dataset: str) -> ray.ObjectRef:
        """The reference to a shard's arrays; loading begins with the first call."""
        if shard.manifest in self._refs:
            self.hits += 1
        else:
            self.loads += 1
            task = self._task.options(name=f"load_shard:{dataset}")
            self._refs[shard.manifest], token = task.remote(self.store, shard, self._lanes.popleft())
            self._lanes.append(token)
        return self._refs[shard.manifest]

    def labels(self, dataset: datasets.Dataset) -> ray.ObjectRef:
        """The reference to all training labels."""
        name = f"labels of {dataset.manifest}"
        if name not in self._refs:
            task = self._label_task.options(name=f"load_labels:{dataset.name}")
            self._refs[name] = task.remote(self.store, dataset, "train")
        return self._refs[name]

    def drop(self, manifest: str) -> None:
        self._refs.pop(manifest, None)

    def clear(self) -> None:
        """Drops all: what loading could not reach may be reached by now."""
        self._refs.clear()
