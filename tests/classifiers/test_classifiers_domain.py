"""The domain classifier: no gap between halves of one set, a gap where one is planted."""

import numpy as np
import pytest

from classifiers.data import Mix
from classifiers.domain import _patches, domain_gap, wilson
from classifiers.recipes import recipe, resolve


@pytest.fixture(scope="module")
def halves(digits):
    images, labels = digits
    return (images[:800], labels[:800]), (images[800:1600], labels[800:1600])


def gap(real, synthetic, steps=80, **options):
    sides = [Mix.of(*side) for side in (real, synthetic)]
    own = resolve(
        recipe({"extends": "digits", "steps": steps}), n_base=1, n_total=1, n_dataset=1, classifier="digits-cnn"
    )
    fixed = {"classes": 10, "model": "digits-cnn", "recipe": own, "seed": 0, "device": "cpu"}
    return domain_gap(*sides, **fixed | options)


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
    images = np.arange(2_000 * 36, dtype=np.int64).reshape(2_000, 6, 6, 1)
    patches = _patches(images, 4, np.random.default_rng(0))
    corners = patches[:, 0, 0, 0] - images[:, 0, 0, 0]
    assert sorted(set(corners.tolist())) == [0, 1, 2, 6, 7, 8, 12, 13, 14]
    assert np.array_equal(patches[:, 3, 3, 0] - patches[:, 0, 0, 0], np.full(2_000, 3 * 6 + 3))


def test_wilson_interval_by_hand():
    # 50 of 100: centre 1/2, half-width 1.96·sqrt(0.25/100 + 1.96²/40,000)/(1 + 1.96²/100) = 9.617 %
    assert wilson(50, 100) == pytest.approx((40.383, 59.617), abs=1e-3)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10) == pytest.approx((72.247, 100), abs=1e-3)


@pytest.mark.parametrize(
    ("cut", "options", "said"),
    [
        (799, {}, "as many images"),
        (800, {"held_out": 0.0}, "held_out"),
        (800, {"held_out": 1.0}, "held_out"),
        (800, {"patch_px": 9}, r"patch_px must be 1\.\.8"),
    ],
)
def test_bad_input_is_named(halves, cut, options, said):
    (images, labels), synthetic = halves
    with pytest.raises(ValueError, match=said):
        gap((images[:cut], labels[:cut]), synthetic, **options)
