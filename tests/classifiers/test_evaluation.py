"""Evaluation against numbers worked out by hand."""

import math

import numpy as np
import pytest
from torch import nn

from equigrid.classifiers import evaluation
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


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_for_imbalanced_classes_are_scikit_learns(classes):
    from sklearn import metrics

    rng = np.random.default_rng(0)
    share = np.array([0.9, 0.1]) if classes == 2 else np.array([0.55, 0.2, 0.15, 0.07, 0.03])
    labels = rng.choice(classes, 400, p=share)
    logits = rng.integers(0, 30, (400, classes))
    logits[np.arange(400), labels] += rng.integers(0, 12, 400)
    out = evaluate(
        PixelsAsLogits(), images(logits), labels, classes=classes, device="cpu", batch=64
    )
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    p, predicted = shifted / shifted.sum(1, keepdims=True), logits.argmax(1)
    score = p[:, 1] if classes == 2 else p
    auc = metrics.roc_auc_score(labels, score, multi_class="ovr", average="macro")
    assert out.auc == pytest.approx(100 * auc, abs=1e-3)
    balanced = metrics.balanced_accuracy_score(labels, predicted)
    assert out.balanced_accuracy == pytest.approx(100 * balanced)
    assert out.macro_f1 == pytest.approx(100 * metrics.f1_score(labels, predicted, average="macro"))
    recalls = metrics.recall_score(labels, predicted, average=None)
    if classes == 2:
        assert (out.specificity, out.sensitivity) == pytest.approx(tuple(100 * recalls))
    else:
        assert math.isnan(out.sensitivity) and math.isnan(out.specificity)


def test_auc_tells_apart_what_rounds_to_certainty():
    """Probabilities of 1 - e^-60 and 1 - e^-80 are both 1 in any float; their order still counts."""
    logits = images([[80, 0], [60, 0], [0, 80], [70, 0]])
    out = evaluate(PixelsAsLogits(), logits, np.array([0, 1, 1, 0]), classes=2, device="cpu")
    assert out.auc == 100.0


def test_auc_of_a_constant_classifier_is_half_and_of_one_class_is_none():
    out = evaluate(
        PixelsAsLogits(), images([[3] * 4] * 8), np.arange(8) % 4, classes=4, device="cpu"
    )
    assert out.auc == 50.0
    assert (out.balanced_accuracy, out.macro_f1) == (25.0, 10.0)  # all called 0: F1 2 * 2 / (2 + 8)
    out = evaluate(
        PixelsAsLogits(), images([[3, 1]] * 2), np.zeros(2, int), classes=2, device="cpu"
    )
    assert math.isnan(out.auc)


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


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [2.0, 1.0, 2.0, 2.0, -1.0], [1.0, np.nan], []])
def test_ranks_are_scipys(values):
    from scipy.stats import rankdata

    values = np.array(values, np.float32)
    assert np.array_equal(evaluation._mean_ranks(values), rankdata(values), equal_nan=True)


def test_ranks_of_many_values_with_ties_are_scipys():
    from scipy.stats import rankdata

    values = np.random.default_rng(0).integers(0, 50, 2_000) / 50
    assert np.array_equal(evaluation._mean_ranks(values), rankdata(values))
