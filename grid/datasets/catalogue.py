"""Labelled image sets: the sources a spec can name, and the manifest of one that has been ingested
to shards.

A source is a name (`digits`) or a kind, its place and options (`{parquet: PATH, label:
fine_label}`); `SOURCES` maps the kind to a function from the place and the options to a `Source`. A
source is read once, by `equigrid.grid.datasets.ingest`; everything later works on shards.
"""

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from equigrid.generators.naming import normal
from equigrid.grid.datasets import shards
from equigrid.grid.datasets.sources import medmnist
from equigrid.grid.datasets.sources.base import SPLITS, Shape, Source
from equigrid.grid.datasets.sources.cifar10 import cifar10
from equigrid.grid.datasets.sources.digits import digits
from equigrid.grid.datasets.sources.folder import imagefolder
from equigrid.grid.datasets.sources.imagenet import KINDS as IMAGENET
from equigrid.grid.datasets.sources.npz import npz
from equigrid.grid.datasets.sources.parquet import parquet
from equigrid.grid.datasets.sources.webdataset import webdataset
from equigrid.grid.errors import UnavailableError, UserError, near
from equigrid.grid.store import Store, documents, layout
from equigrid.grid.text import as_one_word, holds_credentials, redacted

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "cifar10": cifar10,
    **{name: partial(medmnist.medmnist, name) for name in medmnist.NAMES},
    **IMAGENET,
    "imagefolder": imagefolder,
    "parquet": parquet,
    "npz": npz,
    "webdataset": webdataset,
}

DUPLICATES = ("keep", "drop", "refuse")
SHOWN = 20  # classes in the line that pairs them with names


@dataclass(frozen=True)
class LabelsRef:
    """Where the labels of a split lie, and what they must be."""

    data: str
    checksum: str
    n: int


@dataclass(frozen=True)
class Dataset:
    """An ingested set. `fingerprint` follows from the images, labels and class names alone.

    label_refs: by split. broken: images that were left out, each with where and why. duplicates:
    test images whose pixels are in train too, and so on: {"train_test": n, "train_val": n,
    "val_test": n, "first": …}, see `equigrid.grid.datasets.ingest`. skipped: files that are no
    images. class_ids: WordNet ids, where the classes have some. told: how the set was understood
    and what decoding passed over, a line each. repeated: places of training images that repeat an
    earlier one, which no subset takes but the whole set; repeated_counts: of each class. grouped:
    whether groups (patients) are kept apart between the splits.
    """

    name: str
    fingerprint: str
    shape: Shape
    train: tuple[shards.ShardRef, ...]
    test: tuple[shards.ShardRef, ...]
    manifest: str
    val: tuple[shards.ShardRef, ...] = ()
    label_refs: dict[str, LabelsRef] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    duplicates: dict = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    repeated: tuple[int, ...] = ()
    repeated_counts: tuple[int, ...] = ()
    grouped: bool = False

    @property
    def warnings(self) -> list[str]:
        """What a user should know of the set, a line each."""
        lines = []
        if n := len(self.repeated):
            total = self.label_refs["train"].n
            other = self.duplicates.get("labels", 0)
            classes = f", {other:,} of them under another class" if other else ""
            lines.append(
                f"{self.name}: {n:,} of {total:,} train images repeat an earlier one{classes}: no "
                "subset takes an image twice (duplicates: drop leaves the copies out)"
            )
        for pair, n in self.duplicates.items():
            if "_" in pair and n:
                first, second = pair.split("_")
                total = self.label_refs[second].n
                lines.append(
                    f"{self.name}: {n:,} of {total:,} {second} images are in "
                    f"{first} too, pixel by pixel"
                )
        if self.broken:
            lines.append(
                f"{self.name}: {len(self.broken):,} broken images are left out, "
                f"such as {self.broken[0]}"
            )
        if self.skipped:
            lines.append(
                f"{self.name}: {len(self.skipped):,} files are no images, such as {self.skipped[0]}"
            )
        return lines


