"""The images of a job: which rows of which shards, gathered, mapped from a file, or streamed.

Indices come from the labels alone, so only the shards that hold a wanted image are ever fetched.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from equigrid.generators.calls import Base
from equigrid.generators.common import pools
from equigrid.grid.datasets import subsets
from equigrid.grid.ids import seed_of
from equigrid.grid.jobs.job import Outside, Stream, Subset, Synthetic
from equigrid.grid.jobs.request import Images, Request
from equigrid.grid.store.layout import split_of

if TYPE_CHECKING:
    from equigrid.classifiers.data.mix import Mix
    from equigrid.classifiers.data.stream import StreamedMix

# Of a generator's images: more than this lie in a file of the local disk, mapped.
RESIDENT_BYTES = 2 * 2**30


class Leak(ValueError):
    """Images of the test or the validation split were offered to a training."""


def fetch(handles: Iterable[Any]) -> list[dict]:
    """Arrays of shards (`shards.load`), in order. Raises what loading raised."""
    values = list(handles)
    if any(not isinstance(value, dict) for value in values):
        import ray

        values = ray.get(values)
    for value in values:
        if isinstance(value, BaseException):
            raise value
    return values


def labels(request: Request) -> np.ndarray:
    """All training labels (N,) int64."""
    if isinstance(request.labels, np.ndarray):
        return request.labels
    import ray

    handle: Any = request.labels
    found = ray.get(handle)
    if isinstance(found, BaseException):
        raise found
    return found


# Which rows ---------------------------------------------------------------------------------------


def real_indices(request: Request, chosen: Subset) -> np.ndarray:
    """Indices of the chosen real images in the training set, ascending."""
    return _subset(request, chosen)


def copies_indices(
    request: Request,
    base: Subset,
    n: int,
    *,
    dataset: str,
    shares: tuple[int, ...] | None = None,
    by_class: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Indices of n repeated images of the base, in the order in which they come. dataset: the
    fingerprint. shares: the classes' shares. by_class: how many of each class, in place of shares.
    """
    seed = seed_of(dataset, "copies", base.subset_seed or 0)
    chosen = _subset(request, base)
    if by_class is not None:
        return subsets.copies_by_class(labels(request), chosen, by_class, seed)
    return subsets.copies(labels(request), chosen, n, seed, shares)


def held_out_indices(request: Request, n: int) -> np.ndarray:
    """Indices of the n training images that are held out for validation."""
    return subsets.held_out(labels(request), n, request.repeated)


def outside_indices(request: Request, kept: Outside) -> np.ndarray:
    """Indices of the images kept apart in the training set, ascending."""
    return subsets.outside(
        labels(request), kept.n, held_out=kept.held_out, repeated=request.repeated
    )


def learned_parts(
    request: Request, subset: Subset | None, outside: Outside | None
) -> "list[Part] | None":
    """The real images that a generator learns from: of its base, or kept apart; None for one that
    brings its own knowledge.
    """
    if outside is not None and outside.own:
        return whole(request.val)
    if outside is not None:
        return parts(request.train, outside_indices(request, outside))
    return None if subset is None else parts(request.train, real_indices(request, subset))


def indices_of(
    request: Request, syn: Synthetic, classes: Sequence[int], shares: tuple[int, ...] | None = None
) -> np.ndarray:
    """Numbers of a pool's first n images of these classes: a pool's labels follow from its id, and
    the classes' shares, where these are not equal.

    Raises ValueError if there are fewer.
    """
    every = pools.labels(seed_of(syn.pool, "pool"), 0, request.syn.n, request.classes, shares)
    found = np.flatnonzero(np.isin(every, classes))
    if len(found) < syn.n:
        have = f"the {request.syn.n} of the shards have {len(found)}"
        raise ValueError(f"{syn.n} images of unseen classes wanted, {have}")
    return found[: syn.n]


def of_classes(request: Request, wanted: Sequence[Synthetic]) -> "list[Part]":
    """The first images of each of some pools of one class. The request has their shards, one pool
    after the other, of each just those that hold what is wanted of it. Raises ValueError if there
    are fewer.
    """
    found: list[Part] = []
    begun = 0
    for part in wanted:
        ended = begun + pools.shards(part.n, *request.image_shape, one_class=True)
        images = request.syn
        own = Images(images.handles[begun:ended], images.lengths[begun:ended])
        found += whole(own, part.n)
        begun = ended
    return found


def _subset(request: Request, chosen: Subset) -> np.ndarray:
    return subsets.subset(
        labels(request),
        chosen.n,
        chosen.subset_seed or 0,
        held_out=chosen.held_out,
        kept_apart=chosen.kept_apart,
        classes=chosen.classes,
        repeated=request.repeated,
    )


