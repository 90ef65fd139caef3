"""Parquet files of encoded images: what users bring, converted as they expect, and refused with a clear line."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from grid import datasets, shards
from grid.images import decode
from grid.spec import SpecError
from grid.store import Store


def encoded(array: np.ndarray, mode: str | None = None, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(array)
    if mode:
        picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


def picture(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(folder, *, train=40, test=10, files=2, label="label", image="img", change=None, metadata=None):
    """A set of PNGs in Parquet files; `change` edits the list of (bytes, label) rows of the training split."""
    folder.mkdir(exist_ok=True)
    for split, n in (("train", train), ("test", test)):
        rows = [(encoded(picture(i + 1000 * (split == "test"))), i % 4) for i in range(n)]
        rows = change(rows) if change and split == "train" else rows
        for k in range(files):
            part = rows[k::files]
            table = pa.table({
                image: pa.array([{"bytes": b, "path": None} for b, _ in part], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                label: pa.array([c for _, c in part], pa.int64()),
            })  # fmt: skip
            table = table.replace_schema_metadata(metadata)
            pq.write_table(table, folder / f"{split}-{k:05d}-of-{files:05d}.parquet")
    return {"parquet": str(folder)}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store", create=True)


def test_images_come_in_the_files_order_with_names_and_counts(tmp_path, store):
    features = {"info": {"features": {"label": {"names": ["ant", "bee", "cat", "dog"], "_type": "ClassLabel"}}}}
    src = datasets.source(write(tmp_path / "set", metadata={"huggingface": json.dumps(features)}))
    dataset = datasets.ingest(store, src)
    assert dataset.shape == src.shape  # known before a single image but the first is decoded
    assert dataset.shape.classes == ("ant", "bee", "cat", "dog")
    assert dataset.shape.train_counts == (10, 10, 10, 10)
    (part,) = dataset.train
    images, labels = shards.read(store, part)
    expected = [i for k in range(2) for i in range(k, 40, 2)]
    assert labels.tolist() == [i % 4 for i in expected]
    assert all((image == picture(i)).all() for image, i in zip(images, expected))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(np.full((4, 4), 77, np.uint8)), (77, 77, 77)),  # greyscale
        (encoded(np.full((4, 4), 77 * 257, np.uint16)), (77, 77, 77)),  # 16 bits
        (encoded(np.dstack([np.full((4, 4), v, np.uint8) for v in (9, 8, 7, 255)])), (9, 8, 7)),  # opaque alpha
        (encoded(np.dstack([np.full((4, 4), v, np.uint8) for v in (0, 0, 0, 0)])), (255, 255, 255)),  # clear: white
        (encoded(np.full((4, 4, 3), (200, 10, 30), np.uint8), "P"), (200, 10, 30)),  # palette
        (encoded(np.full((4, 4, 3), (0, 0, 0), np.uint8), "1"), (0, 0, 0)),  # one bit
    ],
)
def test_every_kind_of_pixel_becomes_rgb(data, expected):
    image = decode(data, None)
    assert image.shape == (4, 4, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.reshape(-1, 3).astype(int) - expected).max() <= 1


def test_cmyk_jpeg_is_converted():
    data = encoded(np.full((16, 16, 3), (200, 40, 60), np.uint8), "CMYK", "JPEG", quality=95)
    assert np.abs(decode(data, None).astype(int) - (200, 40, 60)).max() <= 6


def test_exif_rotation_is_applied():
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    turned = decode(encoded(upright, exif=exif), None)
    assert turned.shape == (6, 4, 3)
    assert turned[0, -1].tolist() == [255, 255, 255]


def test_size_resizes_the_short_side_and_crops_the_centre():
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 255  # exactly the central square
    assert (decode(encoded(wide), 10) >= 250).mean() > 0.75
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    small = decode(encoded(checks.astype(np.uint8)), 16)
    assert np.abs(small.astype(int) - 127).max() < 40  # antialiased: a fine check becomes grey, not black or white


def test_broken_images_are_counted_and_listed_and_stop_the_ingest(tmp_path, store):
    def damage(rows):
        rows[3] = (b"not an image", 3)
        rows[8] = (rows[8][0][:60], 0)
        rows[9] = (None, 1)
        return rows

    spec = write(tmp_path / "set", change=damage, files=1)
    with pytest.raises(ValueError, match=r"3 broken images in train: train-00000-of-00001.parquet row 3 .*allow_broken: 3"):
        datasets.ingest(store, datasets.source(spec))
    assert datasets.lookup(store, datasets.source(spec).key) is None
    dataset = datasets.ingest(store, datasets.source(spec | {"allow_broken": 3}))
    assert dataset.shape.n_train == 37


def test_mixed_sizes_need_a_size(tmp_path, store):
    spec = write(tmp_path / "set", change=lambda rows: [*rows[:-1], (encoded(picture(1, 9, 12)), 0)])
    with pytest.raises(ValueError, match="images of several sizes .*set size"):
        datasets.ingest(store, datasets.source(spec))
    assert datasets.ingest(store, datasets.source(spec | {"size": 8})).shape.height == 8


def test_a_source_travels_to_other_processes(tmp_path):
    import cloudpickle

    src = datasets.source(write(tmp_path / "set"))
    copy = cloudpickle.loads(cloudpickle.dumps(src))
    assert copy.key == src.key
    assert next(copy.read("test"))[0].shape == (5, 8, 8, 3)


def relabel(value):
    return lambda rows: [(rows[0][0], value), *rows[1:]]


@pytest.mark.parametrize(
    ("options", "written", "message"),
    [
        ({"label": "lable"}, {}, "no label column 'lable'; of that type: label; did you mean 'label'"),
        ({"image": "picture"}, {}, "no image column 'picture'; of that type: img"),
        ({"sizes": 32}, {}, "dataset.sizes: parquet takes no such option; known: image, label, size, allow_broken"),
        ({"size": 0}, {}, "dataset.size: 0 must be a whole number from 1 up"),
        ({}, {"change": relabel(-1)}, "train has label -1; labels are 0 to k-1"),
        ({}, {"change": relabel(None)}, "1 labels in train are missing"),
        ({}, {"test": 0}, "test has no images"),
    ],
)
def test_bad_sets_and_options(tmp_path, options, written, message):
    with pytest.raises(SpecError, match=message):
        datasets.source(write(tmp_path / "set", **written) | options)


def test_folders_without_the_files(tmp_path):
    with pytest.raises(SpecError, match="cannot be listed"):
        datasets.source({"parquet": str(tmp_path / "none")})
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SpecError, match="has no train-\\*.parquet; it has notes.txt"):
        datasets.source({"parquet": str(tmp_path)})


def test_environment_variables_in_a_place(tmp_path, monkeypatch):
    write(tmp_path / "set")
    monkeypatch.setenv("SET_HERE", str(tmp_path))
    assert datasets.source({"parquet": "$SET_HERE/set"}).name == "set"
    monkeypatch.delenv("SET_HERE")
    with pytest.raises(SpecError, match="the environment variable SET_HERE is not set"):
        datasets.source({"parquet": "$SET_HERE/set"})
