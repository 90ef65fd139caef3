"""Parquet files of encoded images in Hugging Face's layout, in a local folder or under any URI of
pyarrow's.
"""

import json
import os
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from equigrid.grid.datasets.sources import encoded
from equigrid.grid.datasets.sources.base import (
    SPLITS,
    Batch,
    Contents,
    Shape,
    Source,
    checked_allowance,
    checked_size,
    class_counts,
    one_line,
)
from equigrid.grid.errors import UserError, near

LABELS = ("label", "labels", "fine_label")
NAMES = {"train": ("train",), "val": ("validation", "val", "valid"), "test": ("test",)}
ROWS = 256  # encoded images held at once
BUFFER_BYTES = 4 * 2**20  # a column is streamed: a row group may be as large as its file


def parquet(
    place: str | None,
    image: str | None = None,
    label: str | None = None,
    size: int | None = None,
    allow_broken: int = 0,
) -> Source:
    """Files `train-*.parquet`, `test-*.parquet` and, if there are any, `validation-*.parquet` in
    one folder.

    Without test files, validation is what is tested on. image: the column of structs with `bytes`
    (encoded images); label: the column of integers 0 to k-1; each may be left out where there is
    one candidate. size: resize the short side to it (bicubic, antialiased) and crop the centre;
    without it all images must have one size. allow_broken: images that may fail to decode; they are
    left out.
    """
    if not isinstance(place, str) or not place:
        raise UserError(
            "dataset: parquet: name a folder or URI with train-*.parquet and test-*.parquet in it"
        )
    place = (
        place if "://" in place else os.path.abspath(os.path.expanduser(place))
    )  # as workers need it
    if "://" in place and "@" in urlsplit(place).netloc:  # it would stand in errors
        raise UserError(
            "dataset: parquet: the address holds credentials; put them into AWS_ACCESS_KEY_ID and so on"
        )
    size, allow_broken = checked_size(size), checked_allowance(allow_broken)
    try:
        files = _files(place)
        return _source(_look_into(place, files, image, label, size), allow_broken)
    except UserError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's errors are either
        raise UserError(f"dataset: parquet: {place} cannot be read: {one_line(error)}") from error


class _File(NamedTuple):
    """What we need of pyarrow's FileInfo, which does not travel to other processes."""

    path: str
    base_name: str
    size: int
    mtime_ns: int | None
    rows: int = 0


class _Table(NamedTuple):
    """The set's files by split, its columns, classes and counts."""

    place: str
    files: dict[str, list[_File]]
    image: str
    label: str
    size: int | None
    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]


def _filesystem(place: str) -> tuple[fs.FileSystem, str]:
    return fs.FileSystem.from_uri(place) if "://" in place else (fs.LocalFileSystem(), place)


def _files(place: str) -> dict[str, list[_File]]:
    """The Parquet files of each split, in the order of their names. Raises UserError."""
    try:
        filesystem, root = _filesystem(place)
        found = filesystem.get_file_info(fs.FileSelector(root))
    except (OSError, ValueError) as error:
        raise UserError(f"dataset: parquet: {place} cannot be listed: {one_line(error)}") from error
    found = sorted(
        _File(info.path, info.base_name, info.size, info.mtime_ns) for info in found if info.is_file
    )
    files = {split: [file for file in found if _of_split(file, NAMES[split])] for split in SPLITS}
    if not files["test"]:
        files["test"], files["val"] = files["val"], []
    for split in ("train", "test"):
        if not files[split]:
            names = (
                ", ".join(file.base_name for file in found[:5]) + (" …" if len(found) > 5 else "")
                or "nothing"
            )
            raise UserError(f"dataset: parquet: {place} has no {split}-*.parquet; it has {names}")
    return {split: files[split] for split in SPLITS if files[split]}


def _of_split(file: _File, names: tuple[str, ...]) -> bool:
    starts = tuple(f"{name}{mark}" for name in names for mark in "-.")
    return file.base_name.endswith(".parquet") and file.base_name.startswith(starts)


def _look_into(place: str, files: dict[str, list[_File]], image, label, size) -> _Table:
    """Reads the schema and all labels. Raises UserError."""
    filesystem, _ = _filesystem(place)
    with filesystem.open_input_file(files["train"][0].path) as file:
        schema = pq.ParquetFile(file).schema_arrow
    image = _column(schema, image, "image", _is_image, ())
    label = _column(schema, label, "label", pa.types.is_integer, LABELS)
    labels, counted = {}, {}
    for split in files:
        columns = [_labels(filesystem, file, (image, label)) for file in files[split]]
        if missing := sum(column.null_count for column in columns):
            raise UserError(
                f"dataset: parquet: {missing} labels in {split} are missing; every image needs one"
            )
        labels[split] = np.concatenate([column.to_numpy() for column in columns])
        counted[split] = [
            file._replace(rows=len(column)) for file, column in zip(files[split], columns)
        ]
    names = _class_names(schema, label)
    counts = class_counts(f"dataset: parquet: {place}", labels, len(names) if names else None)
    classes = tuple(names or map(str, range(len(counts["train"]))))
    return _Table(place, counted, image, label, size, classes, counts)


