"""Mixes too large for the device: shards fetched ahead, read in random order, and let go.

A whole random order needs every shard at hand all the time. Here `window` shards are at hand at
once: shards enter in random order, and each spreads its images evenly over the time that it stays.
With a window as large as the mix, the order is exactly that of images resident on the device.
"""

from __future__ import annotations

import functools
import itertools
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from equigrid.classifiers import distributed
from equigrid.classifiers.data import augment, rng
from equigrid.classifiers.data.batches import Batch, own_rows
from equigrid.classifiers.data.mix import check_labels
from equigrid.classifiers.recipes import ResolvedRecipe

Fetch = Callable[[], tuple[np.ndarray, np.ndarray]]


class StreamedMix:
    """The images of one trial by reference.

    parts: (fetch, indices) per shard. fetch() returns the shard's images (M, H, W, C) uint8 and
    labels (M,) int64, e.g. by `ray.get`; it is called from a helper thread, once per time that the
    shard is needed, and the arrays are dropped after their last use. indices: (K,) int64, the rows
    wanted. image_shape: (H, W, C) of all shards. window: shards at hand at once. ahead: shards
    fetched beyond these. Raises ValueError for an empty mix and for a window or lead below 1.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Fetch, np.ndarray]],
        image_shape: tuple[int, int, int],
        *,
        window: int = 8,
        ahead: int = 2,
    ):
        self.parts = tuple(
            (fetch, np.asarray(indices, np.int64)) for fetch, indices in parts if len(indices)
        )
        self.n_total = sum(len(indices) for _, indices in self.parts)
        if self.n_total == 0:
            raise ValueError("the mix is empty: a training needs at least one image")
        if window < 1 or ahead < 1:
            raise ValueError(f"window and ahead must be at least 1, got {window} and {ahead}")
        self.image_shape, self.window, self.ahead = tuple(image_shape), window, ahead
        self.starts = np.cumsum([0, *(len(indices) for _, indices in self.parts)])

    def part_of(self, numbers: np.ndarray) -> np.ndarray:
        """The part that each image number 0..n_total-1 lies in."""
        return np.searchsorted(self.starts, numbers, side="right") - 1

    def order(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(image numbers in the epoch's order, the stay of its shard that each belongs to),
        (n_total,) each.

        A shard stays once, or twice if its time runs over the epoch's end to its beginning.
        """
        draw = rng.generator(seed, "order", epoch)
        if self.all_at_hand:
            return draw.permutation(self.n_total), np.zeros(self.n_total, np.int64)
        # A shard in place p is at hand from p to p + window, around the end to the beginning.
        places = draw.permutation(len(self.parts))
        when = np.repeat(places, np.diff(self.starts)) + draw.uniform(0, self.window, self.n_total)
        stay, when = np.divmod(when, len(self.parts))
        order = np.argsort(when, kind="stable")
        return order, stay[order].astype(np.int64)

    @property
    def all_at_hand(self) -> bool:
        return len(self.parts) <= self.window


class _Stay(NamedTuple):
    """One stay of a shard: the step that needs it first, the one that needs it last, and which it
    is.
    """

    first: int
    last: float
    part: int


class _Lease(NamedTuple):
    """A stay and its shard's arrays, perhaps still on their way. Dropping it lets the arrays go."""

    stay: _Stay
    arrays: Future


