"""A table of labels beside a folder of images: CSV, TSV or Parquet, with a file and a class a row,
perhaps a split and a group.
"""

import csv
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from equigrid.generators.common import parquet_files, trees
from equigrid.generators.common.decoding import is_image_name
from equigrid.generators.common.parquet_files import LABELS, BadFiles
from equigrid.generators.naming import normal
from equigrid.grid.datasets.sources import splitting
from equigrid.grid.errors import UserError, near

if TYPE_CHECKING:  # heavy
    import pyarrow as pa

FILES = ("file", "file_name", "filename", "path", "image", "image_path", "filepath", "image_id")
MISSING = ("nan", "<na>", "null")  # as pandas and others write what is not there
NAME_LENGTH = 100
# Of a table, which is held whole: ImageNet's has 1.3 million rows and 80 MB.
MOST_BYTES, MOST_ROWS, MOST_COLUMNS = 2**27, 2**22, 10_000
_WHOLE = re.compile(r"\d+\.0+")
ENDINGS = (".csv", ".tsv", ".tab")


class Row(NamedTuple):
    """One image. file: relative to the folder."""

    file: str
    label: str
    split: str
    group: str
    facts: os.stat_result


class Listed(NamedTuple):
    """The rows of a table, in its order. group: its column of groups, if one was asked for.
    candidates: columns that seem to be one. unlisted: images in the folder that no row names.
    """

    path: Path
    rows: list[Row]
    group: str | None
    candidates: list[str]
    unlisted: int
    told: tuple[str, ...]


def rows(
    root: Path, table: str, *, label: str | None, split: str | None, group: str | None
) -> Listed:
    """The rows of the table at `table`, or of that name in the folder. Raises UserError."""
    path = _path(root, table)
    columns = _read(path)
    where = f"dataset.labels: {path.name}"
    if not columns or not len(next(iter(columns.values()))):
        raise UserError(f"{where} has no rows; write a file and a label in each")
    file_column = _column(columns, None, FILES, where, "file")
    label_column = _column(columns, label, LABELS, where, "label")
    split_column = _column(columns, split, ("split",), where, "split", optional=split is None)
    if split_column is None:
        others = (name for name in columns if name not in (file_column, label_column))
        split_column = next((c for c in others if splitting.splits_named(columns[c])), None)
    wanted = None if group in (None, "none") else group
    if wanted is not None and wanted not in columns:
        known = ", ".join(columns)
        raise UserError(f"dataset.group: {path.name} has no column {wanted!r}; it has {known}")
    found: list[Row] = []
    seen: dict[str, int] = {}
    files = _Files(root)
    assert file_column is not None
    assert label_column is not None
    named = columns[file_column]
    lines = zip(
        named,
        _whole_numbers(columns[label_column]),
        columns[split_column] if split_column else ["train"] * len(named),
        columns[wanted] if wanted else [""] * len(named),
    )
    for number, (name, text, side, of) in enumerate(lines, start=2):
        at = f"{where}:{number}"
        for column, value in ((file_column, name), (label_column, text), (wanted, of)):
            if column and (not value.strip() or value.strip().lower() in MISSING):
                raise UserError(f"{at}: no {column}; fill it in, or remove the row")
        if not (clean := normal(text.strip())).isprintable():
            raise UserError(f"{at}: the class {text!r:.60} cannot be printed; give it another name")
        file, facts = files.find(name.strip(), at)
        if file in seen:
            raise UserError(f"{at}: {file} is in row {seen[file]} too; name each image once")
        seen[file] = number
        side = splitting.split_named(side, at) if split_column else "train"
        found.append(Row(file, clean, side, of.strip(), facts))
    candidates = [
        name
        for name in splitting.group_columns(columns)
        if name not in (file_column, label_column, split_column)
        and splitting.repeated(columns[name])
    ]
    chosen = f"files are column {file_column!r}, classes column {label_column!r}"
    chosen += f", splits column {split_column!r}" if split_column else ""
    chosen += f", groups column {wanted!r}" if wanted else ""
    unlisted = len(files.by_name) - len(found)
    told = [f"{path.name}: {chosen}"]
    if candidates and group is None:
        own = columns[candidates[0]]
        sides: dict[str, set[str]] = {}
        for row, value in zip(found, own):
            sides.setdefault(row.split, set()).add(value)
        told += splitting.leak_told(candidates[0], sides)
    return Listed(path, found, wanted, candidates, max(0, unlisted), tuple(told))


