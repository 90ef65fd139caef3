"""Sample sheets: PNGs with one row per class, so that a pool can be looked at."""

import io

import numpy as np

_GAP, _GREY = 1, 96
_SMALLEST_SIDE = 32  # smaller images are shown enlarged, pixel by pixel


def sheet(images: np.ndarray, labels: np.ndarray, *, classes: int, columns: int = 16) -> bytes:
    """The first `columns` images of each class as a PNG, one row per class; missing ones stay grey.

    images: (N, H, W, C) uint8 with C 1 or 3; labels: (N,) integers in [0, classes).
    """
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"a sheet takes one label per image, got {labels.shape} for {len(images)} images"
        )
    return _png([list(images[labels == row][:columns]) for row in range(classes)], images, columns)


def neighbour_sheet(samples: np.ndarray, neighbours: np.ndarray, *, columns: int = 16) -> bytes:
    """Samples above their nearest training images, pair by pair, as a PNG.

    samples, neighbours: (N, H, W, C) uint8 with C 1 or 3, in the same order.
    """
    if samples.shape != neighbours.shape:
        raise ValueError(
            "as many neighbours as samples, of one size: "
            f"got {samples.shape} and {neighbours.shape}"
        )
    firsts = range(0, len(samples), columns)
    rows = [
        list(part[first : first + columns]) for first in firsts for part in (samples, neighbours)
    ]
    return _png(rows, samples, columns)


def _png(rows: list[list[np.ndarray]], images: np.ndarray, columns: int) -> bytes:
    from PIL import Image

    _, height, width, channels = images.shape
    if images.dtype != np.uint8 or channels not in (1, 3):
        raise ValueError(
            f"a sheet takes (N, H, W, 1 or 3) uint8 images, got {images.shape} {images.dtype}"
        )
    cell_h, cell_w = height + _GAP, width + _GAP
    canvas = np.full(
        (len(rows) * cell_h + _GAP, columns * cell_w + _GAP, channels), _GREY, np.uint8
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * cell_h + _GAP, j * cell_w + _GAP
            canvas[top : top + height, left : left + width] = image
    zoom = -(-_SMALLEST_SIDE // min(height, width))
    canvas = canvas.repeat(zoom, axis=0).repeat(zoom, axis=1)
    file = io.BytesIO()
    Image.fromarray(canvas[..., 0] if channels == 1 else canvas).save(file, "PNG", optimize=True)
    return file.getvalue()
