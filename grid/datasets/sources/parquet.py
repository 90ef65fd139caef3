"""Parquet files of encoded images in Hugging Face's layout, in a local folder or under any URI of
pyarrow's.
"""

import io
import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from equigrid.generators.common import parquet_files
from equigrid.generators.common.decoding import header_size
from equigrid.generators.common.parquet_files import BadFiles, Columns, File, filesystem_of
from equigrid.grid.datasets.sources import encoded, splitting
from equigrid.grid.datasets.sources.base import (
    SPLITS,
    Batch,
    Contents,
    Shape,
    Source,
    class_counts,
    one_line,
)
from equigrid.grid.errors import UnavailableError, UserError
from equigrid.grid.store.bucket import FINAL_ANSWERS

ROWS = 16  # encoded images held at once; more of them are slower
BUFFER_BYTES = 4 * 2**20  # a column is streamed: a row group may be as large as its file
LABELS_REV = 2  # raised when a change of the code reads other classes from the same files
SPLIT_COLUMNS = ("split", "splits", "set", "subset", "partition", "phase", "fold", "usage")
LONGEST_PATH = 4096
MOST_SPLITS = 6  # words in a column of splits: train, training, val …
CHECKED_BYTES = 2**30  # of local files, whose images' sizes are looked at before anything runs


def parquet(
    place: str | None,
    image: str | None = None,
    label: str | None = None,
    size: int | None = None,
    allow_broken: int = 0,
    range: list | None = None,
    channels: int = 3,
    page: int | None = None,
    split: str | None = None,
    group: str | None = None,
    test: float | None = None,
    val: float | None = None,
    split_seed: int = 0,
) -> Source:
    """Files `train-*.parquet`, `test-*.parquet` and, if there are any, `validation-*.parquet` in
    one folder, or in `data/` of a cloned repository.

    Without test files, validation is what is tested on. image: the column of encoded images, bytes
    or structs with `bytes`; label: the column of classes, numbers 0 to k-1, text or categories;
    each may be left out where there is one candidate or one of a usual name. split: the column that
    names the split of each row, where files do not. group: the column that names the patient of
    each. test, val: parts to hold back, where there is no such split. The other options are those
    of a folder.
    """
    if not isinstance(place, str) or not place:
        raise UserError(
            "dataset: parquet: name a folder or URI with train-*.parquet and test-*.parquet in it"
        )
    reading = encoded.checked_reading(size, range, channels, allow_broken, page)
    wish = splitting.checked_wish(test, val, split_seed, group)
    try:
        place = parquet_files.absolute(place)
        return _source(_look_into(place, image, label, split, reading, wish), wish)
    except (UserError, UnavailableError):
        raise
    except BadFiles as error:
        at = "" if place in str(error) or "://" in place else f"{place}: "
        raise UserError(f"dataset: parquet: {at}{error}") from error
    except Exception as error:
        if not _is_of_files(place, error):
            raise
        raise _trouble(place, "read", error) from error


def _is_of_files(place: str, error: Exception) -> bool:
    """pyarrow's errors are any of these; what a library behind a scheme raises is one of its own,
    such as that of hf:// without a network.
    """
    return "://" in place or isinstance(error, OSError | ValueError | pa.ArrowException)


def _trouble(place: str, what: str, error: Exception) -> UserError | UnavailableError:
    """An address that is wrong or forbidden is the user's to mend; a server that does not answer
    is not.
    """
    text = f"dataset: parquet: {place} cannot be {what}: {one_line(error)}"
    response = getattr(error, "response", None)
    final = (
        "://" not in place
        or isinstance(error, FileNotFoundError | ValueError | NotImplementedError)
        or FINAL_ANSWERS.search(str(error))
        or getattr(response, "status_code", None) in (401, 403, 404)
    )
    return UserError(text) if final else UnavailableError(text)


class _Table(NamedTuple):
    """The set's files, and of each split the rows (counted over all files) and their classes."""

    place: str
    files: tuple[File, ...]
    image: str
    label: str
    reading: encoded.Reading
    classes: tuple[str, ...]
    rows: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    counts: dict[str, tuple[int, ...]]
    skipped: tuple[str, ...]
    told: tuple[str, ...]
    split: str | None


