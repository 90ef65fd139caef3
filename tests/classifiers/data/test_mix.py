"""Mixes, draws and augmentation."""

import numpy as np
import pytest
import torch

from equigrid.classifiers.data import augment, rng
from equigrid.classifiers.data.mix import Mix
from equigrid.classifiers.models.network import Classifier, statistics
from equigrid.classifiers.recipes import Augmentation, ResizedCrop


def shard(n, seed=0, side=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, side, side, 3), np.uint8), rng.integers(0, 10, n)


def test_gather_takes_rows_in_order_from_read_only_memory_maps(tmp_path):
    parts = []
    for number in range(2):
        images, labels = shard(9, number)
        np.save(tmp_path / f"{number}.npy", images)
        mapped = np.load(tmp_path / f"{number}.npy", mmap_mode="r")
        parts.append((mapped, labels, np.array([8, 0, 0, 3 + number])))
    mix = Mix([*parts, (*shard(3, 9), np.array([], np.int64))])
    images, labels = mix.gather("cpu")
    expected = np.concatenate([part[0][part[2]] for part in parts])
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy(), expected)
    assert labels.tolist() == np.concatenate([part[1][part[2]] for part in parts]).tolist()
    assert (len(labels), mix.n_total, mix.image_shape) == (8, 8, (4, 4, 3))


def test_staging_blocks_cover_every_row_once_in_order():
    mix = Mix([(*shard(9), np.arange(7)), (*shard(9), np.array([8, 1])), (*shard(9), np.arange(3))])
    for rows in (1, 3, 7, 100, None):
        blocks = list(mix._blocks(rows))
        assert [start for start, _, _ in blocks] == np.cumsum([0, *(len(i) for _, _, i in blocks)])[
            :-1
        ].tolist()
        assert np.concatenate([indices for _, _, indices in blocks]).tolist() == [
            *range(7),
            8,
            1,
            *range(3),
        ]
        assert rows is None or max(len(indices) for _, _, indices in blocks) <= rows


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "empty"),
        ([(*shard(3), np.array([], np.int64))], "empty"),
        ([(*shard(3), np.array([3]))], r"indices must be 0\.\.2, got 3\.\.3"),
        ([(*shard(3), np.array([-1]))], "indices must be"),
        ([(*shard(3), np.array([0.5]))], "must be \\(K,\\) integers"),
        ([(shard(3)[0] / 255, shard(3)[1], np.array([0]))], "uint8"),
        ([(shard(3)[0], shard(4)[1], np.array([0]))], r"labels must be \(3,\)"),
        ([(*shard(3), np.array([0])), (*shard(3, side=5), np.array([0]))], "one image size"),
    ],
)
def test_bad_mixes_are_named(parts, said):
    with pytest.raises(ValueError, match=said):
        Mix(parts)


def test_statistics_are_exact():
    images, _ = shard(5_000)
    mean, std = statistics(torch.from_numpy(images))
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-10)
    assert statistics(torch.full((3, 2, 2, 1), 7, dtype=torch.uint8)) == ([7 / 255], [1 / 255])


def test_classifier_normalises_all_256_values():
    values = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    module = Classifier(torch.nn.Identity(), [0.25], [0.5], (1, 1))
    expected = (values.double() / 255 - 0.25) / 0.5
    assert (module(values) - expected).abs().max() < 1e-6


def test_each_epoch_is_a_fresh_permutation_that_depends_on_seed_and_epoch_alone():
    none = Augmentation()

    def order(seed, epoch):
        return rng.epoch(seed, epoch, 500, 8, 8, none)[:, rng.INDEX]

    assert sorted(order(1, 0)) == list(range(500))
    assert np.array_equal(order(1, 3), order(1, 3))
    assert not np.array_equal(order(1, 3), order(1, 4))
    assert not np.array_equal(order(1, 3), order(2, 3))
    assert not np.array_equal(order(1, 0), order(1 + 2**32, 0))
    crop = rng.epoch(1, 3, 500, 8, 8, Augmentation(crop_padding_px=2, flip=True))
    assert np.array_equal(crop[:, rng.INDEX], order(1, 3))  # augmentation does not change the order


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_outside_their_range_are_refused(seed):
    with pytest.raises(ValueError, match="seed must be"):
        rng.generator(seed, "order")


