"""The noise of a pool's images: a stream of normal draws for each, from (seed, number of the image)
alone.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from equigrid.generators.common.rng import seed_of

BLOCK_BYTES = 8 * 2**20  # of draws of all images that are made at once
PERIOD = 16
"""PyTorch fills a tensor with normal numbers in groups of so many: where a draw is a multiple of
it, several draws in one call are bitwise those of one call each. (A test holds it.)
"""


def streams(
    seed: int, numbers: range, shape: tuple[int, int, int], device: torch.device, *, draws: int = 1
) -> Callable[[], torch.Tensor]:
    """A function that gives the next standard normal draw of each image: (len(numbers), *shape)
    float32 on the device.

    draws: how many are likely asked for; it changes no number. Drawn on the CPU, whatever the
    device, several of an image in one call; for another device ahead of it, by a thread, while that
    computes.
    """
    generators = [
        torch.Generator().manual_seed(seed_of(seed, "pool noise", number)) for number in numbers
    ]
    pinned = device.type == "cuda"
    blocks = _blocks(generators, shape, draws, pinned)
    if device.type != "cpu":
        number = -(-draws // _at_once(len(numbers), shape, draws))
        blocks = (block.to(device, non_blocking=pinned) for block in _ahead(blocks, number))
    source = _each(blocks)
    return lambda: next(source)


def _at_once(images: int, shape: Sequence[int], draws: int) -> int:
    """How many draws of each image one call makes."""
    values = torch.Size(shape).numel()
    if values % PERIOD:
        return 1
    return max(1, min(draws, BLOCK_BYTES // (4 * values * max(1, images))))


def _blocks(
    generators: Sequence[torch.Generator], shape: Sequence[int], draws: int, pinned: bool
) -> Iterator[torch.Tensor]:
    """(images, draws of each, *shape) float32, without end; after `draws` of each, one by one."""
    made = 0
    while True:
        several = _at_once(len(generators), shape, max(1, draws - made))
        block = torch.empty(len(generators), several, *shape, pin_memory=pinned)
        for own, generator in zip(block, generators):
            torch.randn(own.shape, generator=generator, out=own)
        made += several
        yield block


def _each(blocks: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    for block in blocks:
        yield from block.unbind(1)


def _ahead(blocks: Iterator[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
    """The same, of which the first `count` are made by a thread: one while another is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="noise") as thread:
        coming: Future[torch.Tensor] = thread.submit(next, blocks)
        for _ in range(count - 1):
            block, coming = coming.result(), thread.submit(next, blocks)
            yield block
        yield coming.result()
    yield from blocks
