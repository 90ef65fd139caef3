"""When a network is compiled, and the one that stays compiled between two calls for samples."""

import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

from equigrid.generators.base_config import Compute

log = logging.getLogger("equigrid.generators")

_COMPILE_PAYS_FLOPS = 1e16
"""Of training, forward passes alone: below so many operations, compiling (about a minute) costs
more than it saves.  0.25 million images of EDM's published network; by arithmetic, not measured.
"""
_COMPILE_PAYS_PARAMETERS = 10_000_000
"""Of sampling: a few shards from a network of this size take longer than compiling.  Estimated, not
measured.
"""


def compiles_training(
    compute: Compute, device: torch.device, forward_flops: Callable[[], float]
) -> bool:
    """Whether to compile a network for a training.

    forward_flops: counts the operations of all forward passes; asked where the answer hangs on it.
    """
    return _compiles(compute, device, pays=lambda: forward_flops() >= _COMPILE_PAYS_FLOPS)


def flops_of(network: nn.Module, *inputs: torch.Tensor, **options: torch.Tensor) -> int:
    """Floating-point operations (two per multiplication with addition) of one call. Nothing is
    computed where all lies on the meta device.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs, **options)
    return int(counter.get_total_flops())


def compiles_sampling(compute: Compute, device: torch.device, parameters: int) -> bool:
    """Whether to compile a network of so many parameters for sampling.

    How many images a call asks for has no say: compiling changes pixels by rounding, and all shards
    of a pool are to go one way.  Nor would it tell much: a process samples shard after shard, of
    pool after pool.
    """
    return _compiles(compute, device, pays=lambda: parameters >= _COMPILE_PAYS_PARAMETERS)


def _compiles(compute: Compute, device: torch.device, *, pays: Callable[[], bool]) -> bool:
    if compute.compile == "auto":
        return device.type == "cuda" and pays()
    return compute.compile == "on"


class Compiled(nn.Module):
    """A network that is compiled when it is first called; or runs as it is, from a compilation that
    fails on.

    What fails is mostly the machine: Triton and Inductor need a C compiler.
    """

    def __init__(self, network: nn.Module, **options: Any):
        """options: torch.compile's."""
        super().__init__()
        self.network = network
        # In a tuple, in which torch does not look for a second copy of the network's parts.
        self._compiled: tuple[Callable[..., Any]] | None = (torch.compile(network, **options),)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled is None:
            return self.network(*args, **kwargs)
        try:
            return self._compiled[0](*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        # Whatever a compiler and its drivers raise; what is the network's own, it raises again.
        except Exception as error:
            why = in_a_line(error)
        # Outside the handler, whose exception holds the failed call's tensors.
        made = self.network(*args, **kwargs)
        self.give_up(why)
        return made

    @property
    def gave_up(self) -> bool:
        """Whether it runs as it is."""
        return self._compiled is None

    def give_up(self, why: str) -> None:
        """Be compiled no longer."""
        self._compiled = None
        log.warning("a network runs without being compiled: %s", why)


def in_a_line(error: Exception) -> str:
    """What went wrong, without the advice that torch adds below an empty line."""
    said = str(error).strip().partition("\n\n")[0]
    return " ".join(said.split()) or type(error).__name__


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
        forward = Compiled(network, options={"deterministic": True, "triton.cudagraphs": graphs})
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
