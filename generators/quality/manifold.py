"""Precision, recall, density, coverage: where a pool lies among the real images, and where not."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from equigrid.generators.quality.banks import Seen, unseen
from equigrid.generators.quality.distances import blocks, nearest_squares
from equigrid.generators.quality.intervals import GROUPS, LEAST_GROUPS, Value, groups, of_subsets

K_PRECISION = 3
"""Of Kynkäänniemi et al. 2019."""
K_DENSITY = 5
"""Of Naeem et al. 2020."""


class Manifolds(NamedTuple):
    """Of a pool against real images; all but density in [0, 1]."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifolds(
    pool: np.ndarray, real: np.ndarray, device: str | torch.device = "cpu", seen: Seen = unseen
) -> Manifolds:
    """Of features (n, d) and (m, d). A ball reaches from an image to its k-th nearest of its own
    set, its rim included.

    precision: the part of the pool inside a real image's ball, k = 3; recall: the part of the real
    images inside a pool image's (Kynkäänniemi et al. 2019, "Improved precision and recall metric",
    Eq. 2). density: real images' balls, k = 5, that a pool image lies in, over k; coverage: the
    part of the real images whose ball holds a pool image (Naeem et al. 2020, "Reliable fidelity
    and diversity metrics", Eq. 3 and 4). seen: told of 2n + m images. Raises ValueError for k
    images or fewer.
    """
    for name, side, k in (("pool", pool, K_PRECISION), ("real images", real, K_DENSITY)):
        if len(side) <= k:
            raise ValueError(f"k = {k} nearest neighbours among {len(side)} of the {name}: k + 1 "
                             "images are the fewest")  # fmt: skip
    of_real = nearest_squares(real, None, K_DENSITY, device, seen)  # (m, 5)
    near, far = of_real[:, K_PRECISION - 1], of_real[:, K_DENSITY - 1]
    own = nearest_squares(pool, None, K_PRECISION, device, seen)[:, -1]  # (n,)
    inside = torch.zeros(len(pool), dtype=torch.bool, device=device)
    balls = torch.zeros(len(pool), dtype=torch.int64, device=device)
    reached, covered = torch.zeros(2, len(real), dtype=torch.bool, device=device)
    for rows, columns, squares in blocks(pool, real, device, seen):
        inside[rows] |= (squares <= near[columns]).any(dim=1)
        held = squares <= far[columns]
        balls[rows] += held.sum(dim=1)
        covered[columns] |= held.any(dim=0)
        reached[columns] |= (squares <= own[rows, None]).any(dim=0)
    return Manifolds(_part(inside), _part(reached), _part(balls) / K_DENSITY, _part(covered))


def _part(terms: torch.Tensor) -> float:
    return float(terms.to(torch.float64).mean())


def with_intervals(
    pool: np.ndarray,
    real: np.ndarray,
    device: str | torch.device = "cpu",
    measure: Callable[..., Manifolds] = manifolds,
    seen: Seen = unseen,
) -> dict[str, Value]:
    """`manifolds` by name, with the intervals that disjoint subsets of both sides give: ten of
    them, fewer where they would be below twelve images; none where that leaves fewer than five.
    seen: told of what `manifolds` is told of, twice where there are intervals.
    """
    found = measure(pool, real, device, seen)
    number = min(GROUPS, min(len(pool), len(real)) // (2 * (K_DENSITY + 1)))
    if number < LEAST_GROUPS:
        return {name: Value(value) for name, value in found._asdict().items()}
    cut = zip(groups(len(pool), number, 2), groups(len(real), number, 3))
    parts = np.array([measure(pool[a], real[b], device, seen) for a, b in cut])  # (S, 4)
    return {
        name: of_subsets(value, parts[:, i]).clipped(0, np.inf if name == "density" else 1)
        for i, (name, value) in enumerate(found._asdict().items())
    }
