"""Trainings with everything that augments: repeated, resumed, together, streamed, recorded."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from equigrid.classifiers.compute import Speed
from equigrid.classifiers.data import augment, operations, rng
from equigrid.classifiers.data.stream import StreamedMix
from equigrid.classifiers.recipes import AUGMENTATIONS, Augmentation, augmented, recipe, resolve
from equigrid.classifiers.training import loop
from equigrid.classifiers.training.cuda_graphs import GraphedSteps
from equigrid.classifiers.training.loop import train, train_together
from equigrid.classifiers.training.step import Steps

ALL = {
    "crop_padding_px": 1, "rand_augment": {"num_ops": 2, "magnitude": 9}, "erasing": 0.3,
    "mixup": 0.4, "cutmix": 1.0,
}  # fmt: skip
OPTIONS = {"model": "digits-cnn", "classes": 10, "device": "cpu"}


def resolved(n: int, augmentation=None, **changes):
    mapping = {"extends": "digits", "steps": 25, "augmentation": augmentation or ALL, **changes}
    return resolve(recipe(mapping), n_base=n, n_total=n, n_dataset=1_797, classifier="digits-cnn")


def weights(trained) -> list[torch.Tensor]:
    return [value.clone() for value in trained.module.state_dict().values()]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


@pytest.mark.parametrize("changes", [{}, {"class_weights": "balanced", "label_smoothing": 0.1}])
def test_resumed_equals_uninterrupted_bitwise(digits, changes):
    images, labels = (part[:70] for part in digits)
    states = {}
    own = resolved(70, **changes)
    keep = lambda step, make: states.update({step: make()} if step in (1, 3, 11) else {})  # noqa: E731
    whole = train(images, labels, recipe=own, seed=0, checkpoint=keep, **OPTIONS)
    assert same(whole, train(images, labels, recipe=own, seed=0, **OPTIONS))
    for state in states.values():
        assert same(whole, train(images, labels, recipe=own, seed=0, resume=state, **OPTIONS))
    assert not same(whole, train(images, labels, recipe=own, seed=1, **OPTIONS))


def test_seeds_trained_together_are_each_as_alone(digits):
    images, labels = (part[:70] for part in digits)
    own = resolved(70)
    both = train_together(images, labels, recipe=own, seeds=[0, 7], **OPTIONS)
    for trained, seed in zip(both, (0, 7)):
        assert same(trained, train(images, labels, recipe=own, seed=seed, **OPTIONS))


def test_streamed_images_train_as_resident_ones_bitwise(digits):
    images, labels = (part[:70] for part in digits)
    given = {"normalisation": {"mean": [0.3], "std": [0.4]}}
    own = resolved(70, **given)
    fetch = [lambda a=a: (images[a : a + 35], labels[a : a + 35]) for a in (0, 35)]
    mix = StreamedMix([(one, np.arange(35)) for one in fetch], (8, 8, 1))
    streamed = train(mix, recipe=own, seed=0, **OPTIONS)
    assert same(streamed, train(images, labels, recipe=own, seed=0, **OPTIONS))


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_each_preset_changes_a_training_and_leaves_it_finite(digits, name):
    images, labels = (part[:40] for part in digits)
    plain = resolved(40, {"crop_padding_px": 0}, steps=4)
    own = plain.model_copy(update={"augmentation": augmented(plain.augmentation, name)})
    trained = train(images, labels, recipe=own, seed=0, **OPTIONS)
    assert all(value.isfinite().all() for value in weights(trained))
    assert same(trained, train(images, labels, recipe=plain, seed=0, **OPTIONS)) == (name == "own")


def test_images_that_do_not_suit_are_refused_before_a_step():
    images = np.zeros((40, 8, 8, 2), np.uint8)
    with pytest.raises(ValueError, match="rand_augment is of grey or RGB images"):
        train(images, np.arange(40) % 10, recipe=resolved(40), seed=0, **OPTIONS)


class Recorded:
    """A graph on the host: `work` runs at each replay, on the tensors that it was recorded with."""

    def __init__(self, work, members):
        self.work, self.losses = work, [torch.zeros(()) for _ in members]

    def replay(self):
        for place, loss in zip(self.losses, self.work()):
            place.copy_(loss)


class OnHost(GraphedSteps):
    """GraphedSteps without a device."""

    def __init__(self, members):
        Steps.__init__(self, members)
        self.batch, self.lr = members[0].recipe.batch, self._rates(dtype=torch.float64)
        self.recorded, self.ordinary = {}, Counter()

    def _branches(self, batches):
        return [member(batch, 0) for member, batch in zip(self.members, batches)]

    def _record(self, work):
        graph = Recorded(work, self.members)
        return graph, graph.losses


def test_recorded_steps_read_each_steps_draws(digits, monkeypatch):
    """Parts, boxes, operations and partners come from the draws that a replay is given."""
    images, labels = (part[:70] for part in digits)
    own = resolved(70, steps=60)
    ordinary = train(images, labels, recipe=own, seed=0, **OPTIONS)
    monkeypatch.setattr(loop, "GraphedSteps", OnHost)
    monkeypatch.setattr(Speed, "use_graphs", lambda *_: True)
    assert same(train(images, labels, recipe=own, seed=0, **OPTIONS), ordinary)


class NoWaiting(TorchDispatchMode):
    """What a CUDA graph cannot record: shapes that depend on values, and values read back."""

    REFUSED = ("aten.nonzero", "aten._local_scalar_dense", "aten.masked_select", "aten.item")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        assert not name.startswith(self.REFUSED), name
        indexed = name.startswith("aten.index.Tensor")
        assert not (indexed and any(i is not None and i.dtype == torch.bool for i in args[1])), name
        return function(*args, **(kwargs or {}))


def test_nothing_on_a_gpu_waits_for_the_device(digits, monkeypatch):
    def all_of_them(concerned, change, images, ops, magnitudes):
        mask = operations._per_image(concerned)
        return torch.where(mask, change(images, ops, magnitudes), images)

    monkeypatch.setattr(operations, "_where", all_of_them)
    own = Augmentation(**ALL)
    images = augment.pad(torch.from_numpy(digits[0][:70]), own)
    draws = torch.from_numpy(rng.epoch(0, 0, 70, 8, 8, own, 32)[:33])
    with NoWaiting():
        made = augment.batch(images, draws, own)
    assert torch.equal(made, augment.batch(images, draws, own))
