"""Folders of image files, one folder per class: what a source reads where images lie as
TRAIN/CLASS/IMAGE, as CLASS/IMAGE, or as a table of labels says.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equigrid.generators.common import trees
from equigrid.generators.common.decoding import header_size, is_image_name
from equigrid.generators.common.parquet_files import SPLITS as SPLIT_NAMES
from equigrid.generators.common.trees import BadTree, is_hidden
from equigrid.generators.naming import normal
from equigrid.grid.datasets.sources import encoded, splitting, table
from equigrid.grid.datasets.sources.base import SPLITS, Batch, Contents, Shape, Source
from equigrid.grid.errors import UserError, near

LAYOUT = "train/CLASS/* and test/CLASS/* in it"


def imagefolder(
    place: str | None,
    size: int | None = None,
    allow_broken: int = 0,
    range: list | None = None,
    channels: int = 3,
    page: int | None = None,
    labels: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    test: float | None = None,
    val: float | None = None,
    split_seed: int = 0,
) -> Source:
    """A tree PATH/train/CLASS/*, PATH/test/CLASS/* and, if there is one, PATH/val/CLASS/*.

    Without a test folder, val (or validation, valid) is what is tested on; with `test: 0.2`, that
    part of train, or of PATH/CLASS/*, is held back. Labels number the class folders by name. size:
    resize the short side to it (bicubic, antialiased) and crop the centre; without it all images
    must have one size. allow_broken: images that may fail to decode; they are left out. range: the
    grey levels that become 0 and 255. channels: 1 keeps grey images grey. page: which image of a
    stack is taken, from 1 on. labels: a table (CSV,
    TSV or Parquet) of the images' files and classes, in place of class folders; label, split,
    group: its columns. group: else a pattern in the images' names that says which patient each is
    of.
    """
    root = root_folder(place, "imagefolder", LAYOUT)
    reading = encoded.checked_reading(size, range, channels, allow_broken, page)
    wish = splitting.checked_wish(test, val, split_seed, group)
    if labels is None and (label or split):
        name = "label" if label else "split"
        raise UserError(f"dataset.{name}: names a column of a table; say labels: FILE too")
    try:
        if labels is not None:
            listed = table.rows(root, labels, label=label, split=split, group=group)
            tree = _from_table(root, listed, reading, wish)
        else:
            tree = _from_folders(root, reading, wish)
    except BadTree as error:
        raise UserError(f"dataset: {error}") from error
    return tree.source("imagefolder", root.resolve().name)


class _File(NamedTuple):
    name: str  # relative to the set's root
    label: int


class Tree(NamedTuple):
    """The image files of a set, in its order, and a digest of their names, sizes and times."""

    root: Path
    classes: tuple[str, ...]
    files: dict[str, list[_File]]
    skipped: tuple[str, ...]
    digest: str
    reading: encoded.Reading
    wish: splitting.Wish = splitting.Wish()
    told: tuple[str, ...] = ()

    def source(self, kind: str, name: str, class_ids: tuple[str, ...] = ()) -> Source:
        state = {
            "source": kind, "path": str(self.root.resolve()), "files": self.digest,
            "size": self.reading.size, "classes": list(self.classes), **self.reading.state(),
            **self.wish.state(),
        }  # fmt: skip
        check = None
        if self.reading.size is None:
            check = partial(encoded.check_sizes, self.image, self._sizes)
        return Source(
            name, state, self.classes, partial(_contents, self),
            None if self.reading.allow_broken else self.shape(), self.reading.allow_broken,
            class_ids=class_ids, told=self.told, split_here=self.wish.any,
            grouped=self.wish.wanted_group is not None, check=check,
        )  # fmt: skip

    @property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """Images per class, by split."""
        by_split = {split: [file.label for file in files] for split, files in self.files.items()}
        return {
            split: tuple(int(n) for n in np.bincount(labels, minlength=len(self.classes)))
            for split, labels in by_split.items()
        }

    def shape(self) -> Shape | None:
        """None if no image decodes: ingest will say so."""
        image = self.image()
        return image and Shape.of(self.classes, image, self.counts)

    def image(self) -> tuple[int, int, int] | None:
        some = (_content(self.root / file.name) for file in self.files["train"])
        return encoded.image_shape(some, self.reading)

    def _sizes(self) -> Iterator[tuple[str, tuple[int, int] | None]]:
        for files in self.files.values():
            for file in files:
                yield file.name, header_size(str(self.root / file.name))


def _content(path: Path) -> bytes:
    """Raises UserError with the file's name, which errors of reading (a disk's) do not hold."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"dataset: {path} cannot be read: {error.strerror}") from error


def root_folder(place: object, kind: str, layout: str) -> Path:
    """The folder that a spec names. Raises UserError."""
    if not isinstance(place, str) or not place:
        raise UserError(f"dataset: {kind}: name a folder with {layout}")
    if "://" in place:
        right = "copy it to a folder, or pack the images into Parquet files and use parquet"
        raise UserError(f"dataset: {kind}: {place} is no local folder; {right}")
    try:
        root = Path(place).expanduser().absolute()
        there = root.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a zero, no such ~user
        raise UserError(f"dataset: {kind}: {place!r:.100} is no folder: {error}") from error
    if not there:
        raise UserError(f"dataset: {kind}: {root} is no folder; name one with {layout}")
    return root


# Class folders ------------------------------------------------------------------------------------


def _from_folders(root: Path, reading: encoded.Reading, wish: splitting.Wish) -> Tree:
    folders = _splits(root, wish)
    by_class = {split: class_folders(root / folder) for split, folder in folders.items()}
    classes = sorted(by_class["train"])
    if len(classes) < 2:
        raise _one_class(root / folders["train"], by_class["train"][classes[0]][0])
    for split, folder in folders.items():
        _same_classes(
            root, folders["train"], folder, classes, by_class[split], exactly=split == "test"
        )
    listed = {split: {name: by_class[split].get(name, []) for name in classes} for split in folders}
    _check_no_splits_inside(root, folders["train"], by_class["train"])
    tree = look_into(root, folders, classes, listed, reading=reading)
    names = [file.name for file in tree.files["train"]]
    groups = None
    if wish.wanted_group is not None:
        groups = {
            split: splitting.groups_by_pattern([file.name for file in files], wish.wanted_group)
            for split, files in tree.files.items()
        }
        splitting.check_apart(f"dataset: {root}", groups)
    if not wish.any:
        return tree._replace(wish=wish)
    labels = np.array([file.label for file in tree.files["train"]])
    inside = [os.path.relpath(name, folders["train"]) for name in names]
    if wish.group is None and (why := splitting.groups_suspected(inside, labels)):
        right = r"set group: to a pattern that finds the group in a name, such as '(patient\d+)'"
        splitting.refuse_suspicion(f"dataset: {root}", why, right)
    return _divided(tree, wish, None if groups is None else groups["train"])


def _divided(tree: Tree, wish: splitting.Wish, groups: list[str] | None) -> Tree:
    """The tree with parts of train held back."""
    train = tree.files["train"]
    labels = np.array([file.label for file in train], np.int64)
    parts = splitting.made(f"dataset: {tree.root}", labels, tree.classes, wish, groups)
    files = {split: [train[i] for i in places] for split, places in parts.items()}
    files = {**{s: found for s, found in tree.files.items() if s != "train"}, **files}
    told = (*tree.told, splitting.summary(parts, wish, groups))
    return tree._replace(files={s: files[s] for s in SPLITS if s in files}, wish=wish, told=told)


def _splits(root: Path, wish: splitting.Wish) -> dict[str, str]:
    """Folder names by split; `.` for the root itself, where that holds the class folders."""
    there = [entry.name for entry in trees.entries(str(root)) if trees.is_folder(entry)]
    found: dict[str, str] = {}
    for split, names in SPLIT_NAMES.items():
        own = [name for name in there if name.lower() in names]
        if len(own) > 1:
            raise UserError(
                f"dataset: imagefolder: {root} has {own[0]} and {own[1]}; keep one of them"
            )
        if own:
            found[split] = own[0]
    if "train" not in found and not found and wish.test is not None:
        return {"train": "."}
    for split, part in (("test", wish.test), ("val", wish.val)):
        if part is not None and split in found:
            raise UserError(
                f"dataset.{split}: {root} has a folder {found[split]} already; leave {split} out"
            )
    if "test" not in found and wish.test is None and "val" in found:
        found["test"] = found.pop("val")
    for split, needed in (("train", "train"), ("test", "test or val")):
        if split not in found and (split == "train" or wish.test is None):
            what = f"{root} has no folder {needed}; it has {', '.join(there[:5]) or 'no folders'}"
            right = "add one, or set test: 0.2 to hold that part of the images back"
            inside = [name for name in there if (root / name / "train").is_dir()]
            if split == "train" and inside:
                right = f"did you mean {root / inside[0]}?"
            raise UserError(f"dataset: imagefolder: {what}; {right}")
    _check_two_folders(root, found)
    return {split: found[split] for split in SPLITS if split in found}


def _check_two_folders(root: Path, found: dict[str, str]) -> None:
    """Raises UserError for a split that is a link to another."""
    for one, other in combinations(found.values(), 2):
        if os.path.samefile(root / one, root / other):
            what = f"{root / one} and {root / other} are one folder: one is a link to the other"
            raise UserError(f"dataset: imagefolder: {what}; a test needs images of its own")


def class_folders(folder: Path) -> dict[str, list[str]]:
    """The class folders in a split's folder, by their classes' names. Raises UserError.

    A name in two Unicode forms is one class: macOS writes é as two characters, others as one.
    """
    try:
        found = trees.entries(str(folder))
        folders = [e.name for e in found if trees.is_folder(e) and not is_hidden(e.name)]
    except BadTree as error:
        raise UserError(f"dataset: {error}") from error
    for name in folders:
        if not name.isprintable() or not name.strip():
            raise UserError(
                f"dataset: {folder} has the class folder {name!r}; "
                "give it a name that can be printed"
            )
    loose = [e.name for e in found if not trees.is_folder(e) and is_image_name(e.name)]
    if loose or not folders:
        what = (
            f"has {len(loose)} images in no class folder, such as {loose[0]}"
            if loose
            else "has no class folders"
        )
        archives = [e.name for e in found if e.name.lower().endswith(trees.ARCHIVES)]
        right = (
            "put the images of each class into a folder of its name, or name a table (labels: FILE)"
            if not archives
            else f"{archives[0]} is an archive: unpack it first"
        )
        raise UserError(f"dataset: {folder} {what}; {right}")
    classes: dict[str, list[str]] = {}
    for name in folders:
        classes.setdefault(normal(name), []).append(name)
    return classes


def _check_no_splits_inside(root: Path, train: str, classes: dict[str, list[str]]) -> None:
    """Raises UserError where each class is divided into splits, CLASS/train and CLASS/test: taken
    as one, they would be divided anew.
    """
    words = {name: split for split, names in SPLIT_NAMES.items() for name in names}
    for folders in classes.values():
        inside = [
            e.name
            for name in folders
            for e in trees.entries(str(root / train / name))
            if trees.is_folder(e)
        ]
        found = [name for name in inside if name.lower() in words]
        if len({words[name.lower()] for name in found}) > 1:
            here = root / train / folders[0]
            right = (
                f"write {found[0]}/{folders[0]} and {found[1]}/{folders[0]}, and so for each class"
            )
            raise UserError(
                f"dataset: {here} has the splits {found[0]} and {found[1]} in it; {right}"
            )


def _one_class(folder: Path, only: str) -> UserError:
    """The error for a folder with one class, which is often the set's own folder, or a heap of
    images that a table describes.
    """
    inside = [entry.name for entry in trees.entries(str(folder / only)) if trees.is_folder(entry)]
    tables = [e.name for e in trees.entries(str(folder)) if e.name.lower().endswith(table.ENDINGS)]
    right = "a classifier needs two at least"
    if inside:
        right = f"did you mean {folder / only}, which has {', '.join(inside[:3])}?"
    elif tables:
        right = f"does {tables[0]} say which class each image is of? Set labels: {tables[0]}"
    return UserError(f"dataset: {folder} has one class folder, {only!r}; {right}")


def _same_classes(
    root: Path, train: str, folder: str, classes: list[str], found: Iterable[str], *, exactly: bool
) -> None:
    for has, lacks, missing, others in (
        (folder, train, set(found) - set(classes), classes),
        (train, folder, set(classes) - set(found), found),
    ):
        if missing and (exactly or has == folder):
            first = min(missing)
            some = ", ".join(map(repr, sorted(missing)[:3])) + (", …" if len(missing) > 3 else "")
            what = f"class {some} is in {has} and not in {lacks}; both need the same classes"
            alike = [name for name in others if name.strip().lower() == first.strip().lower()]
            hint = f"; {alike[0]!r} is another class to us" if alike else near(first, others)
            raise UserError(f"dataset: {root}: {what}{hint}")


def look_into(
    root: Path,
    splits: dict[str, str],
    classes: list[str],
    folders: dict[str, dict[str, list[str]]] | None = None,
    *,
    reading: encoded.Reading,
) -> Tree:
    """Lists the image files of the given class folders; labels are the classes' places. Raises
    UserError.

    folders: of each split and class, where they are called otherwise than the class.
    """
    digest = hashlib.blake2b(digest_size=16)
    files: dict[str, list[_File]] = {}
    skipped: list[str] = []
    for split, folder in splits.items():
        files[split] = []
        for label, name in enumerate(classes):
            own = folders[split][name] if folders else [name]
            found, passed = _of_class([root / folder / each for each in own])
            skipped += [os.path.relpath(path, root) for path in passed]
            for entry in found:
                relative = os.path.relpath(entry.path, root)
                facts = trees.facts_of(entry)
                _add(digest, relative, facts)
                files[split].append(_File(relative, label))
            if not found and split != "val":
                where = root / folder / (own[0] if own else name)
                raise UserError(f"dataset: {where} has no images; add some, or remove the class")
    return Tree(root, tuple(classes), files, tuple(skipped), digest.hexdigest(), reading)


def _of_class(folders: list[Path]) -> tuple[list[os.DirEntry], list[str]]:
    """The images of a class and what is passed over. Raises UserError if that is much of it."""
    images: list[os.DirEntry] = []
    passed: list[str] = []
    try:
        for folder in folders:
            for entry in trees.walk(str(folder)):
                if is_image_name(entry.name):
                    images.append(entry)
                else:
                    passed.append(entry.path)
        if lost := trees.lost_share(len(images), passed):
            raise UserError(f"dataset: {folders[0]}: {lost}")
        for entry in images:
            trees.facts_of(entry)
    except BadTree as error:
        raise UserError(f"dataset: {error}") from error
    return images, passed


def _add(digest: "hashlib.blake2b", relative: str, facts: os.stat_result) -> None:
    line = f"{relative}\0{facts.st_size}\0{facts.st_mtime_ns}\0"
    digest.update(line.encode(errors="surrogateescape"))


# A table of labels --------------------------------------------------------------------------------


def _from_table(
    root: Path, listed: table.Listed, reading: encoded.Reading, wish: splitting.Wish
) -> Tree:
    where = f"dataset: {listed.path.name}"
    digest = hashlib.blake2b(digest_size=16)
    classes = tuple(sorted({row.label for row in listed.rows}))
    place = {name: i for i, name in enumerate(classes)}
    by_split: dict[str, list[table.Row]] = {}
    for row in listed.rows:
        by_split.setdefault(row.split, []).append(row)
        _add(digest, f"{row.split}\0{row.label}\0{row.group}\0{row.file}", row.facts)
    if "test" not in by_split and wish.test is None and "val" in by_split:
        by_split["test"] = by_split.pop("val")
    for split, part in (("test", wish.test), ("val", wish.val)):
        if part is not None and split in by_split:
            raise UserError(
                f"dataset.{split}: {listed.path.name} has a {split} split; leave it out"
            )
    if "train" not in by_split or ("test" not in by_split and wish.test is None):
        missing = "train" if "train" not in by_split else "test"
        right = "name a column of splits (split: COLUMN), or set test: 0.2"
        raise UserError(f"{where} has no {missing} split; {right}")
    groups = {split: [row.group for row in rows] for split, rows in by_split.items()}
    if listed.group:
        splitting.check_apart(where, groups)
    files = {
        split: [_File(row.file, place[row.label]) for row in by_split[split]]
        for split in SPLITS
        if split in by_split
    }
    told = (
        *listed.told,
        *(f"{listed.unlisted} image files are in no row of it",) * bool(listed.unlisted),
    )
    tree = Tree(root, classes, files, (), digest.hexdigest(), reading, wish, told)
    if wish.any:
        labels = np.array([file.label for file in files["train"]], np.int64)
        if wish.group is None:
            if listed.candidates:
                column = listed.candidates[0]
                there = f"there is a column {column!r}"
                splitting.refuse_suspicion(where, there, f"set group: {column}")
            names = [file.name for file in files["train"]]
            if why := splitting.groups_suspected(names, labels):
                splitting.refuse_suspicion(
                    where, why, "add a column that says so; set group: COLUMN"
                )
        tree = _divided(tree, wish, groups["train"] if listed.group else None)
    for split, counts in tree.counts.items():
        for name, n in zip(classes, counts):
            if not n and split != "val":
                raise UserError(
                    f"{where}: class {name!r} has no image in {split}; "
                    "each needs some in train and test"
                )
    return tree


# Reading ------------------------------------------------------------------------------------------


def _contents(tree: Tree) -> Contents:
    image = tree.image()
    if image is None:
        some = (_content(tree.root / file.name) for file in tree.files["train"][:1])
        why = encoded.first_failure(some, tree.reading)
        what = f"none of the first {encoded.TRIED} images can be decoded ({why})"
        raise UserError(f"dataset: {tree.root}: {what}; are they images?")
    counts = {split: len(files) for split, files in tree.files.items()}
    raw = partial(_raw, str(tree.root))
    return Contents(
        image, counts, lambda split, start, stop: (start, tree.files[split][start:stop]),
        partial(_read, str(tree.root), tree.reading, image), skipped=tree.skipped, raw=raw,
    )  # fmt: skip


def _raw(root: str, unit: tuple[int, list[_File]]) -> Iterator[tuple[int, str, bytes, int]]:
    start, files = unit
    for i, (name, label) in enumerate(files):
        yield start + i, name, _content(Path(root, name)), label


def _read(
    root: str, reading: encoded.Reading, image: tuple[int, int, int], unit: tuple[int, list[_File]]
) -> Iterator[Batch]:
    yield encoded.batch(_raw(root, unit), reading, image)
