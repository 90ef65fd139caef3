"""Weights by name: read from files, compared, copied."""

import json
import zipfile
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


def check_file(path: str, what: str) -> None:
    """Raise ValueError, one line, unless a file is whole: of safetensors by its name, else of
    PyTorch. Its values are not looked at, and torch is not imported.
    """
    found = "a safetensors file" if path.endswith(".safetensors") else "a file of PyTorch's"
    whole = _is_safetensors if path.endswith(".safetensors") else _is_of_torch
    if not whole(path):
        right = "fetch it again (is it a pointer of Git LFS, or half a download?)"
        raise ValueError(f"{what}: {path!r} is not {found}, or not all of it; {right}")


def _is_safetensors(path: str) -> bool:
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            return False
        try:
            header = json.loads(file.read(length))
            parts = [part for name, part in header.items() if name != "__metadata__"]
            return size == 8 + length + max((part["data_offsets"][1] for part in parts), default=0)
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
            return False


def _is_of_torch(path: str) -> bool:
    """A zip, as torch writes since version 1.6, or the pickle that it wrote before."""
    with open(path, "rb") as file:
        begins = file.read(2)
    return begins == b"\x80\x02" if begins != b"PK" else zipfile.is_zipfile(path)


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
