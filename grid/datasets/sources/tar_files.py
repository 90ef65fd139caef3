"""WebDataset's tars: which files there are, and the samples in them.

A sample is the members that share a name up to its first dot: `0001.jpg`, `0001.cls`. Only headers
and labels are read here; images stay where they lie, each at its offset.
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from itertools import islice
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from equigrid.generators.common import trees
from equigrid.generators.common.decoding import image_suffixes
from equigrid.generators.common.parquet_files import LABELS
from equigrid.generators.common.parquet_files import SPLITS as SPLIT_NAMES
from equigrid.grid.errors import UserError, near

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_WORDS = "|".join(name for names in SPLIT_NAMES.values() for name in names)
_SPLIT = re.compile(rf"(?:^|[-_./ ])({_WORDS})(?=[-_./ (\d])", re.I)
_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>\d+)(?:-of-(?P<total>\d+))?\.tar", re.I)
_COPY = re.compile(r"( ?\(\d+\)| - copy( \(\d+\))?|[ _]copy( \d+)?)(?=\.tar$)", re.I)
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MOST_FILES = 100_000  # that a pattern names: beyond, it is a slip
MOST_LABEL_BYTES = 2**20
MOST_HEADER_BYTES = 2**20  # of a long name, or of further facts of a file


class Tar(NamedTuple):
    """A tar: its path, its name for messages, and what tells that it is unchanged."""

    path: str
    name: str
    size: int
    mtime_ns: int


class _Info(tarfile.TarInfo):
    """A header. One that claims gigabytes of names is refused before they are read."""

    def _proc_member(self, opened: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS and not 0 <= self.size <= MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {self.size:,} bytes")
        return super()._proc_member(opened)  # type: ignore[misc]  # the place to override


_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class Sample(NamedTuple):
    """An image of a tar: the name that its members share, where its bytes lie, and its label as it
    is written. fields: what the JSON beside it says.
    """

    key: str
    offset: int
    size: int
    label: str | int
    fields: dict[str, Any]


# Which files --------------------------------------------------------------------------------------


def find(place: str) -> list[Tar]:
    """The tars of a place: one tar, a folder of them (or of folders named after splits), or a
    pattern such as `train-{0000..0009}.tar`. Raises UserError where one is missing or there twice.
    """
    path = Path(place).expanduser().absolute()
    named = _expanded(str(path))
    if named != [str(path)]:
        absent = [name for name in named if not os.path.isfile(name)]
        if absent:
            some = ", ".join(absent[:3]) + (", …" if len(absent) > 3 else "")
            what = f"{len(absent):,} of the {len(named):,} files are not there: {some}"
            raise UserError(f"dataset: webdataset: {place}: {what}")
        found = [_tar(Path(name), Path(name).name) for name in named]
    elif path.is_dir():
        found = _in_folder(path)
    elif path.is_file():
        found = [_tar(path, path.name)]
    else:
        raise UserError(
            f"dataset: webdataset: there is no {path}; name a tar, a folder or a pattern"
        )
    if not found:
        raise UserError(f"dataset: webdataset: {path} has no .tar{_others(path)}")
    _check_names(found)
    _check_contents(found)
    return found


def split_of(name: str) -> str | None:
    """The split that a tar's name, or its folder's, names: `imagenet-train-0001.tar`."""
    found = _SPLIT.search(name)
    word = found[1].lower() if found else ""
    return next((split for split, names in SPLIT_NAMES.items() if word in names), None)


def is_pattern(place: str) -> bool:
    """Whether a place names tars by a pattern."""
    return bool(_RANGE.search(place)) and place.lower().endswith(".tar")


def any_in(folder: Path) -> bool:
    """Whether a folder, or one in it that is named after a split, has tars."""
    try:
        found = [entry for entry in trees.entries(str(folder)) if not trees.is_hidden(entry.name)]
        inner = [e.path for e in found if trees.is_folder(e) and split_of(f"{e.name}/")]
        names = [entry.name for entry in found]
        names += [entry.name for path in inner for entry in trees.entries(path)]
    except (OSError, ValueError):
        return False
    return any(map(_is_tar, names))


def fields(place: str) -> list[str]:
    """What the JSON of the first tar's samples says of images. Raises UserError."""
    return [*dict.fromkeys(name for one in samples(find(place)[0], None) for name in one.fields)]


def _expanded(pattern: str) -> list[str]:
    found = _RANGE.search(pattern)
    if not found:
        return [pattern]
    ranges = _RANGE.findall(pattern)
    n = prod(max(0, int(high) - int(low) + 1) for low, high in ranges)
    if n < 1 or n > MOST_FILES:
        right = f"write the lower number first, {MOST_FILES:,} files are the most"
        raise UserError(f"dataset: webdataset: {pattern} names {n:,} files; {right}")
    low, high = found[1], found[2]
    each = (
        pattern[: found.start()] + f"{k:0{len(low)}d}" + pattern[found.end() :]
        for k in range(int(low), int(high) + 1)
    )
    return [name for one in each for name in _expanded(one)]


