"""The store and its shards: objects are there whole or not at all, and wrong bytes are never
used.
"""

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from equigrid.grid.datasets import catalogue, ingest, shards
from equigrid.grid.errors import StoreError, UserError
from equigrid.grid.store import Store, documents


def images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8), rng.integers(0, 10, n)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", "a\\b", "a\0b"])
def test_names_cannot_leave_the_store(store, name):
    with pytest.raises(ValueError, match="must be relative"):
        store.put(name, b"x")


def test_put_get_list_delete(store):
    store.put("a/b/c.bin", b"123")
    store.put("a/b/c.bin", b"4567")
    store.put_json("a/d.json", {"x": [1]})
    assert store.get("a/b/c.bin") == b"4567"
    assert store.get_json("a/d.json") == {"x": [1]}
    assert store.get_json("a/none.json") is None
    assert sorted(store.list("a")) == ["a/b/c.bin", "a/d.json"]
    assert list(store.list("nowhere")) == []
    store.delete("a/b/c.bin")
    store.delete("a/b/c.bin")
    assert not store.exists("a/b/c.bin")
    with pytest.raises(FileNotFoundError):
        store.get("a/b/c.bin")


def test_a_writer_that_dies_leaves_nothing_visible(store, monkeypatch):
    """The bytes go aside first: whoever is interrupted before the rename has published nothing."""
    store.put("a/x.json", b"old")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        store.put("a/x.json", b"new")
    assert store.get("a/x.json") == b"old"
    assert list(store.list("a")) == ["a/x.json"]


def test_unusable_stores_say_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file; name a folder"):
        Store(tmp_path / "file", create=True)
    with pytest.raises(UserError, match="cannot be opened: Not a directory; name a folder"):
        Store(tmp_path / "file" / "store", create=True)
    with pytest.raises(UserError, match="cannot be opened"):
        Store("nonsense://x")
    store = Store(tmp_path / "s", create=True)
    store.put("bad.json", b"{")
    with pytest.raises(StoreError, match="bad.json is not JSON"):
        store.get_json("bad.json")


def test_shard_round_trip_and_stable_content_hash(store):
    x, y = images(5)
    one = shards.write(store, "pools/p/00000.json", x, y, seconds=1.5)
    two = shards.write(store, "pools/p/00001.json", x.copy(), y.copy())
    assert one.checksum == two.checksum == shards.checksum(x, y)
    got_x, got_y = shards.read(store, one)
    assert (got_x == x).all()
    assert (got_y == y).all()
    content = documents.read(store, "pools/p/00000.json", documents.ShardRecord)
    assert shards.ref("pools/p/00000.json", content) == one
    assert shards.checksum(x.reshape(5, 8, 1, 8), y) != one.checksum


def test_data_without_manifest_is_not_there(store, monkeypatch):
    """Killed between data and manifest: the shard does not exist, and is made again under the same
    manifest.
    """
    x, y = images(5)
    put = Store.put

    def die_at_manifest(self, name, data):
        if name.endswith(".json"):
            raise KeyboardInterrupt
        put(self, name, data)

    monkeypatch.setattr(Store, "put", die_at_manifest)
    with pytest.raises(KeyboardInterrupt):
        shards.write(store, "pools/p/00000.json", x, y)
    monkeypatch.undo()
    assert [name.endswith(".safetensors") for name in store.list("pools")] == [True]
    assert store.get_json("pools/p/00000.json") is None
    assert (shards.read(store, shards.write(store, "pools/p/00000.json", x, y))[0] == x).all()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swap"])
def test_wrong_bytes_are_never_used(store, damage):
    ref = shards.write(store, "pools/p/00000.json", *images(50))
    data = bytearray(store.get(ref.data))
    if damage == "flip":
        data[-700] ^= 1  # one bit of one pixel
        store.put(ref.data, bytes(data))
    elif damage == "cut":
        store.put(ref.data, bytes(data[: len(data) // 2]))
    elif damage == "gone":
        store.delete(ref.data)
    else:
        other = shards.write(store, "pools/p/00001.json", *images(50, seed=1))
        store.put(ref.data, store.get(other.data))
    with pytest.raises(shards.ShardCorrupt, match="pools/p/00000.json"):
        shards.load(store, ref)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((2, 8, 8, 1), np.float32), np.zeros(2, np.int64)),
        (np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 8, 8, 1), np.uint8), np.zeros(3, np.int64)),
        (np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, np.int32)),
    ],
)
def test_only_uint8_nhwc_and_int64_labels_make_a_shard(store, x, y):
    with pytest.raises(ValueError, match="a shard is uint8"):
        shards.write(store, "pools/p/00000.json", x, y)


def test_digits_are_ingested_whole_and_once(store):
    src = catalogue.source("digits")
    assert catalogue.lookup(store, src.key) is None
    dataset = ingest.ingest(store, src)
    assert dataset == catalogue.lookup(store, src.key)
    assert dataset.shape == src.shape  # what planning is told before ingest is what ingest finds
    parts = [shards.read(store, ref) for ref in dataset.train]
    labels = np.concatenate([part[1] for part in parts])
    assert len(labels) == 1200
    assert tuple(np.bincount(labels)) == src.shape.train_counts
    pixels = np.concatenate([part[0] for part in parts])
    assert pixels.min() == 0
    assert pixels.max() == 255
    test = np.concatenate([shards.read(store, ref)[0] for ref in dataset.test])
    assert len(test) == 597
    everything = {image.tobytes() for image in pixels} | {image.tobytes() for image in test}
    assert len(everything) == 1797  # no image is in both, none is lost


