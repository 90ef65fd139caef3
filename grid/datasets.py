"""Labelled image sets: how each is read, and the manifest of one that has been ingested to shards.

A source is a name (`digits`) or a kind, its place and options (`{parquet: PATH, label: fine_label}`); `SOURCES` maps
the kind to a function from the place and the options to a `Source`. A source is read once, by `ingest`;
everything later works on shards.
"""

import hashlib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np

from generators import pools
from grid import shards, subsets
from grid.ids import canonical_json, content_id
from grid.spec import SpecError, near
from grid.store import Store

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Shape:
    """What planning needs to know of a set: sizes and class counts per split."""

    classes: tuple[str, ...]
    height: int
    width: int
    channels: int
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]

    @property
    def n_train(self) -> int:
        return sum(self.train_counts)

    @property
    def n_test(self) -> int:
        return sum(self.test_counts)


@dataclass(frozen=True)
class Source:
    """A set before it is ingested.

    name: for tables and figures. state: what tells that the source is unchanged (paths, sizes, times, versions).
    shape: the set's shape where it is known without reading it. read: split -> (images (N, H, W, C) uint8,
    labels (N,) int64) in chunks, in the set's own order. classes: the classes' names.
    """

    name: str
    state: dict
    classes: tuple[str, ...]
    read: Callable[[str], Iterator[tuple[np.ndarray, np.ndarray]]]
    shape: Shape | None = None

    @property
    def key(self) -> str:
        """Names the place and state of the source, to remember its fingerprint by; no part of any other id."""
        return content_id("ingest", {"state": self.state, "format": shards.FORMAT_VERSION})


@dataclass(frozen=True)
class Dataset:
    """An ingested set. `fingerprint` follows from the images, labels and class names alone."""

    name: str
    fingerprint: str
    shape: Shape
    train: tuple[shards.ShardRef, ...]
    test: tuple[shards.ShardRef, ...]
    manifest: str


def source(spec: str | dict) -> Source:
    """The source that a spec's `dataset` names. Raises SpecError."""
    options = {} if isinstance(spec, str) else dict(spec)
    kind = spec if isinstance(spec, str) else next(iter(spec))
    if kind not in SOURCES:
        raise SpecError(f"dataset: {kind!r} is not known; known: {', '.join(SOURCES)}{near(kind, SOURCES)}")
    place = options.pop(kind, None)
    known = list(inspect.signature(SOURCES[kind]).parameters)[1:]
    for name in options:
        if name not in known:
            raise SpecError(f"dataset.{name}: {kind} takes no such option; known: {', '.join(known) or 'none'}")
    return SOURCES[kind](_expanded(place), **options)


def _expanded(place):
    """The place with $VARIABLES filled in."""
    filled = os.path.expandvars(place) if isinstance(place, str) else place
    if isinstance(filled, str) and (unset := re.search(r"\$\{?(\w+)", filled)):
        raise SpecError(f"dataset: the environment variable {unset[1]} is not set; set it to where the images are")
    return filled


def manifest_name(key: str) -> str:
    return f"datasets/{key}/dataset.json"


def lookup(store: Store, key: str) -> Dataset | None:
    """The ingested set of the source with this key, or None."""
    name = manifest_name(key)
    content = store.get_json(name)
    if content is None:
        return None
    shape = Shape(**{k: tuple(v) if isinstance(v, list) else v for k, v in content["shape"].items()})
    refs = {split: tuple(shards.ShardRef(**item) for item in content[split]) for split in SPLITS}
    return Dataset(content["name"], content["fingerprint"], shape, refs["train"], refs["test"], name)


def ingest(store: Store, src: Source) -> Dataset:
    """Reads `src` once, writes its shards in the set's order and then its manifest."""
    refs, counts, size = {}, {}, None
    for split in SPLITS:
        refs[split], counts[split] = [], np.zeros(len(src.classes), dtype=np.int64)
        for j, (images, labels) in enumerate(_in_shards(src.read(split))):
            size = size or images.shape[1:]
            _check(src, split, images, labels, size)
            counts[split] += np.bincount(labels, minlength=len(src.classes))
            refs[split].append(shards.write(store, f"datasets/{src.key}/{split}-{j:05d}.json", images, labels))
        if not refs[split]:
            raise ValueError(f"dataset {src.name}: the {split} split has no images")
    height, width, channels = size
    by_split = {f"{split}_counts": tuple(int(n) for n in counts[split]) for split in SPLITS}
    shape = Shape(src.classes, height, width, channels, **by_split)
    content = {split: [asdict(ref) for ref in refs[split]] for split in SPLITS}
    facts = {"name": src.name, "fingerprint": _fingerprint(shape, refs), "shape": asdict(shape)}
    store.put_json(manifest_name(src.key), {**facts, **content})
    return lookup(store, src.key)


def _fingerprint(shape: Shape, refs: dict) -> str:
    content = {"shape": asdict(shape), **{split: [ref.checksum for ref in refs[split]] for split in SPLITS}}
    return f"data-{hashlib.blake2b(canonical_json(content).encode(), digest_size=10).hexdigest()}"


