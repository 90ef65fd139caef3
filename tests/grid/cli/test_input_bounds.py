"""Hostile and broken inputs end as one line, in little time and memory: commands run one by one in
processes whose memory and time are bounded (`bounded.py`). Files that are small are in
tests/corpus; those that are large are made here.
"""

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

MOST_MB, MOST_S = 250, 3.0  # of a command beyond what importing took; seconds of its CPU
LARGER_MB = (
    1500  # of address space beyond what was there: threads and arenas reserve more than they use
)
HEAD = "name: x\nrecipe: digits\nclassifiers: [digits-cnn]\nblocks: [{n_base: 4}]\n"


@pytest.fixture(scope="module")
def bounded():
    """Runs a command in a process of its own: (exit code, what it told, seconds, MB)."""
    path = Path(__file__).with_name("bounded.py")
    server = subprocess.Popen(
        [sys.executable, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(*arguments: object) -> tuple[int, str, float, float]:
        server.stdin.write(json.dumps([[*map(str, arguments)], LARGER_MB, 20]) + "\n")
        server.stdin.flush()
        return tuple(json.loads(server.stdout.readline()))

    yield run
    server.stdin.close()
    server.wait(20)


@pytest.fixture
def planned(bounded, tmp_path, monkeypatch):
    """Plans the spec in a file, or of a dataset, and checks that it ended well: in one line."""
    monkeypatch.chdir(tmp_path)

    def plan(spec: Path | dict, code: int = 2) -> str:
        if isinstance(spec, dict):
            text, spec = HEAD + yaml.safe_dump({"dataset": spec}), tmp_path / "spec.yaml"
            spec.write_text(text)
        ended, told, seconds, mb = bounded("plan", spec, "--store", tmp_path / "store")
        assert ended == code, (ended, told)
        if code:
            assert re.fullmatch(r"equigrid: [^\n]*\n", told), told
        assert seconds < MOST_S and mb < MOST_MB, (seconds, mb, told)
        return told

    return plan


# Specs --------------------------------------------------------------------------------------------

LARGE = {
    "values": ("a: [" + "1," * 500_000 + "1]", "more than 50,000 values"),
    "keys": ("".join(f"k{i}: 1\n" for i in range(90_000)), "more than 50,000 values"),
    "seconds": ("name: 1" + ":1" * 500_000, "a number of 1,000,001 characters"),
    "binary": ("name: 0b" + "1" * 1_000_000, "a number of 1,000,002 characters"),
    "text": ("name: '" + "x" * 1_000_000 + "'", "name: 'xxx"),
    "comments": ("#\n" * 500_000, "a spec is a mapping"),
    "lists": ("a: " + "[" * 400_000, "nested too deeply"),
    "seeds": (
        f"name: x\ndataset: digits\nrecipe: digits\nclassifiers: [digits-cnn]\nseeds: {[*range(40_000)]}\n"
        "blocks: [{n_base: 60, real: [1, 2, 3, 4, 5], copies: [1]}]\n",
        "280,000 cells: every arm, under every seed, with every classifier; 200,000 of a grid are the most",
    ),
    "amounts": (
        "name: x\ndataset: digits\nrecipe: digits\nclassifiers: [digits-cnn]\n"
        f"blocks: [{{n_base: 60, copies: {[*range(1, 20_000)]}}}]\n",
        "1,001 times the base? If images were meant, write '1,001 images'",
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", LARGE)
def test_large_specs(planned, tmp_path, name):
    text, said = LARGE[name]
    (tmp_path / "spec.yaml").write_text(text)
    assert said in planned(tmp_path / "spec.yaml")


CORPUS = Path(__file__).parents[2] / "corpus"


@pytest.mark.parametrize("path", sorted((CORPUS / "specs").iterdir()), ids=lambda path: path.stem)
def test_specs_of_the_corpus(planned, path):
    planned(path)


def test_what_is_no_file(planned, tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "is no file (a pipe or a device?)" in planned(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    assert "is no file (a pipe or a device?)" in planned(tmp_path / "zero.yaml")


# Arrays -------------------------------------------------------------------------------------------


def header(shape: tuple, dtype: str = "|u1") -> bytes:
    file = io.BytesIO()
    facts = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)
    return file.getvalue()


def whole(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def zipped(path: Path, **members: bytes | tuple[bytes, int]) -> dict:
    """An .npz of two classes; members: in place of others, with so many zeros behind them."""
    images = np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8)
    usual = {f"{split}_{part}": whole(values) for split in ("train", "test")
             for part, values in (("images", images), ("labels", np.arange(20) % 2))}  # fmt: skip
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**usual, **members}.items():
            begin, zeros = content if isinstance(content, tuple) else (content, 0)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(begin)
                for _ in range(zeros // 2**24):
                    member.write(bytes(2**24))
                member.write(bytes(zeros % 2**24))
    return {"npz": str(path)}


ARRAYS = {
    "1e15 rows": ({"train_images": header((10**15, 8, 8)), "train_labels": header((10**15,), "<i8")}, "and 0 are there"),
    "1e15 labels": ({"train_labels": header((10**15,), "<i8")}, "8,000,000,000,000,000 bytes, and 0 are there"),
    "-5 rows": ({"train_labels": header((-5,), "<i8")}, "and 0 are there"),
    "a bomb": ({"train_images": (header((5 * 10**7, 1, 1)), 5 * 10**7), "train_labels": (header((5 * 10**7,), "|u1"), 5 * 10**7)},
               "50,000,000 images; 16,777,216 are the most"),
    "a header of 2 GB": ({"train_labels": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31 - 1), 10**8)}, "is no .npz file"),
    "sides of 0": ({"train_images": header((20, 0, 0))}, "sides are 1 to 4,096 pixels"),
    "texts": ({"train_labels": header((20,), "<U100000000")}, "whole numbers are needed"),
    "objects": ({"train_labels": header((20,), "|O")}, "whole numbers are needed"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(planned, tmp_path, name):
    members, said = ARRAYS[name]
    assert said in planned(zipped(tmp_path / "x.npz", **members))


def test_the_arrays_it_starts_from(planned, tmp_path):
    planned(zipped(tmp_path / "x.npz"), code=0)


def test_a_pipe_of_arrays(planned, tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    assert "is no file" in planned({"npz": str(tmp_path / "x.npz")})


def test_bytes_that_do_not_decompress_are_bad_input_when_they_are_read(tmp_path):
    """The plan reads labels alone; what is wrong with images shows when they are read."""
    from equigrid.grid.datasets import catalogue

    images = whole(np.random.default_rng(0).integers(0, 255, (20, 128, 64), np.uint8))
    entry = zipped(tmp_path / "x.npz", train_images=images, test_images=images)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        member = archive.getinfo("test_images.npy")
    middle = member.header_offset + 30 + len(member.filename) + 120_000
    content[middle : middle + 60] = b"\xff" * 60
    (tmp_path / "x.npz").write_bytes(content)
    contents = catalogue.source(entry).contents()
    with pytest.raises(ValueError, match=r"x\.npz is damaged: "):
        list(contents.read(contents.unit("test", 0, 20)))


# Images -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """A set of two classes, in folders."""
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(5):
                pixels = draw.integers(0, 255, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{i}.png")
    return tmp_path / "set"


def png_of_zeros(path: Path, width: int, height: int) -> None:
    """A PNG that is a thousandth of its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    packer, row = zlib.compressobj(9), bytes(1 + 3 * width)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def test_images_of_169_million_pixels(planned, folder):
    png_of_zeros(folder / "train/a/0.png", 13_000, 13_000)
    said = planned({"imagefolder": str(folder)})
    assert "0.png is 13000×13000" in said
    for path in folder.glob("*/*/*.png"):
        shutil.copy(folder / "train/a/0.png", path) if path.name != "0.png" else None
    for path in folder.glob("*/*/0.png"):
        if path != folder / "train/a/0.png":
            shutil.copy(folder / "train/a/0.png", path)
    from equigrid.grid.datasets import catalogue
    from equigrid.grid.errors import UserError

    planned({"imagefolder": str(folder)}, code=0)  # what it is, only reading it will tell
    with pytest.raises(
        UserError, match=r"13,000 × 13,000 pixels; 89,478,485 are the most: scale it"
    ):
        catalogue.source({"imagefolder": str(folder)}).contents()


@pytest.mark.parametrize("what", ["pipe", "/dev/zero", "/dev/urandom"])
def test_pipes_and_devices_among_images(planned, folder, what):
    path = folder / "train/a/x.png"
    os.mkfifo(path) if what == "pipe" else path.symlink_to(what)
    assert "x.png is no file (a pipe, a socket or a device?)" in planned(
        {"imagefolder": str(folder)}
    )


def test_no_image_runs_another_program(tmp_path):
    """Pillow hands EPS to Ghostscript, by its content whatever it is named."""
    from equigrid.generators.common.decoding import BrokenImage, decode, header_size

    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(BrokenImage, match="no kind of image that is known"):
        decode(eps)
    assert header_size(io.BytesIO(eps)) is None


# Tables of images ---------------------------------------------------------------------------------


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture
def parquet(tmp_path) -> Path:
    """A folder with a file for testing on; a test adds one to train on."""
    (tmp_path / "set").mkdir()
    rows = {"image": [encoded(i) for i in range(20)], "label": [i % 2 for i in range(20)]}
    pq.write_table(pa.table(rows), tmp_path / "set/test-0.parquet")
    return tmp_path / "set"


def test_the_table_it_starts_from(planned, parquet):
    shutil.copy(parquet / "test-0.parquet", parquet / "train-0.parquet")
    table = pq.read_table(parquet / "train-0.parquet")
    pq.write_table(table.slice(0, 18), parquet / "train-0.parquet")
    planned({"parquet": str(parquet)}, code=0)


@pytest.mark.long
@pytest.mark.parametrize(
    "image", [None, encoded(0)], ids=["without images", "one image again and again"]
)
def test_files_that_claim_millions_of_rows(planned, parquet, image):
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    n = 2_000_000
    part = pa.table({"image": pa.array([image] * n, pa.binary()), "label": np.zeros(n, np.int64)})
    with pq.ParquetWriter(parquet / "train-0.parquet", schema) as writer:
        for _ in range(10):
            writer.write_table(part)
    said = planned({"parquet": str(parquet)})
    assert "train-0.parquet claims 20,000,000 rows in" in said and "is it damaged?" in said


def test_pipes_among_tables(planned, parquet):
    os.mkfifo(parquet / "train-0.parquet")
    assert "has no train-*.parquet" in planned({"parquet": str(parquet)})