def test_crop_and_flip_draws_are_uniform():
    out = rng.epoch(0, 0, 20_000, 32, 32, Augmentation(crop_padding_px=4, flip=True))
    for column in (rng.TOP, rng.LEFT):
        counts = np.bincount(out[:, column] + 4, minlength=9)
        assert len(counts) == 9
        # 20,000/9 = 2,222 with deviation 44: within five deviations
        assert np.abs(counts - 20_000 / 9).max() < 220
    assert abs(out[:, rng.FLIP].mean() - 0.5) < 5 * 0.5 / 20_000**0.5
    assert abs(np.corrcoef(out[:, rng.TOP], out[:, rng.LEFT])[0, 1]) < 0.04


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_batched_crop_and_flip_equal_padding_and_slicing(padding, flip):
    images, _ = shard(20, side=6)
    augmentation = Augmentation(crop_padding_px=padding, flip=flip)
    table = rng.epoch(5, 0, 20, 6, 6, augmentation)
    padded = augment.pad(torch.from_numpy(images), augmentation)
    out = augment.batch(padded, torch.from_numpy(table), augmentation)
    assert (out.dtype, out.shape) == (torch.uint8, (20, 3, 6, 6))
    assert out.is_contiguous(memory_format=torch.channels_last)
    for row, (index, flipped, top, left, *_) in enumerate(table):
        padded = np.pad(images[index], ((padding, padding), (padding, padding), (0, 0)))
        cut = padded[top + padding : top + padding + 6, left + padding : left + padding + 6]
        expected = cut[:, ::-1] if flipped else cut
        assert np.array_equal(out[row].permute(1, 2, 0).numpy(), expected), row


def test_resized_crop_draws_keep_area_and_aspect_and_stay_inside():
    crop = ResizedCrop(size_px=8)
    out = rng.epoch(0, 0, 20_000, 256, 256, Augmentation(resized_crop=crop, flip=True)).astype(
        np.int64
    )
    height, width = out[:, rng.HEIGHT], out[:, rng.WIDTH]
    assert (out[:, rng.TOP] >= 0).all()
    assert (out[:, rng.LEFT] >= 0).all()
    assert (out[:, rng.TOP] + height <= 256).all()
    assert (out[:, rng.LEFT] + width <= 256).all()
    area, aspect = height * width / 256**2, width / height
    assert 0.075 < area.min() < 0.09
    assert area.max() == pytest.approx(1, abs=0.02)
    assert 0.74 < aspect.min() < aspect.max() < 1.35
    # log-aspect is symmetric about 0; deviation of a uniform on ±ln(4/3) is 0.166
    assert abs(np.log(aspect).mean()) < 5 * 0.166 / 20_000**0.5 + 0.002


def test_resized_crop_of_images_too_narrow_for_any_try_is_central():
    out = rng.epoch(0, 0, 4, 4, 400, Augmentation(resized_crop=ResizedCrop(scale=(1, 1))))
    assert out[:, rng.TOP :].tolist() == [[0, 197, 4, 5]] * 4


def test_resized_crop_equals_cutting_and_interpolating():
    images, _ = shard(6, side=12)
    augmentation = Augmentation(resized_crop=ResizedCrop(size_px=9, scale=(0.2, 1)), flip=True)
    table = rng.epoch(2, 0, 6, 12, 12, augmentation)
    table[0, rng.FLIP :] = [0, 0, 0, 12, 12]  # the whole image
    padded = augment.pad(torch.from_numpy(images), augmentation)
    out = augment.batch(padded, torch.from_numpy(table), augmentation)
    assert (out.dtype, out.shape) == (torch.float32, (6, 3, 9, 9))
    for row, (index, flip, top, left, height, width) in enumerate(table.tolist()):
        cut = torch.from_numpy(images[index, top : top + height, left : left + width]).permute(
            2, 0, 1
        )[None]
        expected = torch.nn.functional.interpolate(
            cut.float(), (9, 9), mode="bilinear", align_corners=False
        )
        expected = expected.flip(3) if flip else expected
        # float32 coordinates of up to 12 pixels times grey values of up to 255
        torch.testing.assert_close(out[row], expected[0], atol=2e-3, rtol=0)


def test_classifier_resizes_what_is_stored_larger():
    module = Classifier(torch.nn.Identity(), [0.0], [1.0], (4, 4))
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    out = module(image)
    assert out.shape == (1, 1, 4, 4)
    assert out.mean() == pytest.approx(31.5 / 255, rel=1e-4)
