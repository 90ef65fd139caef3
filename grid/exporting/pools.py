"""Which pool is meant, and the images of it that are in the store."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from equigrid.grid.datasets import shards
from equigrid.grid.errors import UserError, near
from equigrid.grid.jobs import quality
from equigrid.grid.jobs.generator import GeneratorPayload
from equigrid.grid.planning.graph import Plan, Pool
from equigrid.grid.store import Store, documents
from equigrid.grid.store.layout import GENERATORS


@dataclass(frozen=True)
class Export:
    """A pool, or its first n images, and all that is known of it. training: what its generator was
    told; manifest: what came of that; quality: the row that was measured, if one was.
    """

    plan: Plan
    pool: Pool
    n: int
    refs: tuple[shards.ShardRef, ...]
    training: GeneratorPayload
    manifest: dict[str, Any]
    quality: dict[str, Any] | None

    @property
    def classes(self) -> tuple[str, ...]:
        shape = self.plan.resolved.shape
        assert shape is not None, "a plan with pools has a shape"
        return shape.classes

    def parts(self, store: Store) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Its images (n, H, W, C) uint8 and labels (n,) int64, shard by shard, from the start.

        Raises ShardCorrupt, StoreError.
        """
        left = self.n
        for ref in self.refs:
            images, labels = shards.read(store, ref)
            yield images[:left], labels[:left]
            left -= len(images[:left])


def _as_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def chosen(
    store: Store,
    plan: Plan,
    generator: str,
    *,
    n: int | None = None,
    n_base: int | None = None,
    subset_seed: int | None = None,
    generator_seed: int | None = None,
    where: str = "pool export",
    spelled: Callable[[str], str] = _as_option,
) -> Export:
    """The pool of a generator in a grid that the options leave. Raises UserError if that is none or
    several, or if it has fewer images than n.

    where, spelled: how messages begin, and how they write an option.
    """
    names = plan.resolved.generators
    if generator not in names:
        known = ", ".join(names) or "none"
        raise UserError(
            f"{where}: {generator!r} is no generator of the grid; it has {known}"
            f"{near(generator, names)}"
        )
    every = [pool for pool in plan.pools.values() if pool.generator == generator]
    pools = {pool: _training(plan, pool) for pool in every if pool.label is None}
    if every and not pools:
        why = f"the grid adds images of {generator} by class, from a pool of each class alone"
        right = f"a grid with syn: {{{generator}: 1}} has a whole pool of the same generator"
        raise UserError(f"{where}: {why}; {right}")
    wanted = {"n_base": n_base, "subset_seed": subset_seed, "generator_seed": generator_seed}
    left = [
        pool
        for pool, training in pools.items()
        if all(value is None or _facts(training)[key] == value for key, value in wanted.items())
    ]
    if len(left) != 1:
        raise UserError(f"{where}: {_unclear(generator, pools, len(left), spelled)}")
    (pool,) = left
    refs = tuple(_shards(store, pool))
    there = sum(ref.n for ref in refs)
    grid = plan.resolved.spec.name
    if not there:
        raise UserError(f"{where}: {generator} of {grid} has no image yet; run the grid first")
    if n is not None and n > there:
        raise UserError(
            f"{where}: {spelled('n')} {n:,}; {generator} of {grid} has {there:,} images"
        )
    return Export(
        plan=plan,
        pool=pool,
        n=there if n is None else n,
        refs=refs,
        training=pools[pool],
        manifest=_manifest(store, pool),
        quality=_quality(store, plan, pool),
    )


def _training(plan: Plan, pool: Pool) -> GeneratorPayload:
    payload = plan.jobs[pool.generator_id].payload
    assert isinstance(payload, GeneratorPayload), "a pool's generator is trained by such a job"
    return payload


def _facts(training: GeneratorPayload) -> dict[str, int | None]:
    """What tells a generator's pools apart; None where an open-set one has no base, or the whole
    set no seed.
    """
    subset = training.subset
    return {
        "n_base": None if subset is None else subset.n,
        "subset_seed": None if subset is None else subset.subset_seed,
        "generator_seed": training.seed,
    }


def _unclear(
    generator: str, pools: dict[Pool, GeneratorPayload], left: int, spelled: Callable[[str], str]
) -> str:
    facts = [_facts(training) for training in pools.values()]
    values = {
        key: sorted({value for one in facts if (value := one[key]) is not None})
        for key in (facts[0] if facts else {})
    }
    choices = "; ".join(
        f"{spelled(key)} {' or '.join(map(str, found))}"
        for key, found in values.items()
        if len(found) > 1
    )
    what = f"{left} pools fit" if left else "no pool fits"
    right = f"choose by {choices}" if choices else f"it has {len(pools)}, with other values"
    return f"{what} of {generator}; {right}"


def _shards(store: Store, pool: Pool) -> Iterator[shards.ShardRef]:
    """Those there are from the pool's start, without a gap."""
    index = 0
    while True:
        name = pool.manifest(index)
        with shards.corrupt_if_damaged(name):
            content = documents.read(store, name, documents.ShardRecord)
        if content is None:
            return
        yield shards.ref(name, content)
        index += 1


def _manifest(store: Store, pool: Pool) -> dict[str, Any]:
    name = GENERATORS.manifest(pool.generator_id)
    found = documents.readable(store, name, documents.GeneratorRecord)
    return found.model_dump() if found else {}


def _quality(store: Store, plan: Plan, pool: Pool) -> dict[str, Any] | None:
    for job in plan.of_kind(quality.KIND.name):
        of_pool = job.payload.syn.pool == pool.id
        if of_pool and (row := quality.KIND.recorded(store, job)):
            return row
    return None
