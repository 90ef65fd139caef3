"""Ingest: the same bytes in whatever order units are read, without the broken images, and never the
same work twice.
"""

import io
import json
import pickle
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from equigrid.grid.datasets import catalogue, ingest, shards
from equigrid.grid.errors import StoreError, UserError
from equigrid.grid.store import Store

TRAIN, TEST, VAL = 1300, 30, 20  # of 8×8: three shards of 512, the last shorter


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


PNGS = {split: [png(start + i) for i in range(n)] for split, start, n in
        (("train", 0, TRAIN), ("test", 10_000, TEST), ("validation", 20_000, VAL))}  # fmt: skip


def write(folder, *, without=(), broken=(), splits=("train", "test"), **changes) -> dict:
    """The set of PNGS, without the training images at some places, or with broken ones there."""
    folder.mkdir()
    for split in splits:
        rows = [
            (b"broken" if split == "train" and i in broken else data, i % 3)
            for i, data in enumerate(PNGS[split])
        ]
        rows = [row for i, row in enumerate(rows) if split != "train" or i not in without]
        rows = changes.get(split, rows)
        images = pa.array(
            [{"bytes": data} for data, _ in rows], pa.struct([("bytes", pa.binary())])
        )
        pq.write_table(
            pa.table({"image": images, "label": [label for _, label in rows]}),
            folder / f"{split}-0.parquet",
        )
    return {"parquet": str(folder)}


def files(store: Store) -> dict[str, bytes]:
    """Everything in a store, by name."""
    return {name: store.get(name) for name in store.list("datasets")}


def counted(src, reads: list):
    """The source, with every unit that is read noted in `reads`."""
    contents = src.contents()

    def read(unit):
        reads.append(unit)
        return contents.read(unit)

    return replace(src, contents=lambda: replace(contents, read=read))


def backwards(function, units):
    return [function(unit) for unit in reversed(list(units))]


def four_threads(function, units):
    with ThreadPool(4) as pool:
        return pool.map(function, units, chunksize=1)


@pytest.mark.parametrize("run", [backwards, four_threads])
def test_any_order_writes_the_same_bytes(tmp_path, store, run):
    src = catalogue.source(write(tmp_path / "set", splits=("train", "validation", "test")))
    first = ingest.ingest(store, src)
    other = Store(tmp_path / "other", create=True)
    assert ingest.ingest(other, src, run=run) == first
    assert files(other) == files(store)
    assert [ref.n for ref in first.train] == [512, 512, 276]
    assert first.shape == src.shape


def test_fingerprints_do_not_change_between_versions(store):
    assert (
        ingest.ingest(store, catalogue.source("digits")).fingerprint == "data-596ff5ae9c7a219f9d50"
    )


def test_a_val_split_is_part_of_the_fingerprint(tmp_path, store):
    with_val = ingest.ingest(
        store, catalogue.source(write(tmp_path / "a", splits=("train", "validation", "test")))
    )
    without = ingest.ingest(store, catalogue.source(write(tmp_path / "b")))
    assert with_val.train[0].checksum == without.train[0].checksum
    assert with_val.fingerprint != without.fingerprint
    assert (without.val, without.shape.val_counts) == ((), ())
    assert "val_counts" not in store.get(without.manifest).decode()


# Broken images ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken", [(0,), (600,), (1299,), (5, 511, 512, 1023, 1100), tuple(range(500, 530))]
)
def test_broken_images_leave_the_set_as_if_they_had_never_been_there(tmp_path, store, broken):
    clean = ingest.ingest(store, catalogue.source(write(tmp_path / "clean", without=broken)))
    src = catalogue.source(write(tmp_path / "set", broken=broken) | {"allow_broken": 40})
    dataset = ingest.ingest(store, src, run=backwards)
    assert dataset.fingerprint == clean.fingerprint
    assert [ref.checksum for ref in dataset.train] == [ref.checksum for ref in clean.train]
    assert len(dataset.broken) == len(broken)
    assert dataset.broken[-1].startswith(f"train: train-0.parquet row {broken[-1]} (")
    named = {ref.data for ref in dataset.train} | {ref.data for ref in dataset.test}
    here = {
        name for name in store.list(f"datasets/{src.shards_key}") if name.endswith(".safetensors")
    }
    assert here == named  # what the first cut had written is gone


def test_only_shards_from_the_first_broken_image_on_are_read_twice(tmp_path, store):
    src = catalogue.source(write(tmp_path / "set", broken=(600,)) | {"allow_broken": 1})
    reads = []
    ingest.ingest(store, counted(src, reads))
    assert [start for start, _ in reads] == [0, 512, 1024, 0, 512, 1025]


