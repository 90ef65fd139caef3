"""Weights by name: read from files, compared, copied."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from equigrid.generators.common import hub

if TYPE_CHECKING:
    import torch

    Weights = Mapping[str, torch.Tensor]


def read(path: str) -> "dict[str, torch.Tensor]":
    """A state dict from a safetensors file, or its address on a hub; ValueError if there is none or
    it is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    here = hub.local(path)
    if not Path(here).is_file():
        raise ValueError(f"weights: there is no file {path!r}")
    try:
        return load_file(here)
    except SafetensorError as error:
        raise ValueError(f"weights: {path!r} is not a safetensors file ({error})") from None


def check_names(what: str, wanted: "Weights", given: "Weights") -> None:
    """ValueError with the first difference in names or shapes; `what` says whose they are."""
    for name, value in wanted.items():
        if name not in given:
            raise ValueError(f"{what}: {name} is missing, a tensor of shape {list(value.shape)}")
        if given[name].shape != value.shape:
            shapes = f"{list(given[name].shape)}, the configured network's is {list(value.shape)}"
            raise ValueError(f"{what}: {name} has shape {shapes}")
    for name in given:
        if name not in wanted:
            raise ValueError(f"{what}: {name} is not in the configured network")


def copied(weights: "Weights") -> "dict[str, torch.Tensor]":
    """Copies on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in weights.items()
    }
