"""What folders and Parquet files of encoded images share: many of them to arrays, broken ones told
apart.
"""

from collections.abc import Iterable

import numpy as np

from equigrid.generators.common.decoding import BrokenImage, decode
from equigrid.grid.datasets.sources.base import Batch

TRIED = 100  # images, to find one that shows the set's size


def batch(
    items: Iterable[tuple[int, str, bytes | None, int]],
    size: int | None,
    image: tuple[int, int, int],
) -> Batch:
    """Decodes (place in the split, where it lies, encoded bytes, label) items.

    size: as in `decode`. image: (height, width, 3) that all images must have. Raises ValueError if
    one differs.
    """
    images, labels, broken = [], [], []
    for place, where, data, label in items:
        try:
            pixels = decode(data, size)
        except BrokenImage as error:
            broken.append((place, f"{where} ({str(error)[:80]})"))
            continue
        if pixels.shape != image:
            found, first = (f"{shape[0]}×{shape[1]}" for shape in (pixels.shape, image))
            what = f"the first is {first}, {where} is {found} (height × width)"
            raise ValueError(f"images of several sizes: {what}; set size, e.g. size: 32")
        images.append(pixels)
        labels.append(label)
    pixels = np.stack(images) if images else np.empty((0, *image), np.uint8)
    return Batch(pixels, np.asarray(labels, dtype=np.int64), tuple(broken))


def image_shape(some: Iterable[bytes | None], size: int | None) -> tuple[int, int, int] | None:
    """(height, width, 3) of stored images: by `size`, else of the first that decodes; None if none
    of 100 does.
    """
    if size is not None:
        return size, size, 3
    for _, data in zip(range(TRIED), some):
        try:
            return decode(data).shape
        except BrokenImage:
            continue
    return None
