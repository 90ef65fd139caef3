"""Classifiers by name. Importing this module imports no torch; building one does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classifiers.names import ALIASES, CIFAR_RESNET_DEPTHS, MODELS, TIMM, canonical, check

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ALIASES", "MODELS", "build", "canonical", "check"]


def build(name: str, *, classes: int, height: int, width: int, channels: int) -> nn.Module:
    """An untrained classifier, float32 (N, channels, height, width) to logits float32 (N, classes).

    Weights come from torch's current random state. Raises ValueError as `check` does.
    """
    check(name, height, width, channels, classes)
    name = canonical(name)
    if name == "digits-cnn":
        from classifiers.digits import DigitsCNN

        return DigitsCNN(channels, classes)
    if name in CIFAR_RESNET_DEPTHS:
        from classifiers.resnet import CifarResNet

        return CifarResNet(CIFAR_RESNET_DEPTHS[name], channels, classes)
    return _timm(name, classes, height, width, channels)


def _timm(name: str, classes: int, height: int, width: int, channels: int) -> nn.Module:
    import timm

    options = {"pretrained": False, "num_classes": classes, "in_chans": channels}
    if name == "vit_base_patch32_224":
        options["img_size"] = (height, width)
    return timm.create_model(name.removeprefix("timm/"), **options)


assert set(TIMM) < set(MODELS)
