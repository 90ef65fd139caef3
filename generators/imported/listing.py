"""What lies in an imported set: places of images by class, and a digest of the content; torch-free."""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAKE_NAME = re.compile(r"\d+(?: ?\((\d+)\))?\.(?:jpe?g|png)", re.IGNORECASE)
_HASHING_THREADS = 8


@dataclass(frozen=True, slots=True)
class Image:
    """One image: where it lies, its class in the set, and the run of neighbours that it is read with."""

    place: str
    """Relative to the set's root: a file's path, or FILE#ROW."""
    label: str
    group: int = 0
    """Images of a group are read together (a row group of a Parquet file); 0 for files."""


class Listing(ABC):
    """The images of a set.  Their order is that of the names, so that a copied folder lists alike."""

    def __init__(self, root: str, images: Iterable[Image]):
        self.root, self.images = root, tuple(images)
        if not self.images:
            raise ValueError(f"path: {root} holds no images")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes in the set, sorted."""
        return tuple(sorted({image.label for image in self.images}))

    @abstractmethod
    def digest(self) -> str:
        """Of all images' places, classes and content, but not of where the set lies; hexadecimal."""

    @abstractmethod
    def read(self, places: list[str]) -> Iterator[tuple[int, bytes]]:
        """(position in `places`, encoded bytes), in whatever order is cheap; ValueError for a place that is gone."""


class Folder(Listing):
    """Files below one folder."""

    def digest(self) -> str:
        stamps = []
        for image in self.images:
            facts = os.stat(os.path.join(self.root, image.place))
            stamps.append((image.place, image.label, facts.st_size, facts.st_mtime_ns))
        return _digest(self.root, tuple(stamps))

    def read(self, places: list[str]) -> Iterator[tuple[int, bytes]]:
        for i, place in enumerate(places):
            try:
                yield i, Path(self.root, place).read_bytes()
            except OSError as error:
                raise ValueError(
                    f"path: {place} in {self.root} cannot be read: {error.strerror}"
                ) from error


@lru_cache(maxsize=8)  # a plan asks more than once; by size and time, so that a change is seen
def _digest(root: str, stamps: tuple[tuple[str, str, int, int], ...]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    with ThreadPoolExecutor(
        _HASHING_THREADS
    ) as threads:  # reading and hashing release the interpreter's lock
        digests = threads.map(
            lambda stamp: content_of(os.path.join(root, stamp[0])), stamps, chunksize=256
        )
        for (place, label, _, _), digest in zip(stamps, digests):
            whole.update(f"{place}\0{label}\0{digest}\0".encode(errors="surrogateescape"))
    return whole.hexdigest()


def content_of(path: str) -> str:
    """Digest of a file's content; plain reads, because there may be a hundred thousand small files."""
    file = os.open(path, os.O_RDONLY)
    try:
        digest = hashlib.blake2b(digest_size=16)
        while part := os.read(file, 2**20):
            digest.update(part)
    finally:
        os.close(file)
    return digest.hexdigest()


@lru_cache(
    maxsize=4
)  # asked for capacity, check and payload; a folder that changes in between is not looked for
def listing(
    kind: str, path: str, *, split: str | None, image: str | None, label: str | None, rename: tuple
) -> Listing:
    """The images of the set at `path`; ValueError, one line, if there is none or it has another form."""
    if kind == "cifake":
        found = _cifake(path, split or "train")
    elif folders := _class_folders(path, split):
        found = _folders(_root(path, split), folders)
    elif "://" in path or os.path.isdir(os.path.expanduser(path)):
        from equigrid.generators.imported.parquet import parquet

        return parquet(path, split=split, image=image, label=label, rename=dict(rename))
    else:
        raise ValueError(
            f"path: there is no folder {path!r}; name one with CLASS/* in it, or with Parquet files"
        )
    if image or label:
        raise ValueError(
            "image and label name columns of Parquet files, and there are folders of images"
        )
    names = dict(rename)
    root, images = found
    return Folder(root, (Image(one.place, names.get(one.label, one.label)) for one in images))


def _root(path: str, split: str | None) -> str:
    root = os.path.abspath(os.path.expanduser(path))
    return os.path.join(root, split) if split else root


def _class_folders(path: str, split: str | None) -> list[str]:
    """Names of the folders in PATH/SPLIT, sorted; none where there is no such folder, or `path` is a URI."""
    root = _root(path, split)
    if "://" in path or not os.path.isdir(root):
        return []
    return sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and not _hidden(entry.name)
    )


def _folders(root: str, names: list[str]) -> tuple[str, list[Image]]:
    found = ((name, file) for name in names for file in _files(os.path.join(root, name)))
    return root, [Image(os.path.relpath(file, root), name) for name, file in found]


def _cifake(path: str, split: str) -> tuple[str, list[Image]]:
    """Kaggle's tree: SPLIT/FAKE/N.jpg is class 1 of CIFAR-10's order, "N (2).jpg" class 2, up to "N (10).jpg"."""
    root = os.path.join(_root(path, None), split, "FAKE")
    if not os.path.isdir(root):
        raise ValueError(
            f"path: {path} has no folder {split}/FAKE; name the folder that Kaggle's CIFAKE unpacks to"
        )
    images = []
    for file in _files(root):
        matched = _CIFAKE_NAME.fullmatch(os.path.basename(file))
        number = int(matched[1] or 1) if matched else 0
        if not 1 <= number <= len(CIFAR10):
            raise ValueError(
                f"path: {file} has no class of CIFAR-10 in its name, as in '0001 (7).jpg'"
            )
        images.append(Image(os.path.relpath(file, root), CIFAR10[number - 1]))
    return root, images


def _files(folder: str) -> list[str]:
    """Image files below a folder, sorted."""
    from equigrid.generators.common.decoding import is_image_name

    found = []
    for entry in os.scandir(folder):
        if entry.is_dir() and not _hidden(entry.name):
            found += _files(entry.path)
        elif is_image_name(entry.name):
            found.append(entry.path)
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