class Streamed:
    """A feed, as `feeds.Resident`, from a StreamedMix. Its batches run on through the epochs
    without end.
    """

    def __init__(
        self,
        mix: StreamedMix,
        recipe: ResolvedRecipe,
        seed: int,
        classes: int,
        device: torch.device,
    ):
        self.mix, self.recipe, self.seed = mix, recipe, seed
        self.classes, self.device = classes, device
        self.n_total = mix.n_total
        self.steps_per_epoch = recipe.steps_per_epoch(mix.n_total)
        self.rank, self.workers = distributed.world()
        self.image_shape = mix.image_shape
        self.epoch_draws = functools.lru_cache(maxsize=1)(self._epoch_draws)

    def statistics(self) -> tuple[list[float], list[float]]:
        """ValueError: what `Resident` measures, nobody has seen here."""
        raise ValueError(
            "streamed images are not measured: give the recipe a normalisation (mean and std)"
        )

    def batches(self, epoch: int, first: int) -> Generator[Batch, None, None]:
        """Batches from the epoch's zero-based `first` on. Close it to end its helper thread."""
        ready: queue.Queue = queue.Queue(maxsize=2)
        stop = threading.Event()
        start = epoch * self.steps_per_epoch + first
        thread = threading.Thread(
            target=self._fill, args=(start, ready, stop), name="stream", daemon=True
        )
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, Exception):
                    raise item
                *tensors, n_global = item
                pixels, targets, table = (
                    tensor.to(self.device, non_blocking=True) for tensor in tensors
                )
                yield Batch(augment.pad(pixels, self.recipe.augmentation), targets, table, n_global)
        finally:
            stop.set()
            while not ready.empty():  # so that a waiting put returns
                ready.get_nowait()
            thread.join()

    def _fill(self, start: int, ready: queue.Queue, stop: threading.Event) -> None:
        """The helper thread: gathers batches until told to stop; an error goes to the consumer."""
        pool = ThreadPoolExecutor(max_workers=self.mix.ahead)
        try:
            for batch in self._gather(start, pool):
                ready.put(batch)
                if stop.is_set():
                    return
        except Exception as error:
            ready.put(error)
        finally:
            pool.shutdown(cancel_futures=True)

    def _gather(self, start: int, pool: ThreadPoolExecutor) -> Iterator[tuple]:
        stays = (stay for stay in self._stays(start // self.steps_per_epoch) if stay.last >= start)
        upcoming: deque[_Lease] = deque()
        held: dict[int, _Lease] = {}
        for step in itertools.count(start):
            while sum(lease.stay.first > step for lease in upcoming) < self.mix.ahead:
                stay = next(stays, None)
                if stay is None:
                    break
                upcoming.append(_Lease(stay, pool.submit(self._fetch, stay.part)))
            while upcoming and upcoming[0].stay.first <= step:
                lease = upcoming.popleft()
                held[lease.stay.part] = lease
            yield self._batch(step, held)
            held = {part: lease for part, lease in held.items() if lease.stay.last > step}

    def _stays(self, epoch: int) -> Iterator[_Stay]:
        """All stays of shards from the epoch on, in the order in which they begin."""
        if self.mix.all_at_hand:
            yield from (_Stay(0, math.inf, part) for part in range(len(self.mix.parts)))
            return
        for number in itertools.count(epoch):
            order, stay = self.mix.order(self.seed, number)
            steps = number * self.steps_per_epoch + np.arange(self.n_total) // self.recipe.batch
            stays = 2 * self.mix.part_of(order) + stay
            keys, first = np.unique(stays, return_index=True)
            last = self.n_total - 1 - np.unique(stays[::-1], return_index=True)[1]
            yield from sorted(
                _Stay(int(steps[a]), int(steps[b]), int(k) // 2)
                for k, a, b in zip(keys, first, last)
            )

    def _fetch(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        fetch, indices = self.mix.parts[part]
        images, labels = fetch()
        if images.shape[1:] != self.mix.image_shape or images.dtype != np.uint8:
            raise ValueError(
                f"shard {part}: expected (M, *{self.mix.image_shape}) uint8, "
                f"got {images.shape} {images.dtype}"
            )
        check_labels(labels[indices], self.classes)
        return images, labels

    def _epoch_draws(self, epoch: int) -> np.ndarray:
        """(n_total, 6 or more) as `rng.epoch`'s, in the stream's own order."""
        height, width, _ = self.mix.image_shape
        table = rng.epoch(
            self.seed, epoch, self.n_total, height, width, self.recipe.augmentation,
            self.recipe.batch,
        )  # fmt: skip
        table[:, rng.INDEX] = self.mix.order(self.seed, epoch)[0]
        return table

    def _batch(
        self, step: int, held: dict[int, _Lease]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """(pixels, targets, draws, images of all workers) of one step, in page-locked memory for a
        GPU.
        """
        epoch, number = divmod(step, self.steps_per_epoch)
        rows = self.epoch_draws(epoch)[
            number * self.recipe.batch : (number + 1) * self.recipe.batch
        ]
        own = own_rows(rows, self.rank, self.workers, self.recipe.augmentation.mixes).copy()
        pinned = self.device.type == "cuda"
        pixels = torch.empty(
            (len(own), *self.mix.image_shape), dtype=torch.uint8, pin_memory=pinned
        )
        targets = torch.empty(len(own), dtype=torch.int64, pin_memory=pinned)
        self._copy_rows(own[:, rng.INDEX], held, pixels.numpy(), targets.numpy())
        own[:, rng.INDEX] = np.arange(len(own))
        table = torch.from_numpy(own)
        return pixels, targets, table.pin_memory() if pinned else table, len(rows)

    def _copy_rows(
        self, numbers: np.ndarray, held: dict[int, _Lease], pixels: np.ndarray, targets: np.ndarray
    ) -> None:
        # Image by image: each is a contiguous block, copied with the interpreter's lock released.
        for place, (number, part) in enumerate(zip(numbers, self.mix.part_of(numbers))):
            images, labels = held[part].arrays.result()
            row = self.mix.parts[part][1][number - self.mix.starts[part]]
            pixels[place], targets[place] = images[row], labels[row]
