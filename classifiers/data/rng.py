"""A training's random draws, each from (purpose, index, seed) alone.

They are made on the host with numpy, once per epoch and for the whole data set, so that they are
the same on every device and for every number of workers, and so that a resumed training makes them
again.
"""

from __future__ import annotations

import numpy as np

from equigrid.classifiers.recipes import Augmentation, ResizedCrop

# Numbers, not names, enter the seed sequence: never renumber.
_PURPOSES = {"initialisation": 0, "order": 1, "augmentation": 2, "dropout": 3}
_RESIZED_CROP_TRIES = 10

# Columns of an epoch's draws. The first is the image's index; the others depend on the
# augmentation.
INDEX, FLIP, TOP, LEFT, HEIGHT, WIDTH = range(6)


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
    seed: int, number: int, n_total: int, height: int, width: int, augmentation: Augmentation
) -> np.ndarray:
    """One epoch's draws: (n_total, 6) int32 of INDEX, FLIP, TOP, LEFT, HEIGHT, WIDTH.

    Row i is the i-th image of the epoch's random order. TOP and LEFT are the crop's corner in the
    stored image (negative in the padding), HEIGHT and WIDTH its size.
    """
    out = np.empty((n_total, 6), np.int32)
    out[:, INDEX] = generator(seed, "order", number).permutation(n_total)
    rng = generator(seed, "augmentation", number)
    out[:, FLIP] = rng.integers(0, 2, n_total) if augmentation.flip else 0
    out[:, HEIGHT], out[:, WIDTH] = height, width
    if augmentation.resized_crop:
        out[:, TOP:] = _resized_crops(rng, n_total, height, width, augmentation.resized_crop)
    else:
        padding = augmentation.crop_padding_px
        out[:, TOP : LEFT + 1] = rng.integers(-padding, padding + 1, (n_total, 2)) if padding else 0
    return out


def _resized_crops(
    rng: np.random.Generator, n: int, height: int, width: int, crop: ResizedCrop
) -> np.ndarray:
    """(n, 4) of top, left, height, width: area and log-aspect uniform, the first of ten tries that
    fits.

    Where none fits, the whole image, cut to the nearest allowed aspect. The rule of Szegedy et al.
    2015 as torchvision states it.
    """
    (smallest, largest), (narrowest, widest) = crop.scale, np.log(crop.ratio)
    area = rng.uniform(smallest, largest, (n, _RESIZED_CROP_TRIES)) * (height * width)
    aspect = np.exp(rng.uniform(narrowest, widest, (n, _RESIZED_CROP_TRIES)))  # width / height
    sides = np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], -1)
    tries = np.rint(sides).astype(np.int64)
    fits: np.ndarray = ((tries > 0) & (tries <= (height, width))).all(-1)
    sizes = tries[np.arange(n), fits.argmax(1)]  # (n, 2)
    sizes[~fits.any(1)] = _central_size(height, width, crop)
    room = np.array([height, width]) - sizes
    corners = rng.integers(0, room + 1)
    corners[~fits.any(1)] = room[~fits.any(1)] // 2
    return np.concatenate([corners, sizes], 1)


def _central_size(height: int, width: int, crop: ResizedCrop) -> tuple[int, int]:
    low, high = crop.ratio
    if width < low * height:
        return round(width / low), width
    if width > high * height:
        return height, round(height * high)
    return height, width
