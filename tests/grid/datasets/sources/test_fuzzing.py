"""The boundary of sources: whatever bytes lie in an archive of arrays, a table, a tar or an image,
reading the set either works or ends as bad input, at once. Damages are drawn with a seed (another
one each time with EQUIGRID_EXAMPLES=random, which is printed); files that went wrong once are in
tests/corpus/sources.

Where a checksum would find a damage (zip, tar), there are damages too that lie below it: the file
is put together anew around them, so that what reads its inside must find them.
"""

import io
import json
import os
import random
import shutil
import tarfile
import time
import zipfile
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
SEED = random.randrange(10**6) if os.environ.get("EQUIGRID_EXAMPLES") == "random" else 7
MOST_S = 5  # of CPU, for a set of some images
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


def read(entry: dict, folder: Path) -> str | None:
    """The fingerprint of a set that can be read whole; None where it ended as bad input."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.process_time()
    try:
        source = catalogue.source(entry)  # for a plan: nothing else is one line there
        if source.check:
            source.check()
    except UserError:
        return None
    finally:
        assert time.process_time() - began < MOST_S
    try:
        found = ingest.ingest(Store(folder, create=True), source)
    except (ValueError, OSError):  # what a run ends with in one line
        return None
    finally:
        assert time.process_time() - began < MOST_S
    return found.fingerprint


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
    """Zip has a checksum of each array: what is read whole is what was written."""
    content, draw, whole = arrays(tmp_path / "x.npz"), random.Random(SEED), 0
    written = read({"npz": str(tmp_path / "x.npz")}, tmp_path / "store")
    assert written
    for damaged in damages(content, draw, n):
        (tmp_path / "x.npz").write_bytes(damaged)
        found = read({"npz": str(tmp_path / "x.npz")}, tmp_path / "store")
        assert found in (None, written)
        whole += found is not None
    return whole


def below_the_checksums_of_arrays(tmp_path: Path, n: int) -> int:
    """Damaged headers and values, in an archive that is whole."""
    arrays(tmp_path / "x.npz")
    draw, whole = random.Random(SEED), 0
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(n):
        name = draw.choice(sorted(members))
        part = slice(0, draw.choice((128, len(members[name]))))  # its header is 128 bytes
        (damaged,) = damages(members[name][part], draw, 1)
        damaged += members[name][part.stop :]
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            for other, content in members.items():
                archive.writestr(other, damaged if other == name else content)
        whole += read({"npz": str(tmp_path / "x.npz")}, tmp_path / "store") is not None
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
        whole += read(entry, tmp_path / "store") is not None
    return whole


def below_the_pages_of_tables(tmp_path: Path, n: int) -> int:
    """Damaged images, labels of any type and value, and footers, in files that are whole."""
    (tmp_path / "set").mkdir()
    draw, whole = random.Random(SEED), 0
    table(tmp_path / "set/test-0.parquet")
    columns = [
        [0, 1], ["a", "b"], [0.0, 1.0], [0.5, float("nan")], [None, 1], [-1, 1], [2**62, 1], [[0], [1]], [True, False],
        [b"\xff", b"a"], ["", "a"], ["a\n", "b"], ["\u202e", "b"], [0, 10**6], ["x" * 10**5, "b"], [{"bytes": b""}, None],
    ]  # fmt: skip
    entry = {"parquet": str(tmp_path / "set"), "size": 8, "allow_broken": 12}
    path = tmp_path / "set/train-0.parquet"
    for _ in range(n):
        images, values, names = [picture(i) for i in range(12)], [0, 1], ["image", "label"]
        how = draw.choice(("images", "labels", "names", "footer"))
        if how == "images":
            images = [next(damages(image, draw, 1)) for image in images]
        elif how == "labels":
            values = draw.choice(columns)
        elif how == "names":
            names = draw.choice(
                (["image", "split"], ["x", "y"], ["label", "image"], ["a.b", "class"])
            )
        rows = dict(zip(names, (images, values * 6)))
        once = draw.random() < 0.5
        pq.write_table(
            pa.table(rows), path, row_group_size=draw.choice((1, 5, 100)), use_dictionary=once
        )
        if how == "footer":
            content = path.read_bytes()
            begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
            (footer,) = damages(content[begin:-8], draw, 1)
            end = len(footer).to_bytes(4, "little") + b"PAR1"
            path.write_bytes(content[:begin] + footer + end)
        whole += read(entry, tmp_path / "store") is not None
    return whole


def tar(path: Path, members: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(content)
            archive.addfile(facts, io.BytesIO(content))
    return path.read_bytes()


def with_its_checksum(header: bytes) -> bytes:
    """A tar's header of 512 bytes, whose checksum is right again."""
    header = header.ljust(512, b"\0")[:512]
    total = sum(header[:148] + b" " * 8 + header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:]


