"""Features of many images, kept: distances between all of two sets need each of them many times."""

import tempfile
from collections.abc import Callable, Iterable

import numpy as np

Seen = Callable[[int], object]
"""Takes how many more images a network has seen, after each batch."""


def unseen(n: int) -> None:
    """Where nobody wants to know."""


RESIDENT_BYTES = 256 * 2**20
"""More than this lie in a file of the local disk, mapped: memory does not grow with the images."""


class Bank:
    """Features (n, d) float32 and labels (n,) int64 of n images, in their order."""

    def __init__(self, n: int):
        self.n, self.seen = n, 0
        self.features: np.ndarray = np.zeros((0, 0), np.float32)
        self.labels = np.empty(n, np.int64)

    def add(self, features: np.ndarray, labels: np.ndarray) -> None:
        """features: (m, d), any float; labels: (m,). ValueError for what is no number, another
        width, or more than n images.
        """
        stop = self.seen + len(features)
        if stop > self.n:
            raise ValueError(f"more images than the {self.n} announced")
        if not np.isfinite(features).all():
            bad = self.seen + int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise ValueError(
                f"the features of image {bad} are no finite numbers: the network's weights are "
                "damaged, or its input is none that it was made for"
            )
        if self.seen == 0:
            self.features = _room((self.n, features.shape[1]))
        if features.shape[1] != self.features.shape[1]:
            have = f"{self.features.shape[1]} and {features.shape[1]}"
            raise ValueError(f"features of {have} dimensions are of two networks")
        self.features[self.seen : stop], self.labels[self.seen : stop] = features, labels
        self.seen = stop

    def complete(self) -> "Bank":
        """Itself; ValueError if fewer images came than were announced."""
        if self.seen != self.n:
            raise ValueError(f"{self.seen} of the {self.n} announced images came")
        return self


def extracted(
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    extract: Callable[[np.ndarray], np.ndarray],
    n: int,
    batch: int = 64,
    seen: Seen = unseen,
) -> Bank:
    """The features of n images (m, H, W, C) uint8 and labels (m,) that come in parts. seen: told of
    each batch.
    """
    bank = Bank(n)
    for images, labels in parts:
        for i in range(0, len(images), batch):
            bank.add(extract(images[i : i + batch]), labels[i : i + batch])
            seen(len(images[i : i + batch]))
    return bank.complete()


def _room(shape: tuple[int, int]) -> np.ndarray:
    if 4 * shape[0] * shape[1] <= RESIDENT_BYTES:
        return np.empty(shape, np.float32)
    # Without a name: gone with the process.
    with tempfile.TemporaryFile(prefix="equigrid-features-") as file:
        return np.memmap(file, np.float32, "w+", shape=shape)
