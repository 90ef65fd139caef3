"""Files of arrays in MedMNIST's layout: {train,val,test}_{images,labels} in one .npz, read as a
stream.
"""

import io
import lzma
import math
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equigrid.generators.common.decoding import resized
from equigrid.grid.datasets.sources.base import SPLITS, Batch, Contents, Shape, Source, class_counts
from equigrid.grid.errors import UserError

CHUNK_BYTES = 4 * 2**20
HEADER_BYTES = 2**16  # of an array; numpy writes some hundred
MOST_IMAGES = 2**24  # of a split, whose labels are held whole: ImageNet-21k has 14 million
MOST_SIDE = 4096  # of an image, in pixels


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
        with _quiet(), np.load(path, allow_pickle=False) as arrays:
            names = arrays.files
            needed = [
                f"{split}_{part}" for split in ("train", "test") for part in ("images", "labels")
            ]
            if absent := [name for name in needed if name not in names]:
                raise UserError(
                    f"{where} has no {absent[0]}; it has {', '.join(names) or 'nothing'}"
                )
            if twice := next((name for name, n in Counter(names).items() if n > 1), None):
                raise UserError(f"{where} has {twice} {names.count(twice)} times; keep one of them")
            splits = [
                split
                for split in SPLITS
                if f"{split}_images" in names and f"{split}_labels" in names
            ]
            headers = {split: _header(path, f"{split}_images") for split in splits}
            for split in splits:
                _check_labels(path, headers[split], where, split)
            labels = {split: _labels(arrays[f"{split}_labels"], where, split) for split in splits}
    except UserError:
        raise
    except Exception as error:  # of bytes that are no such file, numpy and zipfile raise nearly all
        raise UserError(f"{where} is no .npz file of plain arrays: {error}") from error
    images = {
        split: _image(headers[split].shape, headers[split].dtype, where, split) for split in splits
    }
    for split in splits:
        if images[split] != images["train"]:
            raise UserError(
                f"{where}: {split} has images of {images[split]}, "
                f"train of {images['train']}; resize some"
            )
        n = headers[split].shape[0]
        if n != len(labels[split]):
            raise UserError(
                f"{where}: {split} has {n} images and {len(labels[split])} labels; each needs one"
            )
    counts = {split: len(labels[split]) for split in splits if len(labels[split]) or split != "val"}
    per_class = class_counts(where, {split: labels[split] for split in counts}, classes)
    return NpzFile(path, images["train"], counts, per_class)


def _check_labels(path: Path, images: "_Header", where: str, split: str) -> None:
    """Before any of them is read: a header may claim more than there is, or than memory holds."""
    labels = _header(path, f"{split}_labels")
    n = images.shape[0] if images.shape else 0
    if labels.dtype.hasobject or labels.dtype.itemsize > 8:
        raise UserError(f"{where}: {split}_labels are {labels.dtype}; whole numbers are needed")
    for name, found in (("images", images), ("labels", labels)):
        if found.bytes != found.there:
            raise UserError(
                f"{where}: {split}_{name} are said to be {found.shape}, which is {found.bytes:,} "
                f"bytes, and {found.there:,} are there"
            )
    if images.fortran and len(images.shape) > 1:
        right = "save them with numpy.ascontiguousarray"
        raise UserError(f"{where}: {split}_images are in Fortran's order; {right}")
    if n > MOST_IMAGES:
        right = "pack them into Parquet files and use parquet"
        raise UserError(f"{where}: {split} has {n:,} images; {MOST_IMAGES:,} are the most; {right}")


def _labels(labels: np.ndarray, where: str, split: str) -> np.ndarray:
    if labels.dtype.kind not in "iu" or not labels.ndim or labels.size != len(labels):
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
    image = (*shape[1:], 1) if len(shape) == 3 else shape[1:]
    if not all(1 <= side <= MOST_SIDE for side in image[:2]):
        size = f"{image[0]:,} × {image[1]:,}"
        raise UserError(f"{where}: {split}_images are {size}; sides are 1 to {MOST_SIDE:,} pixels")
    return image


class _Header(NamedTuple):
    """What a .npy file in the archive says of its array. bytes: of the array by that; there: as the
    archive has it; start: where they begin.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    bytes: int
    there: int
    start: int


def _header(path: Path | str, name: str) -> _Header:
    with zipfile.ZipFile(path) as archive:
        there = archive.getinfo(f"{name}.npy").file_size
        with archive.open(f"{name}.npy") as member:
            start = io.BytesIO(member.read(HEADER_BYTES))
    newer = np.lib.format.read_magic(start) >= (2, 0)
    layout = np.lib.format
    read = layout.read_array_header_2_0 if newer else layout.read_array_header_1_0
    with _quiet():
        shape, fortran, dtype = read(start)
    size = math.prod(shape) * dtype.itemsize
    return _Header(shape, fortran, dtype, size, there - start.tell(), start.tell())


def _read(path: str, resize: int | None, unit: tuple[str, int, int]) -> Iterator[Batch]:
    """The images of a split from `start` to `stop` - 1, some MiB at a time."""
    split, start, stop = unit
    with _readable(path), _quiet(), np.load(path, allow_pickle=False) as arrays:
        labels = arrays[f"{split}_labels"].reshape(-1).astype(np.int64)
    place = 0
    for images in _stream(path, split):
        chosen = slice(max(start - place, 0), max(stop - place, 0))
        if len(images[chosen]):
            part = images[chosen] if resize is None else resized(images[chosen], resize)
            yield Batch(part, labels[place : place + len(images)][chosen])
        place += len(images)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what numpy tells of headers that Python 2 wrote: they are read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Raises ValueError for bytes that do not decompress, or are not those that were written."""
    try:
        yield
    except (zlib.error, zipfile.BadZipFile, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _stream(path: str, split: str) -> Iterator[np.ndarray]:
    name = f"{split}_images"
    with _readable(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        header = _header(path, name)
        shape, begin = header.shape, header.start
        member.seek(begin)
        image = shape[1:] if len(shape) == 4 else (*shape[1:], 1)
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
