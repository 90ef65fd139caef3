"""Sample sheets: PNGs with one row per class, so that a pool can be looked at."""

import io
import time

import numpy as np

_GAP, _GREY = 1, 96
_SMALLEST_SIDE = 32  # smaller images are shown enlarged, pixel by pixel
_PREVIEW_ROWS, _PREVIEW_STEPS = 100, 12


def sheet(images: np.ndarray, labels: np.ndarray, *, classes: int, columns: int = 16) -> bytes:
    """The first `columns` images of each class as a PNG, one row per class; missing ones stay grey.

    images: (N, H, W, C) uint8 with C 1 or 3; labels: (N,) integers in [0, classes).
    """
    if labels.shape != images.shape[:1]:
        raise ValueError(f"a sheet takes one label per image, got {labels.shape} for {len(images)} images")
    return _png([list(images[labels == row][:columns]) for row in range(classes)], images, columns)


def neighbour_sheet(samples: np.ndarray, neighbours: np.ndarray, *, columns: int = 16) -> bytes:
    """Samples above their nearest training images, pair by pair, as a PNG.

    samples, neighbours: (N, H, W, C) uint8 with C 1 or 3, in the same order.
    """
    if samples.shape != neighbours.shape:
        raise ValueError(f"as many neighbours as samples, of one size: got {samples.shape} and {neighbours.shape}")
    firsts = range(0, len(samples), columns)
    rows = [list(part[first : first + columns]) for first in firsts for part in (samples, neighbours)]
    return _png(rows, samples, columns)


def preview(
    weights: dict,
    config,
    *,
    classes: int,
    shape: tuple[int, int, int],
    seed: int,
    class_names: tuple[str, ...] = (),
    columns: int = 8,
    budget_s: float = 20.0,
    device="cpu",
) -> bytes:
    """A sheet of the first images of the pool `seed`, up to `columns` per class, of weights as they are now.

    For a look at a training in progress: weights are a state's "average", config is of a kind that can be compiled
    and whose sampler has steps and batch; shape is (H, W, C).  Cheap: not compiled, fewer sampler steps than for
    a pool, of very many classes those of the pool's first images alone, and no further column once it would exceed
    budget_s seconds.
    """
    from generators import backends

    column = min(classes, _PREVIEW_ROWS)
    steps = min(config.sampler.steps, _PREVIEW_STEPS)
    sampler = config.sampler.model_copy(update={"steps": steps, "batch": column})
    quick = config.model_copy(
        update={"sampler": sampler, "compute": config.compute.model_copy(update={"compile": "off"})}
    )
    options = {"classes": classes, "class_names": class_names, "shape": shape, "seed": seed, "device": device}
    begin, parts = time.perf_counter(), []
    for i in range(columns if column == classes else 1):
        if i and (time.perf_counter() - begin) * (i + 1) / i > budget_s:
            break
        parts.append(backends.sample(weights, quick, start=i * column, stop=(i + 1) * column, **options))
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    shown, rows = np.unique(labels, return_inverse=True)
    return sheet(images, rows, classes=len(shown), columns=len(parts))


def _png(rows: list[list[np.ndarray]], images: np.ndarray, columns: int) -> bytes:
    from PIL import Image

    _, height, width, channels = images.shape
    if images.dtype != np.uint8 or channels not in (1, 3):
        raise ValueError(f"a sheet takes (N, H, W, 1 or 3) uint8 images, got {images.shape} {images.dtype}")
    cell_h, cell_w = height + _GAP, width + _GAP
    canvas = np.full((len(rows) * cell_h + _GAP, columns * cell_w + _GAP, channels), _GREY, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * cell_h + _GAP, j * cell_w + _GAP
            canvas[top : top + height, left : left + width] = image
    zoom = -(-_SMALLEST_SIDE // min(height, width))
    canvas = canvas.repeat(zoom, axis=0).repeat(zoom, axis=1)
    file = io.BytesIO()
    Image.fromarray(canvas[..., 0] if channels == 1 else canvas).save(file, "PNG", optimize=True)
    return file.getvalue()
