"""CIFAR-10 and MedMNIST: read by their own libraries from small files in their own layouts, and
never while planning.
"""

import hashlib
import http.server
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.request

import numpy as np
import pytest
from PIL import Image

from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.datasets.sources import cifar10, medmnist
from equigrid.grid.errors import UnavailableError, UserError
from equigrid.grid.store import Store

BLOOD = dict(zip(("train", "val", "test"), (24, 8, 16)))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and no way to any network."""
    monkeypatch.setenv("EQUIGRID_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # urlopen's own memory of proxies must not outlive this test.
    monkeypatch.setattr(urllib.request, "_opener", None)
    return tmp_path / "cache"


# CIFAR-10 -----------------------------------------------------------------------------------------


def batch(seed: int, n: int = 20) -> dict:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)
    return {"data": pixels, "labels": [(seed + i) % 10 for i in range(n)]}


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """CIFAR-10's archive in its own layout, 20 images a file; torchvision is told its checksums."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "made" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    meta = {"label_names": list(cifar10.CLASSES)}
    written = {name: batch(i) for i, (name, _) in enumerate(CIFAR10.train_list + CIFAR10.test_list)}
    for name, content in {**written, CIFAR10.meta["filename"]: meta}.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    archive = tmp_path / "made" / cifar10.ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, CIFAR10.base_folder)
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(
            CIFAR10, name, [[file, md5[file]] for file, _ in getattr(CIFAR10, name)]
        )
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5[CIFAR10.meta["filename"]]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def test_cifar10s_archive_in_the_cache_is_unpacked_and_read(store, cache, small_cifar, images_of):
    (cache / "cifar10").mkdir(parents=True)
    shutil.copy(small_cifar, cache / "cifar10")
    dataset = ingest.ingest(store, catalogue.source("cifar10"))
    assert (dataset.shape.n_train, dataset.shape.n_test, dataset.shape.image) == (
        100,
        20,
        (32, 32, 3),
    )
    assert dataset.shape.classes[3] == "cat"
    expected = batch(0)["data"].reshape(20, 3, 32, 32).transpose(0, 2, 3, 1)
    assert (images_of(store, dataset.train)[:20] == expected).all()
    assert catalogue.labels(store, dataset, "test").tolist() == batch(5)["labels"]
    elsewhere = Store(store.uri + "-2", create=True)
    shutil.copytree(cache / "cifar10", cache / "moved")
    moved = ingest.ingest(elsewhere, catalogue.source({"cifar10": str(cache / "moved")}))
    assert moved.fingerprint == dataset.fingerprint


def test_cifar10_with_a_changed_file_is_not_unpickled(store, cache, small_cifar):
    (cache / "cifar10").mkdir(parents=True)
    with tarfile.open(small_cifar) as tar:
        tar.extractall(cache / "cifar10", filter="data")
    assert catalogue.source("cifar10").contents().counts == {"train": 100, "test": 20}
    path = cache / "cifar10" / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UnavailableError, match="cifar10 cannot be downloaded"):
        ingest.ingest(store, catalogue.source("cifar10"))


def test_cifar10_without_network_says_which_file_to_place_where(store, cache):
    src = catalogue.source("cifar10")
    assert src.shape.train_counts == (5000,) * 10  # planning asks nobody
    assert not cache.exists()
    with pytest.raises(
        UnavailableError,
        match=f"cannot be downloaded .*; place cifar-10-python.tar.gz in {cache}/cifar10",
    ) as error:
        ingest.ingest(store, src)
    assert "\n" not in str(error.value)


# MedMNIST -----------------------------------------------------------------------------------------


def write_blood(path, channels=3, size=64, classes=8, **changes):
    rng = np.random.default_rng(0)
    shape = (size, size, channels) if channels == 3 else (size, size)
    arrays = {}
    for split, n in BLOOD.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n)[:, None] % classes).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays | changes)
    return arrays


def accept(monkeypatch, path, name="bloodmnist", size=64):
    """The table of sets is told the file's checksum."""
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(medmnist._facts()[name]["md5"], str(size), md5)


def test_bloodmnist_is_the_64_pixel_version_resized_to_32(store, cache, monkeypatch, images_of):
    file = cache / "medmnist" / "bloodmnist_64.npz"
    arrays = write_blood(file)
    accept(monkeypatch, file)
    src = catalogue.source("bloodmnist")
    assert src.shape.n_train == 11_959  # a fact, whatever the file holds
    dataset = ingest.ingest(store, src)
    assert dataset.name == "bloodmnist"
    assert dataset.shape.image == (32, 32, 3)
    assert (dataset.shape.n_train, dataset.shape.n_val, dataset.shape.n_test) == (24, 8, 16)
    small = Image.fromarray(arrays["test_images"][5]).resize((32, 32), Image.Resampling.BICUBIC)
    assert (images_of(store, dataset.test)[5] == np.asarray(small)).all()
    assert catalogue.labels(store, dataset, "val").tolist() == list(range(8))
    elsewhere = Store(store.uri + "-2", create=True)
    shutil.move(cache / "medmnist", cache / "moved")
    moved = ingest.ingest(elsewhere, catalogue.source({"bloodmnist": str(cache / "moved")}))
    assert moved.fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    ("options", "file", "side"),
    [
        ({"size": 28}, "pneumoniamnist.npz", 28),
        ({"size": 64, "resize": 64}, "pneumoniamnist_64.npz", 64),
        ({"size": 128, "resize": 32}, "pneumoniamnist_128.npz", 32),
    ],
)
def test_other_versions_and_grey_sets(store, cache, monkeypatch, options, file, side, images_of):
    file = cache / "medmnist" / file
    arrays = write_blood(file, channels=1, size=options["size"], classes=2)
    accept(monkeypatch, file, "pneumoniamnist", options["size"])
    src = catalogue.source({"pneumoniamnist": str(cache / "medmnist")} | options)
    dataset = ingest.ingest(store, src)
    assert dataset.shape.image == src.shape.image == (side, side, 1)
    assert dataset.shape.classes == ("normal", "pneumonia")
    if side == options["size"]:
        assert (images_of(store, dataset.train)[..., 0] == arrays["train_images"]).all()