def _check(src: Source, split: str, images: np.ndarray, labels: np.ndarray, size: tuple) -> None:
    if images.shape[1:] != size:
        raise ValueError(f"dataset {src.name}: {split} has images of {images.shape[1:]}, others are {size}")
    wrong = labels[(labels < 0) | (labels >= len(src.classes))]
    if len(wrong):
        raise ValueError(f"dataset {src.name}: label {wrong[0]} in {split}; labels are 0 to {len(src.classes) - 1}")


def _in_shards(chunks: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of any size, put together as whole shards; the last may be shorter."""
    images, labels, held = [], [], 0
    for more_images, more_labels in chunks:
        images.append(more_images)
        labels.append(np.asarray(more_labels, dtype=np.int64))
        held += len(more_labels)
        size = pools.shard_size(*more_images.shape[1:])
        if held >= size:
            all_images, all_labels = np.concatenate(images), np.concatenate(labels)
            whole = held - held % size
            for start in range(0, whole, size):
                yield all_images[start : start + size], all_labels[start : start + size]
            images, labels, held = [all_images[whole:]], [all_labels[whole:]], held - whole
    if held:
        yield np.concatenate(images), np.concatenate(labels)


# Sources ---------------------------------------------------------------------------------------------------

DIGITS_TEST = 597  # of 1,797, which leaves 1,200 to train on


def digits(place: str | None = None) -> Source:
    """scikit-learn's handwritten digits: 1,797 real images of 8×8 in 17 grey levels (0 to 16), ten classes.

    The set has no split of its own. Ours is fixed: the last 597 places of the stratified order with seed 0 are
    the test set. Its counts are facts about the file that scikit-learn ships, so planning need not read it.
    """
    if place is not None:
        raise SpecError(f"dataset: digits takes no place, got {place!r}; write dataset: digits")
    labels_total = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
    train = subsets.subset_counts(labels_total, sum(labels_total) - DIGITS_TEST)
    shape = Shape(
        classes=tuple("0123456789"),
        height=8,
        width=8,
        channels=1,
        train_counts=tuple(int(n) for n in train),
        test_counts=tuple(int(n) for n in np.asarray(labels_total) - train),
    )
    state = {"source": "digits", "scikit-learn": version("scikit-learn"), "split": 1}
    return Source("digits", state, shape.classes, _read_digits, shape)


def _read_digits(split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int64)
    places = subsets.order(labels, seed=0)
    chosen = np.sort(places[:-DIGITS_TEST] if split == "train" else places[-DIGITS_TEST:])
    images = np.rint(grey.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    yield images[chosen], labels[chosen]


def npz(place: str | None) -> Source:
    """An .npz file in MedMNIST's layout: train_images, train_labels, test_images, test_labels.

    Images are uint8 (N, H, W) or (N, H, W, C) with 1 or 3 channels; labels are 0 to k-1, as (N,) or (N, 1).
    """
    from pathlib import Path

    path = Path(place or "").expanduser()
    if not place or not path.is_file():
        raise SpecError(f"dataset: npz: {place!r} is no file; name an .npz with train_images, train_labels, test_…")
    facts = path.stat()
    state = {"source": "npz", "path": str(path.resolve()), "bytes": facts.st_size, "modified_ns": facts.st_mtime_ns}
    with np.load(path, allow_pickle=False) as arrays:
        needed = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]
        if absent := [name for name in needed if name not in arrays]:
            raise SpecError(f"dataset: npz: {place} has no {absent[0]}; it has {', '.join(arrays.files) or 'nothing'}")
        count = int(max(arrays[f"{split}_labels"].max() for split in SPLITS)) + 1
    classes = tuple(str(c) for c in range(count))
    return Source(path.stem, state, classes, lambda split: _read_npz(path, split))


def _read_npz(path, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    with np.load(path, allow_pickle=False) as arrays:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    if images.dtype != np.uint8:
        raise ValueError(f"{path}: {split}_images are {images.dtype}; they must be uint8, 0 to 255")
    images = images[..., None] if images.ndim == 3 else images
    yield images, labels.reshape(len(images)).astype(np.int64)


def parquet(
    place: str | None,
    image: str | None = None,
    label: str | None = None,
    size: int | None = None,
    allow_broken: int = 0,
) -> Source:
    """Hugging Face's Parquet layout: files `train-*.parquet` and `test-*.parquet` in a folder or under a URI.

    image: the column of structs with `bytes` (encoded images); label: the column of integers 0 to k-1; each may be
    left out where there is one candidate. size: resize the short side to it (bicubic, antialiased) and crop the
    centre; without it all images must have one size. allow_broken: images that may fail to decode; they are left out.
    """
    from grid.images import ParquetFiles

    return ParquetFiles(place, image=image, label=label, size=size, allow_broken=allow_broken).source()


SOURCES: dict[str, Callable[..., Source]] = {"digits": digits, "npz": npz, "parquet": parquet}
