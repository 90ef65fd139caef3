"""Pre-trained weights: compared with the network they are for, and put into it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrize

from equigrid.classifiers.models.pretraining import Pretraining

Shapes = dict[str, tuple[int, ...]]
NAMED = 3  # differences that a message lists


def check_architecture(name: str) -> None:
    """Raises ValueError, one line, unless timm has an architecture of that name."""
    if timm.is_model(name):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
    raise ValueError(f"timm has no architecture {name!r}; nearest: {', '.join(near) or 'none'}")


def released(architecture: str, tag: str | None) -> dict[str, Any]:
    """What timm knows of released weights of an architecture, its own default where tag is None:
    `name`, `hub` (owner/name), `file` (None: the usual). Raises ValueError for a tag that timm has
    not, and for weights that are on no hub.
    """
    check_architecture(architecture)
    name = f"{architecture}.{tag}" if tag else architecture
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        known = [n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")]
        raise ValueError(
            f"timm has no weights {tag!r} of {architecture}; tags: {', '.join(known) or 'none'}"
        )
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or config.custom_load == "hf":
        raise ValueError(
            f"timm has no weights of {name} as a safetensors file on the hub; name a local file"
        )
    hub = config.hf_hub_id
    return {
        "name": name,
        "hub": f"{hub}{name}" if hub.endswith("/") else hub,
        "file": config.hf_hub_filename,
    }


def defaults(name: str) -> tuple[list[float], list[float], int]:
    """timm's mean, deviation and number of channels for images of an architecture, or of released
    weights (`architecture.tag`).
    """
    config = timm.get_pretrained_cfg(name)
    if config is None:  # registered without one
        return [0.5], [0.5], 3
    return list(config.mean), list(config.std), config.input_size[0]


def read_shapes(path: str, place: str) -> Shapes:
    """The tensors of a safetensors file, by name, their shapes alone. place: what messages call it.
    Raises ValueError.
    """
    try:
        with safe_open(path, "np") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"{place} is not a file of weights in safetensors' format ({why})"
        ) from None


def fitting(
    architecture: str, args: str, given: Shapes, place: str, channels: Iterable[int]
) -> int:
    """The channels, of these, of the network whose weights they are.

    args: of create_model, as JSON. Raises ValueError, one line, that names the first differences.
    """
    first = None
    for number in dict.fromkeys(channels):
        network = skeleton(architecture, args, number)
        found = differences(network, given)
        if not found:
            return number
        first = first or found
    raise ValueError(f"{place}: these are not {architecture}'s weights: {first}")


def check_adaptable(architecture: str, args: str, channels: int) -> None:
    """Raises ValueError for a network without a linear layer before its last."""
    network = skeleton(architecture, args, channels)
    if not adaptable(network):
        raise ValueError(
            f"train: lora adapts linear layers, and {architecture} has none before its last; use "
            "train: all or head"
        )


@cache
def skeleton(architecture: str, args: str, channels: int) -> nn.Module:
    """The network without values, on torch's meta device. Raises ValueError for arguments that
    timm refuses.
    """
    how = json.loads(args)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return timm.create_model(architecture, num_classes=2, in_chans=channels, **how)
    except Exception as error:  # each of timm's networks refuses in a way of its own
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"timm does not make {architecture} with {how}: {why}") from error


def head_name(network: nn.Module) -> str:
    """The name of the last layer inside a network of timm's. Raises ValueError where it has not
    just one.
    """
    own: Any = network
    head = own.get_classifier()
    for name, module in network.named_modules():
        if module is head and next(module.parameters(), None) is not None:
            return name
    raise ValueError("the network does not end in one layer that gives the logits")


def differences(network: nn.Module, given: Shapes) -> str:
    """The first differences between a network's weights and those given, its last layer aside; ''
    where there are none.
    """
    head = f"{head_name(network)}."
    wanted = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.startswith(head) and not name.endswith("num_batches_tracked")
    }
    ours = {
        name: shape
        for name, shape in given.items()
        if not name.startswith(head) and not name.endswith("num_batches_tracked")
    }
    other = [
        f"{name} is {list(ours[name])} for {list(shape)}"
        for name, shape in wanted.items()
        if name in ours and ours[name] != shape
    ]
    parts = {
        "missing": [name for name in wanted if name not in ours],
        "unexpected": [name for name in ours if name not in wanted],
        "of another shape": other,
    }
    return "; ".join(f"{what}: {_some(names)}" for what, names in parts.items() if names)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def load(network: nn.Module, path: str) -> None:
    """Puts a file's weights, as float32, into a network of timm's; its last layer keeps its own.

    Raises ValueError where they differ from the network's in name or shape.
    """
    if found := differences(network, read_shapes(path, path)):
        raise ValueError(f"{path}: the weights do not fit: {found}")
    head = f"{head_name(network)}."
    given: Mapping[str, torch.Tensor] = load_file(path)
    own = network.state_dict()
    with torch.no_grad():
        for name, value in given.items():
            if name in own and not name.startswith(head):
                own[name].copy_(value)


# What learns --------------------------------------------------------------------------------------


def adapt(network: nn.Module, head: nn.Module, how: Pretraining) -> None:
    """Freezes what is not to learn, and adds lora's matrices, drawn from torch's random state.

    head: the last layer, which always learns. The network's output stays what it was.
    """
    if how.train == "all":
        return
    layers = adaptable(network, head) if how.train == "lora" else []
    network.requires_grad_(False)
    for layer in layers:
        assert how.rank is not None
        assert how.alpha is not None
        addition = LowRank(layer, how.rank, how.alpha)
        parametrize.register_parametrization(layer, "weight", addition)
    head.requires_grad_(True)


def adaptable(network: nn.Module, head: nn.Module | None = None) -> list[nn.Linear]:
    """The linear layers before the last one."""
    own: Any = network
    last = set((own.get_classifier() if head is None else head).modules())
    return [m for m in network.modules() if isinstance(m, nn.Linear) and m not in last]


class LowRank(nn.Module):
    """W + (alpha / rank)·B·A in place of a linear layer's weight W (Hu et al. 2021, section 4.1):
    A (rank, inputs) is drawn, B (outputs, rank) begins as zeros, so that the sum begins as W.

    A parametrisation of the weight rather than a layer around it: some networks use a layer's
    weight without calling the layer.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float):
        super().__init__()
        outputs, inputs = layer.weight.shape
        of: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        self.a = nn.Parameter(torch.empty(rank, inputs, **of))
        self.b = nn.Parameter(torch.zeros(outputs, rank, **of))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.a, a=5**0.5)  # as a linear layer's own weights

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.scale * (self.b @ self.a)  # (outputs, inputs)
