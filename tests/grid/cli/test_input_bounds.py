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
import tarfile
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


@pytest.fixture
def looked(bounded, tmp_path, monkeypatch):
    """Looks at a set, all of whose images are read, and checks that it ended well: in one line."""
    monkeypatch.chdir(tmp_path)

    def look(place: Path, *options: str, code: int = 2, most_mb: float = MOST_MB) -> str:
        ended, told, seconds, mb = bounded("dataset", "inspect", place, *options)
        assert ended == code, (ended, told)
        if code:
            assert re.fullmatch(r"equigrid: [^\n]*\n", told), told
        assert seconds < MOST_S and mb < most_mb, (seconds, mb, told)
        return told

    return look


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


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("!!int abc", "a value is not of its type"), ("2020-99-99", "a value is not of its type"),
        ("&a [*a]", "an alias stands inside what it stands for"), ("9" * 5000, "a number of 5,000 characters"),
        ("[" * 5000, "nested too deeply"), ("{a: 1, a: 2}", "the key 'a' is there twice"),
        ("\n".join(["- &a0 [x]", *(f"- &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))]), "aliases unfold to more than"),
    ],
    ids=range(7),
)  # fmt: skip
def test_options_of_a_dataset(looked, folder, value, said):
    assert said in looked(folder, "--option", f"size={value}")


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


def png_of_zeros(path: Path | io.BytesIO, width: int, height: int) -> None:
    """A PNG that is a thousandth of its pixels."""
    packer, row = zlib.compressobj(9), bytes(1 + 3 * width)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", size) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    content = b"\x89PNG\r\n\x1a\n" + parts
    path.write(content) if isinstance(path, io.BytesIO) else path.write_bytes(content)


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


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def a_jpeg_of_20_000_scans(size: int = 2000) -> bytes:
    file = io.BytesIO()
    Image.new("L", (size, size)).save(file, "jpeg", progressive=True)
    whole = file.getvalue()
    scan, end = whole.rfind(b"\xff\xda"), whole.rfind(b"\xff\xd9")
    return whole[:end] + whole[scan:end] * 20_000 + whole[end:]


def an_icon_that_holds_another() -> bytes:
    """Of 16 × 16 pixels, by its own word."""
    file = io.BytesIO()
    png_of_zeros(file, 9_500, 9_500)
    content = file.getvalue()
    facts = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(content), 22)
    return facts + content


def a_png_of_4e9_frames() -> bytes:
    whole = encoded(0)
    return whole[:33] + chunk(b"acTL", struct.pack(">II", 2**32 - 1, 0)) + whole[33:]


OTHERS = {"jpg": a_jpeg_of_20_000_scans, "ico": an_icon_that_holds_another, "png": a_png_of_4e9_frames}  # fmt: skip
SAID = {"jpg": "it is drawn in 20,0", "ico": "it holds a larger image than it says; save it again"}


@pytest.mark.parametrize("ending", OTHERS)
def test_images_that_are_others_than_they_say(looked, folder, ending):
    for path in folder.glob("*/*/0.png"):
        path.unlink()
        path.with_name(f"0.{ending}").write_bytes(OTHERS[ending]())
    for path in folder.glob("*/*/[1-4].png"):
        path.unlink()
    if ending in SAID:
        assert SAID[ending] in looked(folder)
    else:
        looked(folder, code=0)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["palette, transparent", "grey of 16 bits", "colours of 16 bits"])
def test_the_largest_images_take_little_more_than_their_pixels(bounded, folder, kind):
    """Between forms an image may need many times its size: 8 bytes a level, or four layers."""
    colour, bits, channels = {"p": (3, 8, 1), "g": (0, 16, 1), "c": (2, 16, 3)}[kind[0]]
    packer, row = zlib.compressobj(1), bytes(1 + 9_400 * channels * bits // 8)
    packed = b"".join(packer.compress(row) for _ in range(9_400)) + packer.flush()
    facts = struct.pack(">IIBBBBB", 9_400, 9_400, bits, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256)) if colour == 3 else b""
    parts = chunk(b"IHDR", facts) + palette + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    (folder / "train/a/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    ended, told, _, mb = bounded("dataset", "inspect", folder, "-o", "size=8")
    assert ended == 0 and mb < 1000, (told, mb)


def test_a_file_of_a_terabyte_that_holds_nothing(looked, folder):
    with open(folder / "train/a/0.png", "wb") as file:
        file.truncate(10**12)
    assert "has 1,000,000,000,000 bytes; 1,073,741,824 are the most" in looked(folder)


def test_a_dicom_file_that_unpacks_to_gigabytes(looked, folder):
    from equigrid.generators.common.decoding import BrokenImage, decode

    pytest.importorskip("pydicom")
    element = b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99"
    head = bytes(128) + b"DICM" + b"\x02\0\0\0UL\4\0" + struct.pack("<I", len(element)) + element
    packer = zlib.compressobj(9, wbits=-15)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(40)) + packer.flush()
    for path in folder.glob("train/a/*.png"):
        path.unlink()
    (folder / "train/a/0.dcm").write_bytes(head + packed)
    looked(folder, code=0)
    with pytest.raises(BrokenImage, match="unpacks to more than [0-9,]+ bytes"):
        decode(head + packed)


# Tables of labels ---------------------------------------------------------------------------------