def in_tars(tmp_path: Path, n: int) -> int:
    """Damages anywhere, in headers whose checksums are right again, and in labels."""
    (tmp_path / "set").mkdir()
    draw, whole = random.Random(SEED), 0
    path, entry = tmp_path / "set/train-0.tar", {"webdataset": str(tmp_path / "set")}

    def members(first: int) -> dict[str, bytes]:
        found = {}
        for i in range(first, first + 6):
            found[f"{i}.png"] = picture(i)
            found[f"{i}.json" if i % 3 else f"{i}.cls"] = b'{"label": 1}' if i % 3 else b"0"
        return found

    tar(tmp_path / "set/test-0.tar", members(50))
    content = tar(path, members(0))
    assert read(entry, tmp_path / "store")
    with tarfile.open(path) as archive:
        headers = [member.offset for member in archive]
    kinds = [bytes([kind]) for kind in b"0123456789LKxgSVDNX"]
    for damaged in damages(content, draw, n):
        how = draw.choice(("anywhere", "header", "kind", "label"))
        if how in ("header", "kind"):
            at = draw.choice(headers)
            header = content[at : at + 512]
            (header,) = damages(header, draw, 1) if how == "header" else (header,)
            if how == "kind":
                header = header[:156] + draw.choice(kinds) + header[157:]
            damaged = content[:at] + with_its_checksum(header) + content[at + 512 :]
        elif how == "label":
            (label,) = damages(
                json.dumps({"label": draw.choice((0, 10**30, "a", None, [], 0.5))}).encode(),
                draw,
                1,
            )
            damaged = tar(path, {**members(0), draw.choice(("1.json", "0.cls")): label})
        path.write_bytes(damaged)
        whole += read(entry, tmp_path / "store") is not None
    return whole


def in_tables_of_labels(tmp_path: Path, n: int) -> int:
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    lines = ["file,label,split"]
    lines += [f"{i}.png,{'ab'[i % 2]},{'train' if i < 6 else 'test'}" for i in range(12)]
    content, draw, whole = "\n".join(lines).encode(), random.Random(SEED), 0
    entry = {"imagefolder": str(tmp_path), "labels": "labels.csv"}
    pieces = (
        b'"',
        b",",
        b";",
        b"\n",
        b"\r",
        b"\0",
        b"../",
        b"/",
        b"\xff",
        b"\t",
        "\u202e".encode(),
        b",,",
        b"nan",
    )
    for damaged in [content, *damages(content, draw, n)]:
        if draw.random() < 0.5 and damaged != content:
            at = draw.randrange(len(content))
            damaged = content[:at] + draw.choice(pieces) + content[at:]
        (tmp_path / "labels.csv").write_bytes(damaged)
        whole += read(entry, tmp_path / "store") is not None
        assert whole, "the table it starts from"
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


KINDS = {
    "arrays": in_arrays, "values of arrays": below_the_checksums_of_arrays, "tables": in_tables,
    "cells of tables": below_the_pages_of_tables, "tars": in_tars, "labels": in_tables_of_labels,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_damaged(tmp_path, kind):
    """Some are read all the same, else the check of one thing hid what is behind it; but of an
    archive, whose checksums let nothing through.
    """
    print(f"seed {SEED}")
    assert (kind != "arrays") <= KINDS[kind](tmp_path, 60) < 60


def test_damaged_pictures():
    assert 0 < in_pictures(60) < 60 * len(FORMS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "pictures"])
def test_damages_for_long(tmp_path, kind):
    print(f"seed {SEED}")
    if kind == "pictures":
        in_pictures(10_000)
    else:
        KINDS[kind](tmp_path, 3_000)


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