def source(spec: str | dict) -> Source:
    """The source that a spec's `dataset` names. Raises UserError, UnavailableError."""
    try:
        return _source(spec)
    except (UserError, UnavailableError):
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(f"dataset: {where}cannot be read: {error.strerror or error}") from error
    except RuntimeError as error:  # ~user without a home, folders in folders beyond all depth
        raise UserError(f"dataset: cannot be read: {error}") from error


def _source(spec: str | dict) -> Source:
    options = {} if isinstance(spec, str) else dict(spec)
    kind = _kind(spec)
    if kind in medmnist.REFUSED:
        raise UserError(
            f"dataset: {kind}: {medmnist.REFUSED[kind]}; sets it can take: "
            f"{', '.join(medmnist.NAMES)}"
        )
    if kind not in SOURCES:
        raise UserError(
            f"dataset: {kind!r} is not known; known: {', '.join(SOURCES)}{near(kind, SOURCES)}"
        )
    place, names = options.pop(kind, None), options.pop("class_names", None)
    copies, keep = options.pop("duplicates", "keep"), options.pop("keep", None)
    parameters = inspect.signature(SOURCES[kind]).parameters
    known = [*(name for name in parameters if name != "place"), "class_names", "duplicates", "keep"]
    for name in options:
        if name not in known:
            listed = ", ".join(known)
            raise UserError(
                f"dataset.{name}: {kind} takes no such option; known: {listed}{near(name, known)}"
            )
    for name, value in options.items():
        if parameters[name].annotation == str | None and not isinstance(value, str | None):
            raise UserError(f"dataset.{name}: {value!r} is no text; write a name or a path")
    options = {name: expanded(value, "dataset") for name, value in options.items()}
    if copies not in DUPLICATES:
        raise UserError(f"dataset.duplicates: {copies!r}; write {', '.join(DUPLICATES)}")
    if place is not None and not isinstance(place, str):
        raise UserError(f"dataset.{kind}: {place!r}; write where the set lies, as text")
    found = SOURCES[kind](expanded(place, "dataset"), **options)
    found = _told_apart(found)
    found = found if names is None else _named(found, names)
    found = found if keep is None else _kept(found, keep)
    shape = found.shape if copies != "drop" else None  # only reading the images will tell
    return replace(found, duplicates=copies, shape=shape)


def _told_apart(src: Source) -> Source:
    """The source, once its classes are. Raises UserError for names that differ in spaces alone,
    which are one class to whoever wrote them; upper and lower case may be meant, and is told.
    """
    by_word: dict[str, list[str]] = {}
    for name in src.classes:
        by_word.setdefault(" ".join(name.split()).casefold(), []).append(name)
    told = []
    for names in by_word.values():
        folded = {" ".join(name.split()): name for name in names}
        if len(folded) < len(names):
            one = next(name for name in names if folded[" ".join(name.split())] != name)
            other = folded[" ".join(one.split())]
            what = f"the classes {one!r} and {other!r} of {src.name} differ in spaces alone"
            raise UserError(f"dataset: {what}; give both one name")
        if len(names) > 1:
            listed = " and ".join(map(repr, names))
            told.append(f"the classes {listed} differ in upper and lower case alone: are they one?")
    return replace(src, told=(*src.told, *told)) if told else src


def _kind(spec: str | dict) -> str:
    """The kind of source: the key that is one, wherever it stands, else the first. Raises
    UserError.
    """
    if isinstance(spec, str):
        return spec
    kinds = [key for key in spec if key in SOURCES]
    if len(kinds) > 1:
        raise UserError(f"dataset: {kinds[0]} and {kinds[1]} are two sets; name one")
    return kinds[0] if kinds else next(iter(spec))


