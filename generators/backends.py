"""From a configuration to the code that trains and samples its kind of generator, imported when it is needed."""

from collections.abc import Callable, MutableMapping
from importlib import import_module
from typing import NamedTuple

import numpy as np


class Backend(NamedTuple):
    """The modules with a kind's `train` and `sample`, and which of the options that not all need they take.

    class_names: the classes' names, in the order of labels (both functions). artefacts: what a training keeps
    between its attempts, beside checkpoints (`train`). facts: told the pool's columns beside images and labels,
    one value an image, such as captions and scores (`sample`).
    previews: whether `sample` takes the "average" of a training's state, so that its progress can be looked at.
    """

    training: str
    sampling: str
    takes: tuple[str, ...] = ()
    previews: bool = False


BACKENDS = {
    "edm": Backend("generators.edm.training", "generators.edm.sampling", previews=True),
    "imported": Backend("generators.imported.training", "generators.imported.sampling", ("class_names",)),
    "cifake": Backend("generators.imported.training", "generators.imported.sampling", ("class_names",)),
    "dit": Backend("generators.dit.training", "generators.dit.sampling", ("artefacts",), previews=True),
    "stable-diffusion": Backend(
        "generators.stable_diffusion.training", "generators.stable_diffusion.sampling", ("class_names", "facts")
    ),
}

Artefacts = MutableMapping[str, dict[str, np.ndarray]]
"""Arrays by name, under a name; a plain dict, or the grid's view of its store."""


def ignore(*_) -> None:
    """The default of callbacks: nothing."""


def train(
    images, labels, config, *, class_names: tuple[str, ...] = (), artefacts: Artefacts | None = None, **options
) -> dict:
    """The kind's `train`: weights by name. See `generators.edm.training.train` for the contract.

    images: (N, H, W, C) uint8, perhaps mapped from a file larger than memory: index it, never copy it whole.
    """
    extra = {"class_names": class_names, "artefacts": {} if artefacts is None else artefacts}
    return _function(config, "train")(images, labels, config, **_taken(config, extra), **options)


def sample(weights, config, *, class_names: tuple[str, ...] = (), facts: Callable[[dict], None] = ignore, **options):
    """The kind's `sample`: images (n, H, W, C) uint8 and labels (n,) int64. See `generators.edm.sampling.sample`."""
    extra = {"class_names": class_names, "facts": facts}
    return _function(config, "sample")(weights, config, **_taken(config, extra), **options)


def preview(state: dict, config, *, budget_s: float = 20.0, **options) -> bytes | None:
    """What a training in progress makes as it stands: a PNG, one row per class; see `generators.sheets.preview`.

    None where there is nothing to see: a kind without previews, or a state without weights to sample from.
    options: classes, class_names, shape, seed, device, columns.
    """
    if not BACKENDS[config.kind].previews or "average" not in state:
        return None
    from generators import sheets

    return sheets.preview(state["average"], config, budget_s=budget_s, **options)


def _function(config, name: str) -> Callable:
    backend = BACKENDS[config.kind]
    return getattr(import_module(backend.training if name == "train" else backend.sampling), name)


def _taken(config, extra: dict) -> dict:
    return {name: value for name, value in extra.items() if name in BACKENDS[config.kind].takes}
