"""Shards in Ray's object store: read once by each machine that has a slot, mapped by its trials."""

from collections import deque
from collections.abc import Collection
from typing import Any

import ray

from equigrid.grid.datasets import catalogue, shards
from equigrid.grid.datasets.shards import ShardRef
from equigrid.grid.planning.graph import Plan
from equigrid.grid.running import cluster
from equigrid.grid.store import Store

ANYWHERE = None  # the node of what a worker group reads, which may be on several
LANES = 4  # loads at once on a node
SMALL_BYTES = 64_000_000


def lanes_of(the_plan: Plan) -> int:
    """Loads at once on a node for a plan's images. Each is a process of Ray's, which takes a core a
    second to start: of a few images, one has read all of them before.
    """
    shape = the_plan.resolved.shape
    if shape is None:
        return LANES
    images = shape.n_train + shape.n_val + shape.n_test
    return 1 if images * shape.height * shape.width * shape.channels <= SMALL_BYTES else LANES


class ShardCache:
    """Shards as values of `load_shard` tasks: loaded once a node, dropped after the last that reads
    them, or when the node has no slot any more.

    A task's value, not `ray.put`: Ray maps it on its node without a copy, and spills it when the
    store is full. Each node loads its own: Ray counts a node as in use while it holds the first
    copy of anything, so that one that others read from would never leave, though it had no work. A
    node's loads run in `lanes`, each after the one before.
    """

    def __init__(self, store: Store, *, lanes: int = LANES) -> None:
        self.loads = 0  # shards that were asked for and had to be loaded
        self.hits = 0  # shards that were asked for and were there
        self._store, self._lanes_each = store, lanes
        self._refs: dict[str | None, dict[str, ray.ObjectRef]] = {}  # by node, then by manifest
        self._lanes: dict[str | None, deque[ray.ObjectRef | None]] = {}  # the last load of each
        # No CPU of its own: the slots hold them all, and loading is waiting for the store.
        self._task = ray.remote(num_cpus=0, max_retries=3, num_returns=2)(shards.load_in_lane)
        self._label_task = ray.remote(num_cpus=0, max_retries=3)(catalogue.labels)

    def handle(self, shard: ShardRef, dataset: str, node: str | None = ANYWHERE) -> ray.ObjectRef:
        """The reference to a shard's arrays on a node, as Ray calls it; loading begins with the
        first call.
        """
        refs = self._refs.setdefault(node, {})
        if shard.manifest in refs:
            self.hits += 1
        else:
            self.loads += 1
            lanes = self._lanes.setdefault(node, deque([None] * self._lanes_each))
            task = self._task.options(name=f"load_shard:{dataset}", scheduling_strategy=_on(node))
            both: Any = task.remote(self._store, shard, lanes.popleft())  # typed as one value
            refs[shard.manifest], token = both
            lanes.append(token)
        return refs[shard.manifest]

    def labels(self, dataset: catalogue.Dataset, node: str | None = ANYWHERE) -> ray.ObjectRef:
        """The reference to all training labels on a node."""
        name, refs = f"labels of {dataset.manifest}", self._refs.setdefault(node, {})
        if name not in refs:
            task = self._label_task.options(
                name=f"load_labels:{dataset.name}", scheduling_strategy=_on(node)
            )
            refs[name] = task.remote(self._store, dataset, "train")
        return refs[name]

    def drop(self, manifest: str) -> None:
        """Lets a shard go, once the trials that have its reference are through."""
        for refs in self._refs.values():
            refs.pop(manifest, None)

    def keep(self, nodes: Collection[str | None]) -> None:
        """Lets all go that other nodes hold: they have nobody who reads it."""
        for node in self._refs.keys() - set(nodes):
            del self._refs[node]
            self._lanes.pop(node, None)

    def clear(self) -> None:
        """Drops all: what loading could not reach may be reached by now. The lanes too: a load that
        died of its process would end all that wait for it.
        """
        self._refs.clear()
        self._lanes.clear()


def _on(node: str | None) -> Any:
    """Where to load. Spread, if anywhere: a small head must not be where all images pass."""
    return "SPREAD" if node is ANYWHERE else cluster.on_node(node, or_elsewhere=True)
