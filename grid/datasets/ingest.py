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
from equigrid.generators.common.rng import permutation, seed_of
from equigrid.grid.datasets import catalogue, shards
from equigrid.grid.datasets.sources.base import (
    LEVELS,
    SPLITS,
    Batch,
    Contents,
    Shape,
    Source,
    Told,
    one_line,
)
from equigrid.grid.errors import UnavailableError, UserError
from equigrid.grid.ids import canonical_json
from equigrid.grid.store import Store, documents, layout

SHOWN = 3  # broken images named in an error
LISTED = 20  # duplicates listed in a manifest
NOT_KEPT = "is not kept"  # why an image is left out
KEEP_SEED = seed_of(0, "kept images")


class Unit(NamedTuple):
    """Images of one split at places `start` to `stop` - 1, `n` of which are not known to be broken.

    first: the number of the first shard they go into. what: the source's own description of the
    range. left_out: places of images that decode and are left out all the same, as copies.
    """

    split: str
    first: int
    start: int
    stop: int
    n: int
    what: tuple
    left_out: tuple[int, ...] = ()


class Outcome(NamedTuple):
    """What became of a unit: its shards and, per image, labels (n,) int64 and hashes (n,) of 16
    bytes.

    found: where more images are broken than was known, all of them, as (place, where and why), and
    nothing else. told: what decoding passed over.
    """

    unit: Unit
    refs: tuple[shards.ShardRef, ...]
    labels: np.ndarray
    hashes: np.ndarray
    found: tuple[tuple[int, str], ...] = ()
    told: Told = Told()


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
    broken_name, copies_name = layout.broken_images(src.shards_key), layout.copies(src.shards_key)
    broken, copies = _remembered(store, broken_name), _remembered(store, copies_name)
    while True:
        _refuse(src, broken)
        units = list(_units(contents, broken, copies))
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
        if found:
            broken |= found
            _remember(store, broken_name, broken)
            continue
        by_split = _by_split(outcomes, contents, {*broken, *copies})
        found = copies_to_leave_out(src, by_split) or beyond_what_is_kept(src, by_split)
        if not found:
            return _publish(store, src, contents, by_split, broken, copies)
        copies |= found
        _remember(store, copies_name, copies)


def _remembered(store: Store, name: str) -> dict[tuple[str, int], str]:
    found = documents.readable(store, name, documents.Places)
    return {(split, place): text for split, place, text in found.places} if found else {}


def _remember(store: Store, name: str, places: dict[tuple[str, int], str]) -> None:
    store.put_json(name, {"places": [[*where, text] for where, text in sorted(places.items())]})


def _refuse(src: Source, broken: dict[tuple[str, int], str]) -> None:
    if len(broken) > src.allow_broken:
        texts = [f"{split}: {text}" for (split, _), text in sorted(broken.items())]
        listed = "; ".join(texts[:SHOWN]) + ("; …" if len(texts) > SHOWN else "")
        right = f"mend or remove them, or set allow_broken: {len(texts)}"
        raise ValueError(f"{src.name}: {len(texts)} broken images: {listed}; {right}")


def _units(
    contents: Contents, broken: dict[tuple[str, int], str], copies: dict[tuple[str, int], str]
) -> Iterator[Unit]:
    size = pools.shard_size(*contents.image)
    for split, count in contents.counts.items():
        left_out = [place for at, place in copies if at == split]
        not_stored = [*(place for at, place in broken if at == split), *left_out]
        places = np.setdiff1d(np.arange(count), not_stored)
        if not len(places):
            raise ValueError(f"the {split} split has no images that can be decoded")
        step = len(places) if contents.from_start else size
        for first in range(0, len(places), step):
            chosen = places[first : first + step]
            start, stop = int(chosen[0]), int(chosen[-1]) + 1
            yield Unit(
                split, first // size, start, stop, len(chosen), contents.unit(split, start, stop),
                tuple(sorted(place for place in left_out if start <= place < stop)),
            )  # fmt: skip


