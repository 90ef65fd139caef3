"""The measures of `quality.metrics`: a pool against real images, in the features of one network."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from equigrid.generators.quality.banks import Bank, Seen, unseen
from equigrid.generators.quality.copying import copying
from equigrid.generators.quality.frechet import PER_DIMENSION, frechet
from equigrid.generators.quality.kernel import kid
from equigrid.generators.quality.manifold import with_intervals

VALUES = (
    "fd", "fd_infinity", "kid", "precision", "recall", "density", "coverage",
    "nearer_than_held_out", "near_copies",
)  # fmt: skip
"""Columns that have a _low and a _high beside them."""
COMPARED = (
    "extractor",
    *(f"{name}{end}" for name in VALUES for end in ("", "_low", "_high")),
    "kid_se",
    "copying_z",
    "n_held_out",
)
Row = dict[str, float | str | None]


@dataclass(frozen=True)
class Real:
    """The real images' features: all of them, and where the generator's own lie.

    learned: features (m, d) of the images that the generator learned from; None for one whose
    images are not at hand.  held_out: rows of `bank` that it did not learn from, which nothing but
    this comparison takes as such.
    """

    bank: Bank
    learned: np.ndarray | None = None
    held_out: np.ndarray | None = None


_MANIFOLDS = {"precision", "recall", "density", "coverage"}


def most_seen(n_pool: int, n_real: int, metrics: Collection[str]) -> int:
    """Images whose distances to all others `compared` takes, one that is seen twice as two."""
    of_manifolds = 2 * (2 * n_pool + n_real) if _MANIFOLDS & set(metrics) else 0
    return of_manifolds + (n_pool + n_real if "copying" in metrics else 0)


def compared(
    pool: Bank,
    real: Real,
    metrics: Collection[str],
    *,
    extractor: str,
    device: str = "cpu",
    seen: Seen = unseen,
) -> tuple[Row, list[str]]:
    """The columns COMPARED of what is asked for, and sentences on what could not be told.

    metrics: of `equigrid.generators.quality.config.METRICS`. seen: told of `most_seen` images at
    most. Raises ValueError for sets that are too small.
    """
    row: Row = {"extractor": extractor}
    notes: list[str] = []
    theirs = real.bank.features
    if "fd" in metrics:
        found, endless = frechet(pool.features, theirs)
        row |= found.columns("fd")
        if endless is None:
            least = PER_DIMENSION * pool.features.shape[1]
            notes.append(f"fd_infinity needs {least:,} images of the pool, there are {pool.n:,}")
        else:
            row |= endless.columns("fd_infinity")
    if "kid" in metrics:
        value = kid(pool.features, theirs, device)
        row |= {**value.columns("kid"), "kid_se": value.se}
    if chosen := _MANIFOLDS & set(metrics):
        of_both = with_intervals(pool.features, theirs, device, seen=seen)
        for name in sorted(chosen):
            row |= of_both[name].columns(name)
        if any(of_both[name].low is None for name in chosen):
            notes.append("precision, recall, density and coverage have intervals from 60 images on")
    if "copying" in metrics:
        found_row, why = _copying(pool, real, device, seen)
        row |= found_row
        notes += why
    return row, notes


def _copying(pool: Bank, real: Real, device: str, seen: Seen) -> tuple[Row, list[str]]:
    if real.learned is None or real.held_out is None:
        return {}, ["copying: the images that the generator learned from are not at hand"]
    if not len(real.held_out):
        return {}, ["copying: no real image is held out, the generator learned from all of them"]
    held_out = (real.bank.features[real.held_out], real.bank.labels[real.held_out])
    try:
        found = copying((pool.features, pool.labels), real.learned, held_out, device, seen)
    except ValueError as error:
        return {}, [str(error)]
    row: Row = {**found.nearer.columns("nearer_than_held_out"), "copying_z": found.z}
    row["n_held_out"] = found.n_held_out
    if found.near is None:
        return row, [f"near_copies needs 100 held-out images, there are {found.n_held_out}"]
    return row | found.near.columns("near_copies"), []


Extract = Callable[[np.ndarray], np.ndarray]
"""Images (n, H, W, C) uint8 -> features (n, d)."""


def extractor_name(chosen: Mapping[str, str | int | None]) -> str:
    """What a payload's `extractor` is called in a row: the network, its size, and the file."""
    size = f", {chosen['size']} px" if chosen.get("size") else ""
    file = f", weights {str(chosen['sha256'])[:8]}" if chosen.get("sha256") else ""
    return f"{chosen['name']}{size}{file}"
