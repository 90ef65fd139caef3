"""The classifiers' names, and what sizes they take. Imports no torch."""

from __future__ import annotations

import difflib

# He et al. 2016, section 4.2: depth = 6·n + 2.
CIFAR_RESNET_DEPTHS = {f"resnet{depth}": depth for depth in (20, 32, 44, 56, 110)}

# name -> what it is
MODELS: dict[str, str] = {
    "digits-cnn": "four small layers for 8×8 digits",
    **{name: f"ResNet-{depth} for 32×32 (option A shortcuts)" for name, depth in CIFAR_RESNET_DEPTHS.items()},
    "resnet50": "timm's ResNet-50, from scratch",
    "vit_base_patch32_224": "timm's ViT-B/32, from scratch",
}
ALIASES = {"vit-b32": "vit_base_patch32_224", "timm/resnet50": "resnet50",
           "timm/vit_base_patch32_224": "vit_base_patch32_224"}
TIMM = ("resnet50", "vit_base_patch32_224")

# The smallest side at which a network's last feature map still has a pixel and its strides make sense.
_SIDE_MIN_PX = {"digits-cnn": 4, **dict.fromkeys(CIFAR_RESNET_DEPTHS, 8), "resnet50": 32}
VIT_PATCH_PX = 32


def canonical(name: str) -> str:
    """The one name a classifier goes by: aliases replaced, everything else as it is."""
    return ALIASES.get(name, name)


def check(name: str, height: int, width: int, channels: int, classes: int) -> None:
    """Raise ValueError unless classifier `name` can be built for such images (the size it *sees*).

    `timm/NAME` is looked up in timm, which imports torch; all other names are checked without it.
    """
    name = canonical(name)
    if classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, got {classes}")
    if channels < 1 or height < 1 or width < 1:
        raise ValueError(f"images need positive sizes, got {height}×{width}×{channels}")
    if name.startswith("timm/"):
        _check_timm(name)
    elif name not in MODELS:
        near = difflib.get_close_matches(name, [*MODELS, *ALIASES], n=3, cutoff=0.4)
        raise ValueError(f"unknown classifier {name!r}; nearest: {', '.join(near or MODELS)}, or timm/NAME")
    least = _SIDE_MIN_PX.get(name, 1)
    if min(height, width) < least:
        raise ValueError(f"{name} takes images of at least {least}×{least} pixels, got {height}×{width}")
    if name == "vit_base_patch32_224" and (height % VIT_PATCH_PX or width % VIT_PATCH_PX):
        raise ValueError(
            f"{name} takes sides that are multiples of {VIT_PATCH_PX} (the paper: 224×224), got {height}×{width}"
        )


def _check_timm(name: str) -> None:
    import timm

    bare = name.removeprefix("timm/")
    if not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=3, cutoff=0.4)
        raise ValueError(f"timm has no model {bare!r}; nearest: {', '.join(f'timm/{n}' for n in near) or 'none'}")
