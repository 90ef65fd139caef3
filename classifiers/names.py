"""The classifiers' names, and what sizes they take. Imports no torch."""

from __future__ import annotations

import difflib
import functools
import json
from typing import Any

# He et al. 2016, section 4.2: depth = 6·n + 2.
CIFAR_RESNET_DEPTHS = {f"resnet{depth}": depth for depth in (20, 32, 44, 56, 110)}

# name -> what it is
MODELS: dict[str, str] = {
    "digits-cnn": "four small layers for 8×8 digits",
    **{
        name: f"ResNet-{depth} for 32×32 (option A shortcuts)"
        for name, depth in CIFAR_RESNET_DEPTHS.items()
    },
    "resnet50": "timm's ResNet-50, from scratch",
    "vit_base_patch32_224": "timm's ViT-B/32, from scratch",
}
ALIASES = {
    "vit-b32": "vit_base_patch32_224",
    "timm/resnet50": "resnet50",
    "timm/vit_base_patch32_224": "vit_base_patch32_224",
}
TIMM = ("resnet50", "vit_base_patch32_224")

# The smallest side at which a network's last feature map still has a pixel and its strides make
# sense.
_SIDE_MIN_PX = {"digits-cnn": 4, **dict.fromkeys(CIFAR_RESNET_DEPTHS, 8), "resnet50": 32}
VIT_PATCH_PX = 32


def canonical(name: str) -> str:
    """The one name a classifier goes by: aliases replaced, everything else as it is."""
    return ALIASES.get(name, name)


def check(name: str, height: int, width: int, channels: int, classes: int) -> None:
    """Raise ValueError unless classifier `name` takes such images (of the size it *sees*).

    `timm/NAME` is looked up in timm, which imports torch, and tried if the size is not timm's own
    for it; all other names are checked without torch.
    """
    name = canonical(name)
    if classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, got {classes}")
    if channels < 1 or height < 1 or width < 1:
        raise ValueError(f"images need positive sizes, got {height}×{width}×{channels}")
    if name.startswith("timm/"):
        check_timm(name, height, width, channels)
    elif name not in MODELS:
        near = difflib.get_close_matches(name, [*MODELS, *ALIASES], n=3, cutoff=0.4)
        raise ValueError(
            f"unknown classifier {name!r}; nearest: {', '.join(near or MODELS)}, or timm/NAME"
        )
    least = _SIDE_MIN_PX.get(name, 1)
    if min(height, width) < least:
        raise ValueError(
            f"{name} takes images of at least {least}×{least} pixels, got {height}×{width}"
        )
    if name == "vit_base_patch32_224" and (height % VIT_PATCH_PX or width % VIT_PATCH_PX):
        raise ValueError(
            f"{name} takes sides that are multiples of {VIT_PATCH_PX} (the paper: "
            f"224×224), got {height}×{width}"
        )


# plans and trials ask for the same few again and again, and each would import and build
@functools.cache
def check_timm(name: str, height: int, width: int, channels: int, args: str = "{}") -> None:
    """Raise ValueError unless `timm/NAME` takes such images. args: of timm's create_model besides,
    as JSON.
    """
    import timm

    bare = name.removeprefix("timm/")
    network, dot, tag = bare.partition(".")
    if dot:
        raise ValueError(
            f"{name}: {tag!r} names pre-trained weights, and a name alone trains from scratch; "
            f"write timm/{network}, or {{timm: {bare}, pretrained: true}} to start from them"
        )
    if not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=3, cutoff=0.4)
        raise ValueError(
            f"timm has no model {bare!r}; nearest: {', '.join(f'timm/{n}' for n in near) or 'none'}"
        )
    config = timm.models.get_pretrained_cfg(bare)
    # None: a model of the user's, registered without a size.
    own = config.input_size[1:] if config else None
    if own == (height, width) and args == "{}":
        return
    try:
        _run_without_numbers(bare, height, width, channels, json.loads(args))
    except Exception as error:  # each of timm's networks refuses in a way of its own
        own_text = f", timm has it for {own[0]}×{own[1]}" if own else ""
        raise ValueError(
            f"{name} cannot take {height}×{width}×{channels} images{own_text}: {_line(error)}"
        ) from error


@functools.cache
def check_head(name: str, *, linear: bool = False) -> None:
    """Raise ValueError unless classifier `name` ends in one layer that gives the logits, whose
    input are its features. linear: which says how wide they are, for one in its place.
    """
    bare = canonical(name).removeprefix("timm/")
    if bare == canonical(name):
        return  # ours, and those that timm has by these names, do
    import timm
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network: Any = timm.create_model(bare, pretrained=False, num_classes=2)
        head = network.get_classifier()
    one = isinstance(head, torch.nn.Module) and not isinstance(head, torch.nn.ModuleList)
    if not one or (linear and getattr(head, "in_features", None) is None):
        what = "one linear layer" if linear else "one layer that gives the logits"
        raise ValueError(f"{name} does not end in {what}; choose another classifier")


def _run_without_numbers(
    bare: str, height: int, width: int, channels: int, args: dict[str, Any]
) -> None:
    """One image's way through a network of shapes alone, which takes no memory and about a second.

    timm's `fixed_input_size` is not asked: some networks that have it set take other sizes
    (CrossViT, Twins).
    """
    import timm
    import torch

    # What a check draws must not shift the initial weights that are drawn after it.
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.inference_mode():
        options: dict[str, Any] = {"num_classes": 2, "in_chans": channels, **args}
        network = timm.create_model(bare, pretrained=False, **options).eval()
        network(torch.empty(1, channels, height, width))


def _line(error: Exception) -> str:
    """The error as one line; some have no message."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
