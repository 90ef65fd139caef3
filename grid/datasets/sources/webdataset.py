"""WebDataset's tars of encoded images: `KEY.jpg` with `KEY.cls` or `KEY.json` beside it."""

import io
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from equigrid.generators.common.decoding import header_size
from equigrid.generators.naming import normal
from equigrid.grid.datasets.sources import encoded, splitting, tar_files
from equigrid.grid.datasets.sources.base import SPLITS, Batch, Contents, Shape, Source, class_counts
from equigrid.grid.datasets.sources.tar_files import Sample, Tar
from equigrid.grid.errors import UserError

CHECKED_BYTES = 2**30  # of files, whose images' sizes are looked at before anything runs
SHOWN = 12  # classes in a line


def webdataset(
    place: str | None,
    label: str | None = None,
    size: int | None = None,
    allow_broken: int = 0,
    range: list | None = None,
    channels: int = 3,
    page: int | None = None,
    group: str | None = None,
    test: float | None = None,
    val: float | None = None,
    split_seed: int = 0,
) -> Source:
    """A tar, a folder of tars, or a pattern such as `train-{0000..0009}.tar`.

    Splits are what the files' names, or their folders', say; without test files, validation is what
    is tested on, or `test` holds a part back. label: the member or the JSON's field that names
    classes, numbers 0 to k-1 or text. group: the JSON's field, or a pattern over the samples'
    names, that says which images belong together. The other options are those of a folder.
    """
    if not isinstance(place, str) or not place:
        right = "name a tar, a folder of tars, or a pattern such as train-{0000..0009}.tar"
        raise UserError(f"dataset: webdataset: {right}")
    if "://" in place:
        raise UserError(f"dataset: webdataset: {place}: fetch the tars, and name their folder")
    reading = encoded.checked_reading(size, range, channels, allow_broken, page)
    wish = splitting.checked_wish(test, val, split_seed, group)
    return _source(_look_into(place, label, reading, wish), wish)


class _Set(NamedTuple):
    """The set's tars with their samples, and of each split the samples (counted over all tars) and
    their classes.
    """

    place: str
    tars: tuple[Tar, ...]
    samples: tuple[tuple[Sample, ...], ...]
    label: str | None
    reading: encoded.Reading
    classes: tuple[str, ...]
    rows: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    counts: dict[str, tuple[int, ...]]
    told: tuple[str, ...]


def _look_into(
    place: str, label: str | None, reading: encoded.Reading, wish: splitting.Wish
) -> _Set:
    where = f"dataset: webdataset: {place}"
    by_split = _files(place, tar_files.find(place), wish)
    tars = [tar for files in by_split.values() for tar in files]
    samples = [tar_files.samples(tar, label) for tar in tars]
    every = [one for own in samples for one in own]
    if not every:
        raise UserError(f"{where}: there is no image in {', '.join(tar.name for tar in tars[:5])}")
    codes, names = _classes(where, every)
    rows, first, file = {}, 0, 0
    for split, files in by_split.items():
        n = sum(map(len, samples[file : file + len(files)]))
        rows[split] = np.arange(first, first + n)
        first, file = first + n, file + len(files)
    told: list[str] = []
    listed = names or tuple(map(str, np.arange(min(int(codes.max()) + 1, len(codes) + 1))))
    rows = _divided(where, every, codes, listed, rows, wish, told)
    counts = class_counts(where, {s: codes[r] for s, r in rows.items()}, names=names)
    some = ", ".join(listed[:SHOWN]) + (", …" if len(listed) > SHOWN else "")
    what = f"{len(every):,} samples in {len(tars):,} tars; {len(listed)} classes, {some}"
    return _Set(
        place, tuple(tars), tuple(map(tuple, samples)), label, reading, listed, rows,
        {side: codes[places] for side, places in rows.items()}, counts, (what, *told),
    )  # fmt: skip