def _in_folder(folder: Path) -> list[Tar]:
    try:
        entries = [entry for entry in trees.entries(str(folder)) if not trees.is_hidden(entry.name)]
        found = [_tar(Path(e.path), e.name) for e in entries if _is_tar(e.name)]
        for entry in entries:
            if trees.is_folder(entry) and split_of(f"{entry.name}/"):
                for file in trees.entries(entry.path):
                    if _is_tar(file.name):
                        found.append(_tar(Path(file.path), f"{entry.name}/{file.name}"))
    except ValueError as error:
        raise UserError(f"dataset: webdataset: {error}") from error
    return found


def _is_tar(name: str) -> bool:
    return name.lower().endswith(".tar") and not trees.is_hidden(name)


def _others(path: Path) -> str:
    names = [path.name] if path.is_file() else sorted(os.listdir(path))
    packed = next((name for name in names if name.lower().endswith(_COMPRESSED)), None)
    if packed:
        return f"; {packed} is compressed, and cannot be read at any place: make it a plain .tar"
    return f"; it has {', '.join(names[:5]) or 'nothing'}"


def _tar(path: Path, name: str) -> Tar:
    if name.lower().endswith(_COMPRESSED):
        right = "make it a plain .tar (gunzip)"
        raise UserError(f"dataset: webdataset: {path} is compressed: its images cannot be read at "
                        f"any place; {right}")  # fmt: skip
    try:
        facts = path.stat()
    except OSError as error:
        raise UserError(f"dataset: webdataset: {path} cannot be read: {error.strerror}") from error
    if not S_ISREG(facts.st_mode):
        raise UserError(f"dataset: webdataset: {path} is no file (a pipe, a folder or a device?)")
    return Tar(str(path), name, facts.st_size, facts.st_mtime_ns)


def _check_names(found: list[Tar]) -> None:
    """Numbers without a gap, `-of-N` as often as it says, no second copy of a browser's."""
    names = {tar.name for tar in found}
    by_stem: dict[tuple[str, str | None], dict[int, str]] = {}
    for tar in found:
        if (original := _COPY.sub("", tar.name)) != tar.name:
            copy = f"looks like a second copy of {original}"
            right = "remove one of the two" if original in names else "rename it"
            raise UserError(f"dataset: webdataset: {tar.name} {copy}; {right}")
        if numbered := _NUMBERED.fullmatch(tar.name):
            numbers = by_stem.setdefault((numbered["stem"], numbered["total"]), {})
            number = int(numbered["number"])
            if number in numbers:
                both = f"{numbers[number]} and {tar.name}"
                raise UserError(f"dataset: webdataset: {both} are both number {number}; remove one")
            numbers[number] = tar.name
    for (stem, total), numbers in by_stem.items():
        first = min(numbers) if min(numbers) < 2 else 0
        count = int(total) if total else max(numbers) - first + 1
        wanted = range(first, first + count)
        if missing := list(islice((k for k in wanted if k not in numbers), 4)):
            some = ", ".join(f"{stem}{k:0{_width(numbers)}d}…" for k in missing[:3])
            there = f"{len(numbers):,} of {count:,} files {stem}N.tar are there"
            more = ", …" if len(missing) > 3 else ""
            raise UserError(f"dataset: webdataset: {there}; missing: {some}{more}: fetch the rest")


def _width(numbers: dict[int, str]) -> int:
    found = _NUMBERED.fullmatch(next(iter(numbers.values())))
    assert found is not None, "all of these names have numbers"
    return len(found["number"])


