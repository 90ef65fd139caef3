"""Small sets as people have them, written by the tests that need them."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def pixels(*seed: int, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def encoded(array: np.ndarray, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def painted():
    """(8, 8, 3) uint8 noise that a seed tells apart from all others."""
    return pixels


@pytest.fixture
def encode():
    """An array as the bytes of an image file."""
    return encoded


@pytest.fixture
def write_parquet():
    """Writes a file of images and whatever other columns; `names`: as Hugging Face's library."""

    def write(
        path: Path, labels, *, names=None, label="label", image="image", start=0, bare=False, **more
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        n = len(labels)
        images = [encoded(pixels(start, i)) for i in range(n)]
        cells = images if bare else [{"bytes": data, "path": None} for data in images]
        columns = {image: cells, label: labels, **more}
        table = pa.table({name: column for name, column in columns.items() if column is not None})
        if names is not None:
            told = {"info": {"features": {label: {"names": list(names), "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
        pq.write_table(table, path)
        return path

    return write


@pytest.fixture
def write_tree():
    """Writes PNGs, each of noise of its own, at the given paths; returns the folder."""

    def write(root: Path, names) -> Path:
        for i, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(pixels(77, i)))
        return root

    return write
