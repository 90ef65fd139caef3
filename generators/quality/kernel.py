"""The kernel distance of two sets (KID)."""

import numpy as np
import torch

from equigrid.generators.quality.distances import on, slices
from equigrid.generators.quality.intervals import GROUPS, Value, groups, of_subsets

SUBSET = 1000
"""Images of a subset, as is usual."""
_ROWS = 2048


def kid(pool: np.ndarray, real: np.ndarray, device: str | torch.device = "cpu") -> Value:
    """Of features (n, d) and (m, d): the mean of `mmd2` over disjoint random subsets.

    Each side is cut into as many subsets, ten or more, of some 1,000 images of the larger side at
    most, so that every image counts once. (Bińkowski et al. 2018, "Demystifying MMD GANs", draw
    100 that overlap. The mean is the same on average, as mmd2 is unbiased at any size; the spread
    of subsets that overlap is no standard error.) Raises ValueError for fewer than 20 images.
    """
    fewest = min(len(pool), len(real))
    if fewest < 2 * GROUPS:
        raise ValueError(f"kid needs {2 * GROUPS} images of each side, there are {fewest}")
    number = min(max(GROUPS, max(len(pool), len(real)) // SUBSET), fewest // 2)
    cut = zip(groups(len(pool), number, 0), groups(len(real), number, 1))
    parts = np.array([mmd2(pool[a], real[b], device) for a, b in cut])
    return of_subsets(float(parts.mean()), parts)


def mmd2(one: np.ndarray, other: np.ndarray, device: str | torch.device = "cpu") -> float:
    """The unbiased squared maximum mean discrepancy (Gretton et al. 2012, Eq. 3) of (n, d) and
    (m, d), with KID's kernel (x·y / d + 1)³. May be below 0.
    """
    n, m = len(one), len(other)
    x, y = on(one, device), on(other, device)
    within = sum(
        (_sum(each, each) - float(_kernel((each * each).sum(dim=1), each.shape[1]).sum()))
        / (len(each) * (len(each) - 1))
        for each in (x, y)
    )
    return float(within - 2 * _sum(x, y) / (n * m))


def _sum(x: torch.Tensor, y: torch.Tensor) -> float:
    rows = (x[part] for part in slices(len(x), _ROWS))
    return sum(float(_kernel(part @ y.T, x.shape[1]).sum()) for part in rows)


def _kernel(products: torch.Tensor, d: int) -> torch.Tensor:
    return (products / d + 1) ** 3