def _named(src: Source, names: object) -> Source:
    """The source under class names of the user's: a list in the order of the classes, where those
    are numbers in the order of the numbers, or a mapping from class to name.
    """
    wanted = len(src.classes)
    by_class = {normal(str(k)): v for k, v in names.items()} if isinstance(names, dict) else None
    given = list(names.values()) if isinstance(names, dict) else names
    given = given if isinstance(given, list) else None
    if given is None or not all(isinstance(name, str) and name.strip() for name in given):
        raise UserError(
            f"dataset.class_names: {names!r}; write a list of {wanted} names, in the order of the "
            "labels, or a mapping from each class to its name"
        )
    if by_class is not None:
        for has, lacks, what in (
            (src.classes, by_class, "is not in the mapping"),
            (by_class, src.classes, "is no class"),
        ):
            if missing := [name for name in has if name not in lacks]:
                shown = ", ".join(src.classes[:5]) + (", …" if wanted > 5 else "")
                right = f"name each of the {wanted} classes once: {shown}"
                raise UserError(f"dataset.class_names: {missing[0]!r} {what}; {right}")
    if len(given) != wanted or len(set(map(normal, given))) != wanted:
        raise UserError(
            f"dataset.class_names: {len(set(given))} different names; "
            f"{src.name} has {wanted} classes"
        )
    order = _in_order(src.classes) if by_class is None else list(src.classes)
    paired = dict(zip(order, given)) if by_class is None else by_class
    new = tuple(normal(paired[old]) for old in src.classes)
    shape = src.shape and replace(src.shape, classes=new)
    pairs = ", ".join(f"{old} is {paired[old]}" for old in order[:SHOWN])
    told = f"class names: {pairs}{', …' if wanted > SHOWN else ''}"
    return replace(
        src,
        classes=new,
        shape=shape,
        state={**src.state, "class_names": list(new)},
        told=(*src.told, told),
    )


def _kept(src: Source, keep: object) -> Source:
    """The source with so many training images of some classes: `keep` maps a class to a number."""
    if not isinstance(keep, dict) or not keep:
        right = f"write a mapping from classes to training images, such as {{{src.classes[0]}: 20}}"
        raise UserError(f"dataset.keep: {keep!r}; {right}")
    wanted: dict[int, int] = {}
    counts = src.shape.train_counts if src.shape else None
    for key, n in keep.items():
        name = normal(str(key))
        if name not in src.classes:
            right = near(name, src.classes) or f"; it has {', '.join(src.classes[:5])}"
            raise UserError(f"dataset.keep: {name!r} is no class of {src.name}{right}")
        label = src.classes.index(name)
        if label in wanted:
            raise UserError(f"dataset.keep: class {name!r} is there twice; name each once")
        if type(n) is not int or n < 1:
            right = "write a whole number of training images from 1 up"
            raise UserError(f"dataset.keep: class {name}: {n!r}; {right}")
        if counts and n > counts[label]:
            what = f"class {name!r} has {counts[label]:,} training images, {n:,} are to be kept"
            raise UserError(f"dataset.keep: {what}")
        wanted[label] = n
    listed = ", ".join(f"{n:,} of {src.classes[label]}" for label, n in wanted.items())
    shape = src.shape and replace(
        src.shape, train_counts=tuple(wanted.get(c, n) for c, n in enumerate(counts or ()))
    )
    state = {**src.state, "keep": {str(label): wanted[label] for label in sorted(wanted)}}
    told = (*src.told, f"training images that are kept: {listed}; all of the other classes")
    return replace(src, state=state, told=told, keep=wanted, shape=shape)


def _in_order(classes: tuple[str, ...]) -> list[str]:
    """The classes as one counts them: numbers as numbers. Raises UserError where some are numbers
    and some are not: a list would be paired with them by guessing.
    """
    numbers = {name: float(name) for name in classes if _NUMBER.fullmatch(name)}
    if not numbers:
        last: dict[str, str] = {}  # by a name without its numbers: class2 and class10 have one
        for name in classes:
            one = last.get(skeleton := re.sub(r"\d+", "#", name), name)
            last[skeleton] = name
            if _counts(one) > _counts(name):
                right = "write a mapping from each class to its name"
                what = f"{one!r} comes before {name!r} by its letters, and after it by its number"
                raise UserError(f"dataset.class_names: {what}; {right}")
        return list(classes)
    if len(numbers) < len(classes):
        one, other = next(iter(numbers)), next(name for name in classes if name not in numbers)
        raise UserError(
            f"dataset.class_names: classes are numbers ({one!r}) and words ({other!r}), "
            "which have no order; write a mapping from each class to its name"
        )
    ordered = sorted(classes, key=lambda name: numbers[name])
    for one, other in pairwise(ordered):
        if numbers[one] == numbers[other]:
            raise UserError(
                f"dataset.class_names: the classes {one!r} and {other!r} are one number; write a "
                "mapping from each class to its name"
            )
    return ordered


