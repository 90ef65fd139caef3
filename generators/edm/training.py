"""Training an EDM from scratch: the loop, its callbacks, and the end when the loss gives out."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from generators.edm.config import EDMConfig
from generators.edm.devices import group
from generators.edm.run import Run, State
from generators.edm.weights import from_file

LOG_EVERY = 50
"""Steps between two rows of the training log, and between two looks at the loss on a CUDA device."""


class LossNotFinite(ValueError):
    """The loss of a step was infinite or not a number; training stopped there."""

    def __init__(self, step: int, loss: float, saved: int | None):
        last = "no state was saved before" if saved is None else f"the last good state is that after step {saved}"
        super().__init__(
            f"loss {loss} in step {step} is not finite ({last}); "
            "a lower training.lr may be right, or compute.training_precision fp32"
        )
        self.step, self.saved = step, saved


def ignore(*_) -> None:
    """The default of callbacks: nothing."""


def train(
    images: np.ndarray,
    labels: np.ndarray,
    config: EDMConfig,
    *,
    classes: int,
    seed: int,
    device: str | torch.device = "cpu",
    resume: State | None = None,
    checkpoint: Callable[[int, Callable[[], State]], None] = ignore,
    log: Callable[[dict], None] = ignore,
) -> dict[str, torch.Tensor]:
    """Train a network and return its averaged (EMA) weights, on the CPU, float32.

    images: (N, H, W, C) uint8; labels: (N,) int64 in [0, classes).  In a worker group (torch.distributed is
    initialised) every rank calls this with the same arguments, `resume` included; the global batch is
    divided among the ranks.  Every draw comes from (seed, purpose, step), so a state holds no generator.

    checkpoint(step, make_state) is called on rank 0 after each step, `step` counting the steps done;
    make_state() copies the state to the CPU, and `resume` takes it.  Resumed equals uninterrupted, bitwise on
    a CPU with equal thread count and world size.  log(row) is called on rank 0 every LOG_EVERY steps, at the
    end, and where the batch had to be taken in smaller parts for lack of memory; rows have equal keys.

    With config.weights nothing is trained: the file's weights are returned, checked.

    Raises LossNotFinite, and ValueError for images, labels or a configuration that do not fit.
    """
    _check(images, labels, config, classes)
    if config.weights is not None:
        return from_file(config, shape=images.shape[1:], classes=classes)
    config = config.for_images(len(images))
    run = Run(images, labels, config, classes=classes, seed=seed, device=torch.device(device))
    if resume is not None:
        run.restore(resume)
    run.fit_memory()
    leads = group()[0] == 0
    journal = _Journal(run, log if leads else ignore)
    while run.step < config.training.steps:
        journal.note(run.advance())
        if leads:
            checkpoint(run.step, journal.make_state)
    journal.close()
    return run.averaged()


class _Journal:
    """Keeps the losses, looks at them (on a CUDA device a look waits for the device), writes log rows."""

    def __init__(self, run: Run, log: Callable[[dict], None]):
        self.run, self.log = run, log
        self.unseen: list[torch.Tensor] = []
        self.seen: list[float] = []
        self.saved: int | None = None
        self.microbatch = run.config.compute.microbatch or len(range(*run.part.indices(run.config.training.batch)))
        self.since = time.perf_counter()
        self.note_memory()

    def note(self, loss: torch.Tensor) -> None:
        self.unseen.append(loss)
        due = self.run.step % LOG_EVERY == 0
        if due or self.run.device.type == "cpu":
            self.look()
        self.note_memory()
        if due:
            self.row("")

    def look(self) -> None:
        """Read the losses; LossNotFinite for the first that is not finite."""
        values = torch.stack(self.unseen).tolist() if self.unseen else []
        first = self.run.step - len(values) + 1
        self.unseen = []
        for i, value in enumerate(values):
            if not math.isfinite(value):
                raise LossNotFinite(first + i, value, self.saved)
        self.seen += values

    def note_memory(self) -> None:
        if self.run.microbatch < self.microbatch:
            self.row(f"out of memory: {self.run.microbatch} images at once instead of {self.microbatch}")
            self.microbatch = self.run.microbatch

    def make_state(self) -> State:
        self.look()  # a state after a bad loss would be no good state
        state = self.run.state()
        self.saved = self.run.step
        return state

    def row(self, event: str) -> None:
        training, now = self.run.config.training, time.perf_counter()
        nimg = self.run.step * training.batch
        cuda = self.run.device.type == "cuda"
        self.log(
            {
                "step": self.run.step,
                "nimg": nimg,
                "loss": float(np.mean(self.seen)) if self.seen else None,
                "lr": float(self.run.optimizer.param_groups[0]["lr"]),
                "microbatch": self.run.microbatch,
                "images_per_s": len(self.seen) * training.batch / (now - self.since),
                "peak_device_bytes": torch.cuda.max_memory_allocated(self.run.device) if cuda else None,
                "event": event,
            }
        )
        self.seen, self.since = [], now

    def close(self) -> None:
        self.look()
        if self.seen:
            self.row("")


def _check(images: np.ndarray, labels: np.ndarray, config: EDMConfig, classes: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images are (N, H, W, C) uint8, got {images.shape} {images.dtype}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"labels are ({len(images)},) int64, got {labels.shape} {labels.dtype}")
    config.check(*images.shape[1:], classes, len(images))
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
