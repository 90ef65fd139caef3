"""`class_weights: balanced`: all classes weigh the same in the loss, whatever the mix has of each."""

import numpy as np
import pytest
import torch

from equigrid.classifiers.data.mix import Mix
from equigrid.classifiers.data.stream import StreamedMix
from equigrid.classifiers.evaluation import evaluate
from equigrid.classifiers.recipes import ResolvedRecipe, recipe, resolve
from equigrid.classifiers.training.loop import train
from equigrid.classifiers.training.step import Step


def overlapping(counts: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of grey levels that overlap: which is said where they do is the loss's choice."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    levels = 118 + 20 * labels + draw.normal(0, 20, len(labels))
    noise = draw.normal(0, 8, (len(labels), 8, 8, 1))
    images = np.clip(levels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    return images, labels.astype(np.int64)


def resolved(**changes) -> ResolvedRecipe:
    mapping = {"extends": "digits", "steps": 150, **changes}
    return resolve(recipe(mapping), n_base=200, n_total=200, n_dataset=200, classifier="digits-cnn")


def recalls(how: str) -> list[float]:
    images, labels = overlapping((1800, 200), seed=1)
    trained = train(
        images, labels, model="digits-cnn", recipe=resolved(class_weights=how), classes=2, seed=0,
        device="cpu",
    )  # fmt: skip
    found = evaluate(
        trained.module, Mix.of(*overlapping((300, 300), seed=2)), classes=2, device="cpu"
    )
    return list(found.per_class)


def test_a_rare_class_is_found_as_often_as_a_common_one():
    plain, balanced = recalls("none"), recalls("balanced")
    assert plain[0] - plain[1] > 35, "without weights the common class is said in doubt"
    assert abs(balanced[0] - balanced[1]) < 25
    assert balanced[1] > plain[1] + 20


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_weighted_mean(smoothing):
    """By hand: each image's cross-entropy times n / (k · n_c), over n."""
    logits = torch.randn(6, 3, dtype=torch.float64)
    y = torch.tensor([0, 0, 0, 0, 1, 2])
    weights = torch.tensor([6 / (3 * 4), 6 / 3, 6 / 3], dtype=torch.float64)
    step = Step.__new__(Step)
    step.recipe, step.class_weights = resolved(label_smoothing=smoothing), weights
    target = (1 - smoothing) * torch.nn.functional.one_hot(y, 3) + smoothing / 3
    by_hand = -(target * logits.log_softmax(1)).sum(1) * torch.tensor([0.5] * 4 + [2.0] * 2)
    assert torch.allclose(step._summed(logits, y), by_hand.sum())


def test_weights_are_of_the_mix_and_its_classes():
    """Of three classes one has no image: the others share the weight."""
    from equigrid.classifiers.compute import Speed
    from equigrid.classifiers.data.batches import Resident
    from equigrid.classifiers.training.replica import Replica

    images, labels = overlapping((9, 3), seed=3)
    chosen = resolved(class_weights="balanced")
    (feed,) = Resident.of(Mix.of(images, labels), chosen, [0], torch.device("cpu"))
    member = Replica("digits-cnn", feed, chosen, 3, 0, Speed())
    assert member.step(chosen, 0, 1).class_weights.tolist() == pytest.approx([12 / 18, 2, 0])
    plain = resolved()
    assert Replica("digits-cnn", feed, plain, 3, 0, Speed()).step(plain, 0, 1).class_weights is None


def test_ids_of_trainings_without_weights_are_as_before():
    assert "class_weights" not in resolved().payload()
    assert resolved(class_weights="none").payload() == resolved().payload()
    assert resolved(class_weights="balanced").payload()["class_weights"] == "balanced"


def test_streamed_images_are_refused():
    images, labels = overlapping((9, 3), seed=3)
    mix = StreamedMix([(lambda: (images, labels), np.arange(12))], (8, 8, 1))
    given = resolved(class_weights="balanced", normalisation={"mean": [0.5], "std": [0.5]})
    with pytest.raises(ValueError, match="class_weights balanced"):
        train(mix, model="digits-cnn", recipe=given, classes=2, seed=0, device="cpu")
