"""A generator's pool, and what a grid wants of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equigrid.generators.common import pools
from equigrid.grid.jobs.job import Identified, Job, Subset
from equigrid.grid.store.layout import POOLS


@dataclass(frozen=True, kw_only=True)
class PoolIdentity(Identified):
    """What determines the images of a pool. generator: the id of the training. shares: the
    classes' shares of the labels, where they are not equal. label: of a pool of one class alone,
    which is cut into smaller shards than one whose shares happen to be of one class.
    """

    generator: str
    sampler: Mapping[str, Any]
    classes: int
    shares: tuple[int, ...] | None = None
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """A generator's pool: it has no length, only the shards that some job asked for.

    generator: its name in the spec; several that differ in sampling alone share one training,
    `generator_id`. image: (height, width, channels), which says where shards begin. label: the one
    class that all of its images are of, for amounts by class; None where it has several.
    """

    id: str
    generator_id: str
    image: tuple[int, int, int]
    generator: str
    label: int | None = None

    def shard(self, index: int) -> range:
        """The numbers of the images in one of its shards."""
        return pools.shard(index, *self.image, one_class=self.label is not None)

    def shards(self, n: int) -> int:
        """How many shards hold its first n images."""
        return pools.shards(n, *self.image, one_class=self.label is not None)

    def manifest(self, index: int) -> str:
        return POOLS.manifest(self.shard_id(index))

    def shard_id(self, index: int) -> str:
        return POOLS.job_id(self.id, index)


@dataclass(frozen=True)
class PlannedPool:
    """A pool in a plan. training: the job that trains its generator. mapping: the configuration by
    which it is sampled. capacity: the most images that it can have, where there is a most. n_used:
    the images that trials use of it. shares: the classes' shares of its labels, None for equal
    ones. varied: the base, for a generator that makes its images from images of it.
    """

    pool: Pool
    training: Job
    mapping: Mapping[str, Any]
    capacity: int | None
    n_used: int
    shares: tuple[int, ...] | None = None
    varied: Subset | None = None

    def at_most(self, n: int) -> int:
        """n, or as many as it can have."""
        return n if self.capacity is None else min(n, self.capacity)

    @property
    def where(self) -> str:
        """What stages say after the kind of a job."""
        return self.training.stage.partition(":")[2]
