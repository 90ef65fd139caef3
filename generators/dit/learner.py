"""A network with its optimiser, and what every stage of training does with its networks: steps and memory."""

from contextlib import ExitStack, nullcontext
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from generators.dit.config import Compute, Schedule
from generators.edm.devices import autocast, group, precision_of
from generators.edm.weights import check_names

State = dict
"""Everything that a training needs to go on: tensors, numbers, strings, lists and dicts only."""


def learning_rate(schedule: Schedule, step: int) -> float:
    """The rate of the step after `step` steps: a linear rise and a linear fall around a constant."""
    up, down = schedule.lr_rampup_part * schedule.steps, schedule.lr_decay_part * schedule.steps
    rising = min((step + 1) / up, 1.0) if up else 1.0
    falling = min((schedule.steps - step) / down, 1.0) if down else 1.0
    return schedule.lr * min(rising, falling)


class Learner:
    """A network, its AdamW, and the average of its weights where one is wanted."""

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        device: torch.device,
        *,
        precision: str,
        ema_decay: float | None = None,
        compiled: bool = False,
    ):
        self.network, self.schedule, self.ema_decay = network.to(device).train(), schedule, ema_decay
        self.parameters = dict(network.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=schedule.lr,
            betas=schedule.betas,
            weight_decay=schedule.weight_decay,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        averages = ema_decay is not None
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()} if averages else {}
        self.alone = False
        """Whether to pass the network itself, without telling the other ranks."""
        self._forward = torch.compile(network) if compiled else network
        if group()[1] > 1:
            self._forward = DistributedDataParallel(self._forward, broadcast_buffers=False)

    @property
    def forward(self) -> nn.Module:
        return self.network if self.alone else self._forward

    def unsynced(self):
        """Within it gradients stay on this rank, to be added to."""
        return self._forward.no_sync() if group()[1] > 1 else nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def update(self, step: int) -> None:
        """The optimiser's step after `step` steps, and the average's."""
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate(self.schedule, step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            decay = min(self.ema_decay, (1 + step) / (10 + step))
            values = [p.detach() for p in self.parameters.values()]
            torch._foreach_lerp_(list(self.average.values()), values, 1 - decay)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: _copy(p) for name, p in self.parameters.items()}

    def averaged(self) -> dict[str, torch.Tensor]:
        return {name: _copy(p) for name, p in self.average.items()}

    def state(self) -> State:
        moments = self.optimizer.state_dict()["state"]
        names = list(self.parameters)
        return {
            "weights": self.weights(),
            "average": self.averaged(),
            "moments": {names[i]: {k: _copy(v) for k, v in of.items()} for i, of in moments.items()},
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Take a state; ValueError, with the first difference, if it is that of another network."""
        check_names("saved weights", self.parameters, state["weights"])
        check_names("saved average", self.average, state["average"])
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(state["weights"][name])
            for name, p in self.average.items():
                p.copy_(state["average"][name])
        moments = {i: state["moments"][name] for i, name in enumerate(self.parameters) if name in state["moments"]}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])


class Stage:
    """A part of the training: `advance` takes its steps, `step` counts them.

    A subclass sets `learners` and `checkpointed` (the network whose activations may be computed twice) and has
    `batch()`, `losses_of(batch, part)` and COLUMNS, the names of the losses, whose first is minimised.
    """

    COLUMNS: tuple[str, ...] = ()

    def __init__(self, schedule: Schedule, compute: Compute, *, seed: int, device: torch.device):
        self.schedule, self.compute, self.seed, self.device, self.step = schedule, compute, seed, device, 0
        self.precision = precision_of(compute.training_precision, device, auto="bf16")
        self.part = _part(schedule.batch)
        local = self.part.stop - self.part.start
        self.microbatch = min(compute.microbatch or local, local)
        self.checkpointing = False
        self.learners: dict[str, Learner] = {}
        self.checkpointed: nn.Module | None = None

    def prepare(self) -> None:
        """Settle what is taken at once: before the first step, as no rank of a group can do it later alone."""
        if self.compute.gradient_checkpointing == "on":
            self._checkpoint()
        if self.device.type == "cuda":
            self._fit_memory()
        if group()[1] > 1:
            room = torch.tensor([self.microbatch, -int(self.checkpointing)], device=self.device)
            dist.all_reduce(room, dist.ReduceOp.MIN)
            self.microbatch = int(room[0])
            if room[1] < 0 and not self.checkpointing:
                self._checkpoint()

    def advance(self) -> torch.Tensor:
        """One step; the losses over this rank's images, (len(COLUMNS),) on the device."""
        batch = self.batch()
        while True:
            try:
                losses = self._gradients(batch)
                break
            except torch.OutOfMemoryError:
                # In a worker group the other ranks wait inside an all-reduce: only a new start helps there.
                if group()[1] > 1 or not self._make_room():
                    raise
        for learner in self.learners.values():
            if any(p.grad is not None for p in learner.parameters.values()):
                learner.update(self.step)
        self.step += 1
        return losses

    def autocast(self):
        return autocast(self.precision, self.device)

    def _gradients(self, batch: NamedTuple) -> torch.Tensor:
        """Gradients of the mean over the global batch, part by part; each loss's mean over this rank's images."""
        for learner in self.learners.values():
            learner.optimizer.zero_grad(set_to_none=True)
        n = len(batch[0])
        total = torch.zeros(len(self.COLUMNS), device=self.device)
        for first in range(0, n, self.microbatch):
            part = _sliced(batch, slice(first, first + self.microbatch))
            with ExitStack() as stack:
                for learner in self.learners.values():
                    waits = first + self.microbatch < n
                    stack.enter_context(learner.unsynced() if waits else nullcontext())
                # DDP averages over ranks, whose parts are equal: so this is the mean over the global batch.
                total += self.losses_of(part, len(part[0]) / n)
        return total

    def _make_room(self) -> bool:
        """Compute activations twice, then halve what is taken at once; False where nothing is left to do."""
        if self.microbatch == 1 and (self.checkpointing or self.compute.gradient_checkpointing == "off"):
            return False
        for learner in self.learners.values():
            learner.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if not self.checkpointing and self.compute.gradient_checkpointing != "off":
            self._checkpoint()
        else:
            self.microbatch = -(-self.microbatch // 2)
        return True

    def _checkpoint(self) -> None:
        self.checkpointed.enable_gradient_checkpointing()
        self.checkpointing = True

    def _fit_memory(self) -> None:
        moments = [torch.empty_like(p) for le in self.learners.values() for p in le.parameters.values() for _ in "mv"]
        for learner in self.learners.values():
            learner.alone = True
        batch = self.batch()
        while not self._fits(_sliced(batch, slice(0, self.microbatch))):
            if not self._make_room():
                raise torch.OutOfMemoryError("training does not fit the device with one image at once")
        for learner in self.learners.values():
            learner.alone = False
            learner.optimizer.zero_grad(set_to_none=True)
        del moments

    def _fits(self, part: NamedTuple) -> bool:
        try:
            self.losses_of(part, 1.0, full=True)
        except torch.OutOfMemoryError:
            return False
        return True

    def batch(self) -> NamedTuple:
        """This rank's images of the next global batch, a tuple of tensors of equal length."""
        raise NotImplementedError

    def losses_of(self, part: NamedTuple, share: float, *, full: bool = False) -> torch.Tensor:
        """Add the gradients of `share` times the mean loss of some images; returns share times the losses.

        full: as in the step that takes most memory.
        """
        raise NotImplementedError


def _part(batch: int) -> slice:
    """This rank's images of a global batch."""
    rank, world = group()
    if batch % world:
        raise ValueError(f"batch {batch} must be divisible by the {world} workers")
    return slice(rank * batch // world, (rank + 1) * batch // world)


def _sliced(batch: NamedTuple, part: slice) -> NamedTuple:
    return type(batch)(*(values[part] for values in batch))


def _copy(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to("cpu", copy=True).contiguous()
