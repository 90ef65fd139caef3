"""What lies in an imported set: places of images by class, and a digest of the content;
torch-free.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

_HASHING_THREADS = 8


@dataclass(frozen=True, slots=True)
class Image:
    """One image: where it lies, its class in the set, and the run of neighbours that it is read
    with.
    """

    place: str
    """Relative to the set's root: a file's path, or FILE#ROW."""
    label: str
    group: int = 0
    """Images of a group are read together (a row group of a Parquet file); 0 for files."""


class Listing(ABC):
    """The images of a set.  Their order is that of the names, so that a copied folder lists
    alike.
    """

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
        """Of all images' places, classes and content, but not of where the set lies;
        hexadecimal.
        """

    def copies(self) -> int | None:
        """How many images are another one again, byte for byte; None where only reading them all
        would tell.
        """
        return None

    @abstractmethod
    def read(self, places: list[str]) -> Iterator[tuple[int, bytes | None]]:
        """(position in `places`, encoded bytes or None where there are none), in whatever order is
        cheap; ValueError for a place that is gone.
        """


class Folder(Listing):
    """Files below one folder."""

    def digest(self) -> str:
        return self._digest()[0]

    def copies(self) -> int:
        return self._digest()[1]

    def _digest(self) -> tuple[str, int]:
        stamps = []
        for image in self.images:
            facts = os.stat(os.path.join(self.root, image.place))
            stamps.append((image.place, image.label, facts.st_size, facts.st_mtime_ns))
        return _digest(self.root, tuple(stamps))

    def read(self, places: list[str]) -> Iterator[tuple[int, bytes | None]]:
        for i, place in enumerate(places):
            try:
                yield i, Path(self.root, place).read_bytes()
            except OSError as error:
                raise ValueError(
                    f"path: {place} in {self.root} cannot be read: {error.strerror}"
                ) from error


@lru_cache(maxsize=8)  # a plan asks more than once; by size and time, so that a change is seen
def _digest(root: str, stamps: tuple[tuple[str, str, int, int], ...]) -> tuple[str, int]:
    """Of all content, and how many files have that of an earlier one."""
    whole = hashlib.blake2b(digest_size=16)
    different: set[str] = set()
    # Threads, because reading and hashing release the interpreter's lock.
    with ThreadPoolExecutor(_HASHING_THREADS) as threads:
        digests = threads.map(
            lambda stamp: content_of(os.path.join(root, stamp[0])), stamps, chunksize=256
        )
        for (place, label, _, _), digest in zip(stamps, digests):
            whole.update(f"{place}\0{label}\0{digest}\0".encode(errors="surrogateescape"))
            different.add(digest)
    return whole.hexdigest(), len(stamps) - len(different)


def content_of(path: str) -> str:
    """Digest of a file's content; plain reads, because there may be a hundred thousand small
    files.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        digest = hashlib.blake2b(digest_size=16)
        while part := os.read(file, 2**20):
            digest.update(part)
    finally:
        os.close(file)
    return digest.hexdigest()
