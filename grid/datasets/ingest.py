"""From a source to shards, in units that are read side by side; memory is a few shards a worker,
whatever the size.

A unit is a range of the images of one split that makes one shard (or all shards of the split, where
its file can only be read from its start). Shards are cut as if no image was broken. If some turn
out to be, and the source allows it, the cut is made again without them: only shards from the first
broken image on are read twice, and the result is the same, byte for byte, as if those images had
never been there. A unit whose shards are in the store is not decoded again.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from typing import NamedTuple

import numpy as np

from equigrid.generators.common import pools
from equigrid.grid.datasets import catalogue, shards
from equigrid.grid.datasets.sources.base import SPLITS, Batch, Contents, Shape, Source, one_line
from equigrid.grid.errors import StoreError, UserError
from equigrid.grid.ids import canonical_json
from equigrid.grid.store import Store, layout

SHOWN = 3  # broken images named in an error
LISTED = 20  # duplicates listed in a manifest


class Unit(NamedTuple):
    """Images of one split at places `start` to `stop` - 1, `n` of which are not known to be broken.

    first: the number of the first shard they go into. what: the source's own description of the
    range.
    """

    split: str
    first: int
    start: int
    stop: int
    n: int
    what: tuple


class Outcome(NamedTuple):
    """What became of a unit: its shards and, per image, labels (n,) int64 and hashes (n,) of 16
    bytes.

    found: where more images are broken than was known, all of them, as (place, where and why), and
    nothing else.
    """

    unit: Unit
    refs: tuple[shards.ShardRef, ...]
    labels: np.ndarray
    hashes: np.ndarray
    found: tuple[tuple[int, str], ...] = ()


def ingest(
    store: Store,
    src: Source,
    *,
    run: Callable[[Callable, Iterable], Iterable] = map,
    report: Callable[[int, int], None] | None = None,
) -> catalogue.Dataset:
    """Writes the shards of `src` in the set's order, its labels and then its manifest.

    run: as `map`, in any order. report: told (images done, images in all) as units finish. Raises
    UserError or ValueError for bad data, StoreError.
    """
    contents = src.contents()
    left_out = layout.broken_images(src.shards_key)
    broken = {(split, place): text for split, place, text in store.get_json(left_out) or ()}
    while True:
        _refuse(src, broken)
        units = list(_units(contents, broken))
        work = partial(
            write_unit, store, src.shards_key, src.name, len(src.classes), contents.image,
            contents.read,
        )  # fmt: skip
        outcomes = list(_reported(run(work, units), sum(unit.n for unit in units), report))
        found = {
            (outcome.unit.split, place): text
            for outcome in outcomes
            for place, text in outcome.found
        }
        if not found:
            return _publish(store, src, contents, outcomes, broken)
        broken |= found
        store.put_json(left_out, [[*where, text] for where, text in sorted(broken.items())])


def _refuse(src: Source, broken: dict[tuple[str, int], str]) -> None:
    if len(broken) > src.allow_broken:
        texts = [f"{split}: {text}" for (split, _), text in sorted(broken.items())]
        listed = "; ".join(texts[:SHOWN]) + ("; …" if len(texts) > SHOWN else "")
        right = f"mend or remove them, or set allow_broken: {len(texts)}"
        raise ValueError(f"{src.name}: {len(texts)} broken images: {listed}; {right}")


def _units(contents: Contents, broken: dict[tuple[str, int], str]) -> Iterator[Unit]:
    size = pools.shard_size(*contents.image)
    for split, count in contents.counts.items():
        places = np.setdiff1d(np.arange(count), [place for at, place in broken if at == split])
        if not len(places):
            raise ValueError(f"the {split} split has no images that can be decoded")
        step = len(places) if contents.from_start else size
        for first in range(0, len(places), step):
            chosen = places[first : first + step]
            start, stop = int(chosen[0]), int(chosen[-1]) + 1
            yield Unit(
                split, first // size, start, stop, len(chosen), contents.unit(split, start, stop)
            )


def _reported(outcomes: Iterable[Outcome], total: int, report) -> Iterator[Outcome]:
    done = 0
    for outcome in outcomes:
        done += outcome.unit.n
        if report:
            report(done, total)
        yield outcome


# In a worker --------------------------------------------------------------------------------------


def write_unit(
    store: Store, shards_key: str, name: str, classes: int, image: tuple, read: Callable, unit: Unit
) -> Outcome:
    """Reads a unit and writes its shards, unless they are there. Raises ValueError for bad data,
    StoreError.
    """
    size = pools.shard_size(*image)
    manifests = [
        layout.dataset_shard(shards_key, unit.split, unit.first + j)
        for j in range(-(-unit.n // size))
    ]
    there = _written(store, manifests, unit)
    if there is not None:
        return there
    refs, labels, hashes, found = [], [], [], []
    for part in _in_shards(
        _checked(read(unit.what), name, unit.split, classes, image, found), size
    ):
        refs.append(_write(store, manifests[len(refs)], part, unit))
        labels.append(part.labels)
        hashes.append(_hashes(part.images))
    got, known = sum(map(len, labels)), unit.stop - unit.start - unit.n
    if got + len(found) != unit.stop - unit.start or len(found) < known:
        raise ValueError(f"{name}: {unit.split} changed while it was read; run again")
    if len(found) > known:
        return Outcome(unit, (), np.empty(0, np.int64), np.empty(0, "V16"), tuple(found))
    return Outcome(unit, tuple(refs), np.concatenate(labels), np.concatenate(hashes))


def _written(store: Store, manifests: list[str], unit: Unit) -> Outcome | None:
    """The unit's outcome from shards that an earlier run left, or None."""
    refs, labels, hashes = [], [], []
    for manifest in manifests:
        content = store.get_json(manifest)
        if content is None or content.get("places") != [unit.start, unit.stop]:
            return None
        refs.append(shards.ref(manifest, content))
        try:
            part = shards.read(store, refs[-1])
        except shards.ShardCorrupt:
            return None  # it is made again
        labels.append(part[1])
        hashes.append(_hashes(part[0]))
    if sum(map(len, labels)) != unit.n:
        return None
    return Outcome(unit, tuple(refs), np.concatenate(labels), np.concatenate(hashes))


