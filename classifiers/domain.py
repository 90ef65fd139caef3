"""Can a classifier tell synthetic from real images? (the paper's Section 3, Appendix F and Fig. 12)"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from classifiers import draws
from classifiers.data import Mix
from classifiers.evaluation import evaluate
from classifiers.recipes import ResolvedRecipe
from classifiers.speed import Speed
from classifiers.training import train

REAL, SYNTHETIC = 0, 1
# Two-sided 95% of a normal distribution.
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class DomainGap:
    """Held-out accuracy of a classifier of real against synthetic images, in percent; 50 is no visible gap.

    low, high: the accuracy's 95% interval (Wilson), over held-out images, for this one training. real,
    synthetic: the accuracy on each side. per_class: on both sides of each original class, nan where there is
    none. n_train, n_test: images on both sides together.
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
    module: nn.Module = field(repr=False, compare=False)


def domain_gap(
    real: Mix,
    synthetic: Mix,
    *,
    classes: int,
    model: str,
    recipe: ResolvedRecipe,
    seed: int,
    device: torch.device | str,
    held_out: float = 0.2,
    patch_px: int | None = None,
    speed: Speed = Speed(),  # noqa: B008 - frozen
) -> DomainGap:
    """Train a domain classifier on most of the images and test it on the rest.

    real, synthetic: as many images on each side, of one size, with their original labels 0..classes-1.
    held_out: the part of each side that is tested on. patch_px: classify one random square of this side per
    image instead of the whole image. Raises ValueError for sides that differ and for splits that are empty.
    """
    _check(real, synthetic, held_out, patch_px)
    n, n_test = real.n_total, round(held_out * real.n_total)
    order = draws.generator(seed, "order").permutation(n)
    sides = [_side(mix, domain, seed, patch_px) for domain, mix in ((REAL, real), (SYNTHETIC, synthetic))]
    train_mix = Mix([(images, domains, order[n_test:]) for images, domains, _ in sides])
    trained = train(train_mix, model=model, recipe=recipe, classes=2, seed=seed, device=device, speed=speed)
    labels = np.concatenate([labels[order[:n_test]] for _, _, labels in sides])
    test_mix = Mix([(images, domains, order[:n_test]) for images, domains, _ in sides])
    found = evaluate(trained.module, test_mix, classes=2, device=device)
    hits = round(found.top1 / 100 * 2 * n_test)
    low, high = wilson(hits, 2 * n_test)
    return DomainGap(
        accuracy=found.top1, low=low, high=high, real=found.per_class[REAL], synthetic=found.per_class[SYNTHETIC],
        per_class=_per_class(trained.module, test_mix, labels, classes, device),
        n_train=train_mix.n_total, n_test=2 * n_test, patch_px=patch_px, module=trained.module,
    )  # fmt: skip


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% interval in percent of a proportion of hits among n (Wilson 1927), inside 0..100 for any hits."""
    share, z2 = hits / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def _check(real: Mix, synthetic: Mix, held_out: float, patch_px: int | None) -> None:
    if real.n_total != synthetic.n_total or real.image_shape != synthetic.image_shape:
        raise ValueError(
            f"both sides need as many images of one size, got {real.n_total} of {real.image_shape} and "
            f"{synthetic.n_total} of {synthetic.image_shape}"
        )
    if not 0 < round(held_out * real.n_total) < real.n_total:
        raise ValueError(f"held_out must leave images on both sides of the split, got {held_out} of {real.n_total}")
    if patch_px is not None and not 1 <= patch_px <= min(real.image_shape[:2]):
        raise ValueError(f"patch_px must be 1..{min(real.image_shape[:2])}, got {patch_px}")


def _side(mix: Mix, domain: int, seed: int, patch_px: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images or patches, domain of each, original label of each)."""
    images, labels = (tensor.numpy() for tensor in mix.gather("cpu"))
    if patch_px:
        images = _patches(images, patch_px, draws.generator(seed, "augmentation", domain))
    return images, np.full(len(images), domain, np.int64), labels


def _patches(images: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """(N, side, side, C): a square at a uniform place in each image."""
    n, height, width, _ = images.shape
    rows = rng.integers(0, height - side + 1, n)[:, None] + np.arange(side)
    columns = rng.integers(0, width - side + 1, n)[:, None] + np.arange(side)
    return images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _per_class(module: nn.Module, mix: Mix, labels: np.ndarray, classes: int, device) -> list[float]:
    images, domains = (tensor.numpy() for tensor in mix.gather("cpu"))

    def accuracy(chosen: np.ndarray) -> float:
        if not chosen.any():
            return math.nan
        return evaluate(module, images[chosen], domains[chosen], classes=2, device=device).top1

    return [accuracy(labels == number) for number in range(classes)]
