"""What every source of a dataset says of itself, and the checks that sources share."""

import errno
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equigrid.generators.common.decoding import Seen
from equigrid.grid.datasets import shards
from equigrid.grid.errors import UnavailableError, UserError
from equigrid.grid.ids import content_id

SPLITS = ("train", "val", "test")
SIZES = (4, 2048)  # of a stored image's side, in pixels
LEVELS = 65_535  # of 16-bit images
USED = 0.1  # the part of them below which an image is nearly of one grey


@dataclass(frozen=True)
class Shape:
    """What planning needs to know of a set: sizes and class counts per split; val_counts is empty
    without a val.
    """

    classes: tuple[str, ...]
    height: int
    width: int
    channels: int
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    val_counts: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        classes: tuple[str, ...],
        image: tuple[int, int, int],
        counts: dict[str, tuple[int, ...]],
    ) -> "Shape":
        """image: (height, width, channels); counts: by split."""
        val = counts.get("val", ())
        return cls(classes, *image, counts["train"], counts["test"], val)

    @property
    def n_train(self) -> int:
        return sum(self.train_counts)

    @property
    def n_val(self) -> int:
        return sum(self.val_counts)

    @property
    def n_test(self) -> int:
        return sum(self.test_counts)

    @property
    def image(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    def facts(self) -> dict:
        """As JSON, and as fingerprints hash it: a set without a val split says nothing of one."""
        facts = asdict(self)
        return (
            facts
            if self.val_counts
            else {key: value for key, value in facts.items() if key != "val_counts"}
        )


class Told(NamedTuple):
    """What decoding passed over in some images: the lowest and highest level of those with more
    than 8 bits that use little of their range, how many hold several pages or frames, and where the
    first of them lies; how many images have more than 8 bits, how many of them use little of their
    range, and how many of these are coloured.
    """

    low: int | None = None
    high: int | None = None
    paged: int = 0
    first: str = ""
    deep: int = 0
    faint: int = 0
    coloured: int = 0

    @classmethod
    def of(cls, seen: Seen, where: str = "") -> "Told":
        """Of one image, which lies there."""
        paged = seen.pages > 1
        low, high = seen.levels or (None, None)
        faint = low is not None and high is not None and high - low < LEVELS * USED
        return cls(
            low if faint else None, high if faint else None, int(paged), where if paged else "",
            int(seen.levels is not None), int(faint), int(faint and seen.coloured),
        )  # fmt: skip

    def with_(self, other: "Told") -> "Told":
        lows = [told.low for told in (self, other) if told.low is not None]
        highs = [told.high for told in (self, other) if told.high is not None]
        return Told(
            min(lows, default=None),
            max(highs, default=None),
            self.paged + other.paged,
            self.first or other.first,
            self.deep + other.deep,
            self.faint + other.faint,
            self.coloured + other.coloured,
        )


class Batch(NamedTuple):
    """Images (n, H, W, C) uint8 and labels (n,) int64 in the set's order, and the broken ones among
    them.

    Those are left out of the arrays; each is (its place in the split, where it lies and what is
    wrong).
    """

    images: np.ndarray
    labels: np.ndarray
    broken: tuple[tuple[int, str], ...] = ()
    told: Told = Told()


@dataclass(frozen=True)
class Contents:
    """What a source holds once it is on this machine: the images of a split have places 0 to
    counts[split] - 1.

    image: (height, width, channels) of every stored image. unit: (split, start, stop) -> a small
    description of that range, of plain values. read: a picklable function from it to batches.
    from_start: reading any range costs reading all before it, so a split is one unit. skipped:
    files that were passed over as no images. raw: where images are encoded ones, a function from a
    unit to (place, where it lies, bytes, label).
    """

    image: tuple[int, int, int]
    counts: dict[str, int]
    unit: Callable[[str, int, int], tuple]
    read: Callable[[tuple], Iterator[Batch]]
    from_start: bool = False
    skipped: tuple[str, ...] = ()
    raw: Callable[[tuple], Iterator[tuple[int, str, bytes | None, int]]] | None = None


@dataclass(frozen=True)
class Source:
    """A set before it is ingested.

    name: for tables and figures. state: what tells that the source is unchanged (paths, sizes,
    times, versions). classes: the classes' names; class_ids: their WordNet ids, where they have
    some. contents: looks at the images, which may download them first. shape: the set's shape where
    it is known without that. allow_broken: how many images may be broken. local: whether the images
    lie on this machine alone. told: how the set was understood (columns, classes, splits), a line
    each. duplicates: keep, drop or refuse images that are there twice. split_here: whether we made
    the test or validation split ourselves, so that no copy may be on both sides. grouped: whether
    groups (patients) are kept apart, which only a split made here can. check: looks for images of
    several sizes, before anything runs; it may take a while. keep: of some labels, how many
    training images there are to be; `state` says so too.
    """

    name: str
    state: dict
    classes: tuple[str, ...]
    contents: Callable[[], Contents]
    shape: Shape | None = None
    allow_broken: int = 0
    local: bool = True
    class_ids: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    duplicates: str = "keep"
    split_here: bool = False
    grouped: bool = False
    check: Callable[[], None] | None = None
    keep: Mapping[int, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Names the place and state of the source, to remember its fingerprint by; no part of any
        other id.
        """
        allowed = {"allow_broken": self.allow_broken} if self.allow_broken else {}
        return content_id(
            "ingest",
            {
                "state": self.state,
                "format": shards.FORMAT_VERSION,
                "manifest": 4,
                **allowed,
                **self._kept(),
            },
        )

    @property
    def shards_key(self) -> str:
        """Names the source's shards, which are the same however many images may be broken."""
        return content_id(
            "ingest",
            {"state": self.state, "format": shards.FORMAT_VERSION, "shards": 2, **self._kept()},
        )

    def _kept(self) -> dict:
        return {} if self.duplicates == "keep" else {"duplicates": self.duplicates}


def whole(value: object) -> int | None:
    """The whole number that an option is; None for anything else, true and false among it."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def checked_size(size: object) -> int | None:
    """The option `size`. Raises UserError."""
    least, most = SIZES
    number = whole(size)
    if size is not None and (number is None or not least <= number <= most):
        raise UserError(
            f"dataset.size: {size!r} must be a whole number of pixels from {least} to {most}"
        )
    return number


def checked_allowance(allow_broken: object) -> int:
    """The option `allow_broken`. Raises UserError."""
    number = whole(allow_broken)
    if number is None or number < 0:
        raise UserError(
            f"dataset.allow_broken: {allow_broken!r} must be a whole number of images from 0 up"
        )
    return number


def checked_range(levels: object) -> tuple[float, float] | None:
    """The option `range`: the lowest and the highest grey level. Raises UserError."""
    if levels is None:
        return None
    given = levels if isinstance(levels, list | tuple) else ()
    numbers = len(given) == 2 and all(type(n) in (int, float) for n in given)
    if not numbers or not -math.inf < given[0] < given[1] < math.inf:
        raise UserError(
            f"dataset.range: {levels!r}; write the lowest and the highest grey level: [0, 4095]"
        )
    return float(given[0]), float(given[1])


def checked_channels(channels: object) -> int:
    """The option `channels`. Raises UserError."""
    number = whole(channels)
    if number not in (1, 3):
        raise UserError(
            f"dataset.channels: {channels!r}; 1 keeps grey images grey, 3 makes all RGB"
        )
    return number


def checked_page(page: object) -> int | None:
    """The option `page`. Raises UserError."""
    number = whole(page)
    if page is not None and (number is None or number < 1):
        raise UserError(f"dataset.page: {page!r}; write which image of a stack, 1 for the first")
    return number


def class_counts(
    where: str,
    labels: dict[str, np.ndarray],
    classes: int | None = None,
    names: tuple[str, ...] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Images per class in each split, of integer labels (n,). Raises UserError unless they are 0 to
    k-1.

    Every class needs images to train on and to test on. classes: k, where something says it; else
    the largest label does. names: the classes', for messages; they say k too.
    """
    for split in ("train", "test"):
        if not len(labels[split]):
            raise UserError(f"{where}: {split} has no images")
    largest = max(int(values.max()) for values in labels.values() if len(values))
    count = len(names) if names else classes or largest + 1
    if count > len(labels["train"]):
        what = f"{count:,} classes (label {largest}) and {len(labels['train']):,} images in train"
        right = "labels are 0 to k-1, each with images; is this the column of classes?"
        raise UserError(f"{where}: {what}; {right}")
    counts = {}
    for split, values in labels.items():
        wrong = values[(values < 0) | (values >= count)]
        if len(wrong):
            right = f"labels are 0 to {count - 1}" if classes or names else "labels are 0 to k-1"
            raise UserError(f"{where}: label {wrong[0]} in {split}; {right}")
        counts[split] = tuple(int(n) for n in np.bincount(values.astype(np.int64), minlength=count))
        missing = [label for label, n in enumerate(counts[split]) if not n]
        if missing and split != "val":
            shown = [repr(names[label]) if names else str(label) for label in missing[:3]]
            some = ", ".join(shown) + (", …" if len(missing) > 3 else "")
            if names:
                right = "each class needs images to train and to test on"
                raise UserError(f"{where}: no image in {split} has class {some}; {right}")
            right = f"labels are 0 to {count - 1}, each with images to train and to test on"
            raise UserError(f"{where}: no image in {split} has label {some}; {right}")
    return counts


def cache_folder(kind: str, place: str | None, name: str | None = None) -> Path:
    """Where a downloaded set lies: `place`, else the folder `name` in EQUIGRID_CACHE or
    ~/.cache/equigrid.
    """
    if place:
        folder = Path(place).expanduser().absolute()
        if not folder.is_dir():
            raise UserError(
                f"dataset: {kind}: {place} is no folder; "
                "name one that holds its files, or leave it out"
            )
        return folder
    root = os.environ.get("EQUIGRID_CACHE") or Path.home() / ".cache" / "equigrid"
    return Path(root).expanduser().absolute() / (name or kind)


@contextmanager
def downloading(name: str, folder: Path, right: str) -> Iterator[None]:
    """Makes `folder`, for what is downloaded within. right: what to do where that fails.

    Raises UserError if the folder cannot be written, UnavailableError if nothing right comes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            why = f"{error.strerror}; name one that can by EQUIGRID_CACHE, or {right}"
            raise UserError(f"dataset: {name}: {folder} cannot be written: {why}") from error
        raise _not_downloaded(name, error, right) from error
    except RuntimeError as error:  # another checksum than the publisher's
        raise _not_downloaded(name, error, right) from error


def _not_downloaded(name: str, error: Exception, right: str) -> UnavailableError:
    return UnavailableError(f"dataset: {name} cannot be downloaded ({one_line(error)}); {right}")


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
