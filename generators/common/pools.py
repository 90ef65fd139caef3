"""What every pool of synthetic images shares: labels by image number, and where shards begin.

A pool has no length.  Image i's label depends on (seed, i) alone, and shard j always holds the same
images, so that a pool that grows touches none of its earlier shards.
"""

from collections.abc import Callable

import numpy as np

from equigrid.generators import balance
from equigrid.generators.calls import SampleCall
from equigrid.generators.common.rng import permutation

SHARD_FORMAT = 2
"""Raised, together with the revision of pools, when `shard` or the order of labels changes: old
shards are then not comparable.
"""

_SHARD_BYTES = 12 * 2**20  # 4,096 images of 32x32x3
_SHARD_IMAGES = (64, 4096)
# 8x8 sets have some hundred images: shards of 4,096 would be waste
_TINY_BYTES, _TINY_SHARD = 1024, 512


_FIRST_SHARD = 256  # images: a sampler's batch
_FIRST_OF_ONE_CLASS = 32  # a rare class needs few, and other classes have pools of their own


def labels(
    seed: int, start: int, stop: int, classes: int, shares: tuple[int, ...] | None = None
) -> np.ndarray:
    """Class labels of the images `start` to `stop - 1` of the pool `seed`: (stop - start,) int64.

    Blocks of `classes` images hold each class once, in an order drawn from (seed, block).  So in
    every prefix of the pool the counts of two classes differ by at most one.  shares: the shares
    of the classes, where they are not equal; then `balance.labels` says, whatever the seed.
    """
    if not 0 <= start <= stop:
        raise ValueError(
            f"a range of images needs 0 <= start <= stop, got start {start}, stop {stop}"
        )
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes}")
    if shares is not None:
        if len(shares) != classes:
            raise ValueError(f"{classes} classes have as many shares, got {len(shares)}")
        return balance.labels(shares, start, stop)
    first, last = start // classes, -(-stop // classes)
    blocks = [permutation(seed, "pool labels", block, classes) for block in range(first, last)]
    every = np.concatenate(blocks) if blocks else np.zeros(0, np.int64)
    return every[start - first * classes : stop - first * classes]


def shard_size(height: int, width: int, channels: int) -> int:
    """Images per shard of a dataset, and of a pool at most: a power of two fixed by the image's
    size and `SHARD_FORMAT`.

    512 for images of at most 1,024 bytes (8x8, 28x28 greyscale), else as many as fit 12 MiB,
    between 64 and 4,096: 4,096 at 32x32x3, 64 at 256x256x3.
    """
    if min(height, width, channels) < 1:
        raise ValueError(
            f"an image has at least one pixel and one channel, got {height}x{width}x{channels}"
        )
    image_bytes = height * width * channels
    if image_bytes <= _TINY_BYTES:
        return _TINY_SHARD
    fit = max(_SHARD_BYTES // image_bytes, 1)
    return min(max(1 << (fit.bit_length() - 1), _SHARD_IMAGES[0]), _SHARD_IMAGES[1])


def shard(index: int, height: int, width: int, channels: int, one_class: bool = False) -> range:
    """The numbers of the images that shard `index` of a pool holds. one_class: of a pool of one
    class alone, whose first shards have 32 images.

    The first shard is about one batch of a sampler, so that a pool of which little is needed costs
    little; each shard doubles the pool, until shards have `shard_size`: at 32x32x3 they begin at 0,
    256, 512, 1,024, 2,048, 4,096, 8,192, 12,288 and so on.  All begin at multiples of any power of
    two up to the first one's size: no sampler's batch is computed for two shards.
    """
    if index < 0:
        raise ValueError(f"shards count from 0, got {index}")
    most = shard_size(height, width, channels)
    first = min(_FIRST_OF_ONE_CLASS if one_class else _FIRST_SHARD, most)
    doublings = (most // first).bit_length() - 1
    starts = [
        0 if j == 0 else first << (j - 1) if j <= doublings else most * (j - doublings)
        for j in (index, index + 1)
    ]
    return range(*starts)


def shards(n: int, height: int, width: int, channels: int, one_class: bool = False) -> int:
    """How many shards hold the first n images of a pool."""
    most = shard_size(height, width, channels)
    first = min(_FIRST_OF_ONE_CLASS if one_class else _FIRST_SHARD, most)
    if n <= most:
        return (max(0, n - 1) // first).bit_length() + (n > 0)
    return (most // first).bit_length() + -(-(n - most) // most)


def share_done(call: SampleCall, numbers: range, share: float) -> float:
    """Of a call's images, when `share` of the batch with these numbers is."""
    begun = call.start - call.start % len(numbers)
    batches = -(-(call.stop - begun) // len(numbers))
    return ((numbers.start - begun) / len(numbers) + share) / batches


def in_batches(
    make: Callable[[range, np.ndarray], np.ndarray], call: SampleCall, *, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a pool that is computed in whole batches: what
    `equigrid.generators.registry.sample` returns.

    make(numbers, labels): the images of these numbers, which begin at a multiple of `batch` (of
    `call.at_once`, where that is less), and of these classes, (batch, H, W, C) uint8.  So how a
    pool is cut into calls changes no batch, and with it no pixel.
    """
    start, stop = call.start, call.stop
    batch = min(batch, call.at_once or batch)
    images = np.empty((stop - start, *call.shape), np.uint8)
    for first in range(start - start % batch, stop, batch):
        numbers = range(first, first + batch)
        of = labels(call.seed, first, first + batch, call.classes, call.shares)
        made = make(numbers, of)
        low, high = max(start, first), min(stop, first + batch)
        images[low - start : high - start] = made[low - first : high - first]
        call.progress(share_done(call, numbers, 1.0))
    return images, labels(call.seed, start, stop, call.classes, call.shares)


def earlier(
    numbers: np.ndarray, label: int, classes: int, shares: tuple[int, ...] | None
) -> np.ndarray:
    """How many images of a class come before those of a pool with these numbers (n,) int64, which
    are of this class: (n,) int64.
    """
    return numbers // classes if shares is None else balance.earlier(shares, numbers, label)
