"""Parquet files of encoded images, for datasets and pools alike: which files, which columns, which
classes.

Nothing about a set is taken from its first file alone: every file's columns are looked at, and
classes are matched by name. Free of torch.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from pyarrow.lib import NativeFile

from equigrid.generators.common.trees import is_hidden
from equigrid.generators.naming import normal

SPLITS = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""From a split to the beginnings of its files' names."""
LABELS = ("label", "labels", "fine_label", "class", "target", "category")
"""Names of columns of classes, the likeliest first."""
IMAGES = ("image", "img", "images")

_SPLIT = re.compile(
    rf"({'|'.join(name for names in SPLITS.values() for name in names)})(?=[-._/ (\d])", re.I
)
_SHARD = re.compile(r"(?P<stem>.*?)-(?P<k>\d+)-of-(?P<n>\d+)(?:-[0-9a-f]{6,})?\.parquet", re.I)
_SHARD_BEGINS = re.compile(r".*?-\d+-of-\d+", re.I)
_COPY = re.compile(r"( ?\(\d+\)| - copy( \(\d+\))?|[ _]copy( \d+)?)(?=\.parquet$)", re.I)
_NO_LABEL = re.compile(
    r"(.*_)?(id|idx|index|split|file|file_?name|path|file_?path|url|text|caption|md5|sha\d*|hash)",
    re.I,
)
_FOOTER_END = 8  # the footer's length in 4 bytes, and PAR1
_SHOWN = 5
_GIVEN_UP_S = 20  # of a server that does not answer
_LFS = b"version https://git-lfs"


class BadFiles(ValueError):
    """One line: which file or column is wrong, and what would be right."""


class File(NamedTuple):
    """What is known of a file without opening it, and its rows once it was. It travels between
    processes, unlike pyarrow's FileInfo.

    name: for messages, and to sort by: relative to the folder in which the files were found.
    """

    path: str
    name: str
    size: int
    mtime_ns: int | None
    rows: int = 0


# Which files --------------------------------------------------------------------------------------


