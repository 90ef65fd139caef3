"""What the device can do: precision, memory format, compilation; and the ranks of a worker group."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import nn

from generators.calls import ignore
from generators.configuration import Compute

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_COMPILE_PAYS_NIMG = 2_000_000
"""Of training: below so many images, compiling (about a minute) costs more than it saves."""
_COMPILE_PAYS_PARAMETERS = 10_000_000
"""Of sampling: a few shards from a network of this size take longer than compiling.  Estimated, not measured."""


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


def compiles_training(compute: Compute, device: torch.device, nimg: int) -> bool:
    """Whether to compile a network that learns from `nimg` images in all."""
    return _compiles(compute, device, pays=nimg >= _COMPILE_PAYS_NIMG)


def compiles_sampling(compute: Compute, device: torch.device, parameters: int) -> bool:
    """Whether to compile a network of so many parameters for sampling.

    How many images a call asks for has no say: compiling changes pixels by rounding, and all shards of a pool are to
    go one way.  Nor would it tell much: a process samples shard after shard, of pool after pool.
    """
    return _compiles(compute, device, pays=parameters >= _COMPILE_PAYS_PARAMETERS)


def _compiles(compute: Compute, device: torch.device, *, pays: bool) -> bool:
    return device.type == "cuda" and pays if compute.compile == "auto" else compute.compile == "on"


def memory_format(precision: str, device: torch.device) -> torch.memory_format:
    """channels_last on CUDA, where tensor cores read it, and for bf16 on a CPU (2x there); else plain."""
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


class Kept:
    """The network that was compiled last for sampling, kept for the next call in this process."""

    def __init__(self):
        self.key = self.network = self.forward = None

    def compiled(self, network: nn.Module, key: Hashable, *, graphs: bool = False) -> Callable:
        """What `network` computes, compiled; it is the caller's no longer, and may become what is kept.

        Where what is kept has an equal key it serves again, with the weights of `network`: so one compilation serves
        shard after shard of pool after pool.  key: all else that decides what is computed, device and image size
        included.  graphs: replay CUDA graphs.
        """
        if key == self.key:
            with torch.no_grad():  # in place: a CUDA graph reads from these very tensors
                torch._foreach_copy_(list(self.network.parameters()), list(network.parameters()))
            return self.forward
        self.release()  # first, so that two never share the memory
        for p in network.parameters():
            p.data = p.data.clone()  # to be written to; until now it may be the caller's own tensor
        # deterministic: kernels are not chosen by timing them, so that processes on equal devices agree bitwise.
        options = {"deterministic": True, "triton.cudagraphs": graphs}
        self.key, self.network, self.forward = key, network, torch.compile(network, options=options)
        return self.forward

    def release(self) -> None:
        """Let it go, with its graphs and their memory."""
        if self.key is None:
            return
        self.key = self.network = self.forward = None
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


kept = Kept()
"""One for all kinds: a slot that turns to another generator has mostly done with the one before."""
release = kept.release
"""For `generators.backends.release`."""
