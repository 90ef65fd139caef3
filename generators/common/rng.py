"""Seeds for every draw: a draw is a function of (seed, purpose, index) and of nothing else.

So neither batch size, shard, worker nor the order of calls can change it.  The mixing is numpy's
SeedSequence, whose output numpy keeps stable over versions and machines.
"""

import zlib
from functools import lru_cache

import numpy as np


def seed_of(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit seed for the draw `purpose` number `index` under `seed` (0 <= seed < 2**63).

    Every number enters as two 32-bit words, so that no two lists of numbers can mix to the same
    words.
    """
    for value in (seed, *index):
        if not 0 <= value < 2**63:
            raise ValueError(f"seeds and indices are integers from 0 to 2**63 - 1, got {value}")
    words = [zlib.crc32(purpose.encode())]
    for value in (seed, *index):
        words += [value & 0xFFFFFFFF, value >> 32]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def permutation(seed: int, purpose: str, index: int, length: int) -> np.ndarray:
    """A uniform permutation of range(length), (length,) int64.

    Made by sorting raw words of PCG64: numpy keeps bit streams stable over versions, but not the
    streams of `Generator.permutation`.
    """
    bits = np.random.PCG64(seed_of(seed, purpose, index)).random_raw(length)
    return np.argsort(bits, kind="stable").astype(np.int64)


def order(n_images: int, seed: int, first: int, count: int) -> np.ndarray:
    """Indices of the images at the positions first .. first + count - 1 of a training: (count,)
    int64.

    Each epoch is a permutation of all images, drawn from (seed, epoch); batches run across epochs.
    """
    last = first + count
    epochs = range(first // n_images, -(-last // n_images))
    stream = np.concatenate([_epoch(seed, epoch, n_images) for epoch in epochs])
    begin = first - epochs.start * n_images
    return stream[begin : begin + count]


@lru_cache(maxsize=2)  # a batch may lie in two epochs; all steps of an epoch share one
def _epoch(seed: int, number: int, n_images: int) -> np.ndarray:
    order = permutation(seed, "order", number, n_images)
    order.flags.writeable = False
    return order
