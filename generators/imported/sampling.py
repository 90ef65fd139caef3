"""Images of an imported pool: read, checked against their digests, decoded and brought to the
dataset's shape.
"""

import numpy as np
import torch
from PIL import Image, ImageOps

from equigrid.generators import balance
from equigrid.generators.calls import SampleCall
from equigrid.generators.common import pools
from equigrid.generators.common.decoding import BrokenImage, decode
from equigrid.generators.imported.config import ImportedConfig
from equigrid.generators.imported.training import digest_of, places_of


def sample(
    weights: dict[str, torch.Tensor], config: ImportedConfig, call: SampleCall
) -> tuple[np.ndarray, np.ndarray]:
    """The images `start` to `stop - 1` of a pool, fewer where it ends; see
    `equigrid.generators.registry.sample`.

    facts is told the place of each image in the set.

    The r-th image of a class is the r-th of the persisted order, whatever the pool's seed.  Images
    are resized to cover (H, W), bicubic with antialiasing, the centre cropped; for one channel they
    become grey (ITU-R 601 luma).

    Raises ValueError for an image that is gone, changed or broken.
    """
    digests, shape = weights["digests"].numpy(), call.shape
    per_class = _per_class(weights, call)
    start, stop = call.start, min(call.stop, _length(per_class, call))
    if start >= stop:
        return np.empty((0, *shape), np.uint8), np.empty(0, np.int64)
    labels = pools.labels(call.seed, start, stop, call.classes, call.shares)
    if "per_class" in weights:
        positions = _positions(labels, per_class, call)
    elif call.shares is not None:  # of a set whose own balance is equal: rows with one of each
        positions = _earlier(labels, call) * call.classes + labels
    else:
        # A block of `classes` images has one of each class: image i is the (i // classes)-th of its
        # class, and rows of the order have one of each.
        positions = np.arange(start, stop) // call.classes * call.classes + labels
    every = places_of(weights)
    places = [every[i] for i in positions]
    listing = config.listing()
    images = np.empty((stop - start, *shape), np.uint8)
    for i, data in listing.read(places):
        if digest_of(data) != digests.ravel()[positions[i]]:
            raise ValueError(
                f"path: {places[i]} in {listing.root} is not the image it "
                "was when the pool was made"
            )
        try:
            images[i] = fitted(decode(data, levels=config.range, page=config.page), shape)
        except BrokenImage as error:
            raise ValueError(
                f"path: {places[i]} in {listing.root} is broken, remove it: {error}"
            ) from error
    call.facts({"place": places})
    return images, labels


def _per_class(weights: dict[str, torch.Tensor], call: SampleCall) -> np.ndarray:
    """Images of each class in the persisted order, (classes,) int64. Raises ValueError."""
    if "per_class" in weights:
        found = weights["per_class"].numpy()
    else:
        rows, classes = weights["digests"].shape
        found = np.full(classes, rows)
    if len(found) != call.classes:
        raise ValueError(
            f"the imported order is that of {len(found)} classes, not of {call.classes}"
        )
    return found


def _length(per_class: np.ndarray, call: SampleCall) -> int:
    """Images of the pool."""
    if call.shares is None:
        return call.classes * int(per_class.min())
    return balance.longest(call.shares, per_class.tolist())


def _positions(labels: np.ndarray, per_class: np.ndarray, call: SampleCall) -> np.ndarray:
    """Where in an order of class after class the images from `start` on stand, whose labels (n,)
    these are.
    """
    first = np.cumsum(per_class) - per_class
    return first[labels] + _earlier(labels, call)


def _earlier(labels: np.ndarray, call: SampleCall) -> np.ndarray:
    """How many images of its class come before each of those from `start` on: (n,) int64."""
    numbers = np.arange(call.start, call.start + len(labels))
    before = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = labels == label
        before[own] = pools.earlier(numbers[own], int(label), call.classes, call.shares)
    return before


def fitted(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(h, w, 3) uint8 to `shape` (H, W, 1 or 3): resized to cover it, centre cropped, grey for one
    channel.
    """
    height, width, channels = shape
    picture = Image.fromarray(pixels)
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), method=Image.Resampling.BICUBIC)
    return np.asarray(picture if channels == 3 else picture.convert("L")).reshape(shape)