def _reported(
    outcomes: Iterable[Outcome], total: int, report: Callable[[int, int], None] | None
) -> Iterator[Outcome]:
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
    refs: list[shards.ShardRef] = []
    found: list[tuple[int, str]] = []
    labels, hashes, told = [], [], Told()
    for part in _in_shards(_checked(read(unit.what), name, unit, classes, image, found), size):
        refs.append(_write(store, manifests[len(refs)], part, unit))
        told = told.with_(part.told)
        labels.append(part.labels)
        hashes.append(_hashes(part.images))
    got, known = sum(map(len, labels)), unit.stop - unit.start - unit.n - len(unit.left_out)
    if got + len(found) + len(unit.left_out) != unit.stop - unit.start or len(found) < known:
        raise ValueError(f"{name}: {unit.split} changed while it was read; run again")
    if len(found) > known:
        return Outcome(unit, (), np.empty(0, np.int64), np.empty(0, "V16"), tuple(found))
    return Outcome(unit, tuple(refs), np.concatenate(labels), np.concatenate(hashes), (), told)


def _written(store: Store, manifests: list[str], unit: Unit) -> Outcome | None:
    """The unit's outcome from shards that an earlier run left, or None."""
    refs, labels, hashes, told = [], [], [], Told()
    for manifest in manifests:
        content = documents.readable(store, manifest, documents.DatasetShard)
        if content is None or content.places != [unit.start, unit.stop]:
            return None
        refs.append(shards.ref(manifest, content))
        told = told.with_(Told(*(content.told or ())))
        try:
            part = shards.read(store, refs[-1])
        except shards.ShardCorrupt:
            return None  # it is made again
        labels.append(part[1])
        hashes.append(_hashes(part[0]))
    if sum(map(len, labels)) != unit.n:
        return None
    return Outcome(unit, tuple(refs), np.concatenate(labels), np.concatenate(hashes), (), told)


def _checked(
    batches: Iterable[Batch], name: str, unit: Unit, classes: int, image: tuple, found: list
) -> Iterator[Batch]:
    """The batches, once they are what the source said, without the unit's `left_out`; their broken
    images are added to `found`.
    """
    start = unit.start
    for batch in batches:
        if batch.images.shape[1:] != image:
            raise ValueError(
                f"{name}: {unit.split} has images of {batch.images.shape[1:]}, others are {image}"
            )
        wrong = batch.labels[(batch.labels < 0) | (batch.labels >= classes)]
        if len(wrong):
            raise ValueError(
                f"{name}: label {wrong[0]} in {unit.split}; labels are 0 to {classes - 1}"
            )
        found.extend(batch.broken)
        stop = start + len(batch.labels) + len(batch.broken)
        if unit.left_out:
            places = np.setdiff1d(np.arange(start, stop), [place for place, _ in batch.broken])
            kept = ~np.isin(places, unit.left_out)
            batch = batch._replace(images=batch.images[kept], labels=batch.labels[kept])
        start = stop
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
            yield Batch(whole.images[:size], whole.labels[:size], told=whole.told)
            held = deque([Batch(whole.images[size:], whole.labels[size:])])
            n -= size
    if n:
        yield _joined(held)


def _joined(batches: Iterable[Batch]) -> Batch:
    batches = list(batches)
    if len(batches) == 1:
        return batches[0]
    told = Told()
    for batch in batches:
        told = told.with_(batch.told)
    images, labels = ([getattr(b, name) for b in batches] for name in ("images", "labels"))
    return Batch(np.concatenate(images), np.concatenate(labels), told=told)


def _write(store: Store, manifest: str, part: Batch, unit: Unit) -> shards.ShardRef:
    before = documents.readable(store, manifest, documents.DatasetShard)
    facts: dict[str, list] = {"places": [unit.start, unit.stop]}
    facts |= {"told": list(part.told)} if part.told != Told() else {}
    ref = shards.write(store, manifest, part.images, part.labels, **facts)
    if before and before.data != ref.data:
        store.delete(before.data)
    return ref


def _hashes(images: np.ndarray) -> np.ndarray:
    """16 bytes per image: (n,)."""
    return np.frombuffer(b"".join(map(hash_of, images)), "V16")


def hash_of(image: np.ndarray) -> bytes:
    """16 bytes that tell an image's pixels (H, W, C) uint8 from all others of its size."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


# Of the whole -------------------------------------------------------------------------------------


class Split(NamedTuple):
    """All of a split's images that are stored: places in the source, labels, hashes of 16 bytes."""

    refs: list[shards.ShardRef]
    places: np.ndarray
    labels: np.ndarray
    hashes: np.ndarray
    told: Told


