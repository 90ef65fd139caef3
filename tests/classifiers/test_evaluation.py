"""Evaluation against numbers worked out by hand."""

import math

import numpy as np
import pytest
from torch import nn

from equigrid.classifiers.data.mix import Mix
from equigrid.classifiers.evaluation import evaluate


class PixelsAsLogits(nn.Module):
    """Image (N, C, 1, W) to its first row as logits."""

    def __init__(self, add: float = 0.0):
        super().__init__()
        self.add = add

    def forward(self, x):
        return x[:, 0, 0].float() + self.add


def images(rows):
    return np.array(rows, np.uint8)[:, None, :, None]


def test_by_hand_with_six_classes():
    logits = images(
        [[9, 0, 0, 0, 0, 0], [9, 8, 7, 6, 5, 4], [0, 0, 0, 0, 0, 9], [1, 2, 3, 4, 5, 0]]
    )
    labels = np.array([0, 5, 5, 4])
    out = evaluate(PixelsAsLogits(), logits, labels, classes=6, device="cpu", batch=3)
    assert (out.top1, out.top5) == (75.0, 75.0)  # image 1's true class is the sixth of six
    assert out.per_class[0] == 100.0
    assert out.per_class[5] == 50.0
    assert math.isnan(out.per_class[1])
    confusion = np.array(out.confusion).reshape(6, 6)
    assert confusion.sum() == 4
    assert confusion[5, 0] == 1  # true 5, predicted 0
    assert confusion[5, 5] == confusion[0, 0] == confusion[4, 4] == 1

    def nats(row, label):
        return math.log(sum(math.exp(v) for v in row)) - row[label]

    rows = [[9, 0, 0, 0, 0, 0], [9, 8, 7, 6, 5, 4], [0, 0, 0, 0, 0, 9], [1, 2, 3, 4, 5, 0]]
    assert out.loss == pytest.approx(sum(nats(r, c) for r, c in zip(rows, labels)) / 4, rel=1e-6)


def test_top5_of_few_classes_is_everything():
    out = evaluate(
        PixelsAsLogits(), images([[5, 0, 0], [5, 0, 0]]), np.array([2, 1]), classes=3, device="cpu"
    )
    assert (out.top1, out.top5) == (0.0, 100.0)


def test_a_constant_classifier_scores_one_class_only():
    labels = np.arange(8) % 8
    out = evaluate(PixelsAsLogits(), images([[3] * 8] * 8), labels, classes=8, device="cpu")
    assert out.top1 == pytest.approx(100 / 8)
    assert out.top5 == pytest.approx(500 / 8)
    assert np.array(out.confusion).reshape(8, 8)[:, 0].tolist() == [1] * 8


def test_batch_and_form_of_the_images_change_nothing():
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (50, 1, 7, 1), np.uint8), rng.integers(0, 7, 50)
    whole = evaluate(PixelsAsLogits(), pixels, labels, classes=7, device="cpu")
    mix = Mix([(pixels, labels, np.arange(20)), (pixels[20:], labels[20:], np.arange(30))])
    parts = evaluate(PixelsAsLogits(), mix, classes=7, device="cpu", batch=9)
    assert (parts.top1, parts.top5, parts.confusion) == (whole.top1, whole.top5, whole.confusion)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)


def test_mode_is_left_as_found_and_evaluation_uses_eval_mode():
    class Mode(nn.Module):
        def forward(self, x):
            assert not self.training
            return x[:, 0, 0].float()

    module = Mode().train()
    evaluate(module, images([[1, 0]]), np.array([0]), classes=2, device="cpu")
    assert module.training


@pytest.mark.parametrize("add", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_an_error_not_an_accuracy(add):
    with pytest.raises(FloatingPointError, match="not finite"):
        evaluate(PixelsAsLogits(add), images([[1, 0]]), np.array([0]), classes=2, device="cpu")


def test_bad_labels_and_logits_are_named():
    with pytest.raises(ValueError, match=r"labels must be 0\.\.1"):
        evaluate(PixelsAsLogits(), images([[1, 0]]), np.array([2]), classes=2, device="cpu")
    with pytest.raises(ValueError, match="gives 2 logits"):
        evaluate(PixelsAsLogits(), images([[1, 0]]), np.array([0]), classes=3, device="cpu")
    with pytest.raises(ValueError, match="batch"):
        evaluate(
            PixelsAsLogits(), images([[1, 0]]), np.array([0]), classes=2, device="cpu", batch=0
        )


def test_results_are_plain_numbers():
    out = evaluate(PixelsAsLogits(), images([[1, 0]]), np.array([0]), classes=2, device="cpu")
    assert type(out.top1) is float
    assert type(out.loss) is float
    assert all(type(cell) is int for cell in out.confusion)
    assert all(type(value) is float for value in out.per_class)
