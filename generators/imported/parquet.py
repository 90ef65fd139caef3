"""Imported sets in Parquet files of encoded images, Hugging Face's layout, local or under any URI
of pyarrow's.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cached_property
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from equigrid.generators.imported.listing import Image, Listing

_LABELS = ("label", "labels")
_FOOTER_END = 8  # the footer's length in 4 bytes, and PAR1
_BUFFER_BYTES = 4 * 2**20


def parquet(
    path: str, *, split: str | None, image: str | None, label: str | None, rename: dict
) -> "ParquetListing":
    """The rows of the files; labels are read, images are not.  ValueError, one line, for another
    form.
    """
    if "://" in path and "@" in urlsplit(path).netloc:  # it would stand in errors
        raise ValueError(
            "path: the address holds credentials; put them into AWS_ACCESS_KEY_ID and so on"
        )
    try:
        return _parquet(path, split, image, label, rename)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(
            f"path: {path} cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error


def _parquet(
    path: str, split: str | None, image: str | None, label: str | None, rename: dict
) -> "ParquetListing":
    place = path if "://" in path else os.path.abspath(os.path.expanduser(path))
    filesystem, root = _filesystem(place)
    names = sorted(
        info.base_name for info in filesystem.get_file_info(fs.FileSelector(root)) if info.is_file
    )
    starts = tuple(f"{split}{mark}" for mark in "-.") if split else ("",)
    files = [name for name in names if name.endswith(".parquet") and name.startswith(starts)]
    if not files:
        wanted = f"{split}-*.parquet" if split else "folders of classes and no *.parquet"
        raise ValueError(
            f"path: {path} has no {wanted}; it has {', '.join(names[:5]) or 'nothing'}"
        )
    with filesystem.open_input_file(f"{root}/{files[0]}") as file:
        schema = pq.ParquetFile(file).schema_arrow
    image = _column(schema, image, "image", _is_image)
    label = _column(schema, label, "label", _is_class, _LABELS)
    images, group = [], 0
    for name in files:
        with filesystem.open_input_file(f"{root}/{name}") as file:
            opened = pq.ParquetFile(file)
            rows = 0
            for i in range(opened.num_row_groups):
                labels = opened.read_row_group(i, columns=[label])[label]
                if labels.null_count:
                    raise ValueError(
                        f"path: {name} has rows without {label}; every image needs a class"
                    )
                found = _named(labels.to_pylist(), schema, label)
                images += [
                    Image(f"{name}#{rows + j}", rename.get(one, one), group)
                    for j, one in enumerate(found)
                ]
                rows, group = rows + len(found), group + 1
    return ParquetListing(place, images, files, image)


class ParquetListing(Listing):
    """Rows of Parquet files; a place is FILE#ROW."""

    def __init__(self, root: str, images: list[Image], files: list[str], column: str):
        super().__init__(root, images)
        self.files, self.column = files, column

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        """Of the files' footers, which hold sizes, offsets and statistics of all columns, and of
        the labels.

        Not of the images' bytes, which may be terabytes far away: those are checked one by one as
        they are read.
        """
        filesystem, root = _filesystem(self.root)
        whole = hashlib.blake2b(digest_size=16)
        for name in self.files:
            with filesystem.open_input_file(f"{root}/{name}") as file:
                size = file.size()
                file.seek(size - _FOOTER_END)
                length = int.from_bytes(file.read(4), "little")
                file.seek(size - _FOOTER_END - length)
                whole.update(size.to_bytes(8, "little") + file.read(length))
        whole.update("\0".join(image.label for image in self.images).encode())
        return whole.hexdigest()

    def read(self, places: list[str]) -> Iterator[tuple[int, bytes]]:
        wanted: dict[str, dict[int, int]] = {}
        for i, place in enumerate(places):
            name, _, row = place.rpartition("#")
            wanted.setdefault(name, {})[int(row)] = i
        filesystem, root = _filesystem(self.root)
        for name, rows in wanted.items():
            try:
                with filesystem.open_input_file(f"{root}/{name}") as file:
                    yield from self._rows(pq.ParquetFile(file, buffer_size=_BUFFER_BYTES), rows)
            except (OSError, pa.ArrowException) as error:
                raise ValueError(
                    f"path: {name} in {self.root} cannot be read: {str(error)[:200]}"
                ) from error

    def _rows(self, file: pq.ParquetFile, rows: dict[int, int]) -> Iterator[tuple[int, bytes]]:
        first = 0
        for i in range(file.num_row_groups):
            last = first + file.metadata.row_group(i).num_rows
            chosen = sorted(row - first for row in rows if first <= row < last)
            if chosen:
                column = file.read_row_group(i, columns=[self.column])[self.column].take(chosen)
                for row, cell in zip(chosen, column.to_pylist()):
                    yield rows[first + row], (cell or {}).get("bytes")
            first = last


def _filesystem(place: str) -> tuple[fs.FileSystem, str]:
    filesystem, root = (
        fs.FileSystem.from_uri(place) if "://" in place else (fs.LocalFileSystem(), place)
    )
    return filesystem, root.rstrip("/")


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _is_class(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _column(
    schema: pa.Schema, wanted: str | None, what: str, fits, usual: tuple[str, ...] = ()
) -> str:
    """The column asked for, else the one of a usual name, else the only one of the right type."""
    candidates = [field.name for field in schema if fits(field.type)]
    if wanted is not None:
        if wanted not in candidates:
            raise ValueError(
                f"{what}: {wanted!r} is no such column; there are {', '.join(candidates) or 'none'}"
            )
        return wanted
    named = [name for name in usual if name in candidates] or candidates
    if len(named) != 1 and not any(name in usual for name in named):
        raise ValueError(f"{what}: name the column, one of {', '.join(candidates) or schema.names}")
    return named[0]


def _named(labels: list, schema: pa.Schema, label: str) -> list[str]:
    """Names of classes: as they stand, or by Hugging Face's list of names in the file's metadata,
    or the numbers.
    """
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = metadata.get("info", {}).get("features", {}).get(label, {})
    names = feature.get("names") if isinstance(feature, dict) else None
    if names and all(isinstance(one, int) for one in labels):
        if labels and not 0 <= min(labels) <= max(labels) < len(names):
            found = f"{min(labels)} to {max(labels)}"
            raise ValueError(
                f"label: {label} runs from {found}, and the file names {len(names)} classes"
            )
        return [names[one] for one in labels]
    return [str(one) for one in labels]