def _whole_numbers(cells: list[str]) -> list[str]:
    """1.0 as 1, if all are so: what is a number and was missing once is written with a point."""
    if not all(_WHOLE.fullmatch(cell.strip()) for cell in cells):
        return cells
    return [cell.strip().partition(".")[0] for cell in cells]


def _path(root: Path, table: str) -> Path:
    given = Path(str(table)).expanduser()
    for path in (root / given, given.absolute()):
        try:
            if path.is_file():
                return path
        except OSError:
            continue
    raise UserError(
        f"dataset.labels: there is no file {given} in {root}, nor {given.absolute()}; "
        "name a CSV or Parquet file with a file and a label a row"
    )


def _read(path: Path) -> dict[str, list[str]]:
    """The table's cells as text, by column. Raises UserError."""
    if (size := path.stat().st_size) > MOST_BYTES:
        right = f"{MOST_BYTES:,} are the most: leave out columns, or pack the images into Parquet"
        raise UserError(f"dataset.labels: {path} has {size:,} bytes; {right}")
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path)
        with path.open(encoding="utf-8-sig") as file:
            delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else _delimiter(file)
            return _columns(path, csv.reader(file, delimiter=delimiter, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        right = "write a CSV file in UTF-8, or a Parquet file"
        raise UserError(
            f"dataset.labels: {path} cannot be read: {str(error)[:NAME_LENGTH]}; {right}"
        ) from error


def _columns(path: Path, lines: Iterator[list[str]]) -> dict[str, list[str]]:
    where = f"dataset.labels: {path.name}"
    header = [name.strip() for name in next(lines, [])]
    if len(header) > MOST_COLUMNS:
        raise UserError(f"{where} has {len(header):,} columns; {MOST_COLUMNS:,} are the most")
    if twice := next((name for name, n in Counter(header).items() if n > 1), None):
        raise UserError(f"{where} has the column {twice!r} twice; rename one")
    cells: list[list[str]] = []
    for number, line in enumerate(lines, start=2):
        if any(line) and len(line) != len(header):
            what = f"{len(line)} cells, and the first line names {len(header)} columns"
            raise UserError(f"{where}:{number}: {what}; is a comma in a name? Quote it")
        if any(cell.strip() for cell in line):
            cells.append(line)
        if len(cells) > MOST_ROWS:
            right = "pack the images into Parquet files, and use parquet"
            raise UserError(f"{where} has more than {MOST_ROWS:,} rows; {right}")
    return {name: [line[i] for line in cells] for i, name in enumerate(header)}


def _delimiter(file: TextIO) -> str:
    first = file.readline()
    file.seek(0)
    return max(",;\t", key=first.count)


def _read_parquet(path: Path) -> dict[str, list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pa.OSFile(str(path), "rb") as opened:
            metadata = pq.read_metadata(opened)
            schema, rows = metadata.schema.to_arrow_schema(), metadata.num_rows
            if not 0 <= rows <= MOST_ROWS or len(schema) > MOST_COLUMNS:
                what = f"claims {rows:,} rows and {len(schema):,} columns"
                most = f"{MOST_ROWS:,} and {MOST_COLUMNS:,} are the most"
                raise UserError(f"dataset.labels: {path} {what}; {most}")
            for name, n in Counter(schema.names).items():
                if n > 1:
                    what = f"has the column {name!r} {n} times; rename one"
                    raise UserError(f"dataset.labels: {path} {what}")
            return {
                field.name: _cells(parquet_files.column_of(opened, field.name, metadata))
                for field in schema
                if _is_cell(field)
            }
    except BadFiles as error:
        raise UserError(f"dataset.labels: {path}: {error}") from error
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())[:NAME_LENGTH]
        raise UserError(f"dataset.labels: {path} cannot be read: {text}") from error


def _is_cell(field: "pa.Field") -> bool:
    """Whether a column holds a name, a class or a split in each row: no lists, and no bytes."""
    import pyarrow as pa

    return not pa.types.is_nested(field.type) and parquet_files.why_no_image(field.type) is not None


def _cells(column: "pa.ChunkedArray") -> list[str]:
    values = parquet_files.values_of(column)
    return ["" if value is None else str(value) for value in values]


def _column(
    columns: dict,
    wanted: str | None,
    usual: tuple,
    where: str,
    what: str,
    *,
    optional: bool = False,
) -> str | None:
    known = ", ".join(columns)
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise UserError(
            f"dataset.{what}: {where.removeprefix('dataset.labels: ')} has no column {wanted!r}; "
            f"it has {known}{near(wanted, columns)}"
        )
    for name in usual:
        if found := [column for column in columns if column.lower() == name]:
            return found[0]
    if optional:
        return None
    right = f"call it {usual[0]!r}" + (f", or say {what}: COLUMN" if what != "file" else "")
    if what == "label" and len(each := _one_per_class(columns)) > 1:
        right = (
            f"are {', '.join(each[:3])} … a column for each class? Write one column, {usual[0]!r}, "
            "with the class of each image"
        )
    raise UserError(f"{where} has no column of the {what}; it has {known}; {right}")


def _one_per_class(columns: dict[str, list[str]]) -> list[str]:
    """Columns of zeros and ones, of which one is 1 in each row."""
    numbers = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
    found = [name for name, cells in columns.items() if all(c.strip() in numbers for c in cells)]
    rows = zip(*(columns[name] for name in found))
    return found if all(sum(numbers[c.strip()] for c in row) == 1 for row in rows) else []


class _Files:
    """The images below a folder, found by the names that a table gives them."""

    def __init__(self, root: Path):
        self.root = root

    @cached_property
    def by_name(self) -> dict[str, str]:
        """Paths from the folder, by themselves in one Unicode form."""
        paths = (entry.path for entry in trees.walk(str(self.root)) if is_image_name(entry.name))
        return {normal(path): path for path in (os.path.relpath(path, self.root) for path in paths)}

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """The same without their endings."""
        found: dict[str, list[str]] = {}
        for name, path in self.by_name.items():
            found.setdefault(os.path.splitext(name)[0], []).append(path)
        return found

    @cached_property
    def by_last(self) -> dict[str, list[str]]:
        """By their names without folders, with and without their endings."""
        found: dict[str, list[str]] = {}
        for name, path in self.by_name.items():
            last = os.path.basename(name)
            for each in {last, os.path.splitext(last)[0]}:
                found.setdefault(each, []).append(path)
        return found

    def find(self, name: str, at: str) -> tuple[str, os.stat_result]:
        """The image that a row names, with or without its ending, with / or \\, in any Unicode
        form, without its folder if there is one of that name; and its facts. Raises UserError.
        """
        if "://" in name:
            raise UserError(f"{at}: {name} is an address; download the images, and name the files")
        for each in (name, name.replace("\\", "/")):
            relative = os.path.normpath(os.path.relpath(self.root / each, self.root))
            try:
                facts = (self.root / relative).stat()
            except (OSError, ValueError):
                facts = None
            if facts and not stat.S_ISDIR(facts.st_mode):
                if relative.startswith(".."):
                    raise UserError(f"{at}: {name} lies outside of {self.root}; name files in it")
                return relative, self._checked(facts, name, at)
            key = normal(relative)
            found = self.by_name.get(key) or self._one_of(self.by_stem, key, name, at, "ending")
            if not found and os.path.basename(key) == key:
                found = self._one_of(self.by_last, key, name, at, "folder")
            if found:
                return found, self._checked((self.root / found).stat(), name, at)
        raise UserError(
            f"{at}: there is no image {name!r} in {self.root}; write its path from there"
        )

    def _checked(self, facts: os.stat_result, name: str, at: str) -> os.stat_result:
        if why := trees.why_no_image_file(facts):
            raise UserError(f"{at}: {name} {why}")
        return facts

    def _one_of(
        self, found: dict[str, list[str]], key: str, name: str, at: str, lacks: str
    ) -> str | None:
        paths = found.get(key, [])
        if len(paths) > 1:
            raise UserError(f"{at}: {name!r} may be {paths[0]} or {paths[1]}; write its {lacks}")
        return paths[0] if paths else None
