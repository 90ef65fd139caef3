"""Near-duplicates: images that are another one, saved again, a little shifted, lighter or darker.

Looked for on request, in two steps. Each image becomes a small grey thumbnail, and that a vector:
the magnitudes of its lowest spatial frequencies, which a shift hardly changes, of unit length, so
that neither brightness nor contrast counts. The nearest in that feature space are candidates. Of
each pair the thumbnails are then compared themselves, shifted against each other: the part of the
variance of one that the other leaves unexplained is the pair's distance. It is called a
near-duplicate if that is small, and far smaller than the distance to images that are merely alike:
among digits or X-rays all are alike. Not found: crops, turned and mirrored images.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 32  # of thumbnails, in pixels, at most
BLOCK = 8  # spatial frequencies per direction, in the feature space
CANDIDATES = 4  # nearest of each image that are looked at
ALIKE = 20  # the nearest of this rank is an image that is merely alike
SMOOTHED = 16  # side of thumbnails from which on they are smoothed
LARGEST = 0.1  # part of the variance left unexplained
LARGEST_TINY = 0.05  # of thumbnails that are smaller, which are all more alike
RATIO = 0.3  # of the distance to what is merely alike
SHIFT = 1 / 8  # of the side
_AT_ONCE = 4096  # pairs


class Pairs(NamedTuple):
    """Pairs of images (n, 2) int64, the lower number first, and their distances (n,): the part of
    the variance that one leaves unexplained of the other, at the best shift. Nearest first.
    """

    numbers: np.ndarray
    distances: np.ndarray


def thumbnail(pixels: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 1 or 3) uint8 as (side, side) uint8, grey (ITU-R 601 luma), its frame stretched to a
    square.
    """
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("L")
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BOX)
    return np.asarray(picture)


def side_of(height: int, width: int) -> int:
    """The side of a set's thumbnails."""
    return min(SIDE, max(height, width))


def find(thumbnails: np.ndarray) -> Pairs:
    """The near-duplicates among (n, s, s) uint8. Images of one colour have no features, and are
    left out.
    """
    none = Pairs(np.empty((0, 2), np.int64), np.empty(0))
    if len(thumbnails) < 2:
        return none
    seen = np.flatnonzero(np.ptp(thumbnails.reshape(len(thumbnails), -1), axis=1) > 0)
    if len(seen) < 2:
        return none
    chosen = _smoothed(thumbnails[seen].astype(np.float32))
    pairs, alike = _candidates(_features(chosen), chosen)
    distances = _distances(chosen, pairs)
    largest = LARGEST if chosen.shape[1] >= SMOOTHED else LARGEST_TINY
    near = (distances < largest) & (distances < RATIO * alike)
    order = np.argsort(distances[near], kind="stable")
    return Pairs(seen[pairs[near][order]], distances[near][order])


def _smoothed(chosen: np.ndarray) -> np.ndarray:
    """Without the finest detail, which is what saving an image again changes: each pixel with a
    part of its neighbours. Of small images all detail counts.
    """
    if chosen.shape[1] < SMOOTHED:
        return chosen
    for axis in (1, 2):
        padded = np.pad(chosen, [(0, 0)] + [(int(a == axis),) * 2 for a in (1, 2)], mode="edge")
        before, here, after = (
            np.take(padded, range(first, first + chosen.shape[axis]), axis) for first in range(3)
        )
        chosen = (before + 2 * here + after) / 4
    return chosen


def _features(chosen: np.ndarray) -> np.ndarray:
    """(n, d) float32 of unit length, of (n, s, s)."""
    centred = chosen - chosen.mean(axis=(1, 2), keepdims=True)
    block = min(BLOCK, chosen.shape[1] // 2)
    spectrum = np.abs(np.fft.rfft2(centred)[:, :, :block])
    low = np.concatenate([spectrum[:, :block], spectrum[:, -block + 1 :]], axis=1)
    flat = np.sqrt(low.reshape(len(chosen), -1))
    return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)


def _candidates(features: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs to compare (m, 2), each once, and of each the distance (m,) of its images to what is
    merely alike: the smaller of the two.
    """
    from sklearn.neighbors import NearestNeighbors

    k = min(ALIKE + 1, len(features))
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(features)
    nearest = search.kneighbors(features, return_distance=False)
    own = np.arange(len(features))
    # A copy may stand before the image itself.
    others = np.array([row[row != i][: k - 1] for i, row in zip(own, nearest)])
    few = others[:, :CANDIDATES]
    pairs = np.stack([np.repeat(own, few.shape[1]), few.ravel()], axis=1)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    last = _distances(chosen, np.stack([own, others[:, -1]], axis=1))
    if k <= ALIKE:  # too few images to know what is merely alike
        last = np.ones(len(own))
    return pairs, last[pairs].min(axis=1)


def _distances(chosen: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Of each pair, 1 - r² at the best shift, r being the correlation of what overlaps: (m,)."""
    most = max(1, round(chosen.shape[1] * SHIFT))
    steps = range(-most, most + 1)
    best = np.ones(len(pairs))
    for first in range(0, len(pairs), _AT_ONCE):
        part = pairs[first : first + _AT_ONCE]
        one, other = chosen[part[:, 0]], chosen[part[:, 1]]
        for down in steps:
            for right in steps:
                left = _unexplained(*_overlapping(one, other, down, right))
                here = best[first : first + len(part)]
                np.minimum(here, left, out=here)
    return best


def _overlapping(
    one: np.ndarray, other: np.ndarray, down: int, right: int
) -> tuple[np.ndarray, np.ndarray]:
    """What of (m, s, s) two stacks shows the same, the one shifted against the other."""
    s = one.shape[1]

    def cut(step: int) -> tuple[slice, slice]:
        return slice(max(0, step), s + min(0, step)), slice(max(0, -step), s + min(0, -step))

    (rows, other_rows), (columns, other_columns) = cut(down), cut(right)
    return one[:, rows, columns], other[:, other_rows, other_columns]


def _unexplained(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    flat, others = (part.reshape(len(part), -1) for part in (one, other))
    flat = flat - flat.mean(axis=1, keepdims=True)
    others = others - others.mean(axis=1, keepdims=True)
    product = np.einsum("ij,ij->i", flat, others)
    sizes = np.einsum("ij,ij->i", flat, flat) * np.einsum("ij,ij->i", others, others)
    return np.where(product > 0, 1 - product**2 / np.maximum(sizes, 1e-9), 1.0)