def _look_into(
    place: str,
    image: str | None,
    label: str | None,
    split: str | None,
    reading: encoded.Reading,
    wish: splitting.Wish,
) -> _Table:
    """Reads every file's schema, and all labels. Raises UserError, BadFiles."""
    try:
        filesystem, _ = filesystem_of(place)
        found, others = parquet_files.find(place)
    except BadFiles:
        raise
    except Exception as error:
        if not _is_of_files(place, error):
            raise
        raise _trouble(place, "listed", error) from error
    if not found:
        there = ", ".join(others[:5]) + (" …" if len(others) > 5 else "") or "nothing"
        raise UserError(f"dataset: parquet: {place} has no train-*.parquet; it has {there}")
    if split is None and not any(parquet_files.split_of(file.name) for file in found):
        split = _column_of_splits(filesystem, found)
        if split and wish.any:
            part = "test" if wish.test is not None else "val"
            right = f"leave {part} out and it is followed, or take the column out"
            raise UserError(f"dataset.{part}: {place} has the column {split!r} of splits; {right}")
    by_split = _files(place, found, split, wish)
    for files in by_split.values():
        parquet_files.check_files(filesystem, files)
    used = [file for files in by_split.values() for file in files]
    columns = parquet_files.choose(filesystem, used, image, label)
    labels = parquet_files.read_labels(filesystem, columns)
    codes = np.concatenate(labels.codes)
    sizes = {split: len(files) for split, files in by_split.items()}
    rows = _by_split(filesystem, columns, split, sizes)
    names = labels.names or tuple(map(str, range_of(codes)))
    group_told: list[str] = []
    if any(len(places) for places in rows.values()):
        rows = _divided(place, filesystem, columns, wish, rows, codes, names, group_told)
    where = f"dataset: parquet: {place}: column {columns.label!r}"
    counts = class_counts(where, {s: codes[r] for s, r in rows.items()}, names=labels.names)
    names = labels.names or tuple(map(str, range_of(codes)))
    skipped = tuple(
        f"{file.name} (named after no split)" for file in found if file.name not in columns.schemas
    )
    told = (
        f"images are column {columns.image!r}, classes column {columns.label!r}: {_listed(names)}",
        *((f"splits are column {split!r}",) if split else ()),
        *group_told,
        *_files_told(by_split),
    )
    return _Table(
        place, columns.files, columns.image, columns.label, reading, names, rows,
        {side: codes[places] for side, places in rows.items()}, counts, skipped, told, split,
    )  # fmt: skip


_COUNTED = re.compile(r"(?P<stem>.*?)(?P<k>\d+)(-of-\d+(-[0-9a-f]{6,})?)?\.parquet", re.I)


def _files_told(by_split: dict[str, list[File]]) -> Iterator[str]:
    """A line for each split that is more than one set of files, or whose numbers have a gap."""
    for split, files in by_split.items():
        stems: dict[str, list[tuple[int, str]]] = {}
        for file in files:
            counted = _COUNTED.fullmatch(file.name)
            stem, number = (counted["stem"], int(counted["k"])) if counted else (file.name, 0)
            stems.setdefault(stem, []).append((number, file.name))
        if len(stems) > 1:
            listed = ", ".join(found[0][1] for found in list(stems.values())[:3])
            yield f"{split} is {len(stems)} sets of files together, such as {listed}"
        for found in stems.values():
            found.sort()
            for (k, one), (other_k, other) in pairwise(found):
                if other_k > k + 1:
                    yield f"between {one} and {other} there is no file: is one missing?"


def range_of(codes: np.ndarray) -> range:
    """The classes 0 to the largest label's. A label beyond all reason is for `class_counts`."""
    return range(min(int(codes.max(initial=0)) + 1, len(codes) + 1))


