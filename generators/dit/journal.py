"""The training log: reads losses, stops at one that is not finite, and writes rows of equal keys."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from generators.dit.learner import Stage
from generators.edm.training import LOG_EVERY, LossNotFinite

LOSSES = ("loss", "l1", "kl", "adversarial", "discriminator", "mse", "vb")
MEASURES = ("psnr_db", "latent_scale")


class Journal:
    """Rows of one stage after another; `before` is the number of steps that earlier stages took."""

    def __init__(self, log: Callable[[dict], None]):
        self.log = log
        self.stage: Stage | None = None
        self.saved: int | None = None

    def begin(self, name: str, stage: Stage, before: int) -> None:
        self.name, self.stage, self.before = name, stage, before
        self.unseen: list[torch.Tensor] = []
        self.seen: list[list[float]] = []
        self.room = self._room()
        self.since = time.perf_counter()
        if stage.checkpointing or stage.microbatch < stage.part.stop - stage.part.start:
            self._row(self._memory())

    @property
    def step(self) -> int:
        """Steps done in all stages together."""
        return self.before + self.stage.step

    def note(self, losses: torch.Tensor) -> None:
        self.unseen.append(losses)
        due = self.step % LOG_EVERY == 0
        if due or self.stage.device.type == "cpu":  # on a CUDA device a look waits for the device
            self.look()
        if self._room() != self.room:
            self.room = self._room()
            self._row(self._memory())
        if due:
            self._row("")

    def look(self) -> None:
        """Read the losses; LossNotFinite for the first step with one that is not finite."""
        rows = torch.stack(self.unseen).tolist() if self.unseen else []
        first = self.step - len(rows) + 1
        self.unseen = []
        for i, row in enumerate(rows):
            for value in row:
                if not math.isfinite(value):
                    raise LossNotFinite(first + i, value, self.saved)
        self.seen += rows

    def end(self, event: str = "", **measures: float) -> None:
        self.look()
        if self.seen or event:
            self._row(event, **measures)

    def _room(self) -> tuple[int, bool]:
        return self.stage.microbatch, self.stage.checkpointing

    def _memory(self) -> str:
        how = ", activations computed twice" if self.stage.checkpointing else ""
        return f"memory: {self.stage.microbatch} images at once{how}"

    def _row(self, event: str, **measures: float) -> None:
        stage, now = self.stage, time.perf_counter()
        names = stage.COLUMNS
        means = np.mean(self.seen, axis=0).tolist() if self.seen else [None] * len(names)
        losses = dict.fromkeys(LOSSES) | dict(zip(names, means))
        cuda = stage.device.type == "cuda"
        learner = next(iter(stage.learners.values()))
        self.log(
            {
                "stage": self.name,
                "step": self.step,
                "nimg": stage.step * stage.schedule.batch,
                **losses,
                "lr": float(learner.optimizer.param_groups[0]["lr"]),
                "microbatch": stage.microbatch,
                "images_per_s": len(self.seen) * stage.schedule.batch / (now - self.since),
                "peak_device_bytes": torch.cuda.max_memory_allocated(stage.device) if cuda else None,
                **(dict.fromkeys(MEASURES) | measures),
                "event": event,
            }
        )
        self.seen, self.since = [], now