def _files(place: str, found: list[Tar], wish: splitting.Wish) -> dict[str, list[Tar]]:
    """The tars of each split; all are `train` where we say. Raises UserError."""
    named = {tar: tar_files.split_of(tar.name) for tar in found}
    if not any(named.values()):
        if wish.test is None:
            right = "set test: 0.2 to hold a part back, or name the files after their splits"
            names = ", ".join(tar.name for tar in found[:3]) + (", …" if len(found) > 3 else "")
            raise UserError(f"dataset: webdataset: {place} has no test split ({names}); {right}")
        return {"train": found}
    if other := next((tar.name for tar, split in named.items() if split is None), None):
        right = "name it after its split, or take it out"
        raise UserError(f"dataset: webdataset: {place}: {other} is named after no split; {right}")
    files = {split: [tar for tar in found if named[tar] == split] for split in SPLITS}
    if wish.test is None and not files["test"]:
        files["test"], files["val"] = files["val"], []
    for split, part in (("test", wish.test), ("val", wish.val)):
        if part is not None and files[split]:
            there = files[split][0].name
            raise UserError(f"dataset.{split}: {place} has {there} already; leave {split} out")
    if not files["train"]:
        there = ", ".join(tar.name for tar in found[:5])
        raise UserError(f"dataset: webdataset: {place} has no train tar; it has {there}")
    if not files["test"] and wish.test is None:
        right = "add some, or set test: 0.2 to hold a part of train back"
        raise UserError(f"dataset: webdataset: {place} has no test tar; {right}")
    return {split: files[split] for split in SPLITS if files[split]}


def _classes(where: str, every: list[Sample]) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Codes (n,) int64, and the classes' names where they are text, in the order of the names."""
    numbers = [type(one.label) in (int, bool) for one in every]
    if all(numbers):
        return np.array([int(one.label) for one in every], np.int64), None
    if any(numbers):
        one, other = every[numbers.index(True)], every[numbers.index(False)]
        what = f"{one.key!r} has the label {one.label!r}, {other.key!r} has {other.label!r}"
        raise UserError(f"{where}: {what}; write all as numbers or all as text")
    texts = [normal(str(one.label)) for one in every]
    names = sorted(set(texts))
    if odd := next((name for name in names if not name.isprintable()), None):
        raise UserError(f"{where}: there is a class {odd!r}; give it a name that one can see")
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[text] for text in texts], np.int64), tuple(names)


def _divided(
    where: str,
    every: list[Sample],
    codes: np.ndarray,
    names: tuple[str, ...],
    rows: dict[str, np.ndarray],
    wish: splitting.Wish,
    told: list[str],
) -> dict[str, np.ndarray]:
    """The splits that the user asks for, once no group is in two of them. Raises UserError."""
    keys = [one.key for one in every]
    groups = _groups(every, keys, wish.wanted_group) if wish.wanted_group else None
    if groups and len(rows) > 1:
        splitting.check_apart(where, {s: [groups[i] for i in r] for s, r in rows.items()})
    suspect = None if groups or wish.group else _suspect(every)
    if suspect and wish.any:
        why = f"the .json has {suspect!r}"
        splitting.refuse_suspicion(where, why, f"set group: {suspect}")
    if suspect:
        sides = {s: {str(every[i].fields.get(suspect)) for i in r} for s, r in rows.items()}
        told.extend(splitting.leak_told(suspect, sides))
    if not wish.any:
        return rows
    train = rows["train"]
    if wish.group is None and (
        why_not := splitting.groups_suspected([f"{keys[i]}.img" for i in train], codes[train])
    ):
        splitting.refuse_suspicion(where, why_not, "set group: FIELD of the .json, or a pattern")
    own = [groups[i] for i in train] if groups else None
    divided = splitting.made(where, codes[train], names, wish, own)
    told.append(splitting.summary(divided, wish, own))
    return {
        split: train[divided[split]] if split in divided else rows[split]
        for split in SPLITS
        if split in divided or split in rows
    }


def _groups(every: list[Sample], keys: list[str], wanted: str) -> list[str]:
    if not any(wanted in one.fields for one in every):
        return splitting.groups_by_pattern(keys, wanted)
    if lacking := next((one.key for one in every if one.fields.get(wanted) is None), None):
        raise UserError(f"dataset.group: the .json of {lacking!r} has no {wanted!r}; fill it in")
    return [str(one.fields[wanted]) for one in every]


