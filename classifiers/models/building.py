"""Classifiers by name. Importing this module imports no torch; building one does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from equigrid.classifiers.names import (
    ALIASES,
    CIFAR_RESNET_DEPTHS,
    MODELS,
    TIMM,
    canonical,
    check,
    check_timm,
)

if TYPE_CHECKING:  # it imports pydantic, which plain training does without
    from torch import nn

    from equigrid.classifiers.models.pretraining import Start

__all__ = ["ALIASES", "MODELS", "Head", "build", "canonical", "check", "last_layer"]

Head = Callable[[int], Any]
"""From the width of features to the module that turns them into logits."""


def build(
    name: str,
    *,
    classes: int,
    height: int,
    width: int,
    channels: int,
    head: Head | None = None,
    start: Start | None = None,
) -> nn.Module:
    """An untrained classifier, float32 (N, channels, height, width) to logits float32 (N, classes).

    Weights come from torch's current random state. head: given the width of the features before the
    last layer, makes what takes that layer's place: (N, width) to (N, classes). start: pre-trained
    weights for all but the last layer, which say the channels too; what is not to learn has no
    gradient. Raises ValueError as `check` does, and for weights of another network.
    """
    if start is not None:
        return _pretrained(name, classes, height, width, start, head)
    check(name, height, width, channels, classes)
    network = _network(canonical(name), classes, height, width, channels)
    if head is not None:
        _replace_head(name, network, head)
    return network


def _pretrained(
    name: str, classes: int, height: int, width: int, start: Start, head: Head | None
) -> nn.Module:
    import timm

    from equigrid.classifiers.models import loading

    how = start.how
    check_timm(name, height, width, how.channels, how.args)
    network = timm.create_model(
        name.removeprefix("timm/"), num_classes=classes, in_chans=how.channels, **how.arguments
    )
    if start.path is not None:
        loading.load(network, start.path)
    if head is not None:
        _replace_head(name, network, head)
    loading.adapt(network, last_layer(network), how)
    return network


def _network(name: str, classes: int, height: int, width: int, channels: int) -> nn.Module:
    if name == "digits-cnn":
        from equigrid.classifiers.models.digits import DigitsCNN

        return DigitsCNN(channels, classes)
    if name in CIFAR_RESNET_DEPTHS:
        from equigrid.classifiers.models.resnet import CifarResNet

        return CifarResNet(CIFAR_RESNET_DEPTHS[name], channels, classes)
    return _timm(name, classes, height, width, channels)


def last_layer(network: nn.Module) -> nn.Module:
    """The layer that gives the logits."""
    own: Any = network  # timm's networks have a method for it, ours call it `head`
    return own.get_classifier() if hasattr(own, "get_classifier") else own.head


def _replace_head(name: str, network: nn.Module, head: Head) -> None:
    """Put a new last layer in the old one's place. ValueError for a classifier that does not end in
    a linear layer.
    """
    old = last_layer(network)
    width = getattr(old, "in_features", None)
    if width is None:
        raise ValueError(
            f"{name} does not end in one linear layer, so its last layer cannot be replaced"
        )
    for parent in network.modules():
        for place, child in parent.named_children():
            if child is old:
                setattr(parent, place, head(width))
                return


def _timm(name: str, classes: int, height: int, width: int, channels: int) -> nn.Module:
    import timm

    options: dict[str, Any] = {"pretrained": False, "num_classes": classes, "in_chans": channels}
    if name == "vit_base_patch32_224":
        options["img_size"] = (height, width)
    return timm.create_model(name.removeprefix("timm/"), **options)


assert set(TIMM) < set(MODELS)
