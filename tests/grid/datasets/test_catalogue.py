"""The door to all sources, and .npz files."""

import inspect
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from equigrid.grid.datasets import catalogue, ingest, shards
from equigrid.grid.errors import UserError


def write(path, *, n=(700, 30), compressed=False, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in zip(("train", "test"), n):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 3
    arrays = {name: array for name, array in (arrays | changes).items() if array is not None}
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return {"npz": str(path)}, arrays


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "cifar11",
            "'cifar11' is not known; known: digits, cifar10, bloodmnist, .*; did you mean 'cifar10'",
        ),
        ({"digits": "/data"}, "digits takes no place, got '/data'; write dataset: digits"),
        (
            {"digits": None, "size": 8},
            "dataset.size: digits takes no such option; known: class_names",
        ),
        ({"npz": "/nowhere.npz"}, "npz: '/nowhere.npz' is no file; name an .npz with train_images"),
        ("npz", "npz: None is no file"),
        ("parquet", "parquet: name a folder or URI"),
        (
            {"imagenet100": "/nowhere"},
            "imagenet100: /nowhere is no folder; name one with train/n01440764",
        ),
        ({"imagenet": "$NO_SUCH_VARIABLE"}, "the environment variable NO_SUCH_VARIABLE is not set"),
        (
            {"imagenet": "/tmp", "classes": "${NO_SUCH_VARIABLE}/x"},
            "the environment variable NO_SUCH_VARIABLE is not set",
        ),
    ],
)
def test_bad_choices(spec, message):
    with pytest.raises(UserError, match=message) as error:
        catalogue.source(spec)
    assert "\n" not in str(error.value)


def test_the_page_on_datasets_names_every_kind_and_option():
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    for kind, function in catalogue.SOURCES.items():
        assert f"`{kind}`" in page or f"`{{{kind}: " in page, kind
        for option in inspect.signature(function).parameters:
            assert option == "place" or f"`{option}`" in page, (kind, option)


def test_environment_variables_in_a_place(tmp_path, monkeypatch):
    write(tmp_path / "set.npz")
    monkeypatch.setenv("SET_HERE", str(tmp_path))
    assert catalogue.source({"npz": "$SET_HERE/set.npz"}).name == "set"
    assert catalogue.source({"npz": "${SET_HERE}/set.npz"}).name == "set"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_npz_files_are_read_in_their_order(tmp_path, store, compressed, channels):
    images = np.random.default_rng(1).integers(0, 256, (700, 8, 8, 3), dtype=np.uint8)
    images = images[..., :channels] if channels else images[..., 0]
    changes = {"train_images": images, "test_images": images[:30], "val_images": images[30:39]}
    spec, _ = write(
        tmp_path / "set.npz", compressed=compressed, val_labels=np.arange(9) % 3, **changes
    )
    src = catalogue.source(spec)
    dataset = ingest.ingest(store, src)
    assert dataset.shape == src.shape
    assert dataset.shape.image == (8, 8, channels or 1)
    assert (dataset.shape.n_train, dataset.shape.n_val, dataset.shape.n_test) == (700, 9, 30)
    found = np.concatenate([shards.read(store, ref)[0] for ref in dataset.train])
    assert (found.reshape(images.shape) == images).all()
    assert (catalogue.labels(store, dataset, "train") == np.arange(700) % 3).all()


def test_a_moved_npz_is_the_same_dataset(tmp_path, store):
    spec, _ = write(tmp_path / "a.npz")
    first = ingest.ingest(store, catalogue.source(spec))
    assert catalogue.source(spec).key == catalogue.source(spec).key
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    moved = catalogue.source({"npz": str(tmp_path / "b.npz")})
    assert catalogue.lookup(store, moved.key) is None
    assert ingest.ingest(store, moved).fingerprint == first.fingerprint


