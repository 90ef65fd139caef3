"""Imported sets in Parquet files of encoded images, Hugging Face's layout, local or under any URI
of pyarrow's.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from equigrid.generators.common import parquet_files
from equigrid.generators.common.parquet_files import BadFiles, File, filesystem_of
from equigrid.generators.imported.listing import Image, Listing

_BUFFER_BYTES = 4 * 2**20
_ROWS = 16


def parquet(
    path: str, *, split: str | None, image: str | None, label: str | None, rename: dict
) -> "ParquetListing":
    """The rows of the files; labels are read, images are not.  ValueError, one line, for another
    form.
    """
    try:
        return _parquet(parquet_files.absolute(path), split, image, label, rename)
    except BadFiles as error:
        at = "" if path in str(error) or "://" in path else f"{path}: "
        raise ValueError(f"path: {at}{error}") from error
    except (OSError, pa.ArrowException) as error:
        raise ValueError(
            f"path: {path} cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error


def _parquet(
    place: str, split: str | None, image: str | None, label: str | None, rename: dict
) -> "ParquetListing":
    filesystem, _ = filesystem_of(place)
    found, others = parquet_files.find(place)
    files = [file for file in found if split is None or _of_split(file.name, split)]
    if not files:
        wanted = f"{split}-*.parquet" if split else "folders of classes and no *.parquet"
        names = [file.name for file in found] + others
        raise ValueError(
            f"path: {place} has no {wanted}; it has {', '.join(names[:5]) or 'nothing'}"
        )
    parquet_files.check_files(filesystem, files)
    columns = parquet_files.choose(filesystem, files, image, label)
    labels = parquet_files.read_labels(filesystem, columns)
    images, group = [], 0
    for file, codes in zip(columns.files, labels.codes):
        names = [labels.names[code] if labels.names else str(code) for code in codes.tolist()]
        row = 0
        with filesystem.open_input_file(file.path) as opened:
            metadata = pq.ParquetFile(opened).metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        for n in sizes:
            images += [
                Image(f"{file.name}#{j}", rename.get(names[j], names[j]), group)
                for j in range(row, row + n)
            ]
            row, group = row + n, group + 1
    return ParquetListing(place, images, columns.files, columns.image)


def _of_split(name: str, split: str) -> bool:
    """Whether a file's name begins with the split's, as given or as another word for it."""
    return name.startswith((f"{split}-", f"{split}.", f"{split}/")) or (
        parquet_files.split_of(name) is not None
        and parquet_files.split_of(name) == parquet_files.split_of(f"{split}-")
    )


class ParquetListing(Listing):
    """Rows of Parquet files; a place is FILE#ROW."""

    def __init__(self, root: str, images: list[Image], files: tuple[File, ...], column: str):
        super().__init__(root, images)
        self.files, self.column = {file.name: file.path for file in files}, column

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        """Of the files' footers, which hold sizes, offsets and statistics of all columns, and of
        the labels.

        Not of the images' bytes, which may be terabytes far away: those are checked one by one as
        they are read.
        """
        filesystem, _ = filesystem_of(self.root)
        whole = hashlib.blake2b(digest_size=16)
        for path in self.files.values():
            with filesystem.open_input_file(path) as file:
                whole.update(parquet_files.footer(file))
        whole.update("\0".join(image.label for image in self.images).encode())
        return whole.hexdigest()

    def read(self, places: list[str]) -> Iterator[tuple[int, bytes | None]]:
        wanted: dict[str, dict[int, int]] = {}
        for i, place in enumerate(places):
            name, _, row = place.rpartition("#")
            wanted.setdefault(name, {})[int(row)] = i
        filesystem, _ = filesystem_of(self.root)
        for name, rows in wanted.items():
            try:
                with filesystem.open_input_file(self.files[name]) as opened:
                    file = pq.ParquetFile(opened, buffer_size=_BUFFER_BYTES)
                    chosen = np.array(sorted(rows), np.int64)
                    for at, data in parquet_files.encoded_images(file, self.column, chosen, _ROWS):
                        yield rows[at], data
            except KeyError:
                raise ValueError(f"path: {name} in {self.root} is gone") from None
            except (OSError, pa.ArrowException) as error:
                raise ValueError(
                    f"path: {name} in {self.root} cannot be read: {str(error)[:200]}"
                ) from error
