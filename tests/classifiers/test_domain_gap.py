"""The domain classifier: no gap between halves of one set, a gap where one is planted."""

import weakref
from functools import partial

import numpy as np
import pytest
import torch

from equigrid.classifiers.domain_gap import (
    REAL,
    SYNTHETIC,
    _corners,
    _cut,
    _Side,
    domain_gap,
    wilson,
)
from equigrid.classifiers.recipes import recipe, resolve

NORMAL = {"normalisation": {"mean": [0.3], "std": [0.4]}}  # streamed images are not measured


@pytest.fixture(scope="module")
def halves(digits):
    images, labels = digits
    return (images[:800], labels[:800]), (images[800:1600], labels[800:1600])


def shards(images, labels, count=1):
    """A side in so many shards."""
    parts = np.array_split(np.arange(len(images)), count)
    return [
        (lambda part=part: (images[part], labels[part]), np.arange(len(part))) for part in parts
    ]


def gap(real, synthetic, steps=80, count=1, changes=None, **options):
    own = resolve(
        recipe({"extends": "digits", "steps": steps, **(changes or {})}),
        n_base=1, n_total=1, n_dataset=1, classifier="digits-cnn",
    )  # fmt: skip
    fixed = {"classes": 10, "model": "digits-cnn", "recipe": own, "seed": 0, "device": "cpu"}
    return domain_gap(shards(*real, count), shards(*synthetic, count), (8, 8, 1), **fixed | options)


def weights(found):
    return {name: tensor.numpy().tobytes() for name, tensor in found.module.state_dict().items()}


def test_halves_of_one_set_cannot_be_told_apart(halves):
    found = gap(*halves)
    assert found.low < 50 < found.high
    assert (found.n_train, found.n_test) == (1_280, 320)
    assert found.accuracy == pytest.approx((found.real + found.synthetic) / 2)


def test_a_planted_gap_is_found_on_images_and_on_patches(halves):
    real, (images, labels) = halves
    noise = np.random.default_rng(1).integers(0, 96, images.shape)
    synthetic = (np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8), labels)
    # A patch of 5×5 of a dark corner shows less of the noise than a whole image.
    for patch_px, least in ((None, 90), (5, 75)):
        found = gap(real, synthetic, patch_px=patch_px)
        assert found.low > least
        assert found.patch_px == patch_px
        assert len(found.per_class) == 10
        assert min(found.per_class) > 60


def test_classes_without_a_held_out_image_have_no_accuracy(halves):
    found = gap(*halves, steps=2, classes=11)
    assert np.isnan(found.per_class[10])
    assert not np.isnan(found.per_class[:10]).any()


def test_patches_are_cut_from_their_image_anywhere():
    images = np.arange(2_000 * 48, dtype=np.int64).reshape(2_000, 6, 8, 1)
    patches = _cut(
        images, np.arange(2_000), _corners(2_000, (6, 8, 1), 4, np.random.default_rng(0)), 4
    )
    corners = patches[:, 0, 0, 0] - images[:, 0, 0, 0]
    assert sorted(set(corners.tolist())) == [
        8 * row + column for row in range(3) for column in range(5)
    ]
    assert np.array_equal(patches[:, 3, 3, 0] - patches[:, 0, 0, 0], np.full(2_000, 3 * 8 + 3))


@pytest.mark.parametrize("patch_px", [None, 5])
def test_what_is_cut_shard_by_shard_is_what_is_cut_from_the_whole(digits, patch_px):
    images, labels = digits
    rows = np.delete(np.arange(300), [5, 120, 121])  # of each shard some rows are not wanted
    numbers = np.array([0, 3, 119, 120, 121, 250, 296])
    whole, cut = (
        _Side(SYNTHETIC, parts, (8, 8, 1), patch_px, seed=7)
        for parts in (
            [(lambda: (images, labels), rows)],
            [
                (
                    lambda i=i: (images[i : i + 100], labels[i : i + 100]),
                    rows[(rows >= i) & (rows < i + 100)] - i,
                )
                for i in (0, 100, 200)
            ],
        )
    )
    ((fetch, n),) = whole.fetches(numbers)
    expected, its_labels = fetch()
    found = [fetch() for fetch, _ in cut.fetches(numbers)]
    assert n == len(expected) == 7 and len(found) == 3
    np.testing.assert_array_equal(np.concatenate([part for part, _ in found]), expected)
    np.testing.assert_array_equal(np.concatenate([part for _, part in found]), its_labels)
    np.testing.assert_array_equal(its_labels, labels[rows[numbers]])
    if patch_px is None:
        np.testing.assert_array_equal(expected, images[rows[numbers]])
    assert all(part.base is None for part, _ in found)  # copies: nothing of a shard is held