def _check_contents(found: list[Tar]) -> None:
    by_size: dict[int, list[Tar]] = {}
    for tar in found:
        by_size.setdefault(tar.size, []).append(tar)
    for same in by_size.values():
        seen: dict[bytes, str] = {}
        for tar in same if len(same) > 1 else ():
            with open(tar.path, "rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
            if digest in seen:
                both = f"{seen[digest]} and {tar.name}"
                raise UserError(f"dataset: webdataset: {both} have the same content; remove one")
            seen[digest] = tar.name


# What is in them ----------------------------------------------------------------------------------


def samples(tar: Tar, label: str | None) -> list[Sample]:
    """The images of a tar in its order. label: the member (`cls`) or the field of the JSON that
    names classes; None: a `.cls`, else the field of a usual name. Raises UserError.
    """
    with open(tar.path, "rb") as file:
        found = [
            _sample(file, tar.name, key, members, label) for key, members in _members(tar, file)
        ]
    unlabelled = [key for key, one in found if one is None]
    if unlabelled:
        some = ", ".join(unlabelled[:3]) + (", …" if len(unlabelled) > 3 else "")
        what = f"{len(unlabelled):,} of {len(found):,} images have no {label or 'label'}"
        right = "give each a .cls, or a label in its .json"
        if len(unlabelled) == len(found) and "/" in unlabelled[0]:
            right += "; an archive of class folders is to be unpacked"
        raise UserError(f"dataset: webdataset: {tar.name}: {what} ({some}); {right}")
    return [one for _, one in found if one is not None]


def _members(tar: Tar, file: Any) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """(name, members by ending) of each sample. A name that comes back later is there twice."""
    seen: set[str] = set()
    key: str | None = None
    members: dict[str, tarfile.TarInfo] = {}
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Info) as opened:
            for member in opened:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                name = member.name.removeprefix("./")
                if not member.isfile() or any(map(trees.is_hidden, name.split("/"))):
                    continue
                if member.offset_data + member.size > tar.size:
                    raise tarfile.ReadError("it ends within a file")
                folder, _, base = name.rpartition("/")
                stem, _, ending = base.partition(".")
                own = f"{folder}/{stem}" if folder else stem
                if own != key:
                    if key is not None:
                        yield key, members
                    if own in seen:
                        what = f"{tar.name} has the sample {own!r} twice"
                        raise UserError(f"dataset: webdataset: {what}; give each a name of its own")
                    seen.add(own)
                    key, members = own, {}
                if ending.lower() in members:
                    raise UserError(f"dataset: webdataset: {tar.name} has {name!r} twice")
                members[ending.lower()] = member
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it has no end")
    except UserError:
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:  # of odd numbers
        what = f"{tar.name} cannot be read as a tar: {error or 'it is empty'}"
        raise UserError(f"dataset: webdataset: {what}; fetch it again") from error
    if key is not None:
        yield key, members


def _sample(
    file: Any, tar: str, key: str, members: dict[str, tarfile.TarInfo], label: str | None
) -> tuple[str, Sample | None]:
    images = [ending for ending in members if f".{ending.rpartition('.')[2]}" in image_suffixes()]
    if len(images) != 1:
        has = ", ".join(members)
        what = f"the sample {key!r} has {'no image' if not images else f'{len(images)} images'}"
        raise UserError(f"dataset: webdataset: {tar}: {what} ({has}); one each is needed")
    fields = _fields(file, tar, key, members.get("json"))
    found = _label(file, tar, key, members, fields, label)
    image = members[images[0]]
    if image.size > trees.MOST_FILE_BYTES:
        what = f"{image.name} has {image.size:,} bytes; {trees.MOST_FILE_BYTES:,} are the most"
        raise UserError(f"dataset: webdataset: {tar}: {what} of an image")
    if found is None:
        return key, None
    return key, Sample(key, image.offset_data, image.size, found, fields)


def _fields(file: Any, tar: str, key: str, member: tarfile.TarInfo | None) -> dict[str, Any]:
    if member is None:
        return {}
    try:
        found = json.loads(_content(file, tar, member))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"dataset: webdataset: {tar}: {key}.json is no JSON: {error}") from error
    return found if isinstance(found, dict) else {"label": found}


def _content(file: Any, tar: str, member: tarfile.TarInfo) -> bytes:
    if member.size > MOST_LABEL_BYTES:
        what = f"has {member.size:,} bytes; {MOST_LABEL_BYTES:,} are the most of a label"
        raise UserError(f"dataset: webdataset: {tar}: {member.name} {what}")
    file.seek(member.offset_data)
    return file.read(member.size)


def _label(
    file: Any,
    tar: str,
    key: str,
    members: dict[str, tarfile.TarInfo],
    fields: dict[str, Any],
    wanted: str | None,
) -> str | int | None:
    """The class of a sample as it is written; None where it has none."""
    if wanted is None or wanted in ("cls", "txt", "cls.txt"):
        for ending in ("cls", "cls.txt") if wanted is None else (wanted,):
            if ending in members:
                text = _content(file, tar, members[ending]).decode("utf-8", "replace").strip()
                return _number(text)
        if wanted is not None:
            return None
    name = wanted or next((name for name in LABELS if name in fields), None)
    if name is None:
        return None
    value = fields.get(name)
    if wanted and value is None and fields and wanted not in fields:
        known = f"its .json has {', '.join(list(fields)[:8])}{near(wanted, fields)}"
        raise UserError(f"dataset.label: {tar}: the sample {key!r} has no {wanted!r}; {known}")
    if value is not None and type(value) not in (str, int, bool):
        what = f"{name!r} of the sample {key!r} is {value!r:.60}"
        raise UserError(f"dataset: webdataset: {tar}: {what}; classes are whole numbers or text")
    if isinstance(value, int) and abs(value) >= 10**18:
        what = f"{name!r} of the sample {key!r} is {str(value):.30}…"
        raise UserError(f"dataset: webdataset: {tar}: {what}; labels are 0 to k-1")
    return _number(value) if isinstance(value, str) else value


def _number(text: str) -> str | int | None:
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) and text.isascii() else text or None
