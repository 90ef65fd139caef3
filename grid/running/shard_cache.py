"""Shards in Ray's object store: read once, copied to each machine once, mapped by every trial."""

from collections import deque
from typing import Any

import ray

from equigrid.grid.datasets import catalogue, shards
from equigrid.grid.datasets.shards import ShardRef
from equigrid.grid.store import Store


class ShardCache:
    """Shards as values of `load_shard` tasks: loaded once, dropped after the last that reads them.

    A task's value, not `ray.put`: Ray copies it to a node once, maps it there without a copy,
    spills it when the store is full, and makes it again by lineage when its node dies. Loads run in
    `lanes`, each after the one before.
    """

    def __init__(self, store: Store, *, lanes: int = 4) -> None:
        self.loads = 0  # shards that were asked for and had to be loaded
        self.hits = 0  # shards that were asked for and were there
        self._store = store
        self._refs: dict[str, ray.ObjectRef] = {}  # by the shard's manifest
        self._lanes: deque[ray.ObjectRef | None] = deque([None] * lanes)  # the last load of each
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
            lane = self._lanes.popleft()
            both: Any = task.remote(self._store, shard, lane)  # Ray's types know one value only
            self._refs[shard.manifest], token = both
            self._lanes.append(token)
        return self._refs[shard.manifest]

    def labels(self, dataset: catalogue.Dataset) -> ray.ObjectRef:
        """The reference to all training labels."""
        name = f"labels of {dataset.manifest}"
        if name not in self._refs:
            task = self._label_task.options(name=f"load_labels:{dataset.name}")
            self._refs[name] = task.remote(self._store, dataset, "train")
        return self._refs[name]

    def drop(self, manifest: str) -> None:
        """Lets a shard go, once the trials that have its reference are through."""
        self._refs.pop(manifest, None)

    def clear(self) -> None:
        """Drops all: what loading could not reach may be reached by now. The lanes too: a load that
        died of its process would end all that wait for it.
        """
        self._refs.clear()
        self._lanes = deque([None] * len(self._lanes))