def _by_split(
    outcomes: list[Outcome], contents: Contents, not_stored: set[tuple[str, int]]
) -> dict[str, Split]:
    parts: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.unit[:3]):
        parts.setdefault(outcome.unit.split, []).append(outcome)
    found = {}
    for split in (split for split in SPLITS if split in parts):
        own, told = parts[split], Told()
        for outcome in own:
            told = told.with_(outcome.told)
        found[split] = Split(
            [ref for outcome in own for ref in outcome.refs],
            np.setdiff1d(
                np.arange(contents.counts[split]),
                [place for at, place in not_stored if at == split],
            ),
            np.concatenate([outcome.labels for outcome in own]),
            np.concatenate([outcome.hashes for outcome in own]),
            told,
        )
    return found


def _publish(
    store: Store,
    src: Source,
    contents: Contents,
    by_split: dict[str, Split],
    broken: dict[tuple[str, int], str],
    copies: dict[tuple[str, int], str],
) -> catalogue.Dataset:
    refs = {split: part.refs for split, part in by_split.items()}
    labels = {split: part.labels for split, part in by_split.items()}
    shape = _shape(src, contents, labels)
    label_refs = {split: _write_labels(store, src, split, own) for split, own in labels.items()}
    repeated = repeats(by_split["train"].hashes)
    counts = np.bincount(labels["train"][repeated], minlength=len(src.classes))
    told = [*src.told, *_told(src, by_split), *_left_out(copies)]
    content = {
        "name": src.name, "fingerprint": _fingerprint(shape, refs, len(repeated)),
        "shape": shape.facts(), **{split: [asdict(ref) for ref in refs[split]] for split in refs},
        "labels": {split: asdict(ref) for split, ref in label_refs.items()},
        "broken": [f"{split}: {text}" for (split, _), text in sorted(broken.items())],
        "duplicates": duplicates({split: part.hashes for split, part in by_split.items()}, labels),
        "skipped": list(contents.skipped), "class_ids": list(src.class_ids), "told": told,
        "left_out": [
            f"{split}: {text}" for (split, _), text in sorted(copies.items()) if text != NOT_KEPT
        ],
        "repeated": repeated.tolist(), "repeated_counts": counts.tolist(), "grouped": src.grouped,
    }  # fmt: skip
    store.put_json(layout.dataset(src.key), content)
    found = catalogue.lookup(store, src.key)
    assert found is not None, "it was written just now"
    return found


def _told(src: Source, by_split: dict[str, Split]) -> list[str]:
    told = Told()
    for part in by_split.values():
        told = told.with_(part.told)
    return told_of(src, told)


def told_of(src: Source, told: Told) -> list[str]:
    """What decoding passed over in the whole set, a line each."""
    lines = []
    if told.paged:
        what = f"{told.paged:,} images have several pages or frames, such as {told.first}"
        page = src.state.get("page")
        first = "the first of each is taken; page: 2 would take the second"
        lines.append(f"{what}: {f'page {page} of each is taken' if page else first}")
    low, high = told.low, told.high
    if low is None or high is None or "range" in src.state or told.faint <= told.deep / 2:
        return lines
    used = f"{low:,} to {high:,} of {LEVELS:,} levels are used by {told.faint:,} images"
    above = 2 ** max(1, high.bit_length()) - 1
    right = "save them with 8 bits" if told.coloured else f"set range: [0, {above}]"
    lines.append(f"{used}: stored with hardly any contrast; {right}")
    return lines


def _left_out(copies: dict[tuple[str, int], str]) -> list[str]:
    copies = {place: text for place, text in copies.items() if text != NOT_KEPT}
    if not copies:
        return []
    first = min(copies)
    return [f"{len(copies):,} copies are left out, such as {first[0]}: {copies[first]}"]


def _shape(src: Source, contents: Contents, labels: dict[str, np.ndarray]) -> Shape:
    counts = {
        split: np.bincount(values, minlength=len(src.classes)) for split, values in labels.items()
    }
    for split in ("train", "test"):
        if not counts[split].all():
            name = src.classes[int(counts[split].argmin())]
            raise ValueError(
                f"{src.name}: class {name!r} has no image in {split}; "
                "each needs some in train and test"
            )
    by_split = {split: tuple(int(n) for n in values) for split, values in counts.items()}
    return Shape.of(src.classes, contents.image, by_split)


