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

    balanced_accuracy is the mean of per_class over the classes that the set has, macro_f1 that of
    their F1 scores. auc is the area under the ROC curve of each class against the rest, by the
    predicted probability, averaged over the classes that the set has; nan where it has one class
    only. sensitivity and specificity are the accuracies on class 1 and class 0 of a set of two
    classes, else nan. top5 counts the true class among the min(5, classes) largest logits.
    per_class[c] is the top-1 accuracy on images of class c, nan where the set has none. confusion
    is row-major classes × classes, true class by row, predicted class by column. loss is the mean
    cross-entropy in nats.
    """

    top1: float
    top5: float
    balanced_accuracy: float
    macro_f1: float
    auc: float
    sensitivity: float
    specificity: float
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
    module: nn.Module, mixes: Iterable[Mix], *, classes: int, device: torch.device | str, batch: int
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
        self.scores: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []

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
        self.scores.append(_scores(logits))
        self.targets.append(targets)
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
        two = self.classes == 2
        return Evaluation(
            top1=top1,
            top5=top5,
            balanced_accuracy=float(np.nanmean(per_class)),
            macro_f1=100 * _macro_f1(confusion),
            auc=100 * _auc(torch.cat(self.scores).cpu(), torch.cat(self.targets).cpu()),
            sensitivity=per_class[1] if two else math.nan,
            specificity=per_class[0] if two else math.nan,
            per_class=per_class,
            confusion=confusion.ravel().tolist(),
            loss=loss,
        )


def _scores(logits: torch.Tensor) -> torch.Tensor:
    """(B, classes) the logit of each class's probability: in the order of probabilities, but not
    all equal where these round to 1.
    """
    log_p = F.log_softmax(logits.double(), dim=1)
    top = log_p.argmax(1, keepdim=True)
    rest_of_top = log_p.scatter(1, top, -math.inf).logsumexp(1, keepdim=True)
    # Only the largest probability can be so near 1 that what is left of 1 is lost to rounding.
    rest = torch.log1p(-log_p.exp()).scatter(1, top, rest_of_top)
    return log_p - rest


def _macro_f1(confusion: np.ndarray) -> float:
    """Mean F1 over the classes that the set has; a class that is never predicted has 0."""
    hits, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return float(np.mean((2 * hits / np.maximum(true + predicted, 1))[true > 0]))


def _auc(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean over classes of the area under the ROC curve, by ranks (Mann and Whitney); of equal
    scores each counts half.

    scores: (N, classes); targets: (N,).
    """
    areas = []
    for c in range(scores.shape[1]):
        own = (targets == c).numpy()
        n, rest = int(own.sum()), int((~own).sum())
        if n and rest:
            rank = _mean_ranks(scores[:, c].numpy())
            areas.append((rank[own].sum() - n * (n + 1) / 2) / (n * rest))
    return float(np.mean(areas)) if areas else math.nan


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """(N,) float64: each value's place in their order, from 1; equal ones have the mean of theirs.
    All are NaN where one value is.

    As `scipy.stats.rankdata`, whose import takes a slot half a second.
    """
    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return ((last - counts + 1 + last) / 2)[place]


def _rank(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(B,) number of classes that come before the true one: larger logits, and equal ones of lower
    number.
    """
    own = logits.gather(1, targets[:, None])  # (B, 1)
    lower = torch.arange(logits.shape[1], device=logits.device) < targets[:, None]  # (B, classes)
    return ((logits > own) | ((logits == own) & lower)).sum(1)