def test_too_many_broken_images_stop_the_ingest_and_keep_what_was_done(tmp_path, store):
    spec = write(tmp_path / "set", broken=(600, 700))
    with pytest.raises(
        ValueError,
        match="set: 2 broken images: train: train-0.parquet row 600 .*or set allow_broken: 2",
    ):
        ingest.ingest(store, catalogue.source(spec))
    reads = []
    strict = counted(catalogue.source(spec | {"allow_broken": 1}), reads)
    with pytest.raises(ValueError, match="2 broken images"):  # known by now
        ingest.ingest(store, strict)
    assert not reads
    dataset = ingest.ingest(store, counted(catalogue.source(spec | {"allow_broken": 2}), reads))
    assert dataset.shape.n_train == TRAIN - 2
    assert [start for start, _ in reads] == [512, 1026]
    # Without the permission it is not done.
    assert catalogue.lookup(store, catalogue.source(spec).key) is None


def test_a_class_that_broken_images_leave_empty(tmp_path, store):
    rows = [
        (data if i % 3 or i > 300 else b"broken", i % 3 if i <= 300 else 1)
        for i, data in enumerate(PNGS["train"])
    ]
    src = catalogue.source(write(tmp_path / "set", train=rows) | {"allow_broken": 101})
    with pytest.raises(
        ValueError, match="class '0' has no image in train; each needs some in train and test"
    ):
        ingest.ingest(store, src)


def test_a_source_that_changes_while_it_is_read(tmp_path, store):
    src = catalogue.source(write(tmp_path / "set"))
    contents = src.contents()
    shorter = replace(contents, counts={**contents.counts, "train": TRAIN + 5})
    with pytest.raises(ValueError, match="set: train changed while it was read; run again"):
        ingest.ingest(store, replace(src, contents=lambda: shorter))


# Resuming -----------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def killed_after(n):
    def run(function, units):
        for i, unit in enumerate(units):
            if i == n:
                raise Killed
            yield function(unit)

    return run


def test_a_killed_ingest_goes_on_where_it_was(tmp_path, store):
    src = catalogue.source(write(tmp_path / "set"))
    with pytest.raises(Killed):
        ingest.ingest(store, src, run=killed_after(2))
    assert catalogue.lookup(store, src.key) is None
    reads, other = [], Store(tmp_path / "other", create=True)
    resumed = ingest.ingest(store, counted(src, reads))
    assert [start for start, _ in reads] == [1024, 0]  # the third shard of train, and test
    assert resumed == ingest.ingest(other, src)
    assert files(other) == files(store)


def test_a_spoilt_shard_is_made_again(tmp_path, store):
    src = catalogue.source(write(tmp_path / "set"))
    dataset = ingest.ingest(store, src)
    store.put(dataset.train[1].data, store.get(dataset.train[0].data))
    store.delete(dataset.test[0].data)
    reads = []
    assert ingest.ingest(store, counted(src, reads)) == dataset
    assert [start for start, _ in reads] == [512, 0]
    assert len(shards.read(store, dataset.train[1])[1]) == 512


def test_progress_is_reported_in_images(tmp_path, store):
    told = []
    ingest.ingest(
        store,
        catalogue.source(write(tmp_path / "set")),
        report=lambda done, total: told.append((done, total)),
    )
    assert told == [(n, TRAIN + TEST) for n in (512, 1024, 1300, 1330)]


# Duplicates and labels ----------------------------------------------------------------------------


def test_images_that_are_in_two_splits_are_counted_listed_and_told(tmp_path, store):
    test = [
        (PNGS["test"][0], 0),
        (PNGS["train"][700], 1),
        (PNGS["test"][1], 2),
        (PNGS["train"][3], 0),
        (PNGS["train"][3], 0),
    ]
    val = [(PNGS["test"][1], 1), (PNGS["validation"][1], 0), (PNGS["train"][9], 2)]
    spec = write(
        tmp_path / "set", splits=("train", "validation", "test"), test=test, validation=val
    )
    dataset = ingest.ingest(store, catalogue.source(spec))
    assert dataset.duplicates == {
        "train_test": 3, "train_val": 1, "val_test": 1,
        "first": {"train_test": [[700, 1], [3, 3], [3, 4]], "train_val": [[9, 2]], "val_test": [[0, 2]]},
    }  # fmt: skip
    assert json.loads(store.get(dataset.manifest))["duplicates"] == dataset.duplicates
    assert dataset.warnings[0] == "set: 3 of 5 test images are in train too, pixel by pixel"
    clean = ingest.ingest(store, catalogue.source(write(tmp_path / "clean")))
    assert (clean.duplicates, clean.warnings) == ({"train_test": 0}, [])


