"""Augmentation on the device, a batch at a time, beside torchvision's transforms, image by image.

    python benchmarks/augmentation.py --threads 1

Both get images as they lie in memory, uint8, and give a batch; of ours the epoch's draws on the
host are counted too. torchvision's are as a DataLoader's workers apply them, without what passing
images between processes costs. `all of them` is how ours runs on a GPU: every operation for every
image, and no shape that depends on the draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from comparing import headline, main, rates
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from torchvision.transforms import v2 as tv

from equigrid.classifiers.data import augment, operations, rng
from equigrid.classifiers.recipes import Augmentation

SIZES = {
    "small": {"batch": 128, "steps": 5, "rounds": 4, "sides": (32, 96)},
    "full": {"batch": 256, "steps": 20, "rounds": 5, "sides": (32, 224)},
}
NEAREST = InterpolationMode.NEAREST
CASES: dict[str, tuple[dict[str, Any], Callable[[int], list]]] = {
    "crop, flip": (
        {"crop_padding_px": 4, "flip": True},
        lambda side: [tv.RandomCrop(side, 4), tv.RandomHorizontalFlip()],
    ),
    "RandAugment": (
        {"rand_augment": {}},
        lambda side: [tv.RandAugment(interpolation=NEAREST)],
    ),
    "TrivialAugmentWide": (
        {"trivial_augment": True},
        lambda side: [tv.TrivialAugmentWide(interpolation=NEAREST)],
    ),
    "AutoAugment, cifar10": (
        {"auto_augment": "cifar10"},
        lambda side: [tv.AutoAugment(AutoAugmentPolicy.CIFAR10, interpolation=NEAREST)],
    ),
    "RandomErasing": ({"erasing": {"p": 0.5}}, lambda side: [tv.RandomErasing()]),
    "MixUp": ({"mixup": 0.2}, lambda side: []),
    "CutMix": ({"cutmix": 1.0}, lambda side: []),
    "all together": (
        {"crop_padding_px": 4, "flip": True, "trivial_augment": True, "erasing": 0.1, "mixup": 0.2},
        lambda side: [
            tv.RandomCrop(side, 4), tv.RandomHorizontalFlip(),
            tv.TrivialAugmentWide(interpolation=NEAREST), tv.RandomErasing(p=0.1),
        ],
    ),
}  # fmt: skip


def measure(size: dict, device: torch.device) -> dict:
    """Images per second of each case at each side."""
    found = {}
    for side in size["sides"]:
        images = np.random.default_rng(0).integers(0, 256, (size["batch"], side, side, 3), np.uint8)
        for name, (settings, transforms) in CASES.items():
            own = Augmentation(**settings)
            ours = _ours(images, own, device)
            work = {"ours": ours, "torchvision": _theirs(images, own, transforms(side), device)}
            if own.policy:
                work["all of them"] = lambda ours=ours: _as_on_a_gpu(ours)
            found[f"{name}, {side}×{side}"] = rates(work, len(images), device, size)
    return {"rates": found}


def _ours(images: np.ndarray, own: Augmentation, device: torch.device) -> Callable[[], None]:
    n, height, width, _ = images.shape
    padded = augment.pad(torch.from_numpy(images).to(device), own)

    def step() -> None:
        table = rng.epoch(0, 0, n, height, width, own, n)
        if own.mixes:
            table = np.concatenate([table[-1:], table])
        augment.batch(padded, torch.from_numpy(table).to(device), own)

    return step


def _as_on_a_gpu(step: Callable[[], None]) -> None:
    before = operations._where

    def every(concerned, change, images, ops, magnitudes):
        mask = operations._per_image(concerned)
        return torch.where(mask, change(images, ops, magnitudes), images)

    operations._where = every
    try:
        step()
    finally:
        operations._where = before


def _theirs(
    images: np.ndarray, own: Augmentation, transforms: list, device: torch.device
) -> Callable[[], None]:
    one_by_one = tv.Compose(transforms) if transforms else None
    mixes = {"mixup": tv.MixUp, "cutmix": tv.CutMix}
    mixing = [
        kind(alpha=getattr(own, name), num_classes=10)
        for name, kind in mixes.items()
        if getattr(own, name)
    ]
    labels = torch.arange(len(images)) % 10

    def step() -> None:
        each = (torch.from_numpy(image).permute(2, 0, 1) for image in images)
        batch = torch.stack([one_by_one(image) if one_by_one else image for image in each])
        for mix in mixing:
            mix(batch.float(), labels)
        batch.to(device)

    return step


def table(report: dict) -> str:
    """Ratios side by side."""
    lines = [headline(report), "", "| what | torchvision, images/s | ours | × | as on a GPU |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name, found in report["rates"].items():
        ratio = found["ours"] / found["torchvision"]
        every = f"{found['all of them']:,.0f}" if "all of them" in found else ""
        theirs, ours = f"{found['torchvision']:,.0f}", f"{found['ours']:,.0f}"
        lines.append(f"| {name} | {theirs} | {ours} | {ratio:.1f} | {every} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(__doc__, SIZES, measure, table)