# Parts: a handle and the rows wanted of it --------------------------------------------------------

Part = tuple[Any, np.ndarray]
"""A shard's handle (Ray's reference, its arrays, or where it lies), and rows of it."""


def parts(images: Images, indices: np.ndarray) -> list[Part]:
    """Splits indices into a set by the shards they lie in; shards without any are left out."""
    starts = np.cumsum([0, *images.lengths])
    shard = np.searchsorted(starts, indices, side="right") - 1
    by_shard = np.argsort(shard, kind="stable")  # within a shard the rows stay in the order given
    cuts = np.searchsorted(shard[by_shard], np.arange(len(images.handles) + 1))
    rows = [
        indices[by_shard[low:high]] - start for low, high, start in zip(cuts[:-1], cuts[1:], starts)
    ]
    return [(handle, here) for handle, here in zip(images.handles, rows, strict=True) if len(here)]


def whole(images: Images, n: int | None = None) -> list[Part]:
    """All of a set's images, or its first n. Raises ValueError if there are fewer."""
    left = images.n if n is None else n
    if left > images.n:
        raise ValueError(f"{left} images wanted, the shards have {images.n}")
    return parts(images, np.arange(left))


# From parts to images -----------------------------------------------------------------------------


def arrays(
    wanted: list[Part], *, training: bool
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(images, labels, rows) of each part, fetched at once and mapped without a copy.

    training: whether something learns from them; then none may be of the test or the validation
    split.
    """
    values = fetch([handle for handle, _ in wanted])
    return [(*_pixels(value, training), rows) for value, (_, rows) in zip(values, wanted)]


def mix(request: Request, wanted: list[Part], stream: Stream | None) -> "Mix | StreamedMix":
    """Images to train a classifier on: on the device whole, or streamed past it."""
    from equigrid.classifiers.data.mix import Mix
    from equigrid.classifiers.data.stream import StreamedMix

    if stream is None:
        return Mix(arrays(wanted, training=True))
    return StreamedMix(fetchers(wanted), request.image_shape, window=stream.window)


def fetchers(wanted: list[Part]) -> list[tuple[Callable, np.ndarray]]:
    """(a function that fetches the shard's training images and labels, rows) of each part, for
    streaming.
    """
    return [(partial(_fetch_training, handle), rows) for handle, rows in wanted]


def _fetch_training(handle: Any, own_outside: bool = False) -> tuple[np.ndarray, np.ndarray]:
    return _pixels(fetch([handle])[0], training=True, own_outside=own_outside)


def _pixels(
    value: dict, training: bool, own_outside: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    held_back = ("test",) if own_outside else ("test", "val")
    if training and split_of(value["name"]) in held_back:
        raise Leak(f"{value['name']} is held back for evaluation: nothing may learn from it")
    return value["images"], value["labels"]


def gathered(
    request: Request, wanted: list[Part], *, own_outside: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, H, W, C) uint8 and labels (n,) int64 to train on; large sets lie in a file of the
    local disk. own_outside: the validation split is no validation, but kept apart to train on.
    """
    n = sum(len(rows) for _, rows in wanted)
    images = _room((n, *request.image_shape))
    found = np.empty(n, np.int64)
    start = 0
    for handle, rows in wanted:  # one by one: a set larger than memory passes through
        pixels, classes = _fetch_training(handle, own_outside)
        stop = start + len(rows)
        images[start:stop], found[start:stop] = pixels[rows], classes[rows]
        start = stop
    return images, found


def base(request: Request, chosen: Subset | None) -> Base | None:
    """The images of a base, which are read as a pool asks for them; None without one."""
    if chosen is None:
        return None
    indices = real_indices(request, chosen)

    def pixels(places: np.ndarray) -> np.ndarray:
        wanted, back = np.unique(indices[places], return_inverse=True)
        return gathered(request, parts(request.train, wanted))[0][back]

    return Base(labels(request)[indices], pixels)


def _room(shape: tuple[int, ...]) -> np.ndarray:
    if np.prod(shape, dtype=np.int64) <= RESIDENT_BYTES:
        return np.empty(shape, np.uint8)
    # Without a name: gone with the process.
    with tempfile.TemporaryFile(prefix="equigrid-images-") as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def blocks(wanted: list[Part]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(images, labels) part by part, for what needs each image once: never two shards at a time."""
    for handle, rows in wanted:
        value = fetch([handle])[0]
        yield value["images"][rows], value["labels"][rows]