def _listed(names: tuple[str, ...]) -> str:
    some = ", ".join(f"{i} {name}" if str(i) != name else name for i, name in enumerate(names[:12]))
    return f"{len(names)} classes, {some}{', …' if len(names) > 12 else ''}"


# Which files and rows -----------------------------------------------------------------------------


def _files(
    place: str, found: list[File], column: str | None, wish: splitting.Wish
) -> dict[str, list[File]]:
    """The files of each split, in the order of their names; all are `train` where the rows or we
    say. Raises UserError.
    """
    if column is not None:
        return {"train": found}
    files = {
        split: [file for file in found if parquet_files.split_of(file.name) == split]
        for split in SPLITS
    }
    if wish.test is not None and not any(files.values()):
        return {"train": found}
    names = ", ".join(file.name for file in found[:5]) + (" …" if len(found) > 5 else "")
    if wish.test is None and not files["test"]:
        files["test"], files["val"] = files["val"], []
    for split, part in (("test", wish.test), ("val", wish.val)):
        if part is not None and files[split]:
            raise UserError(
                f"dataset.{split}: {place} has {files[split][0].name} already; leave {split} out"
            )
    if not files["train"]:
        right = "name the files after their splits, or set split: COLUMN"
        raise UserError(
            f"dataset: parquet: {place} has no train-*.parquet; it has {names}; {right}"
        )
    if not files["test"] and wish.test is None:
        right = "add some, or set test: 0.2 to hold a part of train back"
        raise UserError(f"dataset: parquet: {place} has no test-*.parquet; it has {names}; {right}")
    return {split: files[split] for split in SPLITS if files[split]}


def _column_of_splits(filesystem: fs.FileSystem, found: list[File]) -> str | None:
    """The column of text that names the split of each row, where all files have one: whoever wrote
    it has divided the set already.
    """
    shared: set[str] | None = None
    values: dict[str, set[str]] = {}
    for file in found:
        with filesystem.open_input_file(file.path) as opened:
            try:
                schema = pq.read_schema(opened)
            except pa.ArrowException:
                return None  # what is wrong with it is told when it is read
            texts = {field.name for field in schema if _is_short_text(field)}
            shared = texts if shared is None else shared & texts
            for name in sorted(shared):
                column = parquet_files.column_of(opened, name).unify_dictionaries()
                values.setdefault(name, set()).update(map(str, column.unique().to_pylist()))
                if len(values[name]) > MOST_SPLITS:
                    shared.discard(name)
    return next((n for n in sorted(shared or ()) if splitting.splits_named(values[n])), None)


def _is_short_text(field: pa.Field) -> bool:
    """Whether a column may hold words for splits, by its name: a caption is not read for it."""
    return field.name.lower() in SPLIT_COLUMNS and not parquet_files.why_no_label(field.type)


def _by_split(
    filesystem: fs.FileSystem, columns: Columns, column: str | None, sizes: dict[str, int]
) -> dict[str, np.ndarray]:
    """Rows, counted over all files, of each split: by files, or as the column says."""
    if column is not None:
        cells = np.array(
            [
                splitting.split_named(cell, f"dataset: parquet: {name}: column {column!r}")
                for name, values in _column(filesystem, columns, column, "split")
                for cell in values
            ],
            dtype="<U5",
        )
        found = {split: np.flatnonzero(cells == split) for split in SPLITS}
        if not len(found["test"]):
            found["test"], found["val"] = found["val"], found["test"]
        return {split: places for split, places in found.items() if len(places) or split != "val"}
    rows, first, file = {}, 0, 0
    for split, n in sizes.items():
        count = sum(each.rows for each in columns.files[file : file + n])
        rows[split] = np.arange(first, first + count)
        first, file = first + count, file + n
    return rows


