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

import numpy as np

from equigrid.grid.datasets import shards
from equigrid.grid.datasets.sources import medmnist
from equigrid.grid.datasets.sources.base import SPLITS, Shape, Source
from equigrid.grid.datasets.sources.cifar10 import cifar10
from equigrid.grid.datasets.sources.digits import digits
from equigrid.grid.datasets.sources.folder import imagefolder
from equigrid.grid.datasets.sources.imagenet import KINDS as IMAGENET
from equigrid.grid.datasets.sources.npz import npz
from equigrid.grid.datasets.sources.parquet import parquet
from equigrid.grid.errors import UserError, near
from equigrid.grid.store import Store, layout

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "cifar10": cifar10,
    **{name: partial(medmnist.medmnist, name) for name in medmnist.NAMES},
    **IMAGENET,
    "imagefolder": imagefolder,
    "parquet": parquet,
    "npz": npz,
}


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
    images. class_ids: WordNet ids, where the classes have some.
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

    @property
    def warnings(self) -> list[str]:
        """What a user should know of the set, a line each."""
        lines = []
        for pair, n in self.duplicates.items():
            if pair != "first" and n:
                first, second = pair.split("_")
                total = self.label_refs[second].n
                lines.append(
                    f"{self.name}: {n:,} of {total:,} {second} images are in {first} too, pixel by pixel"
                )
        if self.broken:
            lines.append(
                f"{self.name}: {len(self.broken):,} broken images are left out, such as {self.broken[0]}"
            )
        if self.skipped:
            lines.append(
                f"{self.name}: {len(self.skipped):,} files are no images, such as {self.skipped[0]}"
            )
        return lines


def source(spec: str | dict) -> Source:
    """The source that a spec's `dataset` names. Raises UserError."""
    options = {} if isinstance(spec, str) else dict(spec)
    kind = spec if isinstance(spec, str) else next(iter(spec))
    if kind in medmnist.REFUSED:
        raise UserError(
            f"dataset: {kind}: {medmnist.REFUSED[kind]}; sets it can take: {', '.join(medmnist.NAMES)}"
        )
    if kind not in SOURCES:
        raise UserError(
            f"dataset: {kind!r} is not known; known: {', '.join(SOURCES)}{near(kind, SOURCES)}"
        )
    place, names = options.pop(kind, None), options.pop("class_names", None)
    known = [
        *(name for name in inspect.signature(SOURCES[kind]).parameters if name != "place"),
        "class_names",
    ]
    for name in options:
        if name not in known:
            listed = ", ".join(known)
            raise UserError(
                f"dataset.{name}: {kind} takes no such option; known: {listed}{near(name, known)}"
            )
    options = {name: expanded(value, "dataset") for name, value in options.items()}
    found = SOURCES[kind](expanded(place, "dataset"), **options)
    return found if names is None else _named(found, names)


def _named(src: Source, names) -> Source:
    """The source under class names of the user's: for sets that know their classes by number
    alone.
    """
    wanted = len(src.classes)
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            f"dataset.class_names: {names!r}; write a list of {wanted} names, in the order of the labels"
        )
    if len(names) != wanted or len(set(names)) != wanted:
        raise UserError(
            f"dataset.class_names: {len(set(names))} different names; {src.name} has {wanted} classes"
        )
    shape = src.shape and replace(src.shape, classes=tuple(names))
    return replace(
        src, classes=tuple(names), shape=shape, state={**src.state, "class_names": names}
    )


def expanded(value, where: str):
    """A text with its $VARIABLES filled in; anything else as it is. Raises UserError for a variable
    that is not set.
    """
    filled = os.path.expandvars(value) if isinstance(value, str) else value
    if isinstance(filled, str) and (unset := re.search(r"\$\{?(\w+)", filled)):
        raise UserError(
            f"{where}: the environment variable {unset[1]} is not set; set it to what the spec needs there"
        )
    return filled


def lookup(store: Store, key: str) -> Dataset | None:
    """The ingested set of the source with this key, or None."""
    name = layout.dataset(key)
    content = store.get_json(name)
    if content is None:
        return None
    shape = Shape(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in content["shape"].items()}
    )
    refs = {
        split: tuple(shards.ShardRef(**item) for item in content.get(split, ())) for split in SPLITS
    }
    return Dataset(
        content["name"], content["fingerprint"], shape, refs["train"], refs["test"], name, refs["val"],
        {split: LabelsRef(**item) for split, item in content["labels"].items()},
        tuple(content["broken"]), content["duplicates"], tuple(content["skipped"]), tuple(content["class_ids"]),
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
    except FileNotFoundError as error:
        raise shards.ShardCorrupt(dataset.manifest, f"{ref.data} is gone") from error
    except (SafetensorError, KeyError) as error:
        raise shards.ShardCorrupt(
            dataset.manifest, f"{ref.data} cannot be decoded: {error}"
        ) from error
    if labels_checksum(found) != ref.checksum:
        raise shards.ShardCorrupt(
            dataset.manifest, f"{ref.data} has not the checksum {ref.checksum[:12]}…"
        )
    return found


def labels_checksum(values: np.ndarray) -> str:
    """32 hexadecimal digits over labels (N,) int64."""
    return shards.checksum(np.empty((len(values), 0, 0, 0), np.uint8), values)


manifest_name = layout.dataset
