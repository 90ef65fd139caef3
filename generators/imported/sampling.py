"""Images of an imported pool: read, checked against their digests, decoded and brought to the
dataset's shape.
"""

import numpy as np
import torch
from PIL import Image, ImageOps

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

    The r-th image of a class is the r-th of the persisted order, whatever the pool's seed.  Images
    are resized to cover (H, W), bicubic with antialiasing, the centre cropped; for one channel they
    become grey (ITU-R 601 luma).

    Raises ValueError for an image that is gone, changed or broken.
    """
    digests, shape, classes = weights["digests"].numpy(), call.shape, call.classes
    if digests.shape[1] != classes:
        raise ValueError(
            f"the imported order is that of {digests.shape[1]} classes, not of {classes}"
        )
    start, stop = call.start, min(call.stop, digests.size)
    if start >= stop:
        return np.empty((0, *shape), np.uint8), np.empty(0, np.int64)
    labels = pools.labels(call.seed, start, stop, classes)
    # A block of `classes` images has one of each class: image i is the (i // classes)-th of its
    # class.
    positions = np.arange(start, stop) // classes * classes + labels
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
            images[i] = fitted(decode(data), shape)
        except BrokenImage as error:
            raise ValueError(
                f"path: {places[i]} in {listing.root} is broken, remove it: {error}"
            ) from error
    return images, labels


def fitted(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(h, w, 3) uint8 to `shape` (H, W, 1 or 3): resized to cover it, centre cropped, grey for one
    channel.
    """
    height, width, channels = shape
    picture = Image.fromarray(pixels)
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), method=Image.Resampling.BICUBIC)
    return np.asarray(picture if channels == 3 else picture.convert("L")).reshape(shape)
