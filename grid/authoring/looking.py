"""From a place to the line of a spec that names it: which kind of source it is, and with which
options it can be read.
"""

import inspect
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equigrid.generators.common import parquet_files, trees
from equigrid.grid.datasets import catalogue
from equigrid.grid.datasets.sources import splitting, table, tar_files
from equigrid.grid.datasets.sources.base import Source
from equigrid.grid.errors import UserError, near

PLACES = (
    "imagefolder",
    "parquet",
    "npz",
    "webdataset",
)  # kinds of sources that are no names of sets
TEST = 0.2
_WHOM = (
    "patient", "subject", "participant", "volunteer", "person", "donor", "animal", "mouse",
    "lesion", "specimen", "pid", "pat", "subj", "sub",
)  # fmt: skip
SURE_PATTERNS = tuple(rf"(?i)({word}[-_ ]?\d+)" for word in _WHOM)
"""What finds the number of a patient, subject … in an image's path."""
GUESSED_PATTERNS = (r"([^/]+)/[^/]+$", r"([^/]+?)[-_ ]*\d+\.\w+$")
"""What finds the folder that an image lies in, and the beginning that a series of images shares."""
_WORDNET = re.compile(r"n\d{8}")
_LINE = 2**20  # bytes of a table's first line
_SEEN = 64  # images that are looked at to tell grey ones


class Found(NamedTuple):
    """A set that a spec can name. why: for options, the reason to have them, in words."""

    dataset: str | dict[str, Any]
    source: Source
    why: dict[str, str]

    def with_(self, why: str, **option: Any) -> "Found":
        """The set with one more option. Raises UserError."""
        assert isinstance(self.dataset, dict), "a set that has options is a mapping"
        mapping = {**self.dataset, **option}
        reasons = {**self.why, **dict.fromkeys(option, why)}
        return Found(mapping, catalogue.source(mapping), reasons)


def look(
    place: str, options: Mapping[str, Any] | None = None, *, keep_groups: bool = True
) -> Found:
    """The set at a place: a folder, a table, an .npz file, Parquet files, a URI, or the name of a
    known set. options: as a spec has them, such as size or group. keep_groups: whether a column
    that seems to say which images belong together is taken for that. Raises UserError.
    """
    first: UserError | None = None
    for mapping, why in _candidates(place):
        if own := _needed(mapping, options or {}):
            mapping = {**({mapping: None} if isinstance(mapping, str) else mapping), **own}
        try:
            return _opened(mapping, why, keep_groups=keep_groups)
        except UserError as error:
            first = first or error
    raise first or UserError(f"{place}: holds no labelled images")


