"""A network with its optimiser and, where one is wanted, the average of its weights."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from equigrid.generators.calls import State
from equigrid.generators.common.weights import check_names, copied
from equigrid.generators.trainer.compilation import Compiled, in_a_line
from equigrid.generators.trainer.devices import group


class Learner:
    """What a training step changes.  In a worker group each rank holds one, and gradients are
    averaged over them.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str,
        averages: bool = False,
        compiled: bool = False,
    ):
        """network: on its device; optimizer: of all its parameters that take gradients, in their
        order. A group's `rate`, where it has one, is that of its learning rate.
        """
        self.network, self.optimizer = network.train(), optimizer
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        device = next(network.parameters()).device
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.average = (
            {name: p.detach().clone() for name, p in self.parameters.items()} if averages else {}
        )
        self.alone = False
        """Whether to compute without telling the other ranks."""
        # Few sizes of batch, each compiled for itself: a microbatch, and what is left of a batch.
        self._compiled = Compiled(network, dynamic=False) if compiled else None
        self._forward: nn.Module = network if self._compiled is None else self._compiled
        self._parallel: DistributedDataParallel | None = None
        if group()[1] > 1:
            self._parallel = DistributedDataParallel(self._forward, broadcast_buffers=False)
            self._forward = self._parallel

    @property
    def forward(self) -> Callable[..., Any]:
        """What the network computes, whatever that takes and returns."""
        if self.alone:
            return self.network if self._compiled is None else self._compiled
        return self._forward

    def runs_on_eagerly(self, error: Exception) -> bool:
        """After an error in a backward pass: whether another try runs without what may have been at
        fault, the compilation.

        Not in a worker group, whose other ranks already wait for this one's gradients.
        """
        if self._parallel is not None or self._compiled is None or self._compiled.gave_up:
            return False
        self._compiled.give_up(in_a_line(error))
        return True

    def unsynced(self) -> AbstractContextManager:
        """Within it gradients stay on this rank, to be added to."""
        return nullcontext() if self._parallel is None else self._parallel.no_sync()

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def update(self, lr: float, decay: float) -> None:
        """The optimiser's step, and the average's, which keeps the part `decay` of itself."""
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr * parameters.get("rate", 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            values = [p.detach() for p in self.parameters.values()]
            torch._foreach_lerp_(list(self.average.values()), values, 1 - decay)

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights, copied to the CPU."""
        return copied(self.parameters)

    def averaged(self) -> dict[str, torch.Tensor]:
        """The averaged weights, copied to the CPU."""
        return copied(self.average)

    def finite(self) -> bool:
        """Whether every weight is a finite number; waits for the device."""
        with torch.no_grad():
            largest = torch._foreach_norm(list(self.parameters.values()), math.inf)
        return bool(torch.stack(largest).isfinite().all())

    def state(self) -> State:
        """A copy on the CPU of all that later steps depend on."""
        moments = self.optimizer.state_dict()["state"]
        names = list(self.parameters)
        return {
            "weights": self.weights(),
            "average": self.averaged(),
            "moments": {names[i]: copied(of) for i, of in moments.items()},
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Take a state; ValueError, with the first difference, if it is that of another network."""
        check_names("saved weights", self.parameters, state["weights"])
        check_names("saved average", self.average, state["average"])
        with torch.no_grad():
            for own, saved in (
                (self.parameters, state["weights"]),
                (self.average, state["average"]),
            ):
                for name, value in own.items():
                    value.copy_(saved[name])
        moments = {
            i: {key: _beside(p, value) for key, value in state["moments"][name].items()}
            for i, (name, p) in enumerate(self.parameters.items())
            if name in state["moments"]
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])


def _beside(parameter: nn.Parameter, saved: torch.Tensor) -> torch.Tensor:
    """A copy of a parameter's saved moment, or of its count of steps.

    A moment gets the parameter's layout in memory, which states do not keep: fused optimisers walk
    through the memory of both side by side.
    """
    return (
        torch.empty_like(parameter).copy_(saved)
        if saved.shape == parameter.shape
        else saved.clone()
    )