def _checked(
    batches: Iterable[Batch], name: str, split: str, classes: int, image: tuple, found: list
):
    """The batches, once they are what the source said; their broken images are added to `found`."""
    for batch in batches:
        if batch.images.shape[1:] != image:
            raise ValueError(
                f"{name}: {split} has images of {batch.images.shape[1:]}, others are {image}"
            )
        wrong = batch.labels[(batch.labels < 0) | (batch.labels >= classes)]
        if len(wrong):
            raise ValueError(f"{name}: label {wrong[0]} in {split}; labels are 0 to {classes - 1}")
        found.extend(batch.broken)
        yield batch


def _in_shards(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches of any length, put together as whole shards; the last may be shorter."""
    held: deque[Batch] = deque()
    n = 0
    for batch in batches:
        held.append(batch)
        n += len(batch.labels)
        while n >= size:
            whole = _joined(held)
            yield Batch(whole.images[:size], whole.labels[:size])
            held = deque([Batch(whole.images[size:], whole.labels[size:])])
            n -= size
    if n:
        yield _joined(held)


def _joined(batches: Iterable[Batch]) -> Batch:
    batches = list(batches)
    if len(batches) == 1:
        return batches[0]
    return Batch(
        np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])
    )


def _write(store: Store, manifest: str, part: Batch, unit: Unit) -> shards.ShardRef:
    before = store.get_json(manifest)
    ref = shards.write(store, manifest, part.images, part.labels, places=[unit.start, unit.stop])
    if before and before["data"] != ref.data:
        store.delete(before["data"])
    return ref


def _hashes(images: np.ndarray) -> np.ndarray:
    """16 bytes per image: (n,)."""
    digests = [
        hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in images
    ]
    return np.frombuffer(b"".join(digests), "V16")


# Of the whole -------------------------------------------------------------------------------------


def _publish(
    store: Store, src: Source, contents: Contents, outcomes: list[Outcome], broken: dict
) -> catalogue.Dataset:
    by_split = {split: [] for split in SPLITS if split in contents.counts}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.unit[:3]):
        by_split[outcome.unit.split].append(outcome)
    refs = {
        split: [ref for outcome in parts for ref in outcome.refs]
        for split, parts in by_split.items()
    }
    labels = {
        split: np.concatenate([outcome.labels for outcome in parts])
        for split, parts in by_split.items()
    }
    hashes = {
        split: np.concatenate([outcome.hashes for outcome in parts])
        for split, parts in by_split.items()
    }
    shape = _shape(src, contents, labels)
    content = {
        "name": src.name, "fingerprint": _fingerprint(shape, refs), "shape": shape.facts(),
        **{split: [asdict(ref) for ref in refs[split]] for split in refs},
        "labels": {split: asdict(_write_labels(store, src, split, labels[split])) for split in labels},
        "broken": [f"{split}: {text}" for (split, _), text in sorted(broken.items())],
        "duplicates": duplicates(hashes), "skipped": list(contents.skipped), "class_ids": list(src.class_ids),
    }  # fmt: skip
    store.put_json(layout.dataset(src.key), content)
    return catalogue.lookup(store, src.key)


def _shape(src: Source, contents: Contents, labels: dict[str, np.ndarray]) -> Shape:
    counts = {
        split: np.bincount(values, minlength=len(src.classes)) for split, values in labels.items()
    }
    for split in ("train", "test"):
        if not counts[split].all():
            name = src.classes[int(counts[split].argmin())]
            raise ValueError(
                f"{src.name}: class {name!r} has no image in {split}; each needs some in train and test"
            )
    by_split = {
        f"{split}_counts": tuple(int(n) for n in values) for split, values in counts.items()
    }
    return Shape(src.classes, *contents.image, **by_split)


def _fingerprint(shape: Shape, refs: dict[str, list[shards.ShardRef]]) -> str:
    content = {
        "shape": shape.facts(),
        **{split: [ref.checksum for ref in parts] for split, parts in refs.items()},
    }
    return f"data-{hashlib.blake2b(canonical_json(content).encode(), digest_size=10).hexdigest()}"


def _write_labels(store: Store, src: Source, split: str, labels: np.ndarray) -> catalogue.LabelsRef:
    from safetensors.numpy import save

    checksum = catalogue.labels_checksum(labels)
    ref = catalogue.LabelsRef(
        layout.dataset_labels(src.key, split, checksum), checksum, len(labels)
    )
    store.put(ref.data, save({"labels": labels}))
    return ref


def duplicates(hashes: dict[str, np.ndarray]) -> dict:
    """Images of one split whose pixels are in another: `train_test` counts those of test that are
    in train, and so on.

    hashes: (n,) of 16 bytes by split. `first` lists [place in the one, place in the other] of some,
    by pair.
    """
    pairs = [
        pair
        for pair in (("train", "test"), ("train", "val"), ("val", "test"))
        if set(pair) <= set(hashes)
    ]
    counts, first = {}, {}
    for one, other in pairs:
        places = np.flatnonzero(np.isin(hashes[other], hashes[one]))
        counts[f"{one}_{other}"] = len(places)
        if len(places):
            same = [
                np.flatnonzero(hashes[one] == hashes[other][place])[0] for place in places[:LISTED]
            ]
            first[f"{one}_{other}"] = [[int(a), int(b)] for a, b in zip(same, places)]
    return {**counts, "first": first} if first else counts


# In Ray -------------------------------------------------------------------------------------------


def with_ray(
    store: Store, src: Source, report: Callable[[int, int], None] | None = None
) -> catalogue.Dataset:
    """`ingest` with a Ray task per unit. Ray must be connected.

    Where the images lie on this machine alone, so do the tasks. Raises UserError for bad data,
    StoreError.
    """
    import ray

    try:
        return ingest(store, src, run=partial(_ray_map, src), report=report)
    except (ray.exceptions.RayTaskError, ValueError, OSError) as error:
        cause = getattr(error, "cause", None) or error  # Ray wraps what a task raised
        if isinstance(cause, StoreError | UserError):
            raise cause from error
        if isinstance(cause, ValueError | OSError):
            raise UserError(f"dataset: {one_line(cause)}") from error
        raise


def again(store: Store, src: Source, dataset: dict | str) -> catalogue.Dataset:
    """Makes again what is wrong of an ingested set, in one process that takes no CPU: the slots
    have them all.

    dataset: as in the spec; a source itself may not travel. Raises UserError, StoreError.
    """
    import ray

    options = {"name": f"ingest:{src.name}", "num_cpus": 0, "max_retries": 3, **_placed(src)}
    try:
        return ray.get(ray.remote(_ingest_spec).options(**options).remote(store, dataset))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, StoreError):
            raise error.cause from error
        raise UserError(f"dataset: {one_line(error.cause)}") from error


def _ingest_spec(store: Store, dataset: dict | str) -> catalogue.Dataset:
    return ingest(store, catalogue.source(dataset))


def _placed(src: Source) -> dict:
    """Options of a task that reads the source: on this node if only this node has it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode

    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": OnNode(here, soft=False)} if src.local else {}


def _call(function: Callable, unit: Unit) -> Outcome:
    return function(unit)


def _ray_map(src: Source, function: Callable, units: list[Unit]) -> Iterator[Outcome]:
    """`map` by Ray tasks, as many at a time as twice the CPUs, in the order in which they
    finish.
    """
    import os

    import ray

    options = {"name": f"ingest:{src.name}", "num_cpus": 1, "max_retries": 3, **_placed(src)}
    cpus = ray.cluster_resources().get("CPU", 0)
    if src.local:
        here = ray.get_runtime_context().get_node_id()
        (cpus,) = (
            node["Resources"].get("CPU", 0) for node in ray.nodes() if node["NodeID"] == here
        )
    else:  # what a server does not answer now it may answer soon
        options["retry_exceptions"] = [OSError]
    if not cpus:  # a head node that takes no tasks: they are waited for here alone, a few at a time
        options["num_cpus"], cpus = 0, os.cpu_count()
    task = ray.remote(_call).options(**options)
    waiting, running = deque(units), []
    try:
        while waiting or running:
            while waiting and len(running) < 2 * cpus:
                running.append(task.remote(function, waiting.popleft()))
            (ready,), running = ray.wait(running, num_returns=1)
            yield ray.get(ready)
    finally:
        for ref in running:
            ray.cancel(ref)
