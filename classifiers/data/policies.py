"""Which operation each image gets, and how strong: RandAugment, TrivialAugmentWide and AutoAugment.

The operations, their ranges and AutoAugment's tables are those of the papers as torchvision states
them; a test compares all of them. Draws are made on the host with numpy, like all others
(`equigrid.classifiers.data.rng`).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from equigrid.classifiers.recipes import Augmentation, RandAugment

# An operation's place is its number in a draw.
OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
    "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert",
)  # fmt: skip
NUMBER = {name: number for number, name in enumerate(OPERATIONS)}
_SIGNED = tuple(NUMBER[name] for name in OPERATIONS[1:10])
_DRAWN = OPERATIONS[:-1]  # RandAugment and TrivialAugment do not invert
_AUTO_BINS, _TRIVIAL_BINS = 10, 31


class _Ranges(NamedTuple):
    """The strongest of each operation. translate_px: None for 150/331 of the side."""

    shear: float
    translate_px: float | None
    rotate_degrees: float
    enhance: float
    posterize_bits: int


_NORMAL = _Ranges(0.3, None, 30.0, 0.9, 4)  # AutoAugment and RandAugment
_WIDE = _Ranges(0.99, 32.0, 135.0, 0.99, 6)

# Sub-policies: two operations each, with the probability, and the bin of the magnitude of those
# that have one. AutoAugment's appendix, tables 7 to 9.
_TABLES = {
    "cifar10": """
        Invert 0.1, Contrast 0.2 6; Rotate 0.7 2, TranslateX 0.3 9;
        Sharpness 0.8 1, Sharpness 0.9 3; ShearY 0.5 8, TranslateY 0.7 9;
        AutoContrast 0.5, Equalize 0.9; ShearY 0.2 7, Posterize 0.3 7;
        Color 0.4 3, Brightness 0.6 7; Sharpness 0.3 9, Brightness 0.7 9;
        Equalize 0.6, Equalize 0.5; Contrast 0.6 7, Sharpness 0.6 5;
        Color 0.7 7, TranslateX 0.5 8; Equalize 0.3, AutoContrast 0.4;
        TranslateY 0.4 3, Sharpness 0.2 6; Brightness 0.9 6, Color 0.2 8;
        Solarize 0.5 2, Invert 0; Equalize 0.2, AutoContrast 0.6; Equalize 0.2, Equalize 0.6;
        Color 0.9 9, Equalize 0.6; AutoContrast 0.8, Solarize 0.2 8;
        Brightness 0.1 3, Color 0.7 0; Solarize 0.4 5, AutoContrast 0.9;
        TranslateY 0.9 9, TranslateY 0.7 9; AutoContrast 0.9, Solarize 0.8 3;
        Equalize 0.8, Invert 0.1; TranslateY 0.7 9, AutoContrast 0.9
        """,
    "imagenet": """
        Posterize 0.4 8, Rotate 0.6 9; Solarize 0.6 5, AutoContrast 0.6;
        Equalize 0.8, Equalize 0.6; Posterize 0.6 7, Posterize 0.6 6;
        Equalize 0.4, Solarize 0.2 4; Equalize 0.4, Rotate 0.8 8; Solarize 0.6 3, Equalize 0.6;
        Posterize 0.8 5, Equalize 1; Rotate 0.2 3, Solarize 0.6 8; Equalize 0.6, Posterize 0.4 6;
        Rotate 0.8 8, Color 0.4 0; Rotate 0.4 9, Equalize 0.6; Equalize 0, Equalize 0.8;
        Invert 0.6, Equalize 1; Color 0.6 4, Contrast 1 8; Rotate 0.8 8, Color 1 2;
        Color 0.8 8, Solarize 0.8 7; Sharpness 0.4 7, Invert 0.6; ShearX 0.6 5, Equalize 1;
        Color 0.4 0, Equalize 0.6; Equalize 0.4, Solarize 0.2 4;
        Solarize 0.6 5, AutoContrast 0.6; Invert 0.6, Equalize 1; Color 0.6 4, Contrast 1 8;
        Equalize 0.8, Equalize 0.6
        """,
    "svhn": """
        ShearX 0.9 4, Invert 0.2; ShearY 0.9 8, Invert 0.7; Equalize 0.6, Solarize 0.6 6;
        Invert 0.9, Equalize 0.6; Equalize 0.6, Rotate 0.9 3; ShearX 0.9 4, AutoContrast 0.8;
        ShearY 0.9 8, Invert 0.4; ShearY 0.9 5, Solarize 0.2 6; Invert 0.9, AutoContrast 0.8;
        Equalize 0.6, Rotate 0.9 3; ShearX 0.9 4, Solarize 0.3 3; ShearY 0.8 8, Invert 0.7;
        Equalize 0.9, TranslateY 0.6 6; Invert 0.9, Equalize 0.6; Contrast 0.3 3, Rotate 0.8 4;
        Invert 0.8, TranslateY 0 2; ShearY 0.7 6, Solarize 0.4 8; Invert 0.6, Rotate 0.8 4;
        ShearY 0.3 7, TranslateX 0.9 3; ShearX 0.1 6, Invert 0.6;
        Solarize 0.7 2, TranslateY 0.6 7; ShearY 0.8 4, Invert 0.8;
        ShearX 0.7 9, TranslateY 0.8 3; ShearY 0.8 5, AutoContrast 0.7; ShearX 0.7 2, Invert 0.1
        """,
}


def layers(augmentation: Augmentation) -> int:
    """Operations that an image gets one after another; 0 without a policy."""
    if augmentation.rand_augment:
        return augmentation.rand_augment.num_ops
    return {"trivial_augment": 1, "auto_augment": 2}.get(augmentation.policy or "", 0)


def draw(
    rng: np.random.Generator, n: int, height: int, width: int, augmentation: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """Operations (n, layers) int32, as numbers in OPERATIONS, and magnitudes (n, layers) float32.

    height, width: of the images that they are applied to. Magnitudes, signed: of shears the
    tangent, of translations whole pixels, of rotations degrees; of brightness, colour, contrast and
    sharpness the factor less 1; of posterize the bits that stay; of solarize the threshold as a
    part of 255; 0 of all others.
    """
    if augmentation.auto_augment:
        ops, bins = _auto(rng, n, augmentation.auto_augment)
        strengths = _strengths(_NORMAL, _AUTO_BINS, height, width)
    else:
        ops = rng.integers(0, len(_DRAWN), (n, layers(augmentation)))
        bins, strengths = _uniform(rng, ops.shape, height, width, augmentation.rand_augment)
    magnitudes = strengths[ops, bins]
    negative = rng.integers(0, 2, ops.shape).astype(bool) & np.isin(ops, _SIGNED)
    return ops.astype(np.int32), np.where(negative, -magnitudes, magnitudes).astype(np.float32)


def _uniform(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    height: int,
    width: int,
    rand_augment: RandAugment | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bins and strengths where all operations are as likely: RandAugment's one bin, or any."""
    if rand_augment:
        strengths = _strengths(_NORMAL, rand_augment.num_magnitude_bins, height, width)
        return np.full(shape, rand_augment.magnitude), strengths
    bins = rng.integers(0, _TRIVIAL_BINS, shape)
    return bins, _strengths(_WIDE, _TRIVIAL_BINS, height, width)


