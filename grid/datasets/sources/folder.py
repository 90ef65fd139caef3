"""Folders of image files, one folder per class: what a source reads where images lie as
TRAIN/CLASS/IMAGE.
"""

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from equigrid.generators.common.decoding import is_image_name
from equigrid.grid.datasets.sources import encoded
from equigrid.grid.datasets.sources.base import (
    Batch,
    Contents,
    Shape,
    Source,
    checked_allowance,
    checked_size,
)
from equigrid.grid.errors import UserError

VAL_NAMES = ("val", "validation", "valid")


def imagefolder(place: str | None, size: int | None = None, allow_broken: int = 0) -> Source:
    """A tree PATH/train/CLASS/*, PATH/test/CLASS/* and, if there is one, PATH/val/CLASS/*.

    Without a test folder, val (or validation, valid) is what is tested on. Labels number the class
    folders by name. size: resize the short side to it (bicubic, antialiased) and crop the centre;
    without it all images must have one size. allow_broken: images that may fail to decode; they are
    left out.
    """
    root = root_folder(place, "imagefolder", "train/CLASS/* and test/CLASS/* in it")
    splits = _splits(root)
    classes = class_folders(root / splits["train"])
    for split, folder in splits.items():
        _same_classes(root, splits["train"], folder, classes, exactly=split == "test")
    tree = look_into(root, splits, classes, size=size, allow_broken=allow_broken)
    return tree.source("imagefolder", root.resolve().name, tuple(classes))


class _File(NamedTuple):
    name: str  # relative to the set's root
    label: int


class Tree(NamedTuple):
    """The image files of a set, in its order, and a digest of their names, sizes and times."""

    root: Path
    files: dict[str, list[_File]]
    counts: dict[str, tuple[int, ...]]
    skipped: tuple[str, ...]
    digest: str
    size: int | None
    allow_broken: int

    def source(
        self, kind: str, name: str, classes: tuple[str, ...], class_ids: tuple[str, ...] = ()
    ) -> Source:
        state = {
            "source": kind, "path": str(self.root.resolve()), "files": self.digest, "size": self.size,
            "classes": list(classes),
        }  # fmt: skip
        contents = partial(_contents, self)
        shape = None if self.allow_broken else self.shape(classes)
        return Source(name, state, classes, contents, shape, self.allow_broken, class_ids=class_ids)

    def shape(self, classes: tuple[str, ...]) -> Shape | None:
        """None if no image decodes: ingest will say so."""
        image = self.image()
        return image and Shape(
            classes, *image, **{f"{split}_counts": n for split, n in self.counts.items()}
        )

    def image(self) -> tuple[int, int, int] | None:
        try:
            some = ((self.root / file.name).read_bytes() for file in self.files["train"])
            return encoded.image_shape(some, self.size)
        except OSError as error:
            raise _unreadable(error) from error


def _unreadable(error: OSError) -> UserError:
    return UserError(f"dataset: {error.filename} cannot be read: {error.strerror}")


def root_folder(place, kind: str, layout: str) -> Path:
    """The folder that a spec names. Raises UserError."""
    if not isinstance(place, str) or not place:
        raise UserError(f"dataset: {kind}: name a folder with {layout}")
    if "://" in place:
        right = "copy it to a folder, or pack the images into Parquet files and use parquet"
        raise UserError(f"dataset: {kind}: {place} is no local folder; {right}")
    root = Path(place).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"dataset: {kind}: {place} is no folder; name one with {layout}")
    return root


