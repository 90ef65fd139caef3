"""A training's random draws, each from (purpose, index, seed) alone.

They are made on the host with numpy, once per epoch and for the whole data set, so that they are
the same on every device and for every number of workers, and so that a resumed training makes them
again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equigrid.classifiers.data import policies
from equigrid.classifiers.recipes import Augmentation, Erasing, ResizedCrop

# Numbers, not names, enter the seed sequence: never renumber.
_PURPOSES = {
    "initialisation": 0, "order": 1, "augmentation": 2, "dropout": 3, "policy": 4, "erasing": 5,
    "mixing": 6,
}  # fmt: skip
_RECTANGLE_TRIES = 10

# Columns of an epoch's draws. The first is the image's index; the others depend on the
# augmentation, and so does whether there are more, see `Columns`.
INDEX, FLIP, TOP, LEFT, HEIGHT, WIDTH = range(6)


@dataclass(frozen=True)
class Columns:
    """Where an epoch's draws hold what an augmentation draws beyond the first six columns.

    operations: (number, magnitude) of each operation of a policy. erased: four, a rectangle's top,
    left, height and width, of height 0 where nothing is erased. part: what an image keeps of itself
    in mixup. box: four, the rectangle that is another image's in cutmix, of height 0 in mixup.
    Magnitudes and parts are float32 whose bits stand in the int32 table.
    """

    operations: tuple[tuple[int, int], ...]
    erased: slice | None
    part: int | None
    box: slice | None
    width: int

    @classmethod
    def of(cls, augmentation: Augmentation) -> Columns:
        """Those of an augmentation."""
        end = 6 + 2 * policies.layers(augmentation)
        operations = tuple((at, at + 1) for at in range(6, end, 2))
        erased = slice(end, end + 4) if augmentation.erasing else None
        end += 4 if erased else 0
        if not augmentation.mixes:
            return cls(operations, erased, None, None, end)
        return cls(operations, erased, end, slice(end + 1, end + 5), end + 5)


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The generator of one purpose's draw number `index` under `seed` (0 <= seed < 2**63)."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be 0 <= seed < 2**63, got {seed}")
    return np.random.default_rng([_PURPOSES[purpose], index, seed])


def torch_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for torch's generators."""
    return int(generator(seed, purpose, index).integers(2**63))


def mixed(seed: int, index: int) -> int:
    """A seed for the index-th of many draws under `seed`, cheap enough for every step (Weyl
    sequence).
    """
    return (seed + index * 0x9E3779B97F4A7C15) % 2**63


def epoch(
    seed: int,
    number: int,
    n_total: int,
    height: int,
    width: int,
    augmentation: Augmentation,
    batch: int | None = None,
) -> np.ndarray:
    """One epoch's draws: (n_total, 6 or more) int32 of INDEX, FLIP, TOP, LEFT, HEIGHT, WIDTH, and
    what `Columns` names.

    Row i is the i-th image of the epoch's random order. TOP and LEFT are the crop's corner in the
    stored image (negative in the padding), HEIGHT and WIDTH its size. batch: images of a step, over
    all workers, which mixup and cutmix draw for as one; None for all of them.
    """
    columns = Columns.of(augmentation)
    out = np.empty((n_total, columns.width), np.int32)
    out[:, INDEX] = generator(seed, "order", number).permutation(n_total)
    rng = generator(seed, "augmentation", number)
    out[:, FLIP] = rng.integers(0, 2, n_total) if augmentation.flip else 0
    out[:, HEIGHT], out[:, WIDTH] = height, width
    if augmentation.resized_crop:
        out[:, TOP : WIDTH + 1] = _resized_crops(
            rng, n_total, height, width, augmentation.resized_crop
        )
    else:
        padding = augmentation.crop_padding_px
        out[:, TOP : LEFT + 1] = rng.integers(-padding, padding + 1, (n_total, 2)) if padding else 0
    size = augmentation.seen(height, width)
    if columns.operations:
        ops, magnitudes = policies.draw(
            generator(seed, "policy", number), n_total, *size, augmentation
        )
        first = columns.operations[0][0]
        out[:, first : first + 2 * ops.shape[1] : 2] = ops
        out[:, first + 1 : first + 2 * ops.shape[1] : 2] = magnitudes.view(np.int32)
    if columns.erased and augmentation.erasing:
        drawn = generator(seed, "erasing", number)
        out[:, columns.erased] = _erased(drawn, n_total, *size, augmentation.erasing)
    if columns.part is not None:
        drawn = generator(seed, "mixing", number)
        out[:, columns.part :] = _mixed(drawn, n_total, batch or n_total, *size, augmentation)
    return out