def filesystem_of(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder, a file or a URI, and the path there."""
    if "://" not in place:
        return fs.LocalFileSystem(), place
    if place.startswith("gs://") and "retry_limit_seconds" not in place:  # else 15 minutes
        place += f"{'&' if '?' in place else '?'}retry_limit_seconds={_GIVEN_UP_S}"
    filesystem, root = fs.FileSystem.from_uri(place)
    return filesystem, root.rstrip("/")


def absolute(place: str) -> str:
    """A URI as it is, a local path as every process needs it. Raises BadFiles for a URI that holds
    a password: it would stand in messages and manifests.
    """
    if "://" not in place:
        return os.path.abspath(os.path.expanduser(place))
    if "@" in urlsplit(place).netloc:
        raise BadFiles("the address holds credentials; put them into AWS_ACCESS_KEY_ID and so on")
    return place


def find(place: str) -> tuple[list[File], list[str]]:
    """The Parquet files of a place, sorted by name, and the names of what else lies there.

    A place is one file, or a folder with files. A folder without any may be a cloned repository:
    then `data/` is looked into, folders called after splits, or its one folder that has some.
    Raises BadFiles, OSError, pa.ArrowException.
    """
    filesystem, root = filesystem_of(place)
    info = filesystem.get_file_info(root)
    if info.type == fs.FileType.File:
        return [_file(info, info.base_name)], []
    return _in_folder(filesystem, root, place, deep=True)


def _file(info: fs.FileInfo, name: str) -> File:
    return File(info.path, name, info.size, info.mtime_ns)


def _in_folder(
    filesystem: fs.FileSystem, root: str, place: str, *, deep: bool
) -> tuple[list[File], list[str]]:
    try:
        listed = [
            (entry.base_name, entry) for entry in filesystem.get_file_info(fs.FileSelector(root))
        ]
    except UnicodeDecodeError as error:
        name = error.object.decode("utf-8", "backslashreplace")
        raise BadFiles(f"{place} has {name!r}, which is no name in UTF-8; rename it") from error
    listed = sorted((item for item in listed if not is_hidden(item[0])), key=lambda item: item[0])
    entries = [entry for _, entry in listed]
    files = [
        _file(entry, entry.base_name)
        for entry in entries
        if entry.is_file and entry.base_name.lower().endswith(".parquet")
    ]
    names = [entry.base_name for entry in entries]
    if files:
        return files, [name for name in names if name not in {file.name for file in files}]
    folders = [entry for entry in entries if entry.type == fs.FileType.Directory]
    by_split = [folder for folder in folders if split_of(folder.base_name + "/")]
    if by_split:
        found = [
            file._replace(name=f"{folder.base_name}/{file.name}")
            for folder in by_split
            for file in _in_folder(filesystem, folder.path, place, deep=False)[0]
        ]
        if found:
            return found, names
    if not deep:
        return [], names
    data = [folder for folder in folders if folder.base_name == "data"] or folders
    with_files = {
        folder.base_name: below
        for folder in data[:100]
        if (below := _in_folder(filesystem, folder.path, place, deep=False))[0]
    }
    if len(with_files) > 1:
        some = ", ".join(list(with_files)[:_SHOWN])
        raise BadFiles(f"{place} has Parquet files in several folders ({some}); name one of them")
    return next(iter(with_files.values())) if with_files else ([], names)


def split_of(name: str) -> str | None:
    """The split that a file's name begins with (`train-…`, `validation.parquet`), or None."""
    found = _SPLIT.match(name)
    if not found:
        return None
    word = found[1].lower()
    return next(split for split, names in SPLITS.items() if word in names)


def check_files(filesystem: fs.FileSystem, files: Iterable[File]) -> None:
    """Raises BadFiles where files of one split are missing, or there twice.

    `…-of-N` must be there N times and once each; a copy that a browser or a desktop made, and a
    file with the size and footer of another, are refused by name.
    """
    files = list(files)
    names = {file.name for file in files}
    shards: dict[str, dict[int, list[tuple[int, str]]]] = {}
    for file in files:
        if (original := _COPY.sub("", file.name)) != file.name and (
            original in names or _SHARD_BEGINS.match(original)
        ):
            raise BadFiles(
                f"{file.name} looks like a second copy of {original}; remove one of the two"
            )
        found = _SHARD.fullmatch(file.name)
        if not found and _SHARD_BEGINS.match(file.name):
            right = "rename it to …-of-N.parquet as its neighbours are, or remove it"
            raise BadFiles(f"{file.name} has something behind its number; {right}")
        if found:
            by_total = shards.setdefault(found["stem"], {})
            by_total.setdefault(int(found["n"]), []).append((int(found["k"]), file.name))
    for stem, by_total in shards.items():
        _check_numbers(stem, by_total)
    _check_contents(filesystem, files)


def _check_numbers(stem: str, by_total: dict[int, list[tuple[int, str]]]) -> None:
    if len(by_total) > 1:
        one, other = (found[0][1] for found in list(by_total.values())[:2])
        raise BadFiles(
            f"{one} and {other} are of two different numbers of files: old and new ones side by "
            "side? Keep those of one upload"
        )
    ((total, found),) = by_total.items()
    seen: dict[int, str] = {}
    for k, name in found:
        if k in seen:
            raise BadFiles(f"{seen[k]} and {name} are both number {k} of {total}; remove one")
        seen[k] = name
    first = 0 if 0 in seen or total not in seen else 1  # some count from 1
    # A few are enough: a name may claim any number.
    absent = (k for k in range(first, first + total) if k not in seen)
    if missing := list(islice(absent, 4)):
        matched = _SHARD.fullmatch(found[0][1])
        assert matched is not None, "all of these names have numbers"
        width = len(matched["n"])
        some = ", ".join(f"{stem}-{k:0{width}d}-of-{total:0{width}d}.parquet" for k in missing[:3])
        there = f"{len(seen)} of {total} files of {stem} are there"
        raise BadFiles(f"{there}; {some}{', …' * (len(missing) > 3)} missing: fetch the rest")
    if wrong := [name for k, name in found if not first <= k < first + total]:
        raise BadFiles(f"{wrong[0]} is beyond the {total} files that its name says; remove it")


def _check_contents(filesystem: fs.FileSystem, files: list[File]) -> None:
    by_size: dict[int, list[File]] = {}
    for file in files:
        by_size.setdefault(file.size, []).append(file)
    for same in by_size.values():
        seen: dict[bytes, str] = {}
        for file in same if len(same) > 1 else ():
            whole = _content(filesystem, file)
            if whole in seen and _rows(filesystem, file):
                raise BadFiles(
                    f"{seen[whole]} and {file.name} have the same content; remove one of the two"
                )
            seen[whole] = file.name


def _rows(filesystem: fs.FileSystem, file: File) -> int:
    """Files without rows are alike, and do no harm. What is no Parquet file is told later."""
    with filesystem.open_input_file(file.path) as opened:
        try:
            return pq.ParquetFile(opened).metadata.num_rows
        except pa.ArrowException:
            return 0


def _content(filesystem: fs.FileSystem, file: File) -> bytes:
    """Digest of a local file's content; of a distant one's footer, which holds sizes, offsets and
    statistics of all columns.
    """
    with filesystem.open_input_file(file.path) as opened:
        if not isinstance(filesystem, fs.LocalFileSystem):
            return footer(opened)
        digest = hashlib.blake2b(digest_size=16)
        while part := opened.read(2**20):
            digest.update(part)
        return digest.digest()


def footer(opened: pa.NativeFile) -> bytes:
    """An open file's size and footer."""
    size = opened.size()
    opened.seek(size - _FOOTER_END)
    length = int.from_bytes(opened.read(4), "little")
    opened.seek(size - _FOOTER_END - length)
    return size.to_bytes(8, "little") + opened.read(length)


# Which columns ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """The columns chosen, and the rows of each file."""

    image: str
    label: str
    schemas: dict[str, pa.Schema]
    files: tuple[File, ...]


def choose(
    filesystem: fs.FileSystem, files: Iterable[File], image: str | None, label: str | None
) -> Columns:
    """The columns of images and classes, which every file must have. image, label: as the user
    names them, or None. Raises BadFiles, OSError, pa.ArrowException.
    """
    schemas, counted = {}, []
    for file in files:
        with filesystem.open_input_file(file.path) as opened:
            try:
                found = pq.ParquetFile(opened)
            except pa.ArrowException as error:
                opened.seek(0)
                if opened.read(len(_LFS)) == _LFS:
                    what = "is a pointer of Git LFS, not the file; run git lfs pull"
                    raise BadFiles(f"{file.name} {what}") from error
                raise BadFiles(
                    f"{file.name} cannot be read as Parquet: {_one_line(error)}"
                ) from error
            schemas[file.name] = found.schema_arrow
            counted.append(file._replace(rows=_claimed(file, found.metadata)))
    first = next(iter(schemas.values()))
    image = _image_column(first, image)
    label = _label_column(first, label, image)
    for name, schema in schemas.items():
        for column, why_not in ((image, why_no_image), (label, why_no_label)):
            _check_column(name, schema, column, why_not)
    return Columns(image, label, schemas, tuple(counted))


def _claimed(file: File, metadata: pq.FileMetaData) -> int:
    """The rows that a file's footer claims. Raises BadFiles for more than it can hold."""
    rows = metadata.num_rows
    in_groups = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    if rows != in_groups or rows < 0:
        raise BadFiles(
            f"{file.name} is damaged: it claims {rows:,} rows, its parts {in_groups:,} together"
        )
    if rows > max(_FEW_ROWS, file.size // _LEAST_IMAGE_BYTES):
        what = f"claims {rows:,} rows in {file.size:,} bytes, which no encoded images are"
        raise BadFiles(f"{file.name} {what}; is it damaged?")
    return rows


_FEW_ROWS, _LEAST_IMAGE_BYTES = 100_000, 10


def _check_column(name: str, schema: pa.Schema, column: str, why_not: Callable) -> None:
    places = schema.get_all_field_indices(column)
    if not places:
        raise BadFiles(f"{name} has no column {column!r}; all files need it")
    if len(places) > 1:
        raise BadFiles(f"{name} has {len(places)} columns {column!r}; rename all but one")
    if reason := why_not(schema.field(column).type):
        raise BadFiles(f"{name}: {column!r} {reason}")


def why_no_image(kind: pa.DataType) -> str | None:
    """Why a column of this type holds no encoded images; None if it may."""
    kind = _plain(kind)
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return why_no_image(kind.field("bytes").type)
    if _is_binary(kind):
        return None
    if _is_text(kind):
        return "is text (paths or addresses?); encoded images are needed, as bytes or {bytes, path}"
    return f"is {kind}; encoded images are needed (PNG, JPEG …), as bytes or {{bytes, path}}"


def why_no_label(kind: pa.DataType) -> str | None:
    """Why a column of this type holds no classes; None if it may."""
    kind = _plain(kind)
    if _is_text(kind) or any(
        check(kind) for check in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating)
    ):
        return None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"is {kind}: several labels an image; one class each is needed"
    return f"is {kind}; classes are whole numbers, text, categories or true and false"


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def _is_binary(kind: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks) or kind == pa.binary_view()


def _asked_for(schema: pa.Schema, wanted: str, what: str, why_not: Callable) -> str:
    if wanted not in schema.names:
        near = get_close_matches(wanted, schema.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BadFiles(f"{what}: no column {wanted!r}; there are {_some(schema.names)}{hint}")
    if reason := why_not(schema.field(schema.get_all_field_indices(wanted)[0]).type):
        raise BadFiles(f"{what}: {wanted!r} {reason}")
    return wanted


def _image_column(schema: pa.Schema, wanted: str | None) -> str:
    """The one asked for, else the only struct with `bytes`, else the only column of bytes; a usual
    name decides between several.
    """
    if wanted is not None:
        return _asked_for(schema, wanted, "image", why_no_image)
    fit = [field for field in schema if not why_no_image(field.type)]
    structs = [field.name for field in fit if pa.types.is_struct(field.type)]
    for names in (structs, [field.name for field in fit]):
        usual = [name for name in names if name.lower() in IMAGES]
        if len(names) == 1 or len(usual) == 1:
            return (usual or names)[0]
    if fit:
        raise BadFiles(
            f"which column is the image? Say image: NAME, of {_some([f.name for f in fit])}"
        )
    for field in schema:
        if field.name.lower() in IMAGES:
            raise BadFiles(f"{field.name!r} {why_no_image(field.type)}")
    raise BadFiles(f"no column can be the image; there are {_some(schema.names)}")


def _label_column(schema: pa.Schema, wanted: str | None, image: str) -> str:
    """The one asked for, else the one of a usual name, whatever its type, else the only one that
    could be.
    """
    if wanted is not None:
        return _asked_for(schema, wanted, "label", why_no_label)
    for name in LABELS:
        for field in schema:
            if field.name.lower() == name and field.name != image:
                if reason := why_no_label(field.type):
                    raise BadFiles(f"{field.name!r} {reason}; or say label: NAME")
                return field.name
    fit = [f.name for f in schema if f.name != image and not why_no_label(f.type)]
    likely = [name for name in fit if not _NO_LABEL.fullmatch(name)]
    if len(likely) == 1:
        return likely[0]
    if fit:
        raise BadFiles(f"which column is the label? Say label: NAME, of {_some(fit)}")
    raise BadFiles(f"no column can be the label; there are {_some(schema.names)}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "") or "none"


# Which classes ------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """The classes of every row. names: None where the files know their classes by number alone.

    codes: by file, (rows,) int64, places in `names`, or the numbers themselves.
    """

    names: tuple[str, ...] | None
    codes: list[np.ndarray]


class _Column(NamedTuple):
    """One file's labels: codes into names, or numbers where names is None. form: how they are
    written, for messages.
    """

    file: str
    form: str
    names: list[str] | None
    codes: np.ndarray


def read_labels(filesystem: fs.FileSystem, columns: Columns) -> Labels:
    """The classes of all rows, matched between files by name. Raises BadFiles."""
    found = [_column(filesystem, columns, file) for file in columns.files]
    _check_forms(columns.label, found)
    named = [(column, column.names) for column in found if column.names is not None]
    if not named:
        return Labels(None, [column.codes for column in found])
    listed = next((own for own in named if own[0].form == "numbers with names"), None)
    names = listed[1] if listed else sorted({name for _, own in named for name in own})
    place = {name: i for i, name in enumerate(names)}
    codes = []
    for column, own in named:
        used = np.unique(column.codes)
        if listed and (strange := [own[i] for i in used if own[i] not in place]):
            what = f"{column.file} has class {strange[0]!r}, which {listed[0].file} does not name"
            raise BadFiles(f"{what} (it names {_some(names)}); give all files the same classes")
        to = np.array([place.get(name, -1) for name in own], np.int64)
        codes.append(to[column.codes])
    return Labels(tuple(names), codes)


def _check_forms(label: str, found: list[_Column]) -> None:
    together = ({"numbers with names", "text"}, {"numbers"}, {"true and false"})
    allowed = next(forms for forms in together if found[0].form in forms)
    for column in found:
        if column.form not in allowed:
            first = found[0]
            what = f"{label!r} is {first.form} in {first.file} and {column.form} in {column.file}"
            raise BadFiles(f"{what}; write the classes in one form in all files")


def _column(filesystem: fs.FileSystem, columns: Columns, file: File) -> _Column:
    label = columns.label
    with filesystem.open_input_file(file.path) as opened:
        try:
            values = column_of(opened, label)
        except (OSError, pa.ArrowException) as error:
            raise BadFiles(f"{file.name}: {label!r} cannot be read: {_one_line(error)}") from error
    kind = _plain(values.type)
    if kind != values.type and not _is_text(kind):
        values = values.cast(kind)
    missing = values.null_count
    if pa.types.is_floating(kind):
        missing += len(values.filter(pc.is_nan(values)))
    if missing:
        what = f"{missing} of {len(values)} rows have no {label}"
        raise BadFiles(f"{file.name}: {what}; every image needs a class")
    if _is_text(kind):
        return _text(file.name, label, values)
    if pa.types.is_boolean(kind):
        codes = values.to_numpy().astype(np.int64)
        return _Column(file.name, "true and false", ["False", "True"], codes)
    numbers = _whole_numbers(file.name, label, values)
    names = _names(columns.schemas[file.name], label, file.name)
    if names is None:
        return _Column(file.name, "numbers", None, numbers)
    if len(wrong := numbers[(numbers < 0) | (numbers >= len(names))]):
        right = f"it names {len(names)} classes, so labels are 0 to {len(names) - 1}"
        raise BadFiles(f"{file.name}: label {wrong[0]} in {label!r}; {right}")
    return _Column(file.name, "numbers with names", names, numbers)


def _text(file: str, label: str, values: pa.ChunkedArray) -> _Column:
    encoded: Any = values.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # of no rows
        encoded = pa.array([], encoded.type)
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    used, codes = np.unique(codes, return_inverse=True)  # a category may be of no row
    texts = [normal(str(text)) for text in encoded.dictionary.take(pa.array(used)).to_pylist()]
    for text in texts:
        if not text.strip() or not text.isprintable():
            raise BadFiles(
                f"{file}: {label!r} has the class {text!r}; give it a name that one can see"
            )
    unique = sorted(set(texts))
    place = {text: i for i, text in enumerate(unique)}
    to = np.array([place[text] for text in texts] or [0], np.int64)
    return _Column(file, "text", unique, to[codes] if len(codes) else codes)


def _whole_numbers(file: str, label: str, values: pa.ChunkedArray) -> np.ndarray:
    numbers = values.to_numpy()
    if not len(numbers):
        return np.empty(0, np.int64)
    if numbers.dtype.kind == "f" and len(odd := numbers[numbers != np.rint(numbers)]):
        raise BadFiles(
            f"{file}: {label!r} holds {odd[0]:g}; classes are whole numbers, text or categories"
        )
    if np.abs(numbers.astype(np.float64)).max() >= 2**62:
        extreme = max((numbers.min(), numbers.max()), key=lambda number: abs(float(number)))
        raise BadFiles(f"{file}: {label!r} holds {extreme}; labels are 0 to k-1")
    return numbers.astype(np.int64)


def _names(schema: pa.Schema, label: str, file: str) -> list[str] | None:
    """Class names from the metadata that Hugging Face's library writes, if any."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not names:
        return None
    names = [normal(str(name)) for name in names]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadFiles(
                f"{file} names the class {name!r} twice; give each class a name of its own"
            )
        if not name.strip() or not name.isprintable():
            raise BadFiles(f"{file} names a class {name!r}; give it a name that one can see")
        seen.add(name)
    return names


# What lies in a column ----------------------------------------------------------------------------

# A value that is written once, and meant by each of 100,000 rows, is a file of kilobytes that
# unfolds to gigabytes. What row groups say of their columns is not asked: of a damaged footer that
# may end the process.
MOST_COLUMN_BYTES = 2**30  # of texts, which are held whole
MOST_BATCH_BYTES = 2**28
_UNFOLDS = 10  # times what the file says, at most


def column_of(
    opened: NativeFile, name: str, metadata: pq.FileMetaData | None = None
) -> pa.ChunkedArray:
    """A whole column of a Parquet file that holds no images; of a text each is held once, as a
    dictionary. metadata: the file's, where it is known. Raises BadFiles for one too large for that,
    OSError, pa.ArrowException.
    """
    metadata = metadata or pq.read_metadata(opened)
    file = pq.ParquetFile(opened, metadata=metadata, read_dictionary=[name])
    try:
        return _joined(file, name, file.iter_batches(2**16, columns=[name]))
    except OSError as error:
        if "Not yet implemented" not in str(error):  # of delta encodings
            raise
    file = pq.ParquetFile(opened, metadata=metadata)
    groups = range(metadata.num_row_groups)
    return _joined(file, name, (part for _, part in _batches(file, name, groups, 2**16)))


def _joined(file: pq.ParquetFile, name: str, parts: Iterator[pa.RecordBatch]) -> pa.ChunkedArray:
    """A column of all these rows. Raises BadFiles if they are too many bytes."""
    found: list[Any] = []
    whole = 0
    for part in parts:
        column: Any = part.column(0)
        column = column.dictionary_encode() if _is_text(column.type) else column
        found.append(column)
        whole += column.nbytes
        if whole > MOST_COLUMN_BYTES:
            raise BadFiles(f"{name!r} has more than {MOST_COLUMN_BYTES:,} bytes of values")
    kind = found[0].type if found else file.schema_arrow.field(name).type
    return pa.chunked_array(found, kind).unify_dictionaries()


def values_of(column: pa.ChunkedArray) -> list:
    """A column as Python's values; a text that is there often is one object."""
    found: list = []
    chunk: Any  # the stubs of pyarrow know no dictionary's parts
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            once = chunk.dictionary.to_pylist()
            found += [None if i is None else once[i] for i in chunk.indices.to_pylist()]
        else:
            found += chunk.to_pylist()
    return found


def paths_of(opened: NativeFile, column: str) -> list[str | None]:
    """The field `path` of a column of structs, by row. Raises BadFiles, OSError,
    pa.ArrowException.
    """
    file, name = pq.ParquetFile(opened), f"{column}.path"
    found: list[str | None] = []
    for _, part in _batches(file, name, range(file.metadata.num_row_groups), 2**12):
        if part.num_columns:
            paths: Any = part.column(0)
            found += values_of(pa.chunked_array([pc.struct_field(paths, "path")]))
    return found


def _batches(
    file: pq.ParquetFile, column: str, groups: Iterable[int], at_once: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(row group, rows of a column): at most `at_once` of them, fewer where they may be large.
    Raises BadFiles where they are far more than the file has.
    """
    whole = said = 0
    for group in groups:
        size = file.metadata.row_group(group).total_byte_size
        said += size
        rows = min(at_once, max(1, MOST_BATCH_BYTES // max(1, size)))
        most = max(MOST_COLUMN_BYTES, _UNFOLDS * said)
        for part in file.iter_batches(rows, row_groups=[group], columns=[column]):
            whole += part.nbytes
            if whole > most:
                what = f"{column!r} unfolds to more than {most:,} bytes"
                raise BadFiles(f"{what}, and the file has {said:,}; is it damaged?")
            yield group, part


# Which rows ---------------------------------------------------------------------------------------


def encoded_images(
    file: pq.ParquetFile, column: str, rows: np.ndarray, at_once: int
) -> Iterator[tuple[int, bytes | None]]:
    """(row, encoded bytes) of some rows of a file, ascending; `at_once` rows are in memory. Raises
    BadFiles where they are far more than the file has, such as one again and again.
    """
    firsts = dict(zip(*_groups(file.metadata, rows)))
    for group, part in _batches(file, column, firsts, at_once):
        row = firsts[group]
        low, high = np.searchsorted(rows, (row, row + part.num_rows))
        cells = part.column(0).take(pa.array(rows[low:high] - row))
        for number, cell in zip(rows[low:high].tolist(), cells):
            value = cell.as_py()
            yield number, value.get("bytes") if isinstance(value, dict) else value
        firsts[group] += part.num_rows


def _groups(metadata: pq.FileMetaData, rows: np.ndarray) -> tuple[list[int], list[int]]:
    """The row groups that hold some of the rows, and their first rows."""
    groups, firsts, row = [], [], 0
    for i in range(metadata.num_row_groups):
        n = metadata.row_group(i).num_rows
        low, high = np.searchsorted(rows, (row, row + n))
        if low < high:
            groups.append(i)
            firsts.append(row)
        row += n
    return groups, firsts
