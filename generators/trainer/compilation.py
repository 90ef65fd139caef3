"""When a network is compiled, and the one that stays compiled between two calls for samples."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

from equigrid.generators.base_config import Compute

_COMPILE_PAYS_NIMG = 2_000_000
"""Of training: below so many images, compiling (about a minute) costs more than it saves."""
_COMPILE_PAYS_PARAMETERS = 10_000_000
"""Of sampling: a few shards from a network of this size take longer than compiling.  Estimated, not
measured.
"""


def compiles_training(compute: Compute, device: torch.device, nimg: int) -> bool:
    """Whether to compile a network that learns from `nimg` images in all."""
    return _compiles(compute, device, pays=nimg >= _COMPILE_PAYS_NIMG)


def compiles_sampling(compute: Compute, device: torch.device, parameters: int) -> bool:
    """Whether to compile a network of so many parameters for sampling.

    How many images a call asks for has no say: compiling changes pixels by rounding, and all shards
    of a pool are to go one way.  Nor would it tell much: a process samples shard after shard, of
    pool after pool.
    """
    return _compiles(compute, device, pays=parameters >= _COMPILE_PAYS_PARAMETERS)


def _compiles(compute: Compute, device: torch.device, *, pays: bool) -> bool:
    return device.type == "cuda" and pays if compute.compile == "auto" else compute.compile == "on"


class Kept:
    """The network that was compiled last for sampling, kept for the next call in this process."""

    def __init__(self) -> None:
        self.key: Hashable | None = None
        self._held: tuple[nn.Module, Callable[..., Any]] | None = None
        """The network, and the same compiled."""

    def compiled(
        self, network: nn.Module, key: Hashable, *, graphs: bool = False
    ) -> Callable[..., Any]:
        """What `network` computes, compiled; it is the caller's no longer, and may become what is
        kept.

        Where what is kept has an equal key it serves again, with the weights of `network`: so one
        compilation serves shard after shard of pool after pool.  key: all else that decides what is
        computed, device and image size included.  graphs: replay CUDA graphs.
        """
        if self._held is not None and key == self.key:
            held, serving = self._held
            with torch.no_grad():  # in place: a CUDA graph reads from these very tensors
                torch._foreach_copy_(list(held.parameters()), list(network.parameters()))
            return serving
        self.release()  # first, so that two never share the memory
        for p in network.parameters():
            p.data = p.data.clone()  # to be written to; until now it may be the caller's own tensor
        # deterministic: kernels are not chosen by timing them, so that processes on equal devices
        # agree bitwise.
        forward: Callable[..., Any] = torch.compile(
            network, options={"deterministic": True, "triton.cudagraphs": graphs}
        )
        self.key, self._held = key, (network, forward)
        return forward

    def release(self) -> None:
        """Let it go, with its graphs and their memory."""
        if self._held is None:
            return
        self.key = self._held = None
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


kept = Kept()
"""One for all kinds: a slot that turns to another generator has mostly done with the one before."""
release = kept.release
"""For `equigrid.generators.registry.release`."""