def _erased(
    rng: np.random.Generator, n: int, height: int, width: int, erasing: Erasing
) -> np.ndarray:
    """(n, 4) of top, left, height, width; zeros where nothing is erased, also where none of ten
    tries is smaller than the image.
    """
    ratio = (1 / erasing.ratio[1], 1 / erasing.ratio[0])  # width / height, as crops count it
    sizes = _tried_sizes(rng, n, height, width, erasing.scale, ratio)
    fits = np.all((sizes > 0) & (sizes < (height, width)), axis=-1)
    fits &= np.less(rng.random(n), erasing.p)[:, None]
    found = sizes[np.arange(n), fits.argmax(1)] * fits.any(1)[:, None]
    corners = rng.integers(0, np.array([height, width]) - found + 1)
    return np.concatenate([corners, found], 1)


def _mixed(
    rng: np.random.Generator,
    n: int,
    batch: int,
    height: int,
    width: int,
    augmentation: Augmentation,
) -> np.ndarray:
    """(n, 5) of the part that images keep of themselves, as float32's bits, and the box (top, left,
    height, width) that is another's: one for each batch.

    With mixup and cutmix, half of the batches get either. The box's centre is anywhere, and what of
    it is outside the image is cut off; the part is then what is outside the box.
    """
    batches = -(-n // batch)
    of_both = np.equal(rng.integers(0, 2, batches), 1)  # drawn whether or not there is a choice
    cuts = of_both if augmentation.mixup else np.ones(batches, bool)
    cuts = cuts if augmentation.cutmix else np.zeros(batches, bool)
    parts = rng.beta(augmentation.mixup or 1, augmentation.mixup or 1, batches)
    area = 1 - rng.beta(augmentation.cutmix or 1, augmentation.cutmix or 1, batches)
    half = (0.5 * np.sqrt(area)[:, None] * (height, width)).astype(np.int64)
    centre = rng.integers(0, (height, width), (batches, 2))
    start, end = np.maximum(centre - half, 0), np.minimum(centre + half, (height, width))
    sides = (end - start) * cuts[:, None]
    outside = 1 - sides.prod(1) / (height * width)
    parts = np.where(cuts, outside, parts).astype(np.float32)
    columns = np.concatenate([parts.view(np.int32)[:, None], start, sides], 1)
    return columns.repeat(batch, 0)[:n]


def _resized_crops(
    rng: np.random.Generator, n: int, height: int, width: int, crop: ResizedCrop
) -> np.ndarray:
    """(n, 4) of top, left, height, width: area and log-aspect uniform, the first of ten tries that
    fits.

    Where none fits, the whole image, cut to the nearest allowed aspect. The rule of Szegedy et al.
    2015 as torchvision states it.
    """
    tries = _tried_sizes(rng, n, height, width, crop.scale, crop.ratio)
    fits = np.all((tries > 0) & (tries <= (height, width)), axis=-1)
    sizes = tries[np.arange(n), fits.argmax(1)]  # (n, 2)
    sizes[~fits.any(1)] = _central_size(height, width, crop)
    room = np.array([height, width]) - sizes
    corners = rng.integers(0, room + 1)
    corners[~fits.any(1)] = room[~fits.any(1)] // 2
    return np.concatenate([corners, sizes], 1)


def _tried_sizes(
    rng: np.random.Generator,
    n: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> np.ndarray:
    """(n, 10, 2) heights and widths: the area uniform in `scale` of the image's, the logarithm of
    width / height uniform in that of `ratio`.
    """
    (smallest, largest), (narrowest, widest) = scale, np.log(ratio)
    area = rng.uniform(smallest, largest, (n, _RECTANGLE_TRIES)) * (height * width)
    aspect = np.exp(rng.uniform(narrowest, widest, (n, _RECTANGLE_TRIES)))
    sides = np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], -1)
    return np.rint(sides).astype(np.int64)


def _central_size(height: int, width: int, crop: ResizedCrop) -> tuple[int, int]:
    low, high = crop.ratio
    if width < low * height:
        return round(width / low), width
    if width > high * height:
        return height, round(height * high)
    return height, width