def test_medmnist_downloads_by_its_own_address(store, cache, monkeypatch, tmp_path):
    """A real download, from a server of the test's own."""
    file = tmp_path / "web" / "bloodmnist_64.npz"
    write_blood(file)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: Quiet(*a, directory=tmp_path / "web")
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    accept(monkeypatch, file)
    address = f"http://127.0.0.1:{server.server_port}/{{file}}"
    monkeypatch.setattr(medmnist, "ADDRESS", address)
    try:
        dataset = ingest.ingest(store, catalogue.source("bloodmnist"))
    finally:
        server.shutdown()
        server.server_close()
    assert dataset.shape.n_train == 24
    assert [path.name for path in (cache / "medmnist").iterdir()] == ["bloodmnist_64.npz"]


def test_a_set_without_published_counts_is_planned_once_its_file_is_there(cache, monkeypatch):
    assert catalogue.source("octmnist").shape is None
    write_blood(cache / "medmnist" / "octmnist_64.npz", channels=1, classes=4)
    assert catalogue.source("octmnist").shape.n_train == 24
    assert catalogue.source("octmnist").shape.image == (32, 32, 1)


def test_medmnist_without_network_says_which_file_to_place_where(store, cache):
    md5 = medmnist._facts()["bloodmnist"]["md5"]["64"]
    right = rf"place bloodmnist_64.npz \(MD5 {md5}\) in {cache}/medmnist"
    with pytest.raises(
        UnavailableError, match=f"bloodmnist cannot be downloaded .*; {right}"
    ) as error:
        ingest.ingest(store, catalogue.source("bloodmnist"))
    assert "\n" not in str(error.value)
    write_blood(cache / "medmnist" / "bloodmnist_64.npz")
    with pytest.raises(
        UserError, match=f"bloodmnist_64.npz has another MD5 than it should; medmnist's has {md5}"
    ):
        ingest.ingest(store, catalogue.source("bloodmnist"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("chestmnist", "chestmnist: its images have several labels each.*; sets it can take: bloodmnist"),
        ("organmnist3d", "organmnist3d: it holds volumes"),
        ("bloodmist", "'bloodmist' is not known.*; did you mean 'bloodmnist'"),
        ({"bloodmnist": "/nowhere"}, "bloodmnist: /nowhere is no folder; name one that holds its files, or leave it out"),
        ({"bloodmnist": None, "size": 32}, "dataset.size: 32; MedMNIST has versions of 28, 64, 128, 224 pixels"),
        ({"bloodmnist": None, "resize": 3}, "dataset.resize: 3 must be a whole number of pixels from 4 to 2048"),
        ({"bloodmnist": None, "resise": 32}, "dataset.resise: bloodmnist takes no such option; known: size, resize, class_names, duplicates, keep; did you mean 'resize'"),
        ({"cifar10": None, "size": 32}, "dataset.size: cifar10 takes no such option; known: class_names, duplicates"),
    ],
)  # fmt: skip
def test_bad_choices(spec, message):
    with pytest.raises(UserError, match=message):
        catalogue.source(spec)


def test_the_table_of_sets_is_medmnists():
    from medmnist import INFO, __version__

    assert __version__ == medmnist.PUBLISHED

    flat = {
        name
        for name, facts in INFO.items()
        if not name.endswith("3d") and "multi-label" not in facts["task"]
    }
    assert set(medmnist._facts()) == set(medmnist.NAMES) == flat
    assert set(medmnist.REFUSED) == set(INFO) - flat
    for name, facts in medmnist._facts().items():
        theirs = INFO[name]
        assert facts["channels"] == theirs["n_channels"]
        assert facts["classes"] == [theirs["label"][str(i)] for i in range(len(theirs["label"]))]
        assert facts["images"] == theirs["n_samples"]
        for size in medmnist.VERSIONS:
            flag = "" if size == 28 else f"_{size}"
            assert facts["md5"][str(size)] == theirs[f"MD5{flag}"]
            assert medmnist.ADDRESS.format(file=f"{name}{flag}.npz") == theirs[f"url{flag}"]
        for split, counts in facts.get("counts", {}).items():
            assert sum(counts) == theirs["n_samples"][split]
            assert len(counts) == len(facts["classes"])


def test_planning_imports_neither_torch_nor_medmnist():
    code = (
        "import sys; from equigrid.grid.datasets import catalogue; catalogue.source('bloodmnist'); catalogue.source('cifar10');"
        "print(*sorted({'torch', 'torchvision', 'medmnist', 'ray', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
