"""Augmentations by name, and a recipe's own with other settings on top of it. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from equigrid.classifiers.recipes.model import Augmentation

# Settings over a recipe's own. The strengths are those of the papers, or of torchvision's reference
# recipes where these differ; none was chosen on data of ours.
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    # The recipe's own and no more: what as many steps alone bring.
    "own": {},
    "flip": {"flip": True},
    "crop": {"crop_padding_px": 4},
    "crop-flip": {"crop_padding_px": 4, "flip": True},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "mixup-cutmix": {"mixup": 0.2, "cutmix": 1.0},
    "rand-augment": {"rand_augment": {"num_ops": 2, "magnitude": 9}},
    "trivial-augment": {"trivial_augment": True},
    "auto-augment-cifar10": {"auto_augment": "cifar10"},
    "auto-augment-imagenet": {"auto_augment": "imagenet"},
    "auto-augment-svhn": {"auto_augment": "svhn"},
    "erasing": {"erasing": {"p": 0.5}},
    "trivial-augment-erasing-mixup-cutmix": {
        "trivial_augment": True, "erasing": {"p": 0.1}, "mixup": 0.2, "cutmix": 1.0,
    },
}  # fmt: skip


def augmented(own: Augmentation, changes: str | Mapping[str, Any]) -> Augmentation:
    """A recipe's augmentation with other settings: a name of AUGMENTATIONS, or a mapping. What it
    does not name stays; null, false or 0 takes away.

    Raises ValueError (one line) for an unknown name, with the nearest ones, and for any bad value.
    """
    if isinstance(changes, str):
        if changes not in AUGMENTATIONS:
            near = difflib.get_close_matches(changes, AUGMENTATIONS, n=3, cutoff=0.4)
            known = ", ".join(near or AUGMENTATIONS)
            raise ValueError(f"unknown augmentation {changes!r}; nearest: {known}")
        changes = AUGMENTATIONS[changes]
    try:
        return Augmentation.model_validate(own.model_dump() | dict(changes))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        got = f" (got {first['input']!r})" if where else ""
        raise ValueError(f"{where}: {message}{got}" if where else message) from error