def test_a_large_npz_is_read_a_few_shards_at_a_time(tmp_path, store):
    large = np.zeros((9000, 64, 64, 3), np.uint8)  # 110 MB, of which a shard is 12 MB
    labels = np.arange(9000) % 3
    spec, _ = write(
        tmp_path / "set.npz",
        compressed=True,
        train_images=large,
        train_labels=labels,
        test_images=large[:30],
    )
    del large
    src = catalogue.source(spec)
    tracemalloc.start()
    ingest.ingest(store, src)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 70e6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None}, "has no test_labels; it has train_images"),
        ({"train_images": np.zeros((700, 8, 8), np.float32)}, "train_images are float32; they must be uint8"),
        ({"test_images": np.zeros((30, 9, 8, 3), np.uint8)}, r"test has images of \(9, 8, 3\), train of \(8, 8, 3\)"),
        ({"train_images": np.zeros((700, 8, 8, 4), np.uint8)}, "they must be .* C being 1 or 3"),
        ({"train_images": np.zeros((700, 64), np.uint8)}, "they must be"),
        ({"train_images": np.zeros((699, 8, 8, 3), np.uint8)}, "train has 699 images and 700 labels; each needs one"),
        ({"train_labels": np.arange(700) % 3 - 1}, "label -1 in train; labels are 0 to k-1"),
        ({"train_labels": np.arange(700) % 3 * 2}, "no image in train has label 1, 3"),
        ({"train_labels": np.zeros((700, 14), int)}, r"train_labels are int64 \(700, 14\); one whole number an image"),
        ({"train_labels": np.zeros(700)}, "train_labels are float64"),
        ({"test_images": np.zeros((0, 8, 8, 3), np.uint8), "test_labels": np.zeros(0, int)}, "test has no images"),
        ({"val_images": np.zeros((3, 8, 8, 3), np.uint8), "val_labels": np.array([0, 1, 3])}, "no image in train has label 3"),
        ({"train_labels": np.array([None] * 700)}, "train_labels are object; whole numbers are needed"),
        ({"train_labels": np.zeros(700, "m8[s]")}, r"train_labels are timedelta64\[s\]"),
        ({"train_labels": np.int64(0)}, "one whole number an image is needed"),
        ({"train_images": np.asfortranarray(np.zeros((700, 8, 8, 3), np.uint8))},
         "train_images are in Fortran's order; save them with numpy.ascontiguous"),
    ],
)  # fmt: skip
def test_bad_npz_files(tmp_path, changes, message):
    spec, _ = write(tmp_path / "x.npz", **changes)
    with pytest.raises(UserError, match=message) as error:
        catalogue.source(spec)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_npz(tmp_path):
    (tmp_path / "x.npz").write_text("x")
    with pytest.raises(UserError, match="x.npz is no .npz file of plain arrays"):
        catalogue.source({"npz": str(tmp_path / "x.npz")})


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["test_labels.npy", "test_labels"])
def test_an_array_that_is_there_twice_is_none(tmp_path, name):
    spec, _ = write(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr(name, archive.read("test_labels.npy"))
    with pytest.raises(UserError, match="x.npz has test_labels 2 times; keep one of them"):
        catalogue.source(spec)


@pytest.mark.filterwarnings("error")
def test_a_header_that_python_2_wrote_warns_of_nothing(tmp_path):
    spec, _ = write(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"(700, 1), } ", b"(700L, 1), }"))
    contents = catalogue.source(spec).contents()
    assert sum(len(batch.labels) for batch in contents.read(contents.unit("train", 0, 700))) == 700


def test_class_names_of_the_users_own(store, tmp_path):
    plain, _ = write(tmp_path / "a.npz")
    named = {**plain, "class_names": ["ant", "bee", "cat"]}
    before, after = catalogue.source(plain), catalogue.source(named)
    assert (before.classes, after.classes) == (("0", "1", "2"), ("ant", "bee", "cat"))
    assert after.shape.classes == after.classes
    assert before.key != after.key
    one, other = ingest.ingest(store, before), ingest.ingest(store, after)
    assert one.fingerprint != other.fingerprint  # a generator may be told the names
    assert other.shape.classes == after.classes
    assert catalogue.lookup(store, after.key) == other


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant", "bee"], "dataset.class_names: 2 different names; a has 3 classes"),
        (["ant", "bee", "bee"], "dataset.class_names: 2 different names; a has 3 classes"),
        (
            "ant, bee, cat",
            "dataset.class_names: 'ant, bee, cat'; write a list of 3 names, in the order of the labels",
        ),
        (["ant", "bee", ""], "write a list of 3 names"),
    ],
)
def test_wrong_class_names_are_refused(tmp_path, names, message):
    plain, _ = write(tmp_path / "a.npz")
    with pytest.raises(UserError, match=message):
        catalogue.source({**plain, "class_names": names})
