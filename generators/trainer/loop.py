"""The loop that all trained kinds share, and what it asks of their data."""

from collections.abc import Callable

import numpy as np

from equigrid.generators.base_config import GeneratorConfig
from equigrid.generators.calls import State
from equigrid.generators.trainer.trainer import Trainer
from equigrid.generators.trainer.training_log import TrainingLog


def run(
    trainer: Trainer,
    training_log: TrainingLog,
    checkpoint: Callable,
    make_state: Callable[[], State],
) -> None:
    """Take a trainer that the training_log has begun to its last step, with log rows and
    checkpoints.
    """

    def good_state() -> State:
        training_log.check_finite()
        state = make_state()
        training_log.saved = training_log.step
        return state

    while trainer.step < trainer.steps:
        training_log.note(trainer.advance())
        checkpoint(training_log.step, good_state)
    training_log.end()


def check_step(saved: int, last: int) -> None:
    """ValueError for a saved state past the last step of what goes on from it."""
    if saved > last:
        raise ValueError(f"the saved state is that of step {saved}, past the last step, {last}")


def check_data(
    images: np.ndarray,
    labels: np.ndarray,
    config: GeneratorConfig,
    classes: int,
    class_names: tuple[str, ...] = (),
) -> None:
    """ValueError for images, labels or a configuration that do not fit each other."""
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images are (N, H, W, C) uint8, got {images.shape} {images.dtype}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"labels are ({len(images)},) int64, got {labels.shape} {labels.dtype}")
    height, width, channels = images.shape[1:]
    config.check(height, width, channels, classes, len(images), class_names)
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"labels lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
