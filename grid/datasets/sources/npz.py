"""Files of arrays in MedMNIST's layout: {train,val,test}_{images,labels} in one .npz, read as a
stream.
"""

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from equigrid.generators.common.decoding import resized
from equigrid.grid.datasets.sources.base import SPLITS, Batch, Contents, Shape, Source, class_counts
from equigrid.grid.errors import UserError

CHUNK_BYTES = 4 * 2**20


def npz(place: str | None) -> Source:
    """An .npz file with train_images, train_labels, test_images, test_labels, and val_images,
    val_labels if it has.

    Images are uint8 (N, H, W) or (N, H, W, C) with 1 or 3 channels; labels are 0 to k-1, as (N,) or
    (N, 1).
    """
    path = Path(place or "").expanduser().absolute()
    if not place or not path.is_file():
        raise UserError(
            f"dataset: npz: {place!r} is no file; name an .npz with train_images, "
            "train_labels, test_…"
        )
    facts = path.stat()
    state = {
        "source": "npz",
        "path": str(path.resolve()),
        "bytes": facts.st_size,
        "modified_ns": facts.st_mtime_ns,
    }
    file = look_into(path, f"dataset: npz: {place}")
    classes = tuple(str(c) for c in range(len(file.class_counts["train"])))
    return Source(path.stem, state, classes, lambda: file.contents(None), file.shape(classes, None))


class NpzFile(NamedTuple):
    """What an .npz says before its images are read: (height, width, channels), images and class
    counts per split.
    """

    path: Path
    image: tuple[int, int, int]
    counts: dict[str, int]
    class_counts: dict[str, tuple[int, ...]]

    def contents(self, resize: int | None) -> Contents:
        """resize: the side to which images are resized (antialiased), or None."""
        height, width, channels = self.image
        image = (resize or height, resize or width, channels)
        read = partial(_read, str(self.path), resize)
        return Contents(
            image,
            self.counts,
            lambda split, start, stop: (split, start, stop),
            read,
            from_start=True,
        )

    def shape(self, classes: tuple[str, ...], resize: int | None) -> Shape:
        return Shape.of(classes, self.contents(resize).image, self.class_counts)


def look_into(path: Path, where: str, classes: int | None = None) -> NpzFile:
    """The file's labels and the shapes of its images. Raises UserError."""
    try:
        if not zipfile.is_zipfile(path):
            raise UserError(f"{where} is no .npz file of plain arrays; make it by numpy.savez")
        with np.load(path, allow_pickle=False) as arrays:
            names = arrays.files
            needed = [
                f"{split}_{part}" for split in ("train", "test") for part in ("images", "labels")
            ]
            if absent := [name for name in needed if name not in names]:
                raise UserError(
                    f"{where} has no {absent[0]}; it has {', '.join(names) or 'nothing'}"
                )
            splits = [
                split
                for split in SPLITS
                if f"{split}_images" in names and f"{split}_labels" in names
            ]
            labels = {split: _labels(arrays[f"{split}_labels"], where, split) for split in splits}
        headers = {split: _header(path, split) for split in splits}
    except UserError:
        raise
    except Exception as error:  # of bytes that are no such file, numpy and zipfile raise nearly all
        raise UserError(f"{where} is no .npz file of plain arrays: {error}") from error
    images = {split: _image(*headers[split], where, split) for split in splits}
    for split in splits:
        if images[split] != images["train"]:
            raise UserError(
                f"{where}: {split} has images of {images[split]}, "
                f"train of {images['train']}; resize some"
            )
        n = headers[split][0][0]
        if n != len(labels[split]):
            raise UserError(
                f"{where}: {split} has {n} images and {len(labels[split])} labels; each needs one"
            )
    counts = {split: len(labels[split]) for split in splits if len(labels[split]) or split != "val"}
    per_class = class_counts(where, {split: labels[split] for split in counts}, classes)
    return NpzFile(path, images["train"], counts, per_class)


def _labels(labels: np.ndarray, where: str, split: str) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer) or labels.size != len(labels):
        found = f"{labels.dtype} {labels.shape}"
        raise UserError(
            f"{where}: {split}_labels are {found}; "
            "one whole number an image is needed: (N,) or (N, 1)"
        )
    return labels.reshape(-1)


def _image(shape: tuple, dtype: np.dtype, where: str, split: str) -> tuple[int, int, int]:
    if dtype != np.uint8:
        raise UserError(f"{where}: {split}_images are {dtype}; they must be uint8, 0 to 255")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise UserError(
            f"{where}: {split}_images are {shape}; they must be (N, H, W) or (N, H, W, "
            "C), C being 1 or 3"
        )
    return (*shape[1:], 1) if len(shape) == 3 else shape[1:]


def _header(path: Path, split: str) -> tuple[tuple, np.dtype]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{split}_images.npy") as member:
        shape, _, dtype = _read_header(member)
    return shape, dtype


def _read_header(member: IO[bytes]) -> tuple[tuple, bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of the array in a .npy file, which is then read
    up to its data.
    """
    newer = np.lib.format.read_magic(member) >= (2, 0)
    layout = np.lib.format
    read = layout.read_array_header_2_0 if newer else layout.read_array_header_1_0
    return read(member)


def _read(path: str, resize: int | None, unit: tuple[str, int, int]) -> Iterator[Batch]:
    """The images of a split from `start` to `stop` - 1, some MiB at a time."""
    split, start, stop = unit
    with np.load(path, allow_pickle=False) as arrays:
        labels = arrays[f"{split}_labels"].reshape(-1).astype(np.int64)
    place = 0
    for images in _stream(path, split):
        chosen = slice(max(start - place, 0), max(stop - place, 0))
        if len(images[chosen]):
            part = images[chosen] if resize is None else resized(images[chosen], resize)
            yield Batch(part, labels[place : place + len(images)][chosen])
        place += len(images)


def _stream(path: str, split: str) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{split}_images.npy") as member:
        shape, fortran, _ = _read_header(member)
        image = shape[1:] if len(shape) == 4 else (*shape[1:], 1)
        if fortran and len(shape) > 1:
            raise ValueError(
                f"{path}: {split}_images are in Fortran's order; "
                "save them with numpy.ascontiguousarray"
            )
        each = int(np.prod(image))
        step = max(1, CHUNK_BYTES // each)
        for first in range(0, shape[0], step):
            n = min(step, shape[0] - first)
            data = member.read(n * each)
            if len(data) < n * each:
                raise ValueError(
                    f"{path}: {split}_images end after "
                    f"{first + len(data) // each} of {shape[0]} images"
                )
            yield np.frombuffer(data, np.uint8).reshape(n, *image)
