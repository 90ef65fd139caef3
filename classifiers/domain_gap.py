"""Can a classifier tell synthetic from real images? (the paper's Section 3, Appendix F and Fig.
12)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from equigrid.classifiers.compute import Speed
from equigrid.classifiers.data import rng
from equigrid.classifiers.data.mix import Mix, check_labels, from_numpy
from equigrid.classifiers.data.stream import Fetch, StreamedMix
from equigrid.classifiers.models.network import Classifier
from equigrid.classifiers.models.pretraining import Start
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.classifiers.training.loop import Checkpoint, State, ignore, train

REAL, SYNTHETIC = 0, 1
# Two-sided 95% of a normal distribution.
_Z95 = 1.959963984540054
_TESTED_AT_ONCE = 1024

Part = tuple[Fetch, np.ndarray]


def _untold(share: float) -> None:
    """Where nobody wants to know how far the test is."""


@dataclass(frozen=True)
class DomainGap:
    """Held-out accuracy of a classifier of real against synthetic images, in percent; 50 is no
    visible gap.

    low, high: the accuracy's 95% interval (Wilson), over held-out images, for this one training.
    real, synthetic: the accuracy on each side. per_class: on both sides of each original class, nan
    where there is none. n_train, n_test: images on both sides together. tested: (n_test / 2,)
    int64, ascending, the numbers (places among its side's rows) of the images that were held out,
    the same on both sides.
    """

    accuracy: float
    low: float
    high: float
    real: float
    synthetic: float
    per_class: list[float]
    n_train: int
    n_test: int
    patch_px: int | None
    tested: np.ndarray = field(repr=False, compare=False)
    module: Classifier = field(repr=False, compare=False)


def domain_gap(
    real: Sequence[Part],
    synthetic: Sequence[Part],
    image_shape: tuple[int, int, int],
    *,
    classes: int,
    model: str,
    recipe: ResolvedRecipe,
    seed: int,
    device: torch.device | str,
    held_out: float = 0.2,
    patch_px: int | None = None,
    window: int | None = None,
    resume: State | None = None,
    checkpoint: Checkpoint = ignore,
    speed: Speed = Speed(),  # noqa: B008 - frozen
    start: Start | None = None,
    tested_share: Callable[[float], object] = _untold,
) -> DomainGap:
    """Train a domain classifier on most of the images and test it on the rest.

    real, synthetic: (fetch, rows) per shard, as many images on each side. fetch() returns the
    shard's images (M, *image_shape) uint8 and original labels (M,) int64 in 0..classes-1, and is
    called each time that the shard is needed; of the shard, rows (K,) int64 alone are kept.
    held_out: the part of each side that is tested on. patch_px: classify one random square of this
    side per image instead of the whole image. window: shards at hand at once in training, as in
    `StreamedMix`; None: all that is trained on lies on the device. resume, checkpoint, start: as in
    `equigrid.classifiers.training.loop.train`. tested_share: takes the share of the test that is
    done, shard by shard.

    Raises ValueError for sides that differ, for splits that are empty, and for shards of another
    size.
    """
    n = _checked(real, synthetic, image_shape, held_out, patch_px)
    sides = [
        _Side(*side, image_shape, patch_px, seed) for side in ((REAL, real), (SYNTHETIC, synthetic))
    ]
    order, n_test = rng.generator(seed, "order").permutation(n), round(held_out * n)
    learnt, tested = np.sort(order[n_test:]), np.sort(order[:n_test])
    module = train(
        _training_mix(sides, learnt, window), model=model, recipe=recipe, classes=2, seed=seed,
        device=device, resume=resume, checkpoint=checkpoint, speed=speed,
        start=start,
    ).module  # fmt: skip
    hits, counts = _tally(module, sides, tested, classes, device, tested_share)
    low, high = wilson(int(hits.sum()), 2 * n_test)
    return DomainGap(
        accuracy=_percent(hits.sum(), 2 * n_test), low=low, high=high,
        real=_percent(hits[REAL].sum(), n_test), synthetic=_percent(hits[SYNTHETIC].sum(), n_test),
        per_class=[_percent(*pair) for pair in zip(hits.sum(0), counts.sum(0))],
        n_train=2 * len(learnt), n_test=2 * n_test, patch_px=patch_px, tested=tested, module=module,
    )  # fmt: skip


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% interval in percent of a proportion of hits among n (Wilson 1927), inside 0..100 for any
    hits.
    """
    share, z2 = hits / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def _percent(hits: np.integer, n: int) -> float:
    return 100 * int(hits) / int(n) if n else math.nan


def _checked(
    real: Sequence[Part],
    synthetic: Sequence[Part],
    image_shape: tuple[int, int, int],
    held_out: float,
    patch_px: int | None,
) -> int:
    """The number of images on each side."""
    n, n_synthetic = (sum(len(rows) for _, rows in side) for side in (real, synthetic))
    if n != n_synthetic:
        raise ValueError(
            f"both sides need as many images, got {n} real and {n_synthetic} synthetic ones"
        )
    if not 0 < round(held_out * n) < n:
        raise ValueError(
            f"held_out must leave images on both sides of the split, got {held_out} of {n}"
        )
    if patch_px is not None and not 1 <= patch_px <= min(image_shape[:2]):
        raise ValueError(f"patch_px must be 1..{min(image_shape[:2])}, got {patch_px}")
    return n


class _Side:
    """One side's images by number: its parts' rows one after another. At hand one part at a
    time.
    """

    def __init__(
        self,
        domain: int,
        parts: Sequence[Part],
        image_shape: tuple[int, int, int],
        patch_px: int | None,
        seed: int,
    ):
        height, width, channels = image_shape
        self.domain, self.parts = domain, parts
        self.image_shape, self.patch_px = (height, width, channels), patch_px
        # Of what it gives.
        self.shape = (patch_px, patch_px, channels) if patch_px else self.image_shape
        self.starts = np.cumsum([0, *(len(rows) for _, rows in parts)])
        if patch_px:
            draw = rng.generator(seed, "augmentation", domain)
            self.corners = _corners(int(self.starts[-1]), self.image_shape, patch_px, draw)

    def fetches(self, numbers: np.ndarray) -> Iterator[tuple[Fetch, int]]:
        """(a function that fetches them, how many) of the images of these ascending numbers, part
        by part.
        """
        cuts = np.searchsorted(numbers, self.starts)
        for part, (low, high) in enumerate(zip(cuts[:-1], cuts[1:])):
            if low < high:
                yield partial(self._fetch, part, numbers[low:high]), int(high - low)

    def _fetch(self, part: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images or patches (K, *shape) uint8 and original labels (K,) int64: copies, so that the
        shard may go.
        """
        fetch, rows = self.parts[part]
        images, labels = fetch()
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"all images must be {self.image_shape}, shard {part} has {images.shape[1:]}"
            )
        chosen = rows[numbers - self.starts[part]]
        if self.patch_px:
            return _cut(images, chosen, self.corners[numbers], self.patch_px), labels[chosen]
        return images[chosen], labels[chosen]


def _corners(
    n: int, image_shape: tuple[int, int, int], side: int, draw: np.random.Generator
) -> np.ndarray:
    """(n, 2) int64: row and column of a square at a uniform place in each of n images."""
    return np.stack([draw.integers(0, length - side + 1, n) for length in image_shape[:2]], axis=1)


def _cut(images: np.ndarray, chosen: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
    """(K, side, side, C): of each chosen image (K,) the square at its corner (K, 2)."""
    rows, columns = (corners[:, axis, None] + np.arange(side) for axis in (0, 1))  # (K, side)
    return images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]


def _training_mix(
    sides: Sequence[_Side], numbers: np.ndarray, window: int | None
) -> Mix | StreamedMix:
    """The images of these numbers of both sides, labelled by side: gathered shard by shard, or
    streamed.
    """
    parts = [
        (partial(_labelled, fetch, side.domain), np.arange(n))
        for side in sides
        for fetch, n in side.fetches(numbers)
    ]
    if window is None:
        return Mix([(*fetch(), rows) for fetch, rows in parts])
    return StreamedMix(parts, sides[0].shape, window=window)


def _labelled(fetch: Fetch, domain: int) -> tuple[np.ndarray, np.ndarray]:
    images, _ = fetch()
    return images, np.full(len(images), domain, np.int64)


def _tally(
    module: nn.Module,
    sides: Sequence[_Side],
    numbers: np.ndarray,
    classes: int,
    device: torch.device | str,
    told: Callable[[float], object],
) -> tuple[np.ndarray, np.ndarray]:
    """(hits, images), each (2, classes) int64 by side and original class, among these numbers of
    both sides. told: takes the share that is done.
    """
    hits, counts = np.zeros((2, classes), np.int64), np.zeros((2, classes), np.int64)
    for side in sides:
        for fetch, _ in side.fetches(numbers):
            images, labels = fetch()
            check_labels(labels, classes)
            right = _told(module, images, device) == side.domain
            hits[side.domain] += np.bincount(labels[right], minlength=classes)
            counts[side.domain] += np.bincount(labels, minlength=classes)
            told(int(counts.sum()) / (len(sides) * len(numbers)))
    return hits, counts


@torch.inference_mode()
def _told(module: nn.Module, images: np.ndarray, device: torch.device | str) -> np.ndarray:
    """(K,) int64: the side that the classifier takes each image for."""
    blocks = (
        from_numpy(images[start : start + _TESTED_AT_ONCE])
        for start in range(0, len(images), _TESTED_AT_ONCE)
    )
    logits = torch.cat([module(block.to(device).permute(0, 3, 1, 2)) for block in blocks])
    if not logits.isfinite().all():
        raise FloatingPointError(
            "the domain classifier gives logits that are not finite; lower the recipe's lr"
        )
    return logits.argmax(1).cpu().numpy()