_NUMBER = re.compile(r"[-+]?\d{1,15}(\.\d{1,15})?", re.ASCII)


def _counts(name: str) -> list[tuple[int, str]]:
    """The numbers in a name, to compare: of any length."""
    every = (digits.lstrip("0") for digits in re.findall(r"\d+", name))
    return [(len(digits), digits) for digits in every]


def expanded(value: Any, where: str) -> Any:
    """A text with its $VARIABLES filled in; anything else as it is. Raises UserError for a variable
    that is not set, and for a URI that holds credentials.
    """
    filled = os.path.expandvars(value) if isinstance(value, str) else value
    if isinstance(filled, str) and (unset := re.search(r"\$\{?(\w+)", filled)):
        raise UserError(
            f"{where}: the environment variable {unset[1]} is not set; "
            "set it to what the spec needs there"
        )
    if isinstance(filled, str) and holds_credentials(word := as_one_word(filled)):
        right = "which do not belong in a spec; use the environment"
        raise UserError(f"{where}: {redacted(word)} holds credentials, {right}")
    return filled


def lookup(store: Store, key: str) -> Dataset | None:
    """The ingested set of the source with this key, or None. Raises DocumentError, StoreError."""
    name = layout.dataset(key)
    content = documents.read(store, name, documents.DatasetRecord)
    if content is None:
        return None
    of = content.shape
    shape = Shape(
        tuple(of.classes), of.height, of.width, of.channels,
        tuple(of.train_counts), tuple(of.test_counts), tuple(of.val_counts),
    )  # fmt: skip
    refs = {
        split: tuple(shards.ref(item.manifest, item) for item in getattr(content, split))
        for split in SPLITS
    }
    labels = {
        split: LabelsRef(found.data, found.checksum, found.n)
        for split, found in content.labels.items()
    }
    return Dataset(
        content.name, content.fingerprint, shape, refs["train"], refs["test"], name,
        refs["val"], labels, tuple(content.broken), content.duplicates, tuple(content.skipped),
        tuple(content.class_ids), tuple(content.told), tuple(content.repeated),
        tuple(content.repeated_counts), content.grouped,
    )  # fmt: skip


def labels(store: Store, dataset: Dataset, split: str) -> np.ndarray:
    """The labels of a split in the set's order, (N,) int64, without its images.

    Raises ShardCorrupt, naming the set's manifest, if they are not what ingest wrote.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if split not in dataset.label_refs:
        known = ", ".join(split for split in SPLITS if split in dataset.label_refs)
        raise ValueError(f"dataset {dataset.name} has no split {split!r}; it has {known}")
    ref = dataset.label_refs[split]
    try:
        found = load(store.get(ref.data))["labels"]
        checksum = labels_checksum(found)
    except FileNotFoundError as error:
        raise shards.ShardCorrupt(dataset.manifest, f"{ref.data} is gone") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise shards.ShardCorrupt(
            dataset.manifest, f"{ref.data} cannot be decoded: {error}"
        ) from error
    if checksum != ref.checksum:
        raise shards.ShardCorrupt(
            dataset.manifest, f"{ref.data} has not the checksum {ref.checksum[:12]}…"
        )
    return found


def labels_checksum(values: np.ndarray) -> str:
    """32 hexadecimal digits over labels (N,) int64."""
    return shards.checksum(np.empty((len(values), 0, 0, 0), np.uint8), values)