def test_labels_need_no_image(tmp_path, store):
    dataset = ingest.ingest(store, catalogue.source(write(tmp_path / "set")))
    for ref in (*dataset.train, *dataset.test):
        store.delete(ref.data)
    found = catalogue.labels(store, dataset, "train")
    assert found.dtype == np.int64
    assert (found == np.arange(TRAIN) % 3).all()
    with pytest.raises(ValueError, match="dataset set has no split 'val'; it has train, test"):
        catalogue.labels(store, dataset, "val")


def test_wrong_labels_are_told(tmp_path, store):
    dataset = ingest.ingest(store, catalogue.source(write(tmp_path / "set")))
    name = dataset.label_refs["train"].data
    whole = store.get(name)
    store.put(name, whole[:-1] + b"\x01")
    with pytest.raises(shards.ShardCorrupt, match="has not the checksum"):
        catalogue.labels(store, dataset, "train")
    store.put(name, b"x")
    with pytest.raises(shards.ShardCorrupt, match="cannot be decoded"):
        catalogue.labels(store, dataset, "train")
    store.delete(name)
    with pytest.raises(shards.ShardCorrupt, match="is gone") as error:
        catalogue.labels(store, dataset, "train")
    assert error.value.name == dataset.manifest
    ingest.ingest(store, catalogue.source({"parquet": str(tmp_path / "set")}))
    assert store.get(name) == whole  # made again


# In Ray -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["digits", "npz", "imagefolder", "parquet"])
def test_what_reads_a_unit_travels_to_other_processes(tmp_path, spec):
    src = catalogue.source(spec if spec == "digits" else make(spec, tmp_path))
    contents = src.contents()
    unit = contents.unit("test", 1, 3)
    read, unit = pickle.loads(pickle.dumps((contents.read, unit)))
    batches = list(read(unit))
    assert sum(len(batch.labels) for batch in batches) == 2
    assert batches[0].images.dtype == np.uint8
    assert batches[0].labels.dtype == np.int64


def make(kind: str, folder: Path) -> dict:
    if kind == "parquet":
        return write(folder / "set")
    if kind == "npz":
        arrays = {}
        for split, n in (("train", 700), ("test", 30)):
            rng = np.random.default_rng(n)
            arrays[f"{split}_images"] = rng.integers(0, 256, (n, 8, 8), dtype=np.uint8)
            arrays[f"{split}_labels"] = np.arange(n) % 3
        np.savez(folder / "set.npz", **arrays)
        return {"npz": str(folder / "set.npz")}
    for split in ("train", "test"):
        for label in "ab":
            (folder / "set" / split / label).mkdir(parents=True)
            for i in range(3):
                (folder / "set" / split / label / f"{i}.png").write_bytes(PNGS[split][i])
    return {"imagefolder": str(folder / "set")}


@pytest.mark.long
def test_ray_tasks_write_the_bytes_of_one_process(tmp_path, store, ray_here):
    src = catalogue.source(write(tmp_path / "set", broken=(600, 1000)) | {"allow_broken": 2})
    alone, told = Store(tmp_path / "alone", create=True), []
    expected = ingest.ingest(alone, src)
    assert ingest.with_ray(store, src, lambda *counts: told.append(counts)) == expected
    assert files(store) == files(alone)
    assert told[-1] == (TRAIN + TEST - 2, TRAIN + TEST - 2)


@pytest.mark.long
def test_ray_errors_are_one_line(tmp_path, store, ray_here):
    spec = write(tmp_path / "set", broken=(600,))
    with pytest.raises(
        UserError,
        match="^dataset: set: 1 broken images: train: train-0.parquet row 600 .*allow_broken: 1$",
    ):
        ingest.with_ray(store, catalogue.source(spec))
    large = io.BytesIO()
    Image.new("RGB", (9, 12)).save(large, format="PNG")
    mixed = catalogue.source(
        write(
            tmp_path / "mixed",
            test=[*[(data, i) for i, data in enumerate(PNGS["test"][:3])], (large.getvalue(), 0)],
        )
    )
    with pytest.raises(
        UserError,
        match="^dataset: images of several sizes: the first is 8×8, test-0.parquet row 3 is 12×9",
    ):
        ingest.with_ray(store, mixed)
    gone = catalogue.source(write(tmp_path / "gone"))
    contents = gone.contents()
    (tmp_path / "gone" / "train-0.parquet").unlink()
    with pytest.raises(UserError, match="^dataset: .*train-0.parquet"):
        ingest.with_ray(store, replace(gone, contents=lambda: contents))


@pytest.mark.long
def test_a_store_that_cannot_be_written_is_the_stores_error(tmp_path, store, ray_here, monkeypatch):
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "0")
    src = catalogue.source(write(tmp_path / "set"))
    Path(store.uri, "datasets").mkdir()
    Path(store.uri, "datasets", src.shards_key).write_text("a file where a folder must be")
    with pytest.raises(StoreError, match="cannot"):
        ingest.with_ray(store, src)
