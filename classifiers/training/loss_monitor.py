"""Losses read late, so that the loop never waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

CHUNK_STEPS = 64


class NotFinite(FloatingPointError):
    """A training loss that is not finite. Has `epoch` and `step` (both zero-based) and `loss`."""

    def __init__(self, loss: float, epoch: int, step: int):
        super().__init__(
            f"the loss became {loss} in epoch {epoch}, step {step}: lower the learning rate"
        )
        self.loss, self.epoch, self.step = loss, epoch, step

    def __reduce__(self) -> tuple[type[NotFinite], tuple[float, int, int]]:
        return NotFinite, (self.loss, self.epoch, self.step)


class LossWatch:
    """Keeps each step's loss on the device and looks at a chunk of them one chunk later.

    So the host runs at most two chunks ahead of the device, and never waits for the step just
    launched. `reduce` sums a chunk over all workers, which then raise together. `report(last_step,
    mean_loss)` is called for each chunk read.
    """

    def __init__(
        self,
        device: torch.device,
        first_step: int,
        steps_per_epoch: int,
        *,
        reduce: Callable[[torch.Tensor], object] | None = None,
        report: Callable[[int, float], None] | None = None,
    ):
        self.device, self.steps_per_epoch = device, steps_per_epoch
        self.reduce, self.report = reduce, report
        self.next_step = first_step
        self.losses: list[torch.Tensor] = []
        self.pending: tuple[int, torch.Tensor, torch.cuda.Event | None] | None = None

    def add(self, loss: torch.Tensor) -> None:
        """The next step's loss, a scalar tensor that nobody changes later."""
        self.losses.append(loss)
        self.next_step += 1
        if len(self.losses) == CHUNK_STEPS:
            self._send()

    def finish(self) -> None:
        """Read everything that is left."""
        if self.losses:
            self._send()
        self._read()

    def _send(self) -> None:
        chunk = torch.stack(self.losses)
        if self.reduce:
            self.reduce(chunk)
        event = None
        if self.device.type == "cuda":
            chunk = torch.empty(chunk.shape, pin_memory=True).copy_(chunk, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        first_step = self.next_step - len(self.losses)
        self.losses = []
        self._read()
        self.pending = (first_step, chunk, event)

    def _read(self) -> None:
        if self.pending is None:
            return
        first_step, chunk, event = self.pending
        self.pending = None
        if event is not None:
            event.synchronize()
        values = chunk.tolist()
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                step = first_step + offset
                raise NotFinite(value, step // self.steps_per_epoch, step)
        if self.report:
            self.report(first_step + len(values) - 1, sum(values) / len(values))