def write_npz(path, seed=0, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "train_images": rng.integers(0, 256, (700, 8, 8), dtype=np.uint8), "train_labels": np.arange(700)[:, None] % 3,
        "test_images": rng.integers(0, 256, (30, 8, 8), dtype=np.uint8), "test_labels": np.arange(30)[:, None] % 3,
    }  # fmt: skip
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return {"npz": str(path)}


def test_a_moved_file_is_the_same_dataset_and_a_changed_one_is_not(store, tmp_path):
    first = ingest.ingest(store, catalogue.source(write_npz(tmp_path / "a.npz")))
    moved = catalogue.source(write_npz(tmp_path / "b.npz"))
    assert catalogue.lookup(store, moved.key) is None
    assert ingest.ingest(store, moved).fingerprint == first.fingerprint
    assert len(first.train) == 2
    changed = catalogue.source(write_npz(tmp_path / "c.npz", seed=1))
    assert ingest.ingest(store, changed).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None}, "has no test_labels; it has train_images"),
        (
            {"train_images": np.zeros((700, 8, 8), np.float32)},
            "train_images are float32; they must be uint8",
        ),
        ({"test_images": np.zeros((30, 9, 8), np.uint8)}, "test has images of"),
        ({"train_labels": np.arange(700) % 3 - 1}, "label -1 in train"),
    ],
)
def test_bad_npz_files(store, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        ingest.ingest(store, catalogue.source(write_npz(tmp_path / "x.npz", **changes)))


def test_manifests_are_plain_json(store):
    shards.write(store, "pools/p/00000.json", *images(3))
    assert json.loads(store.get("pools/p/00000.json"))["n"] == 3


@pytest.mark.parametrize("what", ["not a folder", "another folder"])
def test_a_process_that_sees_another_folder_says_so_before_it_reads_or_writes(tmp_path, what):
    """On another machine: not mounted, or an empty mount point. To it everything would be gone, its
    results lost.
    """
    store = Store(tmp_path / "store", create=True)
    store.put("a/x", b"1")
    assert pickle.loads(pickle.dumps(store)).get("a/x") == b"1"
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    if what == "another folder":
        (tmp_path / "store").mkdir()
    for use in (
        lambda there: there.get("a/x"), lambda there: there.put("a/y", b"2"), lambda there: list(there.list("a")),
        lambda there: there.exists("a/x"), lambda there: there.delete("a/x"), lambda there: there.patient(1).get("a/x"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=f"{what} on .*; use one that all nodes share"):
            use(pickle.loads(pickle.dumps(store)))
    if what == "another folder":
        assert not any((tmp_path / "store").iterdir())
    # A store that was moved is the same one, at another place.
    moved = Store(tmp_path / "elsewhere")
    assert pickle.loads(pickle.dumps(moved)).get("a/x") == b"1"


def test_a_store_that_several_open_at_once_has_one_identity(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        found = set(
            threads.map(lambda _: Store(tmp_path / "store", create=True)._identity, range(32))
        )
    assert len(found) == 1
    there = sorted(path.name for path in (tmp_path / "store").iterdir())
    assert there == ["identity", "store.json"]


def test_a_store_of_before_there_were_identities_is_read(tmp_path):
    (tmp_path / "store" / "a").mkdir(parents=True)
    (tmp_path / "store" / "a" / "x").write_bytes(b"1")
    assert pickle.loads(pickle.dumps(Store(tmp_path / "store"))).get("a/x") == b"1"
    assert not (tmp_path / "store" / "identity").exists()


@pytest.mark.parametrize("what", ["pipe", "/dev/zero", "/dev/urandom"])
@pytest.mark.parametrize("name", ["store.json", "identity"])
def test_what_would_never_end_is_not_read(tmp_path, what, name):
    """A pipe would be waited for; a device has no end. (The store is opened anew: it reads both.)"""
    store = Store(tmp_path / "store", create=True)
    path = tmp_path / "store" / name
    path.unlink()
    os.mkfifo(path) if what == "pipe" else path.symlink_to(what)
    with pytest.raises(StoreError, match=r"is no file \(a pipe or a device\?\)|leads out"):
        Store(store.uri).get_json("store.json") if name == "store.json" else Store(store.uri)


@pytest.mark.parametrize("place", ["s3:/bucket/x", "S3:/bucket", "file:/tmp/x", "gs:/b"])
def test_an_address_with_one_slash_is_no_folder(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"store {place}: an address has two slashes"):
        Store(place, create=True)
    assert not os.listdir(tmp_path)
    assert os.path.isdir(Store(f"./{place}", create=True).uri), "who means a folder says so"


def test_a_secret_in_such_an_address_is_not_told():
    with pytest.raises(UserError) as error:
        Store("s3:/AK:sEcReT@bucket/x")
    assert "sEcReT" not in str(error.value)