TABLES = {
    "columns": (b"," * 10**6, "has 1,000,001 columns; 10,000 are the most"),
    "columns of one name": (b"a" + b",a" * 9_999 + b"\n", "has the column 'a' twice"),
    "cells": (b"file,label\n" + b"a," * 10**6, "1000001 cells, and the first line names 2 columns"),
    "a quote": (b'file,label\n"' + b"a\n" * 10**6, "cannot be read: "),
    "empty lines": (b"file,label\n" + b"\n" * 10**6, "has no rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_labels(planned, folder, name):
    content, said = TABLES[name]
    (folder / "labels.csv").write_bytes(content)
    assert said in planned({"imagefolder": str(folder), "labels": "labels.csv", "test": 0.5})


def test_pipes_among_tables_of_labels(looked, folder):
    for name in ("a.csv", "b.parquet"):
        os.mkfifo(folder / name)
    looked(folder, code=0)
    shutil.rmtree(folder / "train/a")
    os.mkfifo(folder / "x.png")
    (folder / "labels.csv").write_text("file,label\nx,a\n")
    (folder / "a.csv").unlink()
    assert "x is no file (a pipe, a socket or a device?)" in looked(
        folder, "-o", "labels=labels.csv"
    )


# Tars ---------------------------------------------------------------------------------------------


def member(name: str, content: bytes, kind: bytes = b"0", size: int | None = None) -> bytes:
    """Of a tar. size: what its header claims."""
    facts = tarfile.TarInfo(name)
    facts.size, facts.type = len(content) if size is None else size, kind
    return facts.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


TARS = {
    "a size of 1e24": (member("x", b"", b"V")[:124] + b"\x80" + (10**24).to_bytes(11, "big") + bytes(376), "cannot be read as a tar"),
    "a label of 2 MB": (member("0.cls", b"1" * 2_000_000), "0.cls has 2,000,000 bytes; 1,048,576 are the most"),
    "a label of 1e30": (member("0.json", b'{"label": 1' + b"0" * 30 + b"}"), "labels are 0 to k-1"),
    "a name of 1 GB": (member("x", b"", b"L", 10**9), "a header has 1,000,000,000 bytes"),
    "facts of 1 GB": (member("x", b"", b"x", 10**9), "a header has 1,000,000,000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", TARS)
def test_tars(planned, tmp_path, name):
    content, said = TARS[name]
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        path = tmp_path / "set" / f"{split}-0.tar"
        image = member("0.png", encoded(len(split)))
        path.write_bytes(image + content + bytes(1024))
    assert said in planned({"webdataset": str(tmp_path / "set")})


def test_pipes_among_tars(planned, tmp_path):
    (tmp_path / "set").mkdir()
    os.mkfifo(tmp_path / "set/train-0.tar")
    assert "train-0.tar is no file" in planned({"webdataset": str(tmp_path / "set")})


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


def often(value: bytes | str, n: int, kind: pa.DataType) -> pa.DictionaryArray:
    """A column that means one value n times, and holds it once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([value], kind))


UNFOLDING = {
    "label": lambda n: often("x" * 10**6, n, pa.string()),
    "split": lambda n: often("x" * 10**6, n, pa.string()),
    "patient_id": lambda n: often("x" * 10**6, n, pa.string()),
    "image": lambda n: often(bytes(5 * 10**7), n, pa.binary()),
}


@pytest.mark.parametrize("column", UNFOLDING)
def test_values_that_are_meant_again_and_again(bounded, parquet, tmp_path, column):
    """Some kB that unfold to 20 GB of texts, or a terabyte of images."""
    n, spec = 20_000, tmp_path / "spec.yaml"
    rows = {"image": often(encoded(50), n, pa.binary()), "label": np.arange(n) % 2}
    table = pa.table({**rows, column: UNFOLDING[column](n)})
    pq.write_table(table, parquet / "train-0.parquet", compression="zstd")
    assert (parquet / "train-0.parquet").stat().st_size < 100_000
    spec.write_text(HEAD + yaml.safe_dump({"dataset": {"parquet": str(parquet)}}))
    ended, told, seconds, mb = bounded("plan", spec, "--store", tmp_path / "store")
    assert ended in (0, 2), told
    assert seconds < MOST_S and mb < 2 * MOST_MB, (seconds, mb, told)


def test_paths_that_are_meant_again_and_again(bounded, parquet, tmp_path):
    """Arrow's own schema in a file may say that they are a dictionary."""
    n, spec = 20_000, tmp_path / "spec.yaml"
    columns = [often(encoded(50), n, pa.binary()), often("x" * 10**6, n, pa.string())]
    image = pa.StructArray.from_arrays(columns, ["bytes", "path"])
    table = pa.table({"image": image, "label": np.arange(n) % 2})
    pq.write_table(table, parquet / "train-0.parquet", compression="zstd")
    (parquet / "test-0.parquet").unlink()
    spec.write_text(HEAD + yaml.safe_dump({"dataset": {"parquet": str(parquet), "test": 0.5}}))
    ended, told, seconds, mb = bounded("plan", spec, "--store", tmp_path / "store")
    assert ended in (0, 2), told
    assert seconds < 2 * MOST_S and mb < 2 * MOST_MB, (seconds, mb, told)


def test_one_large_image_again_and_again_ends_when_all_are_read(parquet):
    from equigrid.grid.datasets import catalogue

    n = 20_000
    rows = {"image": often(bytes(5 * 10**7), n, pa.binary()), "label": np.arange(n) % 2}
    pq.write_table(pa.table(rows), parquet / "train-0.parquet", compression="zstd")
    contents = catalogue.source({"parquet": str(parquet), "size": 8, "allow_broken": n}).contents()
    unfolds = r"'image' unfolds to more than 1,073,741,824 bytes, and the file has [\d,]+;"
    with pytest.raises(ValueError, match=unfolds):
        list(contents.read(contents.unit("train", 0, n)))


def test_pipes_among_tables(planned, parquet):
    os.mkfifo(parquet / "train-0.parquet")
    assert "has no train-*.parquet" in planned({"parquet": str(parquet)})
