"""What folders and Parquet files of encoded images share: many of them to arrays, broken ones told
apart.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from equigrid.generators.common.decoding import BrokenImage, Seen, decode_and_see
from equigrid.grid.datasets.sources.base import (
    Batch,
    Told,
    checked_allowance,
    checked_channels,
    checked_page,
    checked_range,
    checked_size,
)
from equigrid.grid.errors import UserError

TRIED, TRIED_BYTES = 100, 2**27  # of images, to find one that shows the set's size


class Reading(NamedTuple):
    """How encoded images become stored ones.

    size: as in `decode`; None: as they are. levels: the range of grey levels. channels: 1 or 3.
    page: which image of a stack, from 1 on; None: the first.
    """

    size: int | None = None
    levels: tuple[float, float] | None = None
    channels: int = 3
    allow_broken: int = 0
    page: int | None = None

    def state(self) -> dict:
        """What of it tells stored images apart, beside `size`; nothing of what is as ever."""
        facts = {"range": self.levels and list(self.levels), "channels": self.channels}
        facts["page"] = self.page
        return {name: value for name, value in facts.items() if value is not None and value != 3}

    def decode(self, data: bytes | None) -> tuple[np.ndarray, Told]:
        """(H, W, C) uint8, and what was passed over. Raises BrokenImage."""
        pixels, seen = self.see(data, self.size)
        if self.channels == 1:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        return pixels, Told.of(seen)

    def see(self, data: bytes | None, size: int | None = None) -> tuple[np.ndarray, Seen]:
        """(H, W, 3) uint8 at any size, as decoded. Raises BrokenImage."""
        return decode_and_see(data, size, levels=self.levels, page=self.page)


def checked_reading(
    size: object, levels: object, channels: object, allow_broken: object, page: object = None
) -> Reading:
    """The options of a spec. Raises UserError."""
    return Reading(
        checked_size(size),
        checked_range(levels),
        checked_channels(channels),
        checked_allowance(allow_broken),
        checked_page(page),
    )


def batch(
    items: Iterable[tuple[int, str, bytes | None, int]],
    reading: Reading,
    image: tuple[int, int, int],
) -> Batch:
    """Decodes (place in the split, where it lies, encoded bytes, label) items.

    image: (height, width, channels) that all images must have. Raises ValueError if one differs.
    """
    images, labels, broken, told = [], [], [], Told()
    for place, where, data, label in items:
        try:
            pixels, found = reading.decode(data)
        except BrokenImage as error:
            broken.append((place, f"{where} ({str(error)[:120]})"))
            continue
        if pixels.shape != image:
            raise several_sizes(image, where, pixels.shape)
        told = told.with_(found._replace(first=where if found.paged else ""))
        images.append(pixels)
        labels.append(label)
    pixels = np.stack(images) if images else np.empty((0, *image), np.uint8)
    return Batch(pixels, np.asarray(labels, dtype=np.int64), tuple(broken), told)


def several_sizes(first: tuple[int, ...], where: str, other: tuple[int, ...]) -> ValueError:
    """The error for an image that is not as large as the first."""
    one, another = (f"{shape[0]}×{shape[1]}" for shape in (first, other))
    what = f"the first is {one}, {where} is {another} (height × width)"
    return ValueError(f"images of several sizes: {what}; set size, e.g. size: 32")


def check_sizes(
    image: Callable[[], tuple[int, int, int] | None],
    sizes: Callable[[], Iterable[tuple[str, tuple[int, int] | None]]],
) -> None:
    """Raises UserError if the images have several sizes. sizes: (where, (height, width)) of each,
    None for one that tells none.
    """
    first = image()
    if first is None:
        return
    for where, found in sizes():
        if found and found != first[:2]:
            raise UserError(f"dataset: {several_sizes(first, where, found)}")


def first_failure(some: Iterable[bytes | None], reading: Reading) -> str:
    """What is wrong with the first of images none of which decodes."""
    for data in some:
        try:
            reading.decode(data)
        except BrokenImage as error:
            return str(error)[:120]
    return "there are none"


def image_shape(some: Iterable[bytes | None], reading: Reading) -> tuple[int, int, int] | None:
    """(height, width, channels) of stored images: by `size`, else of the first that decodes; None
    if none of the first does.
    """
    if reading.size is not None:
        return reading.size, reading.size, reading.channels
    tried = 0
    for _, data in zip(range(TRIED), some):
        try:
            return reading.decode(data)[0].shape
        except BrokenImage:
            tried += len(data or b"")
        if tried > TRIED_BYTES:
            break
    return None
