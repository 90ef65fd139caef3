"""A few images of each class for the report: real ones, and those of each generator at each base
size.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import chain

import numpy as np

from equigrid.generators.common.decoding import resized
from equigrid.grid.datasets import catalogue, shards
from equigrid.grid.jobs import inputs
from equigrid.grid.jobs.request import Images
from equigrid.grid.planning.graph import Plan, Pool
from equigrid.grid.store import Store, documents

CLASSES, PER_CLASS = 12, 8
SIDE_PX = 64  # larger images are scaled down
MOST_SHARDS = (
    16  # read of one set: of a hundred classes of 256×256 images, these hold all that is wanted
)

Pictures = tuple[np.ndarray, np.ndarray]
Rows = np.ndarray | slice


class _Unread(Counter[str]):
    """How many shards could not be read, by whose images they hold."""

    def lines(self) -> list[str]:
        return [
            f"sample images: {n} {'shard' if n == 1 else 'shards'} of {whose} cannot be read; a "
            "run that needs them makes them again"
            for whose, n in self.items()
        ]


def sheets(store: Store, plan: Plan, generators: dict[str, str]) -> tuple[dict, list[str]]:
    """What `equigrid.analysis.report.html` shows: `classes`, the names of those shown, and `sets`,
    the real images first; and a line on each set of which something cannot be read.

    generators: the name of each pool's generator. A set is a mapping: generator and setting (None
    for real images), base (None for open-set generators), images (n, H, W, C) uint8 with sides of
    at most SIDE_PX, labels (n,) int64 into `classes`. Of a generator with several seeds, or at
    several subsets, the first is shown. Empty as long as the dataset was not ingested.
    """
    dataset = plan.resolved.dataset
    if dataset is None:
        return {}, []
    unread = _Unread()
    every = len(dataset.shape.classes)
    shown = np.unique(np.linspace(0, every - 1, min(CLASSES, every)).round().astype(int))
    sets = [_set(_real(store, dataset, shown, unread))]
    for (name, base), own in _first_pools(plan, generators).items():
        setting = plan.resolved.generators[name].config.setting
        whose = name if base is None else f"{name}, base {base:,}"
        parts = chain(*(_first_shards(store, pool) for pool in own))
        sets.append(_set(_gathered(store, parts, shown, unread, whose), name, setting, base))
    return {
        "classes": [dataset.shape.classes[label] for label in shown],
        "sets": [one for one in sets if one],
    }, unread.lines()


def _set(
    found: Pictures | None,
    generator: str | None = None,
    setting: str | None = None,
    base: int | None = None,
) -> dict | None:
    if found is None:
        return None
    images, labels = found
    about = {"generator": generator, "setting": setting, "base": base}
    return {**about, "images": images, "labels": labels}


def _first_pools(
    plan: Plan, generators: dict[str, str]
) -> dict[tuple[str, int | None], list[Pool]]:
    """The first pool of each generator and base size; an open-set generator has one for all. Where
    all are of one class each, those of the first training.
    """
    found: dict[tuple[str, int | None], list[Pool]] = {}
    for pool in sorted(plan.pools.values(), key=lambda pool: pool.label is not None):
        subset = plan.jobs[pool.generator_id].payload.subset
        own = found.setdefault((generators[pool.id], subset and subset.n), [])
        if not own or (own[0].label is not None and own[0].generator_id == pool.generator_id):
            own.append(pool)
    return found


def _real(
    store: Store, dataset: catalogue.Dataset, shown: np.ndarray, unread: _Unread
) -> Pictures | None:
    """The first training images of each class. Their places are known from the labels: the set may
    be sorted.
    """
    try:
        labels = catalogue.labels(store, dataset, "train")
    except shards.ShardCorrupt:
        unread["the real images"] += 1
        return None
    wanted = np.sort(
        np.concatenate([np.flatnonzero(labels == label)[:PER_CLASS] for label in shown])
    )
    train = Images(dataset.train, tuple(ref.n for ref in dataset.train))
    parts = inputs.parts(train, wanted)[:MOST_SHARDS]
    return _gathered(store, parts, shown, unread, "the real images")


def _first_shards(store: Store, pool: Pool) -> Iterable[tuple[shards.ShardRef, Rows]]:
    """Those that there are at a pool's start."""
    for index in range(MOST_SHARDS):
        manifest = documents.readable(store, pool.manifest(index), documents.ShardRecord)
        if manifest is None:
            return
        yield shards.ref(pool.manifest(index), manifest), slice(None)


def _gathered(
    store: Store,
    parts: Iterable[tuple[shards.ShardRef, Rows]],
    shown: np.ndarray,
    unread: _Unread,
    whose: str,
) -> Pictures | None:
    """PER_CLASS images of each class that is shown, shard by shard until there are enough; None if
    there is none.
    """
    images, rows, left = [], [], np.full(len(shown), PER_CLASS)
    for ref, chosen in parts:
        try:
            pixels, labels = shards.read(store, ref)
        except shards.ShardCorrupt:
            unread[whose] += 1  # a report is no reason to fail
            continue
        pixels, labels = pixels[chosen], labels[chosen]
        for row in np.flatnonzero(left):
            mine = pixels[labels == shown[row]][: left[row]]
            images.append(resized(mine, SIDE_PX) if max(mine.shape[1:3]) > SIDE_PX else mine)
            rows.append(np.full(len(mine), row))
            left[row] -= len(mine)
        if not left.any():
            break
    return (np.concatenate(images), np.concatenate(rows)) if images else None
