"""What every training does with its networks: steps of a global batch, in parts that fit the
memory.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
import torch.distributed as dist

from equigrid.generators.base_config import Compute
from equigrid.generators.trainer.devices import autocast, group, own_part, precision_of
from equigrid.generators.trainer.learner import Learner

Batch = TypeVar("Batch", bound=NamedTuple)


class Checkpointable(Protocol):
    """A network that can compute its activations twice in place of keeping them."""

    def enable_gradient_checkpointing(self) -> None: ...


class Trainer(ABC, Generic[Batch]):
    """A training, or a part of one: `advance` takes its steps, `step` counts them.

    A subclass sets `learners`, and `checkpointed` to the network whose activations may be computed
    twice, if there is one.  COLUMNS: names of its losses, of which the first is minimised.
    """

    COLUMNS: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        steps: int,
        batch: int,
        compute: Compute,
        seed: int,
        device: torch.device,
        gradient_checkpointing: str = "off",
    ):
        """batch: of all ranks together.  gradient_checkpointing: on, off, or auto: where memory
        asks for it.
        """
        self.steps, self.batch_size, self.seed, self.device = steps, batch, seed, device
        self.step = 0
        self.precision = precision_of(compute.training_precision, device, auto="bf16")
        self.part = own_part(batch)
        local = self.part.stop - self.part.start
        self.microbatch = min(compute.microbatch or local, local)
        self.gradient_checkpointing, self.checkpointing = gradient_checkpointing, False
        self.asked_for = self.microbatch, gradient_checkpointing == "on"
        """`microbatch` and `checkpointing` as configured; less where memory does not suffice."""
        self.learners: dict[str, Learner] = {}
        self.checkpointed: Checkpointable | None = None

    @abstractmethod
    def batch(self) -> Batch:
        """This rank's images of the next global batch: a tuple of tensors of equal length, or
        None.
        """

    @abstractmethod
    def losses_of(self, part: Batch, share: float, *, full: bool = False) -> torch.Tensor:
        """Add the gradients of `share` times the mean loss of some images; share times the losses,
        (len(COLUMNS),).

        full: as in the step that takes most memory.
        """

    @abstractmethod
    def rates(self) -> tuple[float, float]:
        """Of the next step: the learning rate, and the part of the averages that is kept."""

    def prepare(self) -> None:
        """Settle what is taken at once: before the first step, as no rank of a group can do it
        later alone.
        """
        if self.gradient_checkpointing == "on":
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
        batch = self._batch_beside()
        while True:
            try:
                losses = self._gradients(batch)
                break
            except torch.OutOfMemoryError:
                # In a worker group the other ranks wait inside an all-reduce: only a new start
                # helps there.
                if group()[1] > 1 or not self._can_make_room():
                    raise
            # Where a backward pass is compiled at its first call, and that fails.
            except Exception as error:
                if not any(le.runs_on_eagerly(error) for le in self.learners.values()):
                    raise
                continue
            # outside the handlers, whose exception holds the failed part's tensors
            self._make_room()
        for learner in self.learners.values():
            if any(p.grad is not None for p in learner.parameters.values()):
                learner.update(*self.rates())
        self.step += 1
        return losses

    def autocast(self) -> AbstractContextManager:
        return autocast(self.precision, self.device)

    def _batch_beside(self) -> Batch:
        """`batch`, on a CUDA device made on a stream of its own.

        A batch's many small draws are copied from the host, and each copy waits for its stream: on
        this one for nothing but the batch, while the device is still busy with the step before.
        """
        if self.device.type != "cuda":
            return self.batch()
        stream = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._side_stream):
            batch = self.batch()
        stream.wait_stream(self._side_stream)
        for values in batch:
            if values is not None:
                # else its memory might go to a later batch while this step reads it
                values.record_stream(stream)
        return batch

    @cached_property
    def _side_stream(self) -> torch.cuda.Stream:
        # Small work that a step waits for goes ahead of large.
        stream = torch.cuda.Stream(self.device, priority=-1)
        # The current stream may still be putting the images there.
        stream.wait_stream(torch.cuda.current_stream(self.device))
        return stream

    def _gradients(self, batch: Batch) -> torch.Tensor:
        """Gradients of the mean over the global batch, part by part; each loss's mean over this
        rank's images.
        """
        self._forget_gradients()
        n = len(batch[0])
        total = torch.zeros(len(self.COLUMNS), device=self.device)
        for first in range(0, n, self.microbatch):
            part = sliced(batch, slice(first, first + self.microbatch))
            with ExitStack() as stack:
                for learner in self.learners.values():
                    waits = first + self.microbatch < n
                    stack.enter_context(learner.unsynced() if waits else nullcontext())
                # DDP averages over ranks, whose parts are equal: so this is the mean over the
                # global batch.
                total += self.losses_of(part, len(part[0]) / n)
        return total

    def _forget_gradients(self) -> None:
        for learner in self.learners.values():
            learner.optimizer.zero_grad(set_to_none=True)

    def _can_make_room(self) -> bool:
        return self.microbatch > 1 or self._can_checkpoint()

    def _can_checkpoint(self) -> bool:
        return self.gradient_checkpointing == "auto" and not self.checkpointing

    def _make_room(self) -> None:
        """Compute activations twice, then halve what is taken at once."""
        self._forget_gradients()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._can_checkpoint():
            self._checkpoint()
        else:
            self.microbatch = -(-self.microbatch // 2)

    def _checkpoint(self) -> None:
        assert self.checkpointed is not None, "gradient_checkpointing needs a network for it"
        self.checkpointed.enable_gradient_checkpointing()
        self.checkpointing = True

    def _fit_memory(self) -> None:
        """Make room until one part fits beside the optimisers' moments, in the form that will run,
        compiled or not: a compiled network may need much less. Without a word between ranks.
        """
        moments = [
            torch.empty_like(p)
            for le in self.learners.values()
            for p in le.parameters.values()
            for _ in "mv"
        ]
        for learner in self.learners.values():
            learner.alone = True
        batch = self.batch()
        while not self._fits(sliced(batch, slice(0, self.microbatch))):
            if not self._can_make_room():
                raise torch.OutOfMemoryError(
                    "training does not fit the device with one image at once"
                )
            self._make_room()
        for learner in self.learners.values():
            learner.alone = False
        self._forget_gradients()
        del moments

    def _fits(self, part: Batch) -> bool:
        while True:
            try:
                self.losses_of(part, 1.0, full=True)
                return True
            except torch.OutOfMemoryError:
                return False
            except Exception as error:  # as in `advance`
                if not any(le.runs_on_eagerly(error) for le in self.learners.values()):
                    raise
            self._forget_gradients()


def sliced(batch: Batch, part: slice) -> Batch:
    """Some images of a batch."""
    return batch._make(values if values is None else values[part] for values in batch)
