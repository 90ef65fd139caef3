"""Where a training's batches come from."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from equigrid.classifiers import distributed
from equigrid.classifiers.data import augment, rng
from equigrid.classifiers.data.mix import Mix
from equigrid.classifiers.models.network import statistics
from equigrid.classifiers.recipes import ResolvedRecipe

Table = TypeVar("Table", np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class Batch:
    """This worker's part of one global batch, before augmentation.

    padded: (M, H, W, C) uint8 from `augment.pad`, and targets: (M,) int64, on the device. draws:
    (B, 6 or more) int32 as `rng.epoch`'s, whose INDEX column points into both; with mixup or cutmix
    one row more, see `own_rows`. n_global: images of all workers together.
    """

    padded: torch.Tensor
    targets: torch.Tensor
    draws: torch.Tensor
    n_global: int


class Resident:
    """All images on the device; a batch is a few rows of the epoch's draws."""

    def __init__(
        self,
        padded: torch.Tensor,
        targets: torch.Tensor,
        image_shape: tuple[int, int, int],
        recipe: ResolvedRecipe,
        seed: int,
    ):
        """padded, targets: all images as in `Batch`. image_shape: (H, W, C) without the border."""
        self.padded, self.targets, self.image_shape = padded, targets, image_shape
        self.recipe, self.seed = recipe, seed
        self.device, self.n_total = padded.device, len(padded)
        self.rank, self.workers = distributed.world()

    @classmethod
    def of(
        cls, mix: Mix, recipe: ResolvedRecipe, seeds: Sequence[int], device: torch.device
    ) -> list[Resident]:
        """One feed per seed over the same images, which lie on the device once."""
        pixels, targets = mix.gather(device)
        padded = augment.pad(pixels, recipe.augmentation)
        return [cls(padded, targets, mix.image_shape, recipe, seed) for seed in seeds]

    def statistics(self) -> tuple[list[float], list[float]]:
        """Per-channel mean and deviation of the images, as `network.statistics` gives them."""
        height, width, _ = self.image_shape
        padding = self.recipe.augmentation.crop_padding_px
        return statistics(self.padded[:, padding : padding + height, padding : padding + width])

    def batches(self, epoch: int, first: int) -> Generator[Batch, None, None]:
        """The epoch's batches from its zero-based `first` on; the last one may be partial."""
        table = self._draws(epoch)
        for start in range(first * self.recipe.batch, self.n_total, self.recipe.batch):
            rows = table[start : start + self.recipe.batch]
            own = own_rows(rows, self.rank, self.workers, self.recipe.augmentation.mixes)
            yield Batch(self.padded, self.targets, own, len(rows))

    def _draws(self, epoch: int) -> torch.Tensor:
        height, width, _ = self.image_shape
        table = rng.epoch(
            self.seed, epoch, self.n_total, height, width, self.recipe.augmentation,
            self.recipe.batch,
        )  # fmt: skip
        return to_device(torch.from_numpy(table), self.device)


def own_rows(rows: Table, rank: int, workers: int, mixes: bool) -> Table:
    """This worker's draws of a global batch's, an array or a tensor of a row for each image.

    mixes: each image is then mixed with the one before it in the global batch, the first with the
    last. So a worker's rows are led by the partner of its first image: how the batch is shared out
    changes no pair.
    """
    share = distributed.share(len(rows), rank, workers)
    if not mixes:
        return rows[share]
    leading = rows[share.start - 1 :][:1]  # of row 0: the last
    if isinstance(rows, np.ndarray):
        return np.concatenate([leading, rows[share]])
    return torch.cat([leading, rows[share]])


def to_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on the device that the host does not wait for."""
    if device.type == "cpu":
        return host
    return host.pin_memory().to(device, non_blocking=True)
