"""Sampling by the user's module: image i of a pool is its `sample` of a label and a seed, both from
(pool, i) alone.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from equigrid.generators.calls import SampleCall
from equigrid.generators.common import pools
from equigrid.generators.common.rng import seed_of
from equigrid.generators.python.apart import apart
from equigrid.generators.python.calling import accepted, calling, imported
from equigrid.generators.python.config import PythonConfig
from equigrid.generators.python.training import unpack

_ROUNDING = 2.0  # grey levels: two runs on a GPU may differ so much on average, and be the same


def sample(
    weights: dict[str, torch.Tensor], config: PythonConfig, call: SampleCall
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a pool; see `equigrid.generators.registry.sample`.

    Raises ValueError for whatever the module raises, for images that are not (H, W, C) uint8, and
    if two calls with one label and seed give two images.
    """
    global _held
    with apart():
        if _held is None or not _held.serves(weights, config, call):
            release()
            _held = _Sampler(weights, config, call)
        return pools.in_batches(partial(_held.made, call.seed), call, batch=_held.batch)


class _Sampler:
    """What the module samples with, and how it is called."""

    def __init__(
        self, weights: dict[str, torch.Tensor], config: PythonConfig, call: SampleCall
    ) -> None:
        self._of = (weights, config, call.shape, str(call.device), call.class_names)
        self.config, self.shape = config, call.shape
        self.folder = TemporaryDirectory(prefix="equigrid-sample-")
        unpack(weights, Path(self.folder.name))
        module: Any = imported(config)
        self.own, self.options = module, dict(config.sampling)
        if hasattr(module, "load"):
            offered = {
                "device": str(call.device), "shape": call.shape, "class_names": call.class_names,
            }  # fmt: skip
            with calling(config, "load"):
                also = accepted(module.load, offered)
                self.own = module.load(Path(self.folder.name), **also, **config.sampling)
            self.options = {}
        self.batched = hasattr(self.own, "sample_batch")
        if not self.batched and not hasattr(self.own, "sample"):
            raise ValueError(
                f"module {config.module}: load gave a {type(self.own).__name__}, which has neither "
                "sample(label, seed) nor sample_batch(labels, seeds)"
            )
        self.batch = config.batch if self.batched else 1
        self._exact, self._checked = str(call.device) == "cpu", False

    def serves(
        self, weights: dict[str, torch.Tensor], config: PythonConfig, call: SampleCall
    ) -> bool:
        """Whether it is made of these; weights are compared by identity, they may be large."""
        own, *rest = self._of
        same = rest == [config, call.shape, str(call.device), call.class_names]
        return own is weights and same

    def made(self, seed: int, numbers: range, labels: np.ndarray) -> np.ndarray:
        """Images of these numbers of the pool `seed`, and of these classes, (n, H, W, C) uint8."""
        seeds = [seed_of(seed, "python image", number) for number in numbers]
        images = self._called(labels, seeds)
        if not self._checked:  # once: it costs a batch
            again = self._called(labels, seeds)
            difference = np.abs(images.astype(np.int16) - again).mean()
            if difference > (0 if self._exact else _ROUNDING):
                raise ValueError(
                    f"module {self.config.module}: {self._what(labels, seeds)} gave two different "
                    "images; draw all randomness from the seed, as numpy.random.default_rng(seed)"
                )
            self._checked = True
        return images

    def _called(self, labels: np.ndarray, seeds: list[int]) -> np.ndarray:
        what = self._what(labels, seeds)
        with calling(self.config, what):
            if self.batched:
                made = self.own.sample_batch(labels, np.array(seeds, np.int64), **self.options)
            else:
                made = self.own.sample(int(labels[0]), seeds[0], **self.options)
            images = np.asarray(made)
        if images.dtype == object:
            raise ValueError(
                f"module {self.config.module}: {what}: gave a {type(made).__name__}; give an array "
                "of uint8 from 0 to 255"
            )
        images = images if self.batched else images[None]
        wanted = (len(labels), *self.shape)
        if images.ndim == 3 and self.shape[2] == 1:  # grey, without its channel
            images = images[..., None]
        if why := _wrong(images, wanted):
            raise ValueError(f"module {self.config.module}: {what}: {why}")
        return images

    def _what(self, labels: np.ndarray, seeds: list[int]) -> str:
        if self.batched:
            return f"sample_batch of {len(labels)} labels, from {labels[0]} and seed {seeds[0]} on"
        return f"sample(label={labels[0]}, seed={seeds[0]})"


def _wrong(images: np.ndarray, wanted: tuple[int, ...]) -> str | None:
    """What is wrong with images, and what would be right; None if nothing is."""
    kind = images.dtype
    if kind.kind == "f" and not np.isfinite(images).all():
        return "gave values that are NaN or infinite"
    if kind != np.uint8:
        how = "" if kind.kind != "f" else ": of x in [0, 1], (255 * x).round().astype(np.uint8)"
        return f"gave {kind}; give uint8 from 0 to 255{how}"
    if images.shape != wanted:
        return f"gave the shape {images.shape[1:]}, {len(images)} of it; give {wanted[1:]}, " + (
            f"{wanted[0]} of it"
        )
    return None


_held: _Sampler | None = None


def release() -> None:
    """Lets go of what the module loaded."""
    global _held
    if _held is not None:
        _held.folder.cleanup()
    _held = None
