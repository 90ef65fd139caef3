"""Which images make a base subset, and which are repeated as copies.

One class-stratified order per (dataset, subset seed): a subset of n is its first n, so subset(n)
lies in subset(n+1) for every n. Added real images continue along the same order. Classes take turns
by Sainte-Laguë apportionment, which is house-monotone; largest remainder is not, and its subsets
would not nest.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from equigrid.generators.balance import apportioned
from equigrid.generators.common import pools
from equigrid.generators.common.rng import permutation, seed_of

HELD_OUT_SEED = seed_of(0, "held out")
OUTSIDE_SEED = seed_of(0, "outside")


def subset_counts(counts: ArrayLike, n: int) -> np.ndarray:
    """Images of each class in the subset of n: (k,) int64."""
    every = np.asarray(counts)
    return np.bincount(apportioned(every)[:n], minlength=len(every))


def counts_left(counts: ArrayLike, held_out: int) -> np.ndarray:
    """Images of each class that are left when so many are held out for validation: (k,) int64."""
    return np.asarray(counts) - subset_counts(counts, held_out)


def smallest_complete(counts: ArrayLike) -> int:
    """The smallest n whose subset has an image of every class. Raises ValueError if a class has
    none at all.
    """
    every = np.asarray(counts)
    if not np.all(every > 0):
        raise ValueError(f"class {int(np.argmin(every))} has no image")
    sequence = apportioned(every)
    return int(max(np.argmax(sequence == c) for c in range(len(every)))) + 1


def order(labels: np.ndarray, seed: int) -> np.ndarray:
    """All indices of `labels` (N,) int64 in the stratified order; within a class at random by
    (seed, class).
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels)
    sequence = apportioned(counts)
    result = np.empty(len(labels), dtype=np.int64)
    for c in range(len(counts)):
        members = np.flatnonzero(labels == c)
        result[sequence == c] = members[permutation(seed, "subset order", c, len(members))]
    return result


def held_out(labels: np.ndarray, n: int, repeated: Sequence[int] = ()) -> np.ndarray:
    """Indices of the n images held out for validation, ascending: the same for every subset
    seed. repeated: as in `subset`.
    """
    different = _without(len(labels), repeated)
    if not 0 <= n < len(different):
        raise ValueError(
            f"{n} images held out: the dataset has {len(different)}, "
            "and some must be left to train on"
        )
    return np.sort(different[order(labels[different], HELD_OUT_SEED)[:n]])


def outside(
    labels: np.ndarray, n: int, *, held_out: int = 0, repeated: Sequence[int] = ()
) -> np.ndarray:
    """Indices of the n images kept apart as other people's data, ascending: (n,) int64, the same
    for every subset seed; outside(n) lies in outside(n+1). No subset that is told of them, and not
    the validation, has one. held_out, repeated: as in `subset`. Raises ValueError if none are left.
    """
    rest = _without(len(labels), _held_out_and_copies(labels, held_out, repeated))
    if not 0 <= n < len(rest):
        raise ValueError(
            f"{n} images kept apart: there are {len(rest)}, and some must be left to train on"
        )
    return np.sort(rest[order(labels[rest], OUTSIDE_SEED)[:n]])


def subset(
    labels: np.ndarray,
    n: int,
    seed: int,
    *,
    held_out: int = 0,
    kept_apart: int = 0,
    classes: Sequence[int] | None = None,
    repeated: Sequence[int] = (),
) -> np.ndarray:
    """Indices of the subset of n images, ascending: (n,) int64. Equal sets are equal arrays.

    held_out: so many images are kept for validation; no subset has one of them. kept_apart: nor one
    of so many that are `outside`. classes: of these labels alone. repeated: images that are copies
    of others: no subset has one, so that none is in a base and among what is added to it, but the
    whole set, without any held out or kept apart, which has all.
    """
    every = _of(labels, np.arange(len(labels)), classes)
    if n == len(every) and not held_out and not kept_apart:
        return every
    left_out = _held_out_and_copies(labels, held_out, repeated)
    if kept_apart:
        others = outside(labels, kept_apart, held_out=held_out, repeated=repeated)
        left_out = np.concatenate([left_out, others])
    rest = _of(labels, _without(len(labels), left_out), classes)
    if not 0 <= n <= len(rest):
        besides = f" besides {held_out} held out" if held_out else ""
        besides += f" besides {kept_apart} kept apart" if kept_apart else ""
        besides += f" that differ ({len(every):,} with copies)" if len(repeated) else ""
        raise ValueError(f"a subset of {n} images: the dataset has {len(rest)}{besides}")
    return np.sort(rest[order(labels[rest], seed)[:n]])


def _held_out_and_copies(labels: np.ndarray, n: int, repeated: Sequence[int]) -> np.ndarray:
    held = held_out(labels, n, repeated) if n else np.empty(0, np.int64)
    return np.concatenate([held, np.asarray(repeated, np.int64)])


def _without(n: int, left_out: Sequence[int] | np.ndarray) -> np.ndarray:
    every = np.arange(n)
    return np.setdiff1d(every, left_out) if len(left_out) else every


def _of(labels: np.ndarray, indices: np.ndarray, classes: Sequence[int] | None) -> np.ndarray:
    return indices if classes is None else indices[np.isin(labels[indices], classes)]


def copies(
    labels: np.ndarray, base: np.ndarray, n: int, seed: int, shares: tuple[int, ...] | None = None
) -> np.ndarray:
    """Indices of n repeated base images, class-balanced in every prefix as a pool of synthetic
    images is.

    labels: (N,) int64 of the whole set; base: indices of the base subset; shares: the classes'
    shares, as of a pool. Within a class the base's images come round one after another in an order
    by (seed, class), so none is used twice before all were once.
    """
    classes = int(labels.max()) + 1
    return _repeated(labels, base, pools.labels(seed, 0, n, classes, shares), seed)


def copies_by_class(
    labels: np.ndarray, base: np.ndarray, counts: Sequence[int], seed: int
) -> np.ndarray:
    """Indices of counts[c] repeated base images of each class c, class after class; within a class
    as in `copies`, of which a prefix stays a prefix when a count grows.
    """
    return _repeated(labels, base, np.repeat(np.arange(len(counts)), counts), seed)


def _repeated(labels: np.ndarray, base: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """Indices of base images of the wanted classes (n,), each class's coming round."""
    result = np.empty(len(wanted), dtype=np.int64)
    for c in np.unique(wanted):
        places = np.flatnonzero(wanted == c)
        members = base[labels[base] == c]
        if not len(members):
            raise ValueError(f"copies: the base of {len(base)} images has none of class {c}")
        turns = members[permutation(seed, "copies", int(c), len(members))]
        result[places] = turns[np.arange(len(places)) % len(turns)]
    return result