def _suspect(every: list[Sample]) -> str | None:
    """A field of the JSON that seems to say which patient an image is of, some having several."""
    fields = dict.fromkeys(name for one in every for name in one.fields)
    return next(
        (
            name
            for name in splitting.group_columns(fields)
            if splitting.repeated(str(one.fields.get(name, one.key)) for one in every)
        ),
        None,
    )


# The source ---------------------------------------------------------------------------------------


def _source(found: _Set, wish: splitting.Wish) -> Source:
    files = [[tar_files.split_of(t.name), t.path, t.size, t.mtime_ns] for t in found.tars]
    state = {
        "source": "webdataset", "label": found.label, "files": files,
        "size": found.reading.size, **found.reading.state(), **wish.state(),
    }  # fmt: skip
    shape = None
    # Where none decodes, ingest will say so.
    if not found.reading.allow_broken and (image := _image_shape(found)):
        shape = Shape.of(found.classes, image, found.counts)
    check = None
    if found.reading.size is None and sum(tar.size for tar in found.tars) <= CHECKED_BYTES:
        check = partial(encoded.check_sizes, partial(_image_shape, found), partial(_sizes, found))
    name = found.place.rstrip("/").rsplit("/", 1)[-1].removesuffix(".tar")
    return Source(
        name, state, found.classes, partial(_contents, found), shape, found.reading.allow_broken,
        told=found.told, split_here=wish.any, grouped=wish.wanted_group is not None, check=check,
    )  # fmt: skip


def _sizes(found: _Set) -> Iterator[tuple[str, tuple[int, int] | None]]:
    for split, rows in found.rows.items():
        for _, where, data, _ in _raw(_unit(found, split, 0, len(rows))):
            yield where, header_size(io.BytesIO(data), page=found.reading.page) if data else None


def _image_shape(found: _Set) -> tuple[int, int, int] | None:
    some = (data for _, _, data, _ in _raw(_unit(found, "train", 0, encoded.TRIED)))
    return encoded.image_shape(some, found.reading)


def _contents(found: _Set) -> Contents:
    image = _image_shape(found)
    if image is None:
        some = (data for _, _, data, _ in _raw(_unit(found, "train", 0, 1)))
        why = encoded.first_failure(some, found.reading)
        what = f"none of the first {encoded.TRIED} images can be decoded ({why})"
        raise UserError(f"dataset: webdataset: {found.place}: {what}")
    counts = {split: len(rows) for split, rows in found.rows.items()}
    read = partial(_read, found.reading, image)
    return Contents(image, counts, partial(_unit, found), read, raw=_raw)


def _unit(found: _Set, split: str, start: int, stop: int) -> tuple[int, list]:
    """Places `start` to `stop` - 1 of a split: (start, (tar, (name, offset, bytes, label) …) …)."""
    rows, labels = found.rows[split][start:stop], found.labels[split][start:stop]
    pieces, first = [], 0
    for tar, samples in zip(found.tars, found.samples, strict=True):
        low, high = np.searchsorted(rows, (first, first + len(samples)))
        if low < high:
            own = [samples[row - first] for row in rows[low:high]]
            facts = [(one.key, one.offset, one.size) for one in own]
            pieces.append((tar.path, facts, labels[low:high].tolist()))
        first += len(samples)
    return start, pieces


def _read(reading: encoded.Reading, shape: tuple[int, int, int], unit: tuple) -> Iterator[Batch]:
    yield encoded.batch(_raw(unit), reading, shape)


def _raw(unit: tuple) -> Iterator[tuple[int, str, bytes | None, int]]:
    """(place, where, encoded bytes, label) of a unit's images, one in memory at a time."""
    number, pieces = unit
    for path, facts, labels in pieces:
        with open(path, "rb") as file:
            for (key, offset, size), label in zip(facts, labels, strict=True):
                file.seek(offset)
                yield number, f"{path.rsplit('/', 1)[-1]} {key}", file.read(size), label
                number += 1
