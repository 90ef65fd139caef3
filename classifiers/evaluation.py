"""Accuracy of a classifier on a whole labelled set."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from equigrid.classifiers.data.mix import Mix, as_mix, check_labels

TOP_K = 5


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in percent.

    top5 counts the true class among the min(5, classes) largest logits. per_class[c] is the top-1
    accuracy on images of class c, nan where the set has none. confusion is row-major classes ×
    classes, true class by row, predicted class by column. loss is the mean cross-entropy in nats.
    """

    top1: float
    top5: float
    per_class: list[float]
    confusion: list[int]
    loss: float


def evaluate(
    module: nn.Module,
    images: np.ndarray | Mix,
    labels: np.ndarray | None = None,
    *,
    classes: int,
    device: torch.device | str,
    batch: int = 1024,
) -> Evaluation:
    """Classify every image once and compare with its label.

    module: takes (B, C, H, W) uint8 and gives float32 logits (B, classes); its mode is left as
    found. images: (N, H, W, C) uint8 with labels (N,), or a Mix. Of equal logits the lower class
    number counts as the larger one, so a constant classifier scores one class only. Raises
    ValueError for labels outside 0..classes-1 and FloatingPointError for logits that are not
    finite.
    """
    mix = as_mix(images, labels)
    return _evaluate(module, [mix], classes=classes, device=device, batch=batch)


def evaluate_blocks(
    module: nn.Module,
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    classes: int,
    device: torch.device | str,
    batch: int = 1024,
) -> Evaluation:
    """As `evaluate`, from (images, labels) block by block: for a set too large to lie on the device
    at once.
    """
    mixes = (Mix.of(images, labels) for images, labels in blocks)
    return _evaluate(module, mixes, classes=classes, device=device, batch=batch)


@torch.inference_mode()
def _evaluate(
    module: nn.Module, mixes: Iterable[Mix], *, classes: int, device, batch: int
) -> Evaluation:
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    was_training, n = module.training, 0
    module.eval()
    totals = _Totals(classes, device)
    for mix in mixes:
        check_labels(mix.labels(), classes)
        pixels, targets = mix.gather(device)
        for start in range(0, len(pixels), batch):
            rows = slice(start, start + batch)
            totals.add(module(pixels[rows].permute(0, 3, 1, 2)), targets[rows])
        n += len(pixels)
    module.train(was_training)
    return totals.result(n)


class _Totals:
    """Sums on the device, read once at the end."""

    def __init__(self, classes: int, device: torch.device | str):
        self.classes = classes
        self.hits = torch.zeros(2, dtype=torch.int64, device=device)
        self.confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def add(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """logits: (B, classes) float32. targets: (B,) int64."""
        if logits.shape[1] != self.classes:
            raise ValueError(
                f"the module gives {logits.shape[1]} logits, expected {self.classes} classes"
            )
        rank = _rank(logits, targets)
        self.hits += torch.stack([(rank < 1).sum(), (rank < min(TOP_K, self.classes)).sum()])
        cells = targets * self.classes + logits.argmax(1)
        self.confusion.index_add_(0, cells, torch.ones_like(cells))
        self.finite &= logits.isfinite().all()
        self.loss += F.cross_entropy(logits, targets, reduction="sum").double()

    def result(self, n: int) -> Evaluation:
        loss = self.loss.item() / n
        if not self.finite.item():
            raise FloatingPointError(
                f"evaluation: the classifier gives logits that are not finite (loss {loss})"
            )
        top1, top5 = (100 * hits / n for hits in self.hits.tolist())
        confusion = self.confusion.view(self.classes, self.classes).cpu().numpy()
        counts = confusion.sum(1)
        hits = confusion.diagonal()
        per_class = [
            100 * int(hit) / int(count) if count else math.nan for hit, count in zip(hits, counts)
        ]
        return Evaluation(top1, top5, per_class, confusion.ravel().tolist(), loss)


def _rank(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(B,) number of classes that come before the true one: larger logits, and equal ones of lower
    number.
    """
    own = logits.gather(1, targets[:, None])  # (B, 1)
    lower = torch.arange(logits.shape[1], device=logits.device) < targets[:, None]  # (B, classes)
    return ((logits > own) | ((logits == own) & lower)).sum(1)
