"""Nearest training images of samples: how one sees whether a generator has learnt its training set
by heart.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MEMORISED_RATIO = 1 / 3
"""A sample is called memorised whose nearest training image is three times nearer than the
second nearest (Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to
memorize").
"""

_LARGEST_SIDE = 64


@dataclass(frozen=True)
class Neighbours:
    """For each of n samples, its nearest training image, and the nearest that differs from that."""

    indices: np.ndarray
    """(n, 2) int64, positions in the training set."""
    distances: np.ndarray
    """(n, 2) float64, Euclidean, divided by the root of the number of values: root mean squares per
    value.
    """

    @property
    def memorised(self) -> float:
        """Part of the samples that are memorised, in [0, 1]."""
        return float((self.distances[:, 0] < MEMORISED_RATIO * self.distances[:, 1]).mean())


def nearest(samples: np.ndarray, training: Iterable[np.ndarray]) -> Neighbours:
    """The two nearest of the training vectors that differ, which come in parts: a vector that is
    there twice counts once, else copies of it would seem no nearer to it than to another.

    samples: (n, ...), training: parts of (m, ...) of the same shape: images (H, W, C), or features
    (d,).  Images of more than 64 pixels a side are compared after averaging squares of pixels,
    which no memorised image escapes. Raises ValueError for fewer than two different training
    vectors.
    """
    points = _flat(samples)
    best = np.full((len(points), 2), np.inf)
    where = np.full((len(points), 2), -1, np.int64)
    seen = 0
    different: set[bytes] = set()
    for part in training:
        every = _flat(part)
        fresh = _first_occurrences(every, different)
        others, numbers = every[fresh], seen + fresh
        # (n, m)
        squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * points @ others.T
        candidates = np.concatenate([best, squares], axis=1)
        numbers = np.concatenate([where, np.broadcast_to(numbers, squares.shape)], axis=1)
        order = np.argsort(candidates, axis=1, kind="stable")[:, :2]
        best = np.take_along_axis(candidates, order, 1)
        where = np.take_along_axis(numbers, order, 1)
        seen += len(every)
    if len(different) < 2:
        what = f"got {seen}, {len(different)} of them different"
        raise ValueError(f"nearest neighbours need at least 2 different training images, {what}")
    return Neighbours(where, np.sqrt(best.clip(0) / points.shape[1]))


def _first_occurrences(vectors: np.ndarray, different: set[bytes]) -> np.ndarray:
    """Places of the vectors (m, d) that are not in `different` yet, ascending; they are added."""
    fresh = []
    for i, vector in enumerate(vectors):
        digest = hashlib.blake2b(vector, digest_size=16).digest()
        if digest not in different:
            different.add(digest)
            fresh.append(i)
    return np.array(fresh, np.int64)


def _flat(array: np.ndarray) -> np.ndarray:
    """(n, ...) to (n, d) float64, large images reduced by whole factors."""
    if array.ndim == 4 and (factor := -(-max(array.shape[1:3]) // _LARGEST_SIDE)) > 1:
        n, height, width, channels = array.shape
        height, width = height // factor, width // factor
        array = array[:, : height * factor, : width * factor]
        array = array.reshape(n, height, factor, width, factor, channels).mean(axis=(2, 4))
    return np.asarray(array, np.float64).reshape(len(array), -1)