def _auto(rng: np.random.Generator, n: int, policy: str) -> tuple[np.ndarray, np.ndarray]:
    """Operations and bins of n sub-policies, each operation there with its probability."""
    ops, probabilities, bins = sub_policies(policy)
    chosen = rng.integers(0, len(ops), n)
    applied = rng.random((n, 2)) <= probabilities[chosen]
    return np.where(applied, ops[chosen], NUMBER["Identity"]), bins[chosen]


@cache
def sub_policies(policy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of AutoAugment's sub-policies (25, 2): numbers of operations, probabilities, and bins of
    magnitudes, 0 where there is none.
    """
    pairs = [pair.split(",") for pair in _TABLES[policy].split(";")]
    words = [[one.split() for one in pair] for pair in pairs]
    ops = np.array([[NUMBER[one[0]] for one in pair] for pair in words])
    probabilities = np.array([[float(one[1]) for one in pair] for pair in words])
    bins = np.array([[int(one[2]) if len(one) > 2 else 0 for one in pair] for pair in words])
    return ops, probabilities, bins


@cache
def _strengths(ranges: _Ranges, bins: int, height: int, width: int) -> np.ndarray:
    """(operations, bins) float32: the magnitude of each bin, without sign."""
    found = np.zeros((len(OPERATIONS), bins), np.float32)

    def rising(most: float) -> np.ndarray:
        return _spaced(0.0, most, bins)

    for name, side in (("X", width), ("Y", height)):
        most = side * 150.0 / 331.0 if ranges.translate_px is None else ranges.translate_px
        found[NUMBER[f"Shear{name}"]] = rising(ranges.shear)
        found[NUMBER[f"Translate{name}"]] = np.trunc(rising(most))
    found[NUMBER["Rotate"]] = rising(ranges.rotate_degrees)
    for name in ("Brightness", "Color", "Contrast", "Sharpness"):
        found[NUMBER[name]] = rising(ranges.enhance)
    found[NUMBER["Posterize"]] = np.rint(8 - np.arange(bins) * ranges.posterize_bits / (bins - 1))
    found[NUMBER["Solarize"]] = _spaced(1.0, 0.0, bins)
    return found


def _spaced(start: float, end: float, bins: int) -> np.ndarray:
    """(bins,) float32 as torch.linspace rounds them: a float32 step, taken from the nearer end, and
    rounded once. Translations are cut off to whole pixels, which shows it: torchvision's middle of
    0 to 32 is 15.
    """
    step = float((np.float32(end) - np.float32(start)) / np.float32(bins - 1))
    first, last, place = float(np.float32(start)), float(np.float32(end)), np.arange(bins)
    rising, falling = first + step * place, last - step * (bins - 1 - place)
    return np.where(place < bins // 2, rising, falling).astype(np.float32)
