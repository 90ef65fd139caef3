"""From a configuration to the code that trains and samples its kind of generator, imported when it
is needed.
"""

import difflib
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from equigrid.generators.base_config import GeneratorConfig
from equigrid.generators.building import build
from equigrid.generators.calls import SampleCall, TrainCall
from equigrid.generators.dit.config import DiTConfig
from equigrid.generators.dit.presets import PRESETS as DIT_PRESETS
from equigrid.generators.edm.config import EDMConfig
from equigrid.generators.edm.presets import PRESETS as EDM_PRESETS
from equigrid.generators.imported.config import ImportedConfig
from equigrid.generators.python.config import PythonConfig
from equigrid.generators.stable_diffusion.config import StableDiffusionConfig
from equigrid.generators.stable_diffusion.presets import PRESETS as STABLE_DIFFUSION_PRESETS

if TYPE_CHECKING:
    import torch


KINDS: dict[str, tuple[type[GeneratorConfig], dict[str, dict]]] = {
    "edm": (EDMConfig, EDM_PRESETS),
    "dit": (DiTConfig, DIT_PRESETS),
    "imported": (ImportedConfig, {}),
    "cifake": (ImportedConfig, {}),
    "stable-diffusion": (StableDiffusionConfig, STABLE_DIFFUSION_PRESETS),
    "python": (PythonConfig, {}),
}
"""From a spec's `kind` to its configuration, and mappings from which one may start by name."""


def config(mapping: dict) -> GeneratorConfig:
    """The configuration that a spec's mapping describes, e.g. {"kind": "edm", "preset": "digits"}.

    `preset` names a starting point; every other key overrides it, part by part.  Raises ValueError,
    one line, for an unknown kind, preset or key, with the nearest right name, and for values out of
    range.
    """
    kind = mapping.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}"
        raise ValueError(f"generator kind {kind!r} is unknown: {hint}")
    return build(*KINDS[kind], mapping)


class Backend(NamedTuple):
    """The folder of a kind: its modules `training` with train(images, labels, config, call), and
    `sampling` with sample(weights, config, call).

    previews: whether `sample` takes the "average" of a training's state, so that its progress can
    be looked at. reconstructs: whether it has an autoencoder of its own, and `sampling` a
    `reconstructor`.
    """

    folder: str
    previews: bool = False
    reconstructs: bool = False


BACKENDS = {
    "edm": Backend("edm", previews=True),
    "dit": Backend("dit", previews=True, reconstructs=True),
    "imported": Backend("imported"),
    "cifake": Backend("imported"),
    "stable-diffusion": Backend("stable_diffusion", previews=True),
    "python": Backend("python"),
}
_KEEPERS = (
    "equigrid.generators.trainer.compilation",
    "equigrid.generators.stable_diffusion.models",
    "equigrid.generators.python.sampling",
)


def train(
    images: np.ndarray, labels: np.ndarray, config: GeneratorConfig, **options: Any
) -> "dict[str, torch.Tensor]":
    """Train the configured generator; what `sample` takes, tensors on the CPU by name.

    images: (N, H, W, C) uint8, perhaps mapped from a file larger than memory; labels: (N,) int64 in
    [0, classes). With weights from files nothing is trained: they are returned, checked, and there
    may be no images. options: classes, seed and the other fields of
    `equigrid.generators.calls.TrainCall`.

    In a worker group (torch.distributed is initialised) every rank calls this with the same
    arguments; the global batch is divided among the ranks.  Raises ValueError for images, labels,
    names or a configuration that do not fit, LossNotFinite
    (`equigrid.generators.trainer.training_log`) where a training goes astray.
    """
    return _module(config, "training").train(images, labels, config, TrainCall(**options))


def sample(
    weights: "dict[str, torch.Tensor]", config: GeneratorConfig, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The images `start` to `stop - 1` of the pool `seed`, (stop - start, H, W, C) uint8, and their
    labels, int64.

    weights: what `train` returned; options: classes, shape, seed, start, stop and the other fields
    of `equigrid.generators.calls.SampleCall`.  Fewer images where a pool that has an end ends.

    Noise and label of image i come from (seed, i) alone.  Batches begin at multiples of
    sampler.batch, counted from image 0, and are always computed whole: so pixels are bitwise equal
    however the pool is cut into calls, on one device with one thread count, the same versions and
    compute; another batch size or device, or a network compiled or not, changes them by rounding.
    (A sampler.batch that divides the shard's size computes nothing twice.)

    A compiled network and pre-trained parts are kept for the next call, until `release`.

    Raises ValueError for weights that do not fit the configuration.
    """
    return _module(config, "sampling").sample(weights, config, SampleCall(**options))


def release() -> None:
    """Let go of all that sampling keeps in this process from call to call, so that other work has
    the memory.

    That is pre-trained parts and a compiled network.  The next `sample` loads or compiles them
    anew.
    """
    for name in _KEEPERS:
        if name in sys.modules:  # what nobody imported keeps nothing
            sys.modules[name].release()


def reconstructs(kind: str | None) -> bool:
    """Whether generators of this kind have an autoencoder of their own, so that there is a
    `reconstructor`.
    """
    return kind in BACKENDS and BACKENDS[kind].reconstructs


def reconstructor(
    weights: "dict[str, torch.Tensor]",
    config: GeneratorConfig,
    *,
    shape: tuple[int, int, int],
    device: "str | torch.device" = "cpu",
) -> Callable[[np.ndarray], np.ndarray]:
    """Passes images (N, H, W, C) uint8 of `shape` (H, W, C) through the generator's autoencoder:
    the same form.

    weights: what `train` returned.
    """
    return _module(config, "sampling").reconstructor(weights, config, shape=shape, device=device)


def _module(config: GeneratorConfig, name: str) -> ModuleType:
    return import_module(f"equigrid.generators.{BACKENDS[config.kind].folder}.{name}")