def _needed(mapping: str | dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Without `group: none` for sources that know no groups: of them it says what is so."""
    kind = mapping if isinstance(mapping, str) else next(iter(mapping))
    nothing = options.get("group") == "none" and not takes(kind, "group")
    return {name: value for name, value in options.items() if not (nothing and name == "group")}


def takes(kind: str, option: str) -> bool:
    """Whether sources of a kind have an option."""
    return option in inspect.signature(catalogue.SOURCES[kind]).parameters


def grey(source: Source) -> bool:
    """Whether images that are stored in colour show none: some from all over the set are read."""
    contents = source.contents()
    n = contents.counts["train"]
    if contents.image[2] == 1 or contents.from_start or not n:
        return False
    seen = False
    for place in np.unique(np.linspace(0, n - 1, _SEEN).astype(int)):
        for batch in contents.read(contents.unit("train", int(place), int(place) + 1)):
            if len(batch.images):
                seen = True
                if np.ptp(batch.images, axis=-1).any():
                    return False
    return seen


# What a place may be ------------------------------------------------------------------------------


def _candidates(place: str) -> Iterator[tuple[str | dict[str, Any], dict[str, str]]]:
    """Lines of a spec to try, the likeliest first, and why they are as they are."""
    if "://" in place:
        yield {"parquet": place}, {}
        return
    path = Path(place).expanduser()
    if not os.path.lexists(path):
        if tar_files.is_pattern(place):
            yield {"webdataset": str(path.absolute())}, {}
            return
        if place not in catalogue.SOURCES:
            right = "name a folder, a table of labels, an .npz file or Parquet files"
            names = [name for name in catalogue.SOURCES if name not in PLACES]
            called = f"and no set is called {place!r:.60}{near(place, names)}"
            raise UserError(f"there is no {path.absolute()!s:.300}, {called}; {right}")
        yield place, {}
        return
    path = path.absolute()
    ending = path.suffix.lower()
    if path.is_dir():
        yield from _of_folder(path)
    elif ending == ".npz":
        yield {"npz": str(path)}, {}
    elif ending in table.ENDINGS or (ending == ".parquet" and not _holds_images(path)):
        yield _of_table(path, path.parent)
    elif ending == ".parquet":
        yield {"parquet": str(path)}, {}
    elif ending == ".tar":
        yield {"webdataset": str(path)}, {}
    else:
        if path.name.lower().endswith(trees.ARCHIVES):
            raise UserError(f"{path} is an archive; unpack it, and name the folder")
        right = "name a folder, a table of labels (CSV, TSV), an .npz file or Parquet files"
        raise UserError(f"{path} is none of these; {right}")


def _of_folder(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    try:
        names = [entry.name for entry in trees.entries(str(path)) if not trees.is_folder(entry)]
        packed, _ = parquet_files.find(str(path))
    except (OSError, ValueError) as error:
        at = "" if str(path) in str(error) else f"{path}: "
        raise UserError(f"{at}{error}") from error
    tables = [path / name for name in names if _is_table(path / name)]
    if packed and not all(path / file.name in tables for file in packed):
        yield {"parquet": str(path)}, {}
    tables = [each for each in tables if _has_labels(each)] or tables
    if len(tables) == 1:
        yield _of_table(tables[0], path)
    if len(archives := [name for name in names if name.lower().endswith(".npz")]) == 1:
        yield {"npz": str(path / archives[0])}, {}
    if _wordnet(path):  # names in place of ids, where it has all of ImageNet's classes
        yield {"imagenet": str(path)}, {}
    if tar_files.any_in(path):
        yield {"webdataset": str(path)}, {}
    yield {"imagefolder": str(path)}, {}
    if len(tables) > 1:  # where class folders do not say it
        listed = " and ".join(each.name for each in tables[:3])
        right = "write one table with a column split, or name the one that is meant"
        raise UserError(f"{path} has several tables of files, {listed}; {right}")


def _of_table(path: Path, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    name = str(path.relative_to(folder))
    return {"imagefolder": str(folder), "labels": name}, {
        "labels": "the table that says which class each file is of"
    }


def _is_table(path: Path) -> bool:
    """Whether a file is a table with a column of files."""
    ending = path.suffix.lower()
    if ending not in (*table.ENDINGS, ".parquet") or (ending == ".parquet" and _holds_images(path)):
        return False
    columns = [name.lower() for name in columns_of(path)]
    return any(name in columns for name in table.FILES)


def _has_labels(path: Path) -> bool:
    return any(name.lower() in parquet_files.LABELS for name in columns_of(path))


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns; none where it cannot be read."""
    import pyarrow.parquet as pq

    try:
        if not path.is_file():  # a pipe would be waited for
            return []
        if path.suffix.lower() == ".parquet":
            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8-sig") as file:
            line = file.readline(_LINE)
    except (OSError, ValueError):
        return []
    delimiter = max(",;\t", key=line.count)
    return [name.strip().strip('"') for name in line.rstrip("\r\n").split(delimiter)]


def _holds_images(path: Path) -> bool:
    """Whether a Parquet file has a column of encoded images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        types = pq.read_schema(path).types if path.is_file() else ()
    except (OSError, ValueError):
        return True  # the source will say what is wrong with it
    return any(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind)
        for kind in types
    )


def _wordnet(path: Path) -> bool:
    """Whether the class folders are called by WordNet's ids, as ImageNet's are."""
    train = path / "train"
    if not (train.is_dir() and (path / "val").is_dir()):
        return False
    names = [e.name for e in trees.entries(str(train)) if trees.is_folder(e)]
    return bool(names) and all(_WORDNET.fullmatch(name) for name in names)


# With which options -------------------------------------------------------------------------------


def _opened(mapping: str | dict[str, Any], why: dict[str, str], *, keep_groups: bool) -> Found:
    """The source of a line, with a split of our own where it brings none, and its groups kept
    together. Raises UserError.
    """
    if isinstance(mapping, str):
        return Found(mapping, catalogue.source(mapping), why)
    kind = next(iter(mapping))
    base = Found(mapping, None, why)  # type: ignore[arg-type]  # opened below
    columns = [] if "group" in mapping else _group_columns(mapping, kind)
    because = "images of one group (patient, scene) stay on one side of every split"
    try:
        plain = catalogue.source(mapping)
    except UserError as error:
        if not takes(kind, "test"):
            raise
        without = error
    else:
        found = base._replace(source=plain)
        if not columns or not takes(kind, "group") or not keep_groups:
            return found
        return found.with_(because, group=columns[0])
    held = {**mapping, "test": TEST}
    reasons = {**why, "test": "there is no test split: this part of each class is held back"}
    split = Found(held, None, reasons)  # type: ignore[arg-type]  # opened below
    if columns:
        return split.with_(because, group=columns[0])
    try:
        return split._replace(source=catalogue.source(held))
    except UserError as error:
        refused = error
    if "group: none" not in str(refused):  # not a suspicion of groups: another test split, say
        raise without if str(refused).startswith("dataset.test") else refused
    return _grouped(split, refused)


def _grouped(split: Found, refused: UserError) -> Found:
    """With the first pattern that finds groups; a set that may leak is never split without. Raises
    UserError.
    """
    guess = "a guess from the names: look whether it finds the patient, scene … of an image"
    for pattern in (*SURE_PATTERNS, *GUESSED_PATTERNS):
        try:
            return split.with_(guess, group=pattern)
        except UserError as error:
            # Groups that a split would tear must not be cut finer by the next pattern.
            if pattern in SURE_PATTERNS and "finds no group" not in str(error):
                raise
    raise refused


def _group_columns(mapping: dict[str, Any], kind: str) -> list[str]:
    """Columns that seem to name groups, of a table or of Parquet files."""
    place = str(mapping[kind])
    if "labels" in mapping:
        names: Iterable[str] = columns_of(Path(place) / mapping["labels"])
    elif kind == "parquet":
        import pyarrow.parquet as pq

        try:
            files, _ = parquet_files.find(place)
            filesystem, _ = parquet_files.filesystem_of(place)
            names = pq.read_schema(files[0].path, filesystem=filesystem).names if files else ()
        except (OSError, ValueError):
            return []
    elif kind == "webdataset":
        try:
            names = tar_files.fields(place)
        except UserError:  # the source will say what is wrong with it
            return []
    else:
        return []
    return splitting.group_columns(names)
