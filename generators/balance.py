"""Which share of a pool's labels each class has, where that is not the same for all.

Classes take turns by Sainte-Laguë apportionment: every prefix of a pool has the shares as nearly as
whole images can. It is house-monotone, so a longer prefix takes no image away from a class.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm

import numpy as np
from numpy.typing import ArrayLike

MOST = 10_000_000  # images after which an order begins again: each has a number in memory


def apportioned(counts: ArrayLike) -> np.ndarray:
    """The class of each place, where class c has counts[c] of them: counts (k,) int, returns (sum,)
    int64.

    The divisor method with odd divisors gives the next place to the class with the largest
    counts[c] / (2 s + 1), s being the places it has; that orders all places by (s + 1/2) /
    counts[c]. Ties go to the larger class, then to the lower label.
    """
    every = np.asarray(counts, dtype=np.int64)
    classes = np.repeat(np.arange(len(every)), every)
    rank = np.arange(len(classes)) - np.repeat(np.cumsum(every) - every, every)
    turn = (2 * rank + 1) / every[classes]
    return classes[np.lexsort((classes, -every[classes], turn))]


def reduced(shares: Sequence[int | float]) -> tuple[int, ...] | None:
    """The smallest whole numbers in the same proportion; None where all are equal.

    A float counts as the decimal number that it prints as. Raises ValueError for shares of which
    one is negative, for none above 0, and where the numbers would add up to more than MOST.
    """
    exact = [Fraction(str(share)) for share in shares]
    if min(exact, default=Fraction(0)) < 0 or not any(exact):
        raise ValueError("shares are numbers from 0 up, and one at least is above 0")
    whole = [int(share * lcm(*(one.denominator for one in exact))) for share in exact]
    common = gcd(*whole)
    found = tuple(number // common for number in whole)
    if sum(found) > MOST:
        raise ValueError(
            f"shares as fine as these repeat after {sum(found):,} images; write fewer digits"
        )
    return None if len(set(found)) == 1 else found


@lru_cache(maxsize=8)
def _round(shares: tuple[int, ...]) -> np.ndarray:
    """The labels of the first sum(shares) images, after which the order begins again: then each
    class has exactly its share.
    """
    found = apportioned(shares)
    found.setflags(write=False)
    return found


@lru_cache(maxsize=8)
def _places(shares: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Of each class, its places in a round."""
    order = _round(shares)
    by_class = np.argsort(order, kind="stable")
    return tuple(np.split(by_class, np.cumsum(shares)[:-1]))


def labels(shares: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    """Labels of the images `start` to `stop - 1`: (stop - start,) int64."""
    order = _round(shares)
    return order[np.arange(start, stop) % len(order)]


def first_pair(shares: tuple[int, ...]) -> int:
    """The images of the shortest prefix that has two of one class."""
    seen: set[int] = set()
    for n, label in enumerate(labels(shares, 0, len(shares) + 1).tolist(), start=1):
        if label in seen:
            return n
        seen.add(label)
    raise AssertionError("more images than classes")


def earlier(shares: tuple[int, ...], numbers: np.ndarray, label: int) -> np.ndarray:
    """How many images of a class come before those with these numbers (n,) int64: (n,) int64."""
    places = _places(shares)[label]
    rounds, within = np.divmod(numbers, sum(shares))
    return rounds * len(places) + np.searchsorted(places, within)


def longest(shares: tuple[int, ...], available: Sequence[int]) -> int:
    """The images of the longest prefix that has at most available[c] of each class."""
    ends = []
    for places, n in zip(_places(shares), available, strict=True):
        if len(places):
            rounds, within = divmod(n, len(places))
            ends.append(rounds * sum(shares) + int(places[within]))
    return min(ends)
