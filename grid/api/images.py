"""A pool of synthetic images as a dataset."""

from collections.abc import Iterator

import numpy as np

from equigrid.grid.datasets import shards
from equigrid.grid.errors import StoreError, UserError
from equigrid.grid.exporting.pools import Export
from equigrid.grid.store import Store


class PoolImages:
    """The images of one generator, in the pool's order; made by `Run.pool`.

    It has a length, an item for every number, and can be iterated, as a map-style dataset of
    PyTorch: `torch.utils.data.DataLoader(pool, …)` takes it. One shard is held in memory at a time.

    generator: its name in the spec. id: the pool's. classes: names of the classes, by label.

    >>> import equigrid as eg
    >>> pool = eg.open_run("tiny").pool("edm", n=20)
    >>> len(pool), pool.classes[:3]
    (20, ('0', '1', '2'))
    >>> image, label = pool[0]
    >>> image.shape, image.dtype
    ((8, 8, 1), dtype('uint8'))
    >>> sum(1 for image, label in pool)
    20
    >>> images, labels = pool.arrays()
    >>> images.shape, labels.shape
    ((20, 8, 8, 1), (20,))
    >>> [len(labels) for images, labels in pool.batches(8)]
    [8, 8, 4]
    """

    def __init__(self, store: Store, export: Export) -> None:
        self.generator, self.id, self.classes = (
            export.pool.generator,
            export.pool.id,
            export.classes,
        )
        self._store, self._refs, self._n = store, export.refs, export.n
        self._starts = np.cumsum([0, *(ref.n for ref in export.refs)])
        self._held: tuple[int, np.ndarray, np.ndarray] | None = None  # the shard read last

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        """Image (H, W, C) uint8 and its label, from 0. Raises IndexError, StoreError."""
        place = number + self._n if number < 0 else number
        if not 0 <= place < self._n:
            raise IndexError(f"image {number} of a pool of {self._n:,}")
        shard = int(np.searchsorted(self._starts, place, side="right")) - 1
        images, labels = self._shard(shard)
        row = place - int(self._starts[shard])
        return images[row], int(labels[row])

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return (self[number] for number in range(self._n))

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images (size, H, W, C) uint8 and labels (size,) int64, in order; the last batch may be
        smaller. Raises UserError, StoreError.
        """
        if size < 1:
            raise UserError(f"batches: size is {size}; write a whole number from 1 up")
        return (self._between(k, min(k + size, self._n)) for k in range(0, self._n, size))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All at once: images (n, H, W, C) uint8 and labels (n,) int64. Raises StoreError."""
        return self._between(0, self._n)

    def __repr__(self) -> str:
        return f"<{self._n:,} images of {self.generator}, {len(self.classes)} classes>"

    def _between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = [], []
        for shard, first in enumerate(self._starts[:-1].tolist()):
            rows = slice(max(start - first, 0), max(stop - first, 0))
            if rows.start < self._refs[shard].n and rows.stop > rows.start:
                pixels, classes = self._shard(shard)
                images.append(pixels[rows])
                labels.append(classes[rows])
        return np.concatenate(images), np.concatenate(labels)

    def _shard(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._held is None or self._held[0] != index:
            try:
                self._held = (index, *shards.read(self._store, self._refs[index]))
            except shards.ShardCorrupt as error:
                raise StoreError(f"{error}; the next run of the grid makes it again") from error
        return self._held[1:]
