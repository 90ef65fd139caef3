"""The boundary of sources: whatever bytes lie in an archive of arrays, a table or an image, reading
the set either works or ends as bad input. Damages are drawn with a seed; files that went wrong
once are in tests/corpus/sources.
"""

import io
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from equigrid.generators.common.decoding import BrokenImage, decode_and_see, header_size
from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.errors import UserError
from equigrid.grid.store import Store

CORPUS = Path(__file__).parents[3] / "corpus" / "sources"
SEED = 7
FORMS = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")


def picture(seed: int, form: str = "png") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def damages(content: bytes, draw: random.Random, n: int):
    """Bits that flip, stretches that are zeros or lost, and more of what is there."""
    for _ in range(n):
        damaged = bytearray(content)
        place, length = draw.randrange(len(content)), draw.choice((1, 4, 50))
        how = draw.choice(("flip", "zeros", "ones", "cut", "lost", "twice"))
        if how == "flip":
            damaged[place] ^= 1 << draw.randrange(8)
        elif how in ("zeros", "ones"):
            fill = b"\0" if how == "zeros" else b"\xff"
            damaged[place : place + length] = fill * len(damaged[place : place + length])
        elif how == "cut":
            del damaged[place:]
        elif how == "lost":
            del damaged[place : place + length]
        else:
            damaged[place:place] = damaged[place : place + length]
        yield bytes(damaged)


def read(entry: dict, folder: Path) -> bool:
    """Whether a set can be read whole; else it ended as bad input."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        ingest.ingest(Store(folder, create=True), catalogue.source(entry))
    except (UserError, ValueError, OSError):  # what a run ends with in one line
        return False
    return True


def arrays(path: Path) -> bytes:
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8), np.uint8)
    labels = np.arange(12) % 2
    np.savez_compressed(path, train_images=images, train_labels=labels, test_images=images[:6] // 2, test_labels=labels[:6])  # fmt: skip
    return path.read_bytes()


def table(path: Path) -> bytes:
    rows = {"image": [picture(i) for i in range(12)], "label": [i % 2 for i in range(12)]}
    pq.write_table(pa.table(rows), path)
    return path.read_bytes()


def in_arrays(tmp_path: Path, n: int) -> int:
    content, draw, whole = arrays(tmp_path / "x.npz"), random.Random(SEED), 0
    assert read({"npz": str(tmp_path / "x.npz")}, tmp_path / "store")
    for damaged in damages(content, draw, n):
        (tmp_path / "x.npz").write_bytes(damaged)
        whole += read({"npz": str(tmp_path / "x.npz")}, tmp_path / "store")
    return whole


def in_tables(tmp_path: Path, n: int) -> int:
    (tmp_path / "set").mkdir()
    content, draw, whole = table(tmp_path / "set/train-0.parquet"), random.Random(SEED), 0
    rows = {"image": [picture(i) for i in range(20, 26)], "label": [0, 1] * 3}
    pq.write_table(pa.table(rows), tmp_path / "set/test-0.parquet")
    entry = {"parquet": str(tmp_path / "set")}
    assert read(entry, tmp_path / "store")
    for damaged in damages(content, draw, n):
        (tmp_path / "set/train-0.parquet").write_bytes(damaged)
        whole += read(entry, tmp_path / "store")
    return whole


def in_pictures(n: int) -> int:
    draw, whole = random.Random(SEED), 0
    for form in FORMS:
        for damaged in damages(picture(0, form), draw, n):
            header_size(io.BytesIO(damaged))
            try:
                pixels, _ = decode_and_see(damaged)
            except BrokenImage:
                continue
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
            whole += 1
    return whole


def test_damaged_arrays(tmp_path):
    assert in_arrays(tmp_path, 60) < 60


def test_damaged_tables(tmp_path):
    assert in_tables(tmp_path, 60) < 60


def test_damaged_pictures():
    assert 0 < in_pictures(60) < 60 * len(FORMS)


@pytest.mark.slow
def test_damages_for_long(tmp_path):
    print(f"seed {SEED}")
    in_arrays(tmp_path, 3_000)
    in_tables(tmp_path, 3_000)
    in_pictures(10_000)


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus(tmp_path, path):
    if path.suffix == ".npz":
        assert not read({"npz": str(path)}, tmp_path / "store")
    elif path.suffix == ".parquet":
        (tmp_path / "set").mkdir()
        table(tmp_path / "set/test-0.parquet")
        shutil.copy(path, tmp_path / "set/train-0.parquet")
        assert not read({"parquet": str(tmp_path / "set")}, tmp_path / "store")
    else:
        header_size(str(path))
        with pytest.raises(BrokenImage):
            decode_and_see(path.read_bytes())
