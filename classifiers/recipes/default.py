"""The recipe for images of which nothing is known but their size and number.

What it rests on is told in docs/tuning.md: measured on digits, CIFAR-10 and PneumoniaMNIST at a few
hundred images, and by the paper's recipes beyond.
"""

from __future__ import annotations

from equigrid.classifiers.recipes.model import Augmentation, BaseSteps, Cosine, Recipe, ResizedCrop

DEFAULT = "default"
TINY, LARGE, LARGEST = 16, 96, 224  # sides, in pixels: no crops up to, resized from, resized to
UNKNOWN_SIDE = 32


def default(side: int | None) -> Recipe:
    """The default recipe for images whose larger side is so many pixels (None: not known yet)."""
    side = side or UNKNOWN_SIDE
    tiny = side <= TINY
    return Recipe(
        steps_by_base=_STEPS,
        batch=32 if tiny else 64,
        lr=0.1,
        decay=Cosine(),
        warmup=0.1,
        weight_decay=5e-3 if tiny else 1e-4,
        augmentation=_augmentation(side),
    )


# Equal for all arms of a base, so that more images are never more training.
_STEPS = (
    BaseSteps(from_base=1, steps=600),
    BaseSteps(from_base=1_500, steps=2_000),
    BaseSteps(from_base=5_000, steps=8_000),
    BaseSteps(from_base=20_000, steps=20_000),
)


def _augmentation(side: int) -> Augmentation:
    if side <= TINY:
        return Augmentation()
    if side <= LARGE:
        return Augmentation(crop_padding_px=max(1, side // 8), flip=True)
    return Augmentation(resized_crop=ResizedCrop(size_px=min(side, LARGEST)), flip=True)
