"""Mixup, cutmix and erasing: what is drawn, and what becomes of images and labels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2 as tv

from equigrid.classifiers.data import augment, rng
from equigrid.classifiers.data.batches import own_rows
from equigrid.classifiers.recipes import Augmentation, recipe, resolve
from equigrid.classifiers.training.step import Step

ALL = {
    "crop_padding_px": 2, "flip": True, "trivial_augment": True, "erasing": 0.5, "mixup": 0.4,
    "cutmix": 1.0,
}  # fmt: skip


def images_of(n: int, side: int = 12, channels: int = 3) -> torch.Tensor:
    draw = np.random.default_rng(0)
    return torch.from_numpy(draw.integers(0, 256, (n, side, side, channels), np.uint8))


def made(images: torch.Tensor, augmentation: Augmentation, rows: np.ndarray) -> torch.Tensor:
    return augment.batch(augment.pad(images, augmentation), torch.from_numpy(rows), augmentation)


def epoch(n: int, augmentation: Augmentation, batch: int, seed: int = 3, number: int = 0):
    return rng.epoch(seed, number, n, 12, 12, augmentation, batch)


def facts(row: np.ndarray, augmentation: Augmentation) -> tuple[float, tuple[int, ...]]:
    columns = rng.Columns.of(augmentation)
    return float(row[columns.part : columns.part + 1].view(np.float32)[0]), tuple(row[columns.box])


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_images_and_loss_are_torchvisions(how, monkeypatch):
    """With the part and box that were drawn, torchvision's transform gives the same batch, and
    cross-entropy with its soft labels the same loss.
    """
    own = Augmentation(**{how: 0.7})
    images, y = images_of(8), torch.arange(8) % 5
    rows = own_rows(epoch(8, own, 8), 0, 1, own.mixes)
    part, (top, left, tall, wide) = facts(rows[0], own)
    transform = {"mixup": tv.MixUp, "cutmix": tv.CutMix}[how](alpha=0.7, num_classes=5)
    box = (left, top, left + wide, top + tall)
    monkeypatch.setattr(
        transform, "make_params", lambda _: {"lam": part, "lam_adjusted": part, "box": box}
    )
    order = torch.from_numpy(rows[1:, rng.INDEX]).long()
    pixels, labels = transform(images.permute(0, 3, 1, 2).float()[order], y[order])
    ours = made(images, own, rows)
    # Float32 products and sums in another order, of values up to 255.
    torch.testing.assert_close(ours, pixels, rtol=1e-5, atol=1e-4)
    assert 0 < part < 1
    assert (tall * wide > 0) == (how == "cutmix")
    logits = torch.randn(8, 5)
    step = a_step(own)
    theirs = F.cross_entropy(logits, labels, reduction="sum")
    targets = y[torch.from_numpy(rows[:, rng.INDEX]).long()]
    torch.testing.assert_close(step._loss(logits, targets, torch.from_numpy(rows)), theirs)


def a_step(augmentation: Augmentation, weights=None, **changes) -> Step:
    own = recipe({"extends": "digits", **changes})
    resolved = resolve(own, n_base=9, n_total=9, n_dataset=9, classifier="digits-cnn")
    step = Step.__new__(Step)
    step.recipe = resolved.model_copy(update={"augmentation": augmentation})
    step.class_weights = weights
    return step


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_soft_labels_with_smoothing_and_class_weights(smoothing, weighted):
    """By hand: the target is the mixed, smoothed one-hot vector; each of both classes of an image
    counts by its own weight.
    """
    own = Augmentation(mixup=1.0)
    draws = torch.from_numpy(own_rows(epoch(9, own, 9), 0, 1, True))
    part, _ = facts(draws.numpy()[0], own)
    y = torch.randint(0, 4, (10,))
    logits = torch.randn(9, 4)
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0]) if weighted else None
    step = a_step(own, weights, label_smoothing=smoothing)
    factor = torch.ones(4) if weights is None else weights
    hot = (1 - smoothing) * F.one_hot(y, 4) + smoothing / 4
    target = part * factor[y[1:], None] * hot[1:] + (1 - part) * factor[y[:-1], None] * hot[:-1]
    by_hand = -(target * logits.log_softmax(1)).sum()
    torch.testing.assert_close(step._loss(logits, y, draws), by_hand)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.parametrize("n", [20, 3])
def test_how_a_batch_is_shared_out_changes_no_image(n, workers, channels):
    """Bitwise, and also where a worker has no image at all."""
    own, images = Augmentation(**ALL), images_of(20, channels=channels)
    rows = epoch(20, own, 20)[:n]
    whole = made(images, own, own_rows(rows, 0, 1, True))
    parts = [made(images, own, own_rows(rows, rank, workers, True)) for rank in range(workers)]
    assert torch.equal(torch.cat(parts), whole)
    assert len(whole) == n
    as_tensor = own_rows(torch.from_numpy(rows), 1, workers, True)
    assert np.array_equal(as_tensor.numpy(), own_rows(rows, 1, workers, True))


def test_draws_are_of_seed_epoch_and_image_alone():
    own = Augmentation(**ALL)
    first = epoch(50, own, 20)
    assert np.array_equal(first, epoch(50, own, 20))
    for other in (epoch(50, own, 20, seed=4), epoch(50, own, 20, number=1)):
        assert (first[:, 6:] != other[:, 6:]).any(axis=0).all(), "each column is drawn anew"
    # Order, flips and crops are what they were before there was anything else to draw.
    plain = epoch(50, Augmentation(crop_padding_px=2, flip=True), 20)
    assert np.array_equal(first[:, :6], plain)
    without = epoch(50, Augmentation(**{**ALL, "mixup": None, "cutmix": None}), 20)
    assert np.array_equal(first[:, : without.shape[1]], without), "one does not shift the other"


def test_one_part_for_each_batch_and_half_of_them_cut():
    own = Augmentation(mixup=0.2, cutmix=1.0)
    columns = rng.Columns.of(own)
    rows = rng.epoch(0, 0, 20_010, 32, 32, own, 10)
    of_batch = rows[:20_000, columns.part :].reshape(2000, 10, 5)
    assert (of_batch == of_batch[:, :1]).all()
    parts = of_batch[:, 0, 0].copy().view(np.float32)
    cut = of_batch[:, 0, 3] > 0
    assert abs(cut.mean() - 0.5) < 0.05
    # Beta(0.2, 0.2): mean 1/2, variance 1 / (4·1.4); 4 standard errors of some 1,000 batches.
    mixed = parts[~cut]
    assert abs(mixed.mean() - 0.5) < 0.06
    assert abs(mixed.var() - 1 / 5.6) < 0.02
    top, left, tall, wide = of_batch[cut, 0, 1:].T
    assert (top >= 0).all()
    assert (top + tall <= 32).all()
    assert (left + wide <= 32).all()
    np.testing.assert_allclose(parts[cut], 1 - tall * wide / 1024, atol=1e-6)


def test_boxes_are_torchvisions_in_distribution():
    """The part that stays, of 4,000 batches of either."""
    own = Augmentation(cutmix=1.0)
    rows = rng.epoch(0, 0, 4000, 24, 16, own, 1)
    ours = rows[:, rng.Columns.of(own).part].copy().view(np.float32)
    torch.manual_seed(0)
    transform, image = tv.CutMix(alpha=1.0, num_classes=2), torch.zeros(1, 1, 24, 16)
    theirs = np.array([transform.make_params([image])["lam_adjusted"] for _ in range(4000)])
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert abs(np.quantile(ours, share) - np.quantile(theirs, share)) < 0.03


def test_erasing_is_torchvisions_in_distribution_and_one_grey_level():
    own = Augmentation(erasing={"p": 0.6, "value": 9})
    rows = rng.epoch(0, 0, 4000, 24, 16, own)
    boxes = rows[:, rng.Columns.of(own).erased]
    erased = boxes[:, 2] > 0
    transform, image = tv.RandomErasing(), torch.zeros(3, 24, 16)
    found = [transform.make_params([image]) for _ in range(4000)]
    fitted = np.array([one["v"] is not None for one in found])
    assert abs(erased.mean() - 0.6 * fitted.mean()) < 0.03
    theirs = np.array([(one["h"], one["w"], one["i"], one["j"]) for one in found])[fitted]
    ours = boxes[erased][:, [2, 3, 0, 1]]
    for column in range(4):
        assert abs(ours[:, column].mean() - theirs[:, column].mean()) < 0.35
        assert abs(ours[:, column].std() - theirs[:, column].std()) < 0.35
    images = images_of(50)
    small = Augmentation(erasing={"p": 1, "value": 9})
    rows = rng.epoch(0, 0, 50, 12, 12, small)
    out = made(images, small, rows)
    for i, row in enumerate(rows):
        top, left, tall, wide = row[rng.Columns.of(small).erased]
        mine = images[row[rng.INDEX]].permute(2, 0, 1).clone()
        mine[:, top : top + tall, left : left + wide] = 9
        assert torch.equal(out[i], mine)


def test_a_policy_after_a_resized_crop_sees_whole_grey_levels_of_the_new_size():
    own = Augmentation(resized_crop={"size_px": 20}, trivial_augment=True)
    rows = rng.epoch(0, 0, 30, 12, 12, own)
    out = made(images_of(30), own, rows)
    assert out.shape == (30, 3, 20, 20)
    assert out.dtype == torch.uint8
    plain = made(images_of(30), Augmentation(resized_crop={"size_px": 20}), rows[:, :6])
    same = rows[:, 6] == 0  # Identity
    assert same.any()
    assert torch.equal(out[same], plain[same].round().to(torch.uint8))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rand_augment": {}, "trivial_augment": True}, "exclude each other: choose one policy"),
        ({"mixupp": 0.2}, "unknown augmentation 'mixupp'; nearest: mixup"),
        ({"mixup": 0}, "greater than 0"),
        ({"auto_augment": "cifar"}, "'cifar10', 'imagenet' or 'svhn'"),
        ({"rand_augment": {"magnitude": 31}}, "a bin from 0 to 30, got 31"),
        ({"erasing": 1.5}, "less than or equal to 1"),
        ({"erasing": {"scale": [0.5, 0.2]}}, "0 < low <= high <= 1"),
        ({"crop_padding_px": 1, "resized_crop": {}}, "exclude each other: choose one crop"),
    ],
)
def test_bad_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        recipe({"extends": "digits", "augmentation": settings})


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        ({"trivial_augment": True}, (8, 8, 4), "trivial_augment is of grey or RGB images"),
        ({"cutmix": 1.0}, (1, 8, 1), "at least 2 pixels, got 1×8"),
    ],
)
def test_images_that_do_not_suit_are_named(settings, shape, said):
    with pytest.raises(ValueError, match=said):
        Augmentation(**settings).check(*shape)


def test_what_is_as_before_stays_out_of_ids():
    own = recipe("paper/cifar10")
    payload = resolve(own, n_base=500, n_total=500, n_dataset=50_000, classifier="resnet110")
    expected = {"crop_padding_px": 4, "flip": True}
    assert payload.payload()["augmentation"] == expected
