"""What the device can do: precision and memory format; and the ranks of a worker group."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist

from equigrid.generators.calls import ignore

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision_of(wanted: str, device: torch.device, *, auto: str) -> str:
    """fp32, bf16 or fp16; `auto` is what "auto" means on a CUDA device that has it.

    Raises ValueError where the device has no such arithmetic.
    """
    if wanted == "auto":
        known = device.type == "cuda" and (auto != "bf16" or torch.cuda.is_bf16_supported())
        return auto if known else "fp32"
    if wanted == "fp16" and device.type == "cpu":
        raise ValueError("precision fp16 needs a CUDA device; on a CPU choose fp32 or bf16")
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ValueError("precision bf16 needs a newer CUDA device; choose fp16 or fp32")
    return wanted


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Autocast to `precision`; nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def memory_format(precision: str, device: torch.device) -> torch.memory_format:
    """channels_last on CUDA, where tensor cores read it, and for bf16 on a CPU (2x there); else
    plain.
    """
    fast = device.type == "cuda" or precision == "bf16"
    return torch.channels_last if fast else torch.contiguous_format


def group() -> tuple[int, int]:
    """(rank, world size) of this process; (0, 1) outside a worker group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def on_rank_0(callback: Callable) -> Callable:
    """The callback on rank 0, or outside a worker group; nothing on other ranks."""
    return callback if group()[0] == 0 else ignore


def own_part(batch: int) -> slice:
    """This rank's images of a global batch; ValueError for one that the ranks cannot share."""
    rank, world = group()
    if batch % world:
        raise ValueError(f"batch {batch} must be divisible by the {world} workers")
    return slice(rank * batch // world, (rank + 1) * batch // world)
