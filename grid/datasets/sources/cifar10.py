"""CIFAR-10, downloaded and read by torchvision."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equigrid.grid.datasets.sources.base import (
    Batch,
    Contents,
    Shape,
    Source,
    cache_folder,
    downloading,
)

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE = "cifar-10-python.tar.gz"


def cifar10(place: str | None = None) -> Source:
    """50,000 training and 10,000 test images of 32×32×3, ten classes of equal size (Krizhevsky,
    2009).

    place: the folder that holds torchvision's copy; without it the cache, into which it is
    downloaded on first use.
    """
    folder = str(cache_folder("cifar10", place))
    shape = Shape(CLASSES, 32, 32, 3, (5000,) * 10, (1000,) * 10)
    return Source("cifar10", {"source": "cifar10"}, CLASSES, partial(_contents, folder), shape)


def _contents(folder: str) -> Contents:
    from torchvision.datasets import CIFAR10

    with downloading("cifar10", Path(folder), f"place {ARCHIVE} in {folder}"):
        # Nothing is downloaded where all is there and has the right checksum.
        CIFAR10(folder, download=True)
    counts = {split: len(_open(folder, split).targets) for split in ("train", "test")}
    read = partial(_read, folder)
    return Contents(
        (32, 32, 3), counts, lambda split, start, stop: (split, start, stop), read, from_start=True
    )


def _open(folder: str, split: str) -> "CIFAR10":
    from torchvision.datasets import CIFAR10

    return CIFAR10(folder, train=split == "train", download=False)


def _read(folder: str, unit: tuple[str, int, int]) -> Iterator[Batch]:
    split, start, stop = unit
    found = _open(folder, split)  # torchvision checks the files' checksums before it unpickles them
    yield Batch(found.data[start:stop], np.asarray(found.targets[start:stop], dtype=np.int64))
