"""Whether a pool lies nearer to the images that its generator learned from than other real images
do: what real images that it never saw would be expected to show, a copy exceeds.

What it cannot tell: a sample that is near may be a common motif; few held-out images tell little;
near copies among the real images themselves make copying look natural; and a feature space that
does not see a difference, or sees one that people do not, moves everything.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata

from equigrid.generators.quality.banks import Seen, unseen
from equigrid.generators.quality.distances import nearest_squares
from equigrid.generators.quality.intervals import LEVEL, Value

LEAST_OF_CELL = 10
"""Samples, and held-out images, of a class for which it counts as a cell."""
LEAST_HELD_OUT = 100
"""Held-out images whose nearest hundredth is known."""
NEAREST_PART = 0.01
_RESAMPLES = 1000
_SAME = 1e-10
"""Squared distances below this part of an image's squared length are of equal images, whose
features differ by what a network's batches bring: float32 keeps 1e-7 of a length.
"""


class Copying(NamedTuple):
    """nearer: the part of pairs of a sample and a held-out real image in which the sample is nearer
    to its nearest training image; 0.5 where nothing is copied, 1 for copies. z: Meehan's C_T, below
    0 for copies, normal where nothing is copied. near: the part of samples nearer to a training
    image than all but the nearest hundredth of the held-out images; None with fewer than 100 of
    them. n_held_out: those compared with.
    """

    nearer: Value
    z: float
    near: Value | None
    n_held_out: int


def copying(
    pool: tuple[np.ndarray, np.ndarray],
    learned: np.ndarray,
    held_out: tuple[np.ndarray, np.ndarray],
    device: str = "cpu",
    seen: Seen = unseen,
) -> Copying:
    """The three-sample test of Meehan, Chaudhuri & Dasgupta 2020 ("A non-parametric test to detect
    data-copying"), with classes as the cells of its partition.

    pool, held_out: features (n, d) and labels (n,).  learned: features (m, d) of the images that
    the generator learned from.  Held-out images that are equal to one of these are left out.
    Intervals: of `nearer` by DeLong et al. 1988, over samples and held-out images; of `near` a
    bootstrap over both. The training images are taken as given. seen: told of the samples and the
    held-out images. Raises ValueError for too few images.
    """
    own, unlike = (_to(side, learned, device, seen) for side in (pool[0], held_out[0]))
    kept = unlike**2 > _SAME * np.square(held_out[0].astype(np.float64)).sum(axis=1)
    unlike, labels = unlike[kept], held_out[1][kept]
    if min(len(own), len(unlike)) < LEAST_OF_CELL:
        have = f"{len(own)} samples and {len(unlike)} held-out images that are no copies"
        raise ValueError(f"copying needs {LEAST_OF_CELL} of each, there are {have}")
    cells = _cells(own, pool[1], unlike, labels)
    weights = np.array([len(theirs) for _, theirs in cells], np.float64)
    weights /= weights.sum()
    found = [_nearer(*cell) for cell in cells]
    nearer = min(1.0, sum(w * share for w, (share, _) in zip(weights, found)))
    variance = sum(w**2 * own_variance for w, (_, own_variance) in zip(weights, found))
    half = float(norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance))
    value = Value(
        float(nearer), float(nearer - half), float(nearer + half), float(np.sqrt(variance))
    )
    z = float(sum(w * _z(*cell) for w, cell in zip(weights, cells)))
    return Copying(value.clipped(0, 1), z, _near(own, unlike), len(unlike))


def _to(features: np.ndarray, learned: np.ndarray, device: str, seen: Seen) -> np.ndarray:
    return np.sqrt(nearest_squares(features, learned, 1, device, seen)[:, 0].cpu().numpy())


Cell = tuple[np.ndarray, np.ndarray]
"""Distances of its samples, and of its held-out images, to their nearest training image."""


def _cells(
    own: np.ndarray, own_labels: np.ndarray, unlike: np.ndarray, labels: np.ndarray
) -> list[Cell]:
    """The classes that have enough of both; all images as one cell where no class has."""
    cells = [(own[own_labels == label], unlike[labels == label]) for label in np.unique(labels)]
    enough = [cell for cell in cells if min(map(len, cell)) >= LEAST_OF_CELL]
    return enough or [(own, unlike)]


def _nearer(own: np.ndarray, unlike: np.ndarray) -> tuple[float, float]:
    """The part of pairs in which the sample is nearer, a tie as half; and its variance (DeLong)."""
    ranks = rankdata(np.concatenate([own, unlike]))
    below = (ranks[: len(own)] - rankdata(own)) / len(unlike)  # held-out images that are nearer
    above = (ranks[len(own) :] - rankdata(unlike)) / len(own)  # samples that are nearer
    variance = below.var(ddof=1) / len(own) + above.var(ddof=1) / len(unlike)
    return float(above.mean()), float(variance)


def _z(own: np.ndarray, unlike: np.ndarray) -> float:
    """Meehan et al. 2020, Section 3: Mann and Whitney's U of the samples being farther,
    standardised; ties are corrected for.
    """
    n, m = len(own), len(unlike)
    every = np.concatenate([own, unlike])
    u = (1 - _nearer(own, unlike)[0]) * n * m
    counts = np.unique(every, return_counts=True)[1].astype(np.float64)
    ties = (counts**3 - counts).sum() / ((n + m) * (n + m - 1))
    deviation = np.sqrt(n * m / 12 * (n + m + 1 - ties))
    return float((u - n * m / 2) / deviation) if deviation else 0.0


def _near(own: np.ndarray, unlike: np.ndarray) -> Value | None:
    """With a bootstrap over both, 1,000 times, no narrower than Wilson's interval of samples."""
    if len(unlike) < LEAST_HELD_OUT:
        return None
    rng = np.random.default_rng([len(own), len(unlike)])
    drawn = [
        _below(own[rng.integers(len(own), size=len(own))],
               unlike[rng.integers(len(unlike), size=len(unlike))])
        for _ in range(_RESAMPLES)
    ]  # fmt: skip
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    share = _below(own, unlike)
    least, most = _wilson(share, len(own))
    return Value(share, min(float(low), least), max(float(high), most), float(np.std(drawn)))


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a share of n: a bootstrap of none at all would have no width."""
    z = float(norm.ppf((1 + LEVEL) / 2))
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    scale = 1 + z**2 / n
    return float(max(0.0, (middle - half) / scale)), float(min(1.0, (middle + half) / scale))


def _below(own: np.ndarray, unlike: np.ndarray) -> float:
    return float((own < np.quantile(unlike, NEAREST_PART)).mean())