def _column(
    filesystem: fs.FileSystem, columns: Columns, name: str, what: str
) -> Iterator[tuple[str, list]]:
    """(file, values) of a further column. Raises UserError."""
    for file in columns.files:
        names = columns.schemas[file.name].names
        if names.count(name) != 1:
            known = ", ".join(names[:8])
            raise UserError(f"dataset.{what}: {file.name} has no column {name!r}; it has {known}")
        with filesystem.open_input_file(file.path) as opened:
            values = parquet_files.values_of(parquet_files.column_of(opened, name))
        if any(value is None for value in values):
            raise UserError(
                f"dataset.{what}: {file.name}: "
                f"{values.count(None)} rows have no {name}; fill them in"
            )
        yield file.name, values


def _known(filesystem: fs.FileSystem, columns: Columns, name: str) -> list:
    """The values of a column that nobody asked for: what is missing, in a file or a row, counts as
    a value of its own.
    """
    found: list = []
    for file in columns.files:
        if columns.schemas[file.name].names.count(name) != 1:
            found += [f"{file.name} {row}" for row in range(file.rows)]
            continue
        with filesystem.open_input_file(file.path) as opened:
            values = parquet_files.values_of(parquet_files.column_of(opened, name))
        found += [f"{file.name} {i}" if v is None else str(v) for i, v in enumerate(values)]
    return found


def _divided(
    place: str,
    filesystem: fs.FileSystem,
    columns: Columns,
    wish: splitting.Wish,
    rows: dict[str, np.ndarray],
    codes: np.ndarray,
    names: tuple[str, ...],
    told: list[str],
) -> dict[str, np.ndarray]:
    """The splits that the user asks for, once no group is in two of them. Raises UserError."""
    where = f"dataset: parquet: {place}"
    wanted = wish.wanted_group
    candidates = splitting.group_columns(next(iter(columns.schemas.values())).names)
    candidates = [
        name
        for name in candidates
        if name not in (columns.label, columns.image)
        and wish.group is None
        and splitting.repeated(_known(filesystem, columns, name))
    ]
    if wish.any and wish.group is None and candidates:
        why = f"there is a column {candidates[0]!r}"
        splitting.refuse_suspicion(where, why, f"set group: {candidates[0]}")
    groups = None
    if wanted:
        groups = [str(v) for _, part in _column(filesystem, columns, wanted, "group") for v in part]
    elif candidates:
        groups = [*map(str, _known(filesystem, columns, candidates[0]))]
    if groups is not None and len(rows) > 1:
        by_split = {split: [groups[i] for i in places] for split, places in rows.items()}
        if wanted:
            splitting.check_apart(where, by_split)
        else:
            sides = {side: set(values) for side, values in by_split.items()}
            told.extend(splitting.leak_told(candidates[0], sides))
    if not wish.any:
        return rows
    train = rows["train"]
    own = [groups[i] for i in train] if wanted and groups is not None else None
    paths = _paths(filesystem, columns) if wish.group is None else None
    names_of = [paths[i] for i in train] if paths else []
    if names_of and (told_by := splitting.groups_suspected(names_of, codes[train])):
        right = "bring a column that says so, and set group: COLUMN"
        splitting.refuse_suspicion(where, told_by, right)
    divided = splitting.made(where, codes[train], names, wish, own)
    told.append(splitting.summary(divided, wish, own))
    return {
        split: train[divided[split]] if split in divided else rows[split]
        for split in SPLITS
        if split in divided or split in rows
    }


def _paths(filesystem: fs.FileSystem, columns: Columns) -> list[str] | None:
    """The paths that a Hugging Face image column remembers, where all rows have one."""
    found: list[str | None] = []
    for file in columns.files:
        kind = columns.schemas[file.name].field(columns.image).type
        if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
            return None
        with filesystem.open_input_file(file.path) as opened:
            found += parquet_files.paths_of(opened, columns.image)
    # No path is longer than that, and patterns are looked for in each.
    return [*map(str, found)] if all(path and len(path) <= LONGEST_PATH for path in found) else None


# The source ---------------------------------------------------------------------------------------


