"""Encoded images as users bring them: Parquet files of them, decoded to uint8 RGB of one size."""

import io
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps
from pyarrow import fs

from grid.datasets import SPLITS, Shape, Source
from grid.spec import SpecError, near

ROWS = 2048  # decoded at once: memory is bounded by this, whatever the dataset's size
LABELS = ("label", "labels", "fine_label")
SHOWN = 3  # broken images named in an error


def decode(data: bytes, size: int | None) -> np.ndarray:
    """An encoded image as (H, W, 3) uint8 RGB, upright (EXIF), alpha over white; 16-bit greys scaled to 8.

    size: the short side is resized to it and the centre cropped to size × size. Raises OSError, ValueError or
    SyntaxError (Pillow's word for some broken files) for what is no image.
    """
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        upright = Image.fromarray((np.asarray(upright, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, upright.convert("RGBA"))
    picture = upright.convert("RGB")
    if size is not None and picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), method=Image.Resampling.BICUBIC)
    return np.asarray(picture)


class _File(NamedTuple):
    """What we need of pyarrow's FileInfo, which does not travel to other processes."""

    path: str
    base_name: str
    size: int
    mtime_ns: int | None


class ParquetFiles:
    """The files of a set in Hugging Face's layout, their columns and classes. Raises SpecError."""

    def __init__(self, place, *, image, label, size, allow_broken):
        self.place, self.size, self.allow_broken = place, size, allow_broken
        if not isinstance(place, str) or not place:
            raise SpecError("dataset: parquet: name a folder or URI with train-*.parquet and test-*.parquet in it")
        for name, value, least in (("size", size, 1), ("allow_broken", allow_broken, 0)):
            if value is not None and (not isinstance(value, int) or value < least):
                raise SpecError(f"dataset.{name}: {value!r} must be a whole number from {least} up")
        try:
            self.fs, root = fs.FileSystem.from_uri(place) if "://" in place else (fs.LocalFileSystem(), place)
            found = self.fs.get_file_info(fs.FileSelector(root))
        except (OSError, ValueError) as error:
            raise SpecError(f"dataset: parquet: {place} cannot be listed: {' '.join(str(error).split())}") from error
        found = sorted(_File(info.path, info.base_name, info.size, info.mtime_ns) for info in found if info.is_file)
        self.files = {split: [info for info in found if _of_split(info, split)] for split in SPLITS}
        for split in SPLITS:
            if not self.files[split]:
                raise SpecError(f"dataset: parquet: {place} has no {split}-*.parquet; it has {_names(found)}")
        with self._open(self.files["train"][0].path) as file:
            schema = pq.ParquetFile(file).schema_arrow
        self.image = _column(schema, image, "image", _is_image, ())
        self.label = _column(schema, label, "label", pa.types.is_integer, LABELS)
        self.counts = {split: self._counts(split) for split in SPLITS}
        classes = max(len(counts) for counts in self.counts.values())
        names = _class_names(schema, self.label)
        self.classes = tuple(names) if names and len(names) >= classes else tuple(str(c) for c in range(classes))

    def source(self) -> Source:
        """The source that `datasets` knows."""
        files = [f for split in SPLITS for f in self.files[split]]
        state = {
            "source": "parquet", "image": self.image, "label": self.label, "size": self.size,
            "allow_broken": self.allow_broken,
            "files": [[f.path, f.size, f.mtime_ns] for f in files],
        }  # fmt: skip
        name = self.place.rstrip("/").rsplit("/", 1)[-1]
        return Source(name, state, self.classes, self.read, None if self.allow_broken else self._shape())

    def read(self, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(images (n, H, W, 3) uint8, labels (n,) int64) in the files' order. Raises ValueError for broken images."""
        broken: list[str] = []
        for info in self.files[split]:
            with self._open(info.path) as file:
                row = 0
                for batch in pq.ParquetFile(file).iter_batches(ROWS, columns=[self.image, self.label]):
                    yield self._decoded(batch, info.base_name, row, broken)
                    row += batch.num_rows
        if len(broken) > self.allow_broken:
            listed = "; ".join(broken[:SHOWN]) + ("; …" if len(broken) > SHOWN else "")
            right = f"mend or remove them, or set allow_broken: {len(broken)}"
            raise ValueError(f"{self.place}: {len(broken)} broken images in {split}: {listed}; {right}")

    def _decoded(self, batch: pa.RecordBatch, file: str, first: int, broken: list[str]):
        images, labels = [], []
        for i, (cell, label) in enumerate(zip(batch[self.image].to_pylist(), batch[self.label].to_pylist())):
            try:
                images.append(decode(cell["bytes"], self.size))
                labels.append(label)
            except (OSError, ValueError, SyntaxError, TypeError) as error:
                broken.append(f"{file} row {first + i} ({' '.join(str(error).split())[:60]})")
        sizes = {image.shape[:2] for image in images}
        if len(sizes) > 1:
            some = ", ".join(f"{h}×{w}" for h, w in sorted(sizes)[:3])
            raise ValueError(f"{self.place}: {file} has images of several sizes ({some}); set size, e.g. size: 32")
        height, width = sizes.pop() if sizes else (self.size or 1, self.size or 1)
        pixels = np.stack(images) if images else np.empty((0, height, width, 3), np.uint8)
        return pixels, np.asarray(labels, dtype=np.int64)

    def _counts(self, split: str) -> np.ndarray:
        labels = []
        for info in self.files[split]:
            with self._open(info.path) as file:
                labels.append(pq.ParquetFile(file).read(columns=[self.label])[self.label])
        column = pa.chunked_array([chunk for part in labels for chunk in part.chunks])
        if column.null_count:
            raise SpecError(f"dataset: parquet: {column.null_count} labels in {split} are missing")
        values = column.to_numpy()
        if not len(values) or values.min() < 0:
            what = "has no images" if not len(values) else f"has label {values.min()}; labels are 0 to k-1"
            raise SpecError(f"dataset: parquet: {split} {what}")
        return np.bincount(values)

    def _shape(self) -> Shape | None:
        """The set's shape from its labels and its first image; None if that does not decode (ingest will say so)."""
        with self._open(self.files["train"][0].path) as file:
            first = next(pq.ParquetFile(file).iter_batches(1, columns=[self.image]))[self.image][0].as_py()
        try:
            height, width, channels = decode(first["bytes"], self.size).shape
        except (OSError, ValueError, SyntaxError, TypeError):
            return None
        padded = {
            split: tuple(int(n) for n in np.pad(self.counts[split], (0, len(self.classes) - len(self.counts[split]))))
            for split in SPLITS
        }
        return Shape(self.classes, height, width, channels, padded["train"], padded["test"])

    def _open(self, path: str):
        return self.fs.open_input_file(path)


def _of_split(file: _File, split: str) -> bool:
    return file.base_name.endswith(".parquet") and file.base_name.startswith((f"{split}-", f"{split}."))


def _names(found: list[_File]) -> str:
    names = [info.base_name for info in found]
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "") or "nothing"


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _column(schema: pa.Schema, wanted: str | None, what: str, fits, usual: tuple[str, ...]) -> str:
    """The column for `what`: the one asked for, else the usual name, else the only one of the right type."""
    candidates = [field.name for field in schema if fits(field.type)]
    if wanted is not None:
        if wanted in candidates:
            return wanted
        known = ", ".join(candidates) or "none"
        raise SpecError(f"dataset.{what}: no {what} column {wanted!r}; of that type: {known}{near(wanted, candidates)}")
    for name in usual:
        if name in candidates:
            return name
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise SpecError(f"dataset: parquet: no column can be the {what}; there are {', '.join(schema.names)}")
    raise SpecError(f"dataset: parquet: which column is the {what}? Say {what}: NAME, of {', '.join(candidates)}")


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Class names from the metadata that Hugging Face's library writes, if any."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None
