"""The Fréchet distance of two sets with its interval, and without the bias of a pool's size."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from equigrid.generators.quality.distances import slices
from equigrid.generators.quality.intervals import (
    GROUPS,
    Value,
    groups,
    jackknife_variance,
    with_interval,
)
from equigrid.generators.quality.statistics import Gaussian, Moments, frechet_from_root, root_of

_ROWS = 8192
PER_DIMENSION = 2
"""Images of a pool per dimension of the features from which its distance is extrapolated: with
fewer, the covariances lack directions, and the bias is not linear in 1/n. (Chong & Forsyth 2020
begin with 5,000 images in 2,048 dimensions.)
"""


def frechet(pool: np.ndarray, real: np.ndarray) -> tuple[Value, Value | None]:
    """Of features (n, d) and (m, d): the distance; and as n grows beyond bounds, None for n < 2 d.

    The distance of n images is too large by a part that falls as 1/n (Chong & Forsyth 2020,
    "Effectively unbiased FID"). The second value extrapolates linearly in 1/n from all images and
    from those without a group, which is the jackknife's correction of bias. The real images' own
    number is left as it is, and equal in all pools of a grid. Below 0 lies what is nearer to these
    real images than other images of the same kind would be: copies.

    Intervals: delete-a-group jackknife over images of both sides, ten groups.
    """
    own, others = (_moments(each, side) for side, each in enumerate((pool, real)))
    every, target = sum_of(own).gaussian(), sum_of(others).gaussian()
    root, root_of_pool = root_of(target.covariance), root_of(every.covariance)
    value = frechet_from_root(target.mean, root, every)
    without = np.array([frechet_from_root(target.mean, root, g) for g in _without_each(own)])
    others_variance = jackknife_variance(
        np.array([frechet_from_root(every.mean, root_of_pool, g) for g in _without_each(others)])
    )
    found = with_interval(value, jackknife_variance(without) + others_variance, GROUPS - 1)
    if len(pool) < PER_DIMENSION * pool.shape[1]:
        return found.clipped(least=0), None
    of_two = _without_two(own, target.mean, root)
    less = np.array([_corrected(one, two, GROUPS - 1) for one, two in zip(without, of_two)])
    endless = _corrected(value, without, GROUPS)
    variance = jackknife_variance(less) + others_variance
    return found.clipped(least=0), with_interval(endless, variance, GROUPS - 1)


def _without_two(parts: list[Moments], mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Distances (G, G - 1) without each group and without each of the others besides."""
    every, found = sum_of(parts), np.zeros((GROUPS, GROUPS))
    for i, j in combinations(range(GROUPS), 2):
        rest = every.less(parts[i]).less(parts[j]).gaussian()
        found[i, j] = found[j, i] = frechet_from_root(mean, root, rest)
    return found[~np.eye(GROUPS, dtype=bool)].reshape(GROUPS, GROUPS - 1)


def _corrected(value: float, without: np.ndarray, number: int) -> float:
    """On the line through (1/n, value) and (1/(n - n/number), mean of without), where 1/n is 0."""
    return float(number * value - (number - 1) * without.mean())


def _moments(features: np.ndarray, side: int) -> list[Moments]:
    """Of each group."""
    found = []
    for rows in groups(len(features), GROUPS, side):
        moments = Moments()
        for part in slices(len(rows), _ROWS):
            moments.add(features[rows[part]])
        found.append(moments)
    return found


def _without_each(parts: list[Moments]) -> list[Gaussian]:
    every = sum_of(parts)
    return [every.less(part).gaussian() for part in parts]


def sum_of(parts: Sequence[Moments]) -> Moments:
    """The moments of all images of the parts."""
    found = Moments()
    for part in parts:
        found.include(part)
    return found