def _splits(root: Path) -> dict[str, str]:
    """Folder names by split."""
    val = [name for name in VAL_NAMES if (root / name).is_dir()]
    if len(val) > 1:
        raise UserError(f"dataset: imagefolder: {root} has {val[0]} and {val[1]}; keep one of them")
    found = {split: split for split in ("train", "test") if (root / split).is_dir()}
    if val:
        found["val" if "test" in found else "test"] = val[0]
    for split, needed in (("train", "train"), ("test", "test or val")):
        if split not in found:
            names = ", ".join(sorted(os.listdir(root))[:5]) or "nothing"
            raise UserError(f"dataset: imagefolder: {root} has no folder {needed}; it has {names}")
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in a split's folder, sorted. Raises UserError."""
    with os.scandir(folder) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    classes = [entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name)]
    if strange := [name for name in classes if not name.isprintable()]:
        raise UserError(
            f"dataset: {folder} has the class folder {strange[0]!r}; give it a name that can be printed"
        )
    loose = [entry.name for entry in entries if not entry.is_dir() and is_image_name(entry.name)]
    if loose or not classes:
        found = (
            f"has {len(loose)} images in no class folder, such as {loose[0]}"
            if loose
            else "has no class folders"
        )
        raise UserError(
            f"dataset: {folder} {found}; put the images of each class into a folder of its name"
        )
    return classes


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _same_classes(
    root: Path, train: str, folder: str, classes: list[str], *, exactly: bool
) -> None:
    found = class_folders(root / folder)
    for has, lacks, missing in (
        (folder, train, set(found) - set(classes)),
        (train, folder, set(classes) - set(found)),
    ):
        if missing and (exactly or has == folder):
            some = ", ".join(sorted(missing)[:3]) + (", …" if len(missing) > 3 else "")
            raise UserError(
                f"dataset: {root}: class {some} is in {has} and not in {lacks}; both need the same classes"
            )


def look_into(
    root: Path, splits: dict[str, str], classes: list[str], *, size, allow_broken
) -> Tree:
    """Lists the image files of the given class folders; labels are the classes' places. Raises
    UserError.
    """
    size, allow_broken = checked_size(size), checked_allowance(allow_broken)
    digest = hashlib.blake2b(digest_size=16)
    files, counts, skipped = {}, {}, []
    for split, folder in splits.items():
        files[split], counts[split] = [], []
        for label, name in enumerate(classes):
            before = len(files[split])
            for entry in _walk(root / folder / name):
                relative = os.path.relpath(entry.path, root)
                if not is_image_name(entry.name):
                    skipped.append(relative)
                    continue
                try:
                    facts = entry.stat()
                except OSError as error:  # a link that leads nowhere
                    raise _unreadable(error) from error
                digest.update(
                    f"{relative}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode(
                        errors="surrogateescape"
                    )
                )
                files[split].append(_File(relative, label))
            counts[split].append(len(files[split]) - before)
            if not counts[split][-1] and split != "val":
                raise UserError(
                    f"dataset: {root / folder / name} has no images; add some, or remove the class"
                )
    counts = {split: tuple(n) for split, n in counts.items()}
    return Tree(root, files, counts, tuple(skipped), digest.hexdigest(), size, allow_broken)


def _walk(folder: Path) -> Iterator[os.DirEntry]:
    """Files below a folder, in the order of their names; none if it is not there. Raises
    UserError.
    """
    try:
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"dataset: {folder} cannot be listed: {error.strerror}") from error
    for entry in entries:
        if not entry.is_dir():
            yield entry
        elif not _hidden(entry.name):
            yield from _walk(Path(entry.path))


def _contents(tree: Tree) -> Contents:
    image = tree.image()
    if image is None:
        right = "are they images? Without size, one must show the set's"
        raise UserError(
            f"dataset: {tree.root}: none of the first {encoded.TRIED} images can be decoded; {right}"
        )
    counts = {split: len(files) for split, files in tree.files.items()}
    read = partial(_read, str(tree.root), tree.size, image)
    return Contents(image, counts, lambda split, start, stop: (start, tree.files[split][start:stop]), read,
                    skipped=tree.skipped)  # fmt: skip


def _read(
    root: str, size: int | None, image: tuple[int, int, int], unit: tuple[int, list[_File]]
) -> Iterator[Batch]:
    start, files = unit
    items = (
        (start + i, name, Path(root, name).read_bytes(), label)
        for i, (name, label) in enumerate(files)
    )
    yield encoded.batch(items, size, image)