def _fingerprint(shape: Shape, refs: dict[str, list[shards.ShardRef]], repeated: int) -> str:
    """repeated: training images that are there already, which changes the order of subsets."""
    content = {
        "shape": shape.facts(),
        **{split: [ref.checksum for ref in parts] for split, parts in refs.items()},
        **({"repeated": "once"} if repeated else {}),
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


def repeats(hashes: np.ndarray) -> np.ndarray:
    """Places of images whose pixels an earlier one has, ascending. hashes: (n,) of 16 bytes."""
    _, first = np.unique(hashes, return_index=True)
    return np.setdiff1d(np.arange(len(hashes)), first)


def copies_to_leave_out(src: Source, by_split: dict[str, Split]) -> dict[tuple[str, int], str]:
    """The images that are left out as copies of others, with the reason: by (split, place in it).

    Of copies within train, the first stays; of copies on two sides, the one that is tested on: for
    `duplicates: drop`, and on two sides always where the split was made here. Raises ValueError for
    `duplicates: refuse`.
    """
    if src.duplicates == "keep" and not src.split_here:
        return {}
    found: dict[tuple[str, int], str] = {}
    seen = np.empty(0, "V16")
    for split in ("test", "val", "train"):
        if split not in by_split:
            continue
        part = by_split[split]
        across = np.isin(part.hashes, seen)
        for i in np.flatnonzero(across):
            found[split, int(part.places[i])] = (
                f"image {part.places[i]} is held back for testing too"
            )
        if split == "train" and src.duplicates != "keep":
            for i in repeats(part.hashes):
                same = part.places[np.flatnonzero(part.hashes == part.hashes[i])[0]]
                found.setdefault(
                    (split, int(part.places[i])), f"image {part.places[i]} is image {same} again"
                )
        seen = np.concatenate([seen, part.hashes])
    if found and src.duplicates == "refuse":
        (split, _), text = min(found.items())
        right = "remove them, or set duplicates: drop, or keep"
        raise ValueError(f"{src.name}: {len(found):,} copies, such as {split}: {text}; {right}")
    return found


def beyond_what_is_kept(src: Source, by_split: dict[str, Split]) -> dict[tuple[str, int], str]:
    """The training images that `keep` leaves out: of each class all but the first in an order drawn
    from (class), the same in every store. Raises ValueError for a class that has fewer.
    """
    part = by_split["train"]
    found: dict[tuple[str, int], str] = {}
    for label, n in src.keep.items():
        own = part.places[part.labels == label]
        if len(own) < n:
            what = f"class {src.classes[label]!r} has {len(own):,} training images that differ"
            raise ValueError(f"{src.name}: keep: {what}, {n:,} are to be kept")
        order = permutation(KEEP_SEED, "kept", label, len(own))
        found |= {("train", int(place)): NOT_KEPT for place in own[order[n:]]}
    return found


def duplicates(hashes: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict:
    """Images whose pixels are there twice: `train_test` counts those of test that are in train, and
    so on; `train`, those of train that an earlier one of train has; `labels`, those of them that
    have another class there.

    hashes: (n,) of 16 bytes, labels: (n,) by split. `first` lists [place in the one, place in the
    other] of some, by pair.
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
    if len(again := repeats(hashes["train"])):
        _, earliest, which = np.unique(hashes["train"], return_index=True, return_inverse=True)
        same = earliest[which[again]]
        counts["train"] = len(again)
        first["train"] = [[int(a), int(b)] for a, b in zip(same[:LISTED], again[:LISTED])]
        if conflicts := int((labels["train"][same] != labels["train"][again]).sum()):
            counts["labels"] = conflicts
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
        if isinstance(cause, UnavailableError | UserError):
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
        if isinstance(error.cause, UnavailableError | UserError):
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
    waiting = deque(units)
    running: list[ray.ObjectRef] = []
    try:
        while waiting or running:
            while waiting and len(running) < 2 * cpus:
                running.append(task.remote(function, waiting.popleft()))
            (ready,), running = ray.wait(running, num_returns=1)
            yield ray.get(ready)
    finally:
        for ref in running:
            ray.cancel(ref)