def _source(table: _Table, wish: splitting.Wish) -> Source:
    files = [[parquet_files.split_of(f.name), f.path, f.size, f.mtime_ns] for f in table.files]
    state = {
        "source": "parquet", "image": table.image, "label": table.label, "files": files,
        "size": table.reading.size, "rev": LABELS_REV, **table.reading.state(), **wish.state(),
    }  # fmt: skip
    if table.split is not None:
        state["split"] = table.split
    shape = None
    # Where none decodes, ingest will say so.
    if not table.reading.allow_broken and (image := _image_shape(table)):
        shape = Shape.of(table.classes, image, table.counts)
    name = table.place.partition("?")[0].rstrip("/").rsplit("/", 1)[-1].removesuffix(".parquet")
    local = "://" not in table.place
    total = sum(file.size for file in table.files)
    check = None
    if table.reading.size is None and local and total <= CHECKED_BYTES:
        check = partial(encoded.check_sizes, partial(_image_shape, table), partial(_sizes, table))
    return Source(
        name, state, table.classes, partial(_contents, table), shape, table.reading.allow_broken,
        local=local, told=table.told, split_here=wish.any,
        grouped=wish.wanted_group is not None, check=check,
    )  # fmt: skip


def _sizes(table: _Table) -> Iterator[tuple[str, tuple[int, int] | None]]:
    for split, rows in table.rows.items():
        unit = _unit(table, split, 0, len(rows))
        for _, where, data, _ in _raw(table.place, table.image, unit):
            yield where, _size_of(data, table.reading.page)


def _size_of(data: bytes | None, page: int | None) -> tuple[int, int] | None:
    return header_size(io.BytesIO(data), page=page) if data else None


def _image_shape(table: _Table) -> tuple[int, int, int] | None:
    unit = _unit(table, "train", 0, encoded.TRIED)
    some = (data for _, _, data, _ in _raw(table.place, table.image, unit, rows=8))
    return encoded.image_shape(some, table.reading)


def _contents(table: _Table) -> Contents:
    image = _image_shape(table)
    if image is None:
        some = (
            data for _, _, data, _ in _raw(table.place, table.image, _unit(table, "train", 0, 1))
        )
        why = encoded.first_failure(some, table.reading)
        what = f"none of the first {encoded.TRIED} images can be decoded ({why})"
        right = f"is {table.image!r} the column of images?"
        raise UserError(f"dataset: {table.place}: {what}; {right}")
    counts = {split: len(rows) for split, rows in table.rows.items()}
    read = partial(_read, table.place, table.image, table.reading, image)
    raw = partial(_raw, table.place, table.image)
    return Contents(image, counts, partial(_unit, table), read, skipped=table.skipped, raw=raw)


def _unit(table: _Table, split: str, start: int, stop: int) -> tuple[int, list]:
    """Places `start` to `stop` - 1 of a split, as (start, (file, its rows, their labels) …)."""
    rows, labels = table.rows[split][start:stop], table.labels[split][start:stop]
    pieces, first = [], 0
    for file in table.files:
        low, high = np.searchsorted(rows, (first, first + file.rows))
        if low < high:
            pieces.append((file.path, rows[low:high] - first, labels[low:high]))
        first += file.rows
    return start, pieces


def _read(
    place: str, image: str, reading: encoded.Reading, shape: tuple[int, int, int], unit: tuple
) -> Iterator[Batch]:
    yield encoded.batch(_raw(place, image, unit), reading, shape)


def _raw(
    place: str, image: str, unit: tuple, rows: int = ROWS
) -> Iterator[tuple[int, str, bytes | None, int]]:
    """(place, where, encoded bytes, label) of a unit's images, `rows` of them in memory at once."""
    number, pieces = unit
    filesystem, _ = filesystem_of(place)
    for path, wanted, labels in pieces:
        with filesystem.open_input_file(path) as opened:
            file = pq.ParquetFile(opened, buffer_size=BUFFER_BYTES)
            found = parquet_files.encoded_images(file, image, wanted, rows)
            name = path.rsplit("/", 1)[-1]
            try:
                for label, (row, data) in zip(labels.tolist(), found):
                    yield number, f"{name} row {row}", data, label
                    number += 1
            except BadFiles as error:
                raise UserError(f"dataset: parquet: {name}: {error}") from error
