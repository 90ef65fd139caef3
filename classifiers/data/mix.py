"""A trial's training images: index arrays over shards, gathered once onto the device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

# Staging block for copies to a GPU: large enough for the bus's full speed, small beside a data set.
STAGING_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Part:
    """Some rows of one shard.

    images: (M, H, W, C) uint8, may be read-only and memory-mapped. labels: (M,) int64.
    indices: (K,) int64 rows in 0..M-1, in the order wanted, repeats allowed.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


class Mix:
    """The images of one trial, real and synthetic: the parts' rows one after another.

    parts: sequence of (images, labels, indices) as in `Part`. Raises ValueError for an empty mix,
    for shards of different image sizes, for wrong dtypes, and for indices outside their shard.
    """

    def __init__(self, parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]):
        self.parts = tuple(_checked(number, Part(*part)) for number, part in enumerate(parts))
        self.n_total = sum(len(part.indices) for part in self.parts)
        if self.n_total == 0:
            raise ValueError("the mix is empty: a training needs at least one image")
        sizes = {part.images.shape[1:] for part in self.parts}
        if len(sizes) > 1:
            raise ValueError(
                f"all shards of a mix need one image size (H, W, C), got {sorted(sizes)}"
            )
        self.image_shape: tuple[int, int, int] = sizes.pop()

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray) -> Mix:
        """All rows of one array."""
        return cls([(images, labels, np.arange(len(images)))])

    def labels(self) -> np.ndarray:
        """(n_total,) int64."""
        return np.concatenate([part.labels[part.indices] for part in self.parts])

    def gather(self, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
        """(images (n_total, H, W, C) uint8, labels (n_total,) int64) on the device.

        The rows go from the mapped shards straight into their place on a CPU, and through one
        pinned staging block into their place on a GPU: the mix never exists twice.
        """
        device = torch.device(device)
        images = torch.empty((self.n_total, *self.image_shape), dtype=torch.uint8, device=device)
        if device.type == "cpu":
            self._fill_host(images.numpy())
        else:
            self._fill_device(images)
        return images, torch.from_numpy(self.labels()).to(device)

    def _fill_host(self, out: np.ndarray) -> None:
        for start, images, indices in self._blocks(rows=None):
            # mode="clip" writes into `out` without a buffer; the indices were checked when the mix
            # was made.
            np.take(images, indices, axis=0, out=out[start : start + len(indices)], mode="clip")

    def _fill_device(self, out: torch.Tensor) -> None:
        row_bytes = int(np.prod(self.image_shape))
        rows = max(1, min(STAGING_BYTES // row_bytes, self.n_total))
        staging = torch.empty((rows, *self.image_shape), dtype=torch.uint8, pin_memory=True)
        for start, images, indices in self._blocks(rows):
            block = staging[: len(indices)]
            np.take(images, indices, axis=0, out=block.numpy(), mode="clip")
            # Blocking: the staging block is written again in the next round.
            out[start : start + len(indices)].copy_(block)

    def _blocks(self, rows: int | None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        start = 0
        for part in self.parts:
            step = rows or max(1, len(part.indices))
            for low in range(0, len(part.indices), step):
                indices = part.indices[low : low + step]
                yield start, part.images, indices
                start += len(indices)


def as_mix(images: np.ndarray | Mix, labels: np.ndarray | None) -> Mix:
    """The two ways to name images: one array with its labels, or a Mix that has them."""
    if isinstance(images, Mix):
        if labels is not None:
            raise ValueError("a Mix brings its own labels: pass labels=None")
        return images
    if labels is None:
        raise ValueError("an image array needs labels")
    return Mix.of(np.asarray(images), np.asarray(labels))


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Raise ValueError unless all labels are 0..classes-1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels must be 0..{classes - 1} for {classes} classes, got {low}..{high}"
        )


def from_numpy(array: np.ndarray) -> torch.Tensor:
    """A tensor on the array's memory, also if that is read-only (never write to it)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _checked(number: int, part: Part) -> Part:
    images, labels, indices = part.images, part.labels, np.asarray(part.indices)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(
            f"part {number}: images must be (M, H, W, C) uint8, got {images.shape} {images.dtype}"
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"part {number}: labels must be ({len(images)},) integers, "
            f"got {labels.shape} {labels.dtype}"
        )
    if indices.ndim != 1 or (indices.size and not np.issubdtype(indices.dtype, np.integer)):
        raise ValueError(
            f"part {number}: indices must be (K,) integers, got {indices.shape} {indices.dtype}"
        )
    if indices.size and not 0 <= indices.min() <= indices.max() < len(images):
        raise ValueError(
            f"part {number}: indices must be 0..{len(images) - 1}, "
            f"got {indices.min()}..{indices.max()}"
        )
    return Part(images, labels.astype(np.int64, copy=False), indices.astype(np.int64, copy=False))
