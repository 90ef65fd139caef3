"""The training log: stops at a loss or a weight that is not finite, and writes rows of equal
keys.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from equigrid.generators.calls import State
from equigrid.generators.trainer.trainer import Trainer

LOG_EVERY = 50
"""Steps between two rows of the training log, and between two looks at the loss on a CUDA
device.
"""


class LossNotFinite(ValueError):
    """The loss of a step, or a weight that it made, was infinite or not a number; training stopped
    there.
    """

    def __init__(self, what: str, step: int, saved: int | None):
        """what: such as "loss inf in"; saved: steps done in the last good state, None if there is
        none.
        """
        last = (
            "no state was saved before"
            if saved is None
            else f"the last good state is that after step {saved}"
        )
        super().__init__(
            f"{what} step {step} is not finite ({last}); "
            "a lower learning rate (lr) may be right, or compute.training_precision fp32"
        )
        self.step, self.saved = step, saved


class TrainingLog:
    """Rows of one trainer after another."""

    def __init__(
        self, log: Callable[[dict], None], columns: tuple[str, ...], *, resume: State | None
    ):
        """columns: losses and measures of all stages, so that every row has all of them."""
        self.log, self.columns = log, columns
        self._trainer: Trainer | None = None
        self.saved: int | None = None if resume is None else resume["step"]
        """Steps done in the last state that was saved, or gone on from."""

    def begin(self, trainer: Trainer, *, name: str | None = None, before: int = 0) -> None:
        """name: the column `stage` of its rows, where there are several stages; before: steps of
        earlier ones.
        """
        self._trainer, self.before = trainer, before
        self.name = {} if name is None else {"stage": name}
        self.unseen: list[torch.Tensor] = []
        self.seen: list[list[float]] = []
        self.room = trainer.asked_for
        self.since = time.perf_counter()
        self._note_memory()

    @property
    def trainer(self) -> Trainer:
        """The one whose steps are logged now: from `begin` to `end`."""
        assert self._trainer is not None, "begin comes first"
        return self._trainer

    @property
    def step(self) -> int:
        """Steps done in all stages together."""
        return self.before + self.trainer.step

    def note(self, losses: torch.Tensor) -> None:
        """losses: (len(trainer.COLUMNS),), of the step just done."""
        self.unseen.append(losses)
        due = self.step % LOG_EVERY == 0
        if due or self.trainer.device.type == "cpu":  # on a CUDA device a look waits for the device
            self.look()
        self._note_memory()
        if due:
            self.row()

    def look(self) -> None:
        """Read the losses; LossNotFinite for the first step with one that is not finite."""
        rows = torch.stack(self.unseen).tolist() if self.unseen else []
        first = self.step - len(rows) + 1
        self.unseen = []
        for i, row in enumerate(rows):
            for value in row:
                if not math.isfinite(value):
                    raise LossNotFinite(f"loss {value} in", first + i, self.saved)
        self.seen += rows

    def check_finite(self) -> None:
        """LossNotFinite unless all losses so far, and the weights as they are, are finite.

        A finite loss may have gradients that are not, whose weights the next step's loss alone
        would show.
        """
        self.look()
        if not all(learner.finite() for learner in self.trainer.learners.values()):
            raise LossNotFinite("a weight after", self.step, self.saved)

    def end(self) -> None:
        """A last row, if steps were done since the one before; the trainer's networks make room for
        the next trainer's.
        """
        self.check_finite()
        if self.seen:
            self.row()
        self._trainer = None

    def _note_memory(self) -> None:
        room = self.trainer.microbatch, self.trainer.checkpointing
        if room != self.room:
            self.room = room
            how = ", activations computed twice" if self.trainer.checkpointing else ""
            self.row(f"memory: {self.trainer.microbatch} images at once{how}")

    def row(self, event: str = "", **measures: float) -> None:
        """A row of the means since the last one, of an event, or of measures."""
        trainer, now = self.trainer, time.perf_counter()
        means = dict(zip(trainer.COLUMNS, np.mean(self.seen, axis=0).tolist())) if self.seen else {}
        cuda = trainer.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(trainer.device) if cuda else None
        learner = next(iter(trainer.learners.values()))
        self.log(
            {
                **self.name,
                "step": self.step,
                "nimg": trainer.step * trainer.batch_size,
                **(dict.fromkeys(self.columns) | means | measures),
                "lr": float(learner.optimizer.param_groups[0]["lr"]),
                "microbatch": trainer.microbatch,
                "images_per_s": len(self.seen) * trainer.batch_size / (now - self.since),
                "peak_device_bytes": peak,
                "event": event,
            }
        )
        self.seen, self.since = [], now