def test_the_two_sides_patches_lie_elsewhere(digits):
    real, synthetic = (
        _Side(domain, shards(*digits), (8, 8, 1), 5, seed=7).corners for domain in (REAL, SYNTHETIC)
    )
    assert not np.array_equal(real, synthetic)


@pytest.mark.parametrize("patch_px", [None, 5])
def test_streamed_with_every_shard_at_hand_is_bitwise_resident(halves, patch_px):
    options = {"steps": 40, "count": 4, "changes": NORMAL, "patch_px": patch_px}
    resident, streamed = gap(*halves, **options), gap(*halves, window=8, **options)
    assert resident == streamed
    assert weights(resident) == weights(streamed)
    few = gap(*halves, window=2, **options)  # two shards at a time are another order
    assert weights(few) != weights(resident)
    assert (few.n_train, few.n_test) == (resident.n_train, resident.n_test)


def test_no_two_shards_are_held_at_once(digits):
    """Whoever fetches the next shard has let the last one go: resident or tested, one is at
    hand.
    """
    alive, most = [], []

    def shard(i):
        images = digits[0][i : i + 100].copy()
        alive.append(weakref.ref(images))
        most.append(sum(one() is not None for one in alive))
        return images, digits[1][i : i + 100]

    own = resolve(
        recipe({"extends": "digits", "steps": 2}),
        n_base=1,
        n_total=1,
        n_dataset=1,
        classifier="digits-cnn",
    )
    sides = [
        [(partial(shard, i), np.arange(100)) for i in starts]
        for starts in (range(0, 600, 100), range(600, 1200, 100))
    ]
    domain_gap(
        *sides,
        (8, 8, 1),
        classes=10,
        model="digits-cnn",
        recipe=own,
        seed=0,
        device="cpu",
        patch_px=4,
    )
    assert len(most) == 24  # once to train on, once to test on
    assert max(most) == 1


def test_resumed_equals_undisturbed_bitwise(halves):
    states = {}
    options = {"steps": 20, "patch_px": 5}
    whole = gap(*halves, checkpoint=lambda step, make: states.update({step: make()}), **options)
    made = []
    rest = gap(*halves, resume=states[8], checkpoint=lambda step, _: made.append(step), **options)
    assert made == list(range(9, 21))  # nothing is repeated
    assert rest == whole
    assert weights(rest) == weights(whole)


def test_the_images_that_are_said_to_be_tested_were_not_learnt_from():
    """Noise can only be learnt by heart, and nothing is known of what was held out."""
    rng = np.random.default_rng(0)
    sides = [
        (rng.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8), np.arange(100) % 10)
        for _ in range(2)
    ]
    found = gap(*sides, steps=400, count=3)
    assert len(set(found.tested)) == found.n_test // 2 == 20
    assert np.array_equal(found.tested, np.sort(found.tested))
    learnt = np.setdiff1d(np.arange(100), found.tested)
    accuracy = {}
    for name, numbers in (("learnt", learnt), ("tested", found.tested)):
        with torch.inference_mode():
            told = [
                found.module(torch.from_numpy(images[numbers]).permute(0, 3, 1, 2)).argmax(1)
                for images, _ in sides
            ]
        accuracy[name] = 100 * float(
            torch.cat([told[REAL] == REAL, told[SYNTHETIC] == SYNTHETIC]).float().mean()
        )
    assert accuracy["learnt"] > 95
    assert accuracy["tested"] == pytest.approx(found.accuracy)
    assert found.accuracy < 75


def test_wilson_interval_by_hand():
    # 50 of 100: centre 1/2, half-width 1.96·sqrt(0.25/100 + 1.96²/40,000)/(1 + 1.96²/100) = 9.617 %
    assert wilson(50, 100) == pytest.approx((40.383, 59.617), abs=1e-3)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10) == pytest.approx((72.247, 100), abs=1e-3)


@pytest.mark.parametrize(
    ("cut", "options", "said"),
    [
        (799, {}, "as many images, got 799 real and 800 synthetic"),
        (800, {"held_out": 0.0}, "held_out"),
        (800, {"held_out": 1.0}, "held_out"),
        (800, {"patch_px": 9}, r"patch_px must be 1\.\.8"),
        (800, {"classes": 4}, r"labels must be 0\.\.3"),
    ],
)
def test_bad_input_is_named(halves, cut, options, said):
    (images, labels), synthetic = halves
    with pytest.raises(ValueError, match=said):
        gap((images[:cut], labels[:cut]), synthetic, **options)


def test_shards_of_another_size_are_named(halves):
    real, (images, labels) = halves
    with pytest.raises(
        ValueError, match=r"all images must be \(8, 8, 1\), shard 0 has \(8, 7, 1\)"
    ):
        gap(real, (images[:, :, :7], labels))
