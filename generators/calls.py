"""What the `train` and `sample` of every kind are called with."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

State = dict
"""Everything that a training needs to go on: tensors, numbers, strings, lists and dicts only."""

Artefacts = MutableMapping[str, dict[str, np.ndarray]]
"""Arrays by name, under a name; a plain dict, or the grid's view of its store."""


def ignore(*_: object) -> None:
    """The default of callbacks: nothing."""


@dataclass(frozen=True, kw_only=True)
class TrainCall:
    """Beside images, labels and configuration.  In a worker group every rank is told the same."""

    classes: int
    seed: int
    """Every draw comes from (seed, purpose, number), so a state holds no generator."""
    class_names: tuple[str, ...] = ()
    """In the order of labels."""
    device: "str | torch.device" = "cpu"
    resume: State | None = None
    """A state to go on from.  Resumed equals uninterrupted, bitwise on a CPU with equal thread
    count and world size.
    """
    checkpoint: Callable[[int, Callable[[], State]], None] = ignore
    """Called on rank 0 after each step, with the number of steps done and a function that copies
    the state.
    """
    log: Callable[[dict], None] = ignore
    """Takes the rows of the training log, which have equal keys, on rank 0."""
    artefacts: Artefacts = field(default_factory=dict)
    """What a training keeps between its attempts, beside its states."""


@dataclass(frozen=True, eq=False)
class Base:
    """The base subset, for pools whose images are made from its own."""

    labels: np.ndarray
    """(n,) int64."""
    pixels: Callable[[np.ndarray], np.ndarray]
    """From places in it, (k,) int64, to their images, (k, H, W, C) uint8."""


@dataclass(frozen=True, kw_only=True)
class SampleCall:
    """The images `start` to `stop - 1` of the pool `seed`, beside weights and configuration."""

    classes: int
    shape: tuple[int, int, int]
    """(H, W, C)."""
    seed: int
    start: int
    stop: int
    shares: tuple[int, ...] | None = None
    """The classes' shares of the pool's labels; None: equal ones."""
    at_once: int | None = None
    """The most images of a batch, where the pool's shards are smaller than a sampler's."""
    class_names: tuple[str, ...] = ()
    """In the order of labels."""
    base: Base | None = None
    """For a configuration that varies the base's images."""
    device: "str | torch.device" = "cpu"
    progress: Callable[[float], None] = ignore
    """Told again and again which share of the images is done, from 0 to 1; in a batch too, if that
    takes several evaluations of a network.
    """
    facts: Callable[[dict], None] = ignore
    """Told, once, the pool's columns beside images and labels, one value an image, such as captions
    and scores.
    """