def _labels(filesystem: fs.FileSystem, file: _File, columns: tuple[str, str]) -> pa.ChunkedArray:
    with filesystem.open_input_file(file.path) as opened:
        found = pq.ParquetFile(opened)
        if absent := [name for name in columns if name not in found.schema_arrow.names]:
            raise UserError(
                f"dataset: parquet: {file.base_name} has no column {absent[0]!r}; all files need it"
            )
        return found.read(columns=[columns[1]])[columns[1]]


def _source(table: _Table, allow_broken: int) -> Source:
    state = {
        "source": "parquet", "image": table.image, "label": table.label, "size": table.size,
        "files": [[split, file.path, file.size, file.mtime_ns] for split in table.files for file in table.files[split]],
    }  # fmt: skip
    shape = None
    if not allow_broken and (
        image := _image_shape(table)
    ):  # where none decodes, ingest will say so
        by_split = {f"{split}_counts": counts for split, counts in table.counts.items()}
        shape = Shape(table.classes, *image, **by_split)
    name = table.place.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]
    contents = partial(_contents, table)
    return Source(
        name, state, table.classes, contents, shape, allow_broken, local="://" not in table.place
    )


def _image_shape(table: _Table) -> tuple[int, int, int] | None:
    pieces = [(file.path, 0, file.rows) for file in table.files["train"]]
    rows = _rows(table.place, (table.image,), pieces, rows=8)
    return encoded.image_shape(
        (cell["bytes"] if cell else None for _, _, (cell,) in rows), table.size
    )


def _contents(table: _Table) -> Contents:
    image = _image_shape(table)
    if image is None:
        right = f"is {table.image!r} the column of images? Without size, one must show the set's"
        raise UserError(
            f"dataset: {table.place}: none of the first {encoded.TRIED} images can be decoded; {right}"
        )
    counts = {split: sum(file.rows for file in files) for split, files in table.files.items()}
    read = partial(_read, table.place, table.image, table.label, table.size, image)
    return Contents(image, counts, partial(_unit, table.files), read)


def _unit(
    files: dict[str, list[_File]], split: str, start: int, stop: int
) -> tuple[int, list[tuple[str, int, int]]]:
    """Places `start` to `stop` - 1 of a split, as (start, (file, first row, last row + 1) …)."""
    pieces, first = [], 0
    for file in files[split]:
        rows = max(start - first, 0), min(stop - first, file.rows)
        if rows[0] < rows[1]:
            pieces.append((file.path, *rows))
        first += file.rows
    return start, pieces


def _read(
    place: str, image: str, label: str, size, shape: tuple[int, int, int], unit: tuple
) -> Iterator[Batch]:
    start, pieces = unit
    items = (
        (start + i, f"{path.rsplit('/', 1)[-1]} row {row}", cell["bytes"] if cell else None, number)
        for i, (path, row, (cell, number)) in enumerate(_rows(place, (image, label), pieces, ROWS))
    )
    yield encoded.batch(items, size, shape)


def _rows(
    place: str, columns: tuple[str, ...], pieces: list, rows: int
) -> Iterator[tuple[str, int, tuple]]:
    """(file, row, the columns' values) of the rows in `pieces`, `rows` of them in memory at
    once.
    """
    filesystem, _ = _filesystem(place)
    for path, start, stop in pieces:
        with filesystem.open_input_file(path) as opened:
            file = pq.ParquetFile(opened, buffer_size=BUFFER_BYTES)
            groups, row = _groups(file.metadata, start, stop)
            for part in file.iter_batches(rows, row_groups=groups, columns=list(columns)):
                low, high = max(start - row, 0), min(stop - row, part.num_rows)
                if low < high:
                    chosen = part.slice(low, high - low)
                    for i, values in enumerate(
                        zip(*(chosen[name].to_pylist() for name in columns))
                    ):
                        yield path, row + low + i, values
                row += part.num_rows
                if row >= stop:
                    break


def _groups(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows `start` to `stop` - 1, and the first one's first row."""
    groups, first, row = [], 0, 0
    for i in range(metadata.num_row_groups):
        n = metadata.row_group(i).num_rows
        if row < stop and row + n > start:
            first = first if groups else row
            groups.append(i)
        row += n
    return groups, first


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _column(schema: pa.Schema, wanted: str | None, what: str, fits, usual: tuple[str, ...]) -> str:
    """The column for `what`: the one asked for, else the usual name, else the only one of the right
    type.
    """
    candidates = [field.name for field in schema if fits(field.type)]
    if wanted is not None:
        if wanted in candidates:
            return wanted
        known = ", ".join(candidates) or "none"
        raise UserError(
            f"dataset.{what}: no {what} column {wanted!r}; of that type: {known}{near(wanted, candidates)}"
        )
    for name in usual:
        if name in candidates:
            return name
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise UserError(
            f"dataset: parquet: no column can be the {what}; there are {', '.join(schema.names)}"
        )
    raise UserError(
        f"dataset: parquet: which column is the {what}? Say {what}: NAME, of {', '.join(candidates)}"
    )


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Class names from the metadata that Hugging Face's library writes, if any."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None
