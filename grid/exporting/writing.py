"""A pool as files: class folders of PNG, or Parquet files with labels; here, or on a hub."""

import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from equigrid.generators.common import trees
from equigrid.grid.errors import UnavailableError, UserError
from equigrid.grid.exporting.card import card
from equigrid.grid.exporting.pools import Export
from equigrid.grid.reporting.out_folder import check_outside, replacing
from equigrid.grid.store import Store
from equigrid.grid.text import in_a_line

HUB = "hf://datasets/"
FILE_BYTES = 400 * 2**20  # of pixels in one Parquet file
ROWS = 256  # images in memory as PNG at once


def write(store: Store, export: Export, to: str, *, parquet: bool = False) -> list[str]:
    """Writes a pool to a folder (of class folders, or with `parquet` of Parquet files), to a file
    `….parquet`, or to a dataset on Hugging Face's hub, hf://datasets/OWNER/NAME.

    The card comes last: where it is, all is. Returns the names of what was written. Raises
    UserError, UnavailableError.
    """
    if to.startswith("hf://"):
        return _to_hub(store, export, to)
    if "://" in to:
        raise UserError(f"--to: {to}; write a folder, a file ….parquet, or {HUB}OWNER/NAME")
    path = Path(to).expanduser()
    check_outside(store, path, "--to")
    if path.suffix == ".parquet":
        return _to_file(store, export, path)
    return _to_folder(store, export, path, parquet=parquet)


def _to_folder(store: Store, export: Export, root: Path, *, parquet: bool) -> list[str]:
    _make_empty(root)
    names = _parquet_files(store, export, root) if parquet else _images(store, export, root)
    (root / "README.md").write_text(card(export, parquet=parquet), encoding="utf-8")
    return [*names, "README.md"]


def _to_file(store: Store, export: Export, path: Path) -> list[str]:
    beside = path.with_suffix(".md")
    for there in (path, beside):
        if there.exists():
            raise UserError(f"--to: {there} is there; name another file, or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--to: {path.parent} cannot be made: {error.strerror}") from error
    with replacing(path) as aside:  # a writer that ends early leaves a file that looks whole
        _write_table(aside, export, _rows(store, export))
    beside.write_text(card(export, parquet=True), encoding="utf-8")
    return [path.name, beside.name]


def _make_empty(root: Path) -> None:
    """The folder, new or empty. Raises UserError."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise UserError(f"--to: {root} is not empty; name a new folder")
    except OSError as error:
        raise UserError(f"--to: {root} cannot be written: {error.strerror or error}") from error


# Class folders ------------------------------------------------------------------------------------


def _images(store: Store, export: Export, root: Path) -> list[str]:
    folders = _folder_names(export.classes)
    for folder in folders:
        (root / folder).mkdir()
    names = []
    for number, (pixels, label) in enumerate(_each(store, export)):
        name = f"{folders[label]}/{number:07d}.png"
        (root / name).write_bytes(_png(pixels))
        names.append(name)
    return names


def _folder_names(classes: tuple[str, ...]) -> list[str]:
    """A name for each class that a folder can have on any system. Raises UserError where two would
    be one.
    """
    names = [_folder_name(name) for name in classes]
    seen: dict[str, str] = {}
    for name, folder in zip(classes, names):
        if (other := seen.setdefault(folder.casefold(), name)) != name:
            what = f"classes {other!r} and {name!r} would be one folder"
            raise UserError(f"--to: {what}; write Parquet files (--parquet)")
    return names


def _folder_name(name: str) -> str:
    safe = "".join("_" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in name).strip()
    return f"_{safe}_" if not safe or trees.is_hidden(safe) or safe.endswith(".") else safe


def _png(pixels: np.ndarray) -> bytes:
    """pixels: (H, W, C) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _each(store: Store, export: Export) -> Iterator[tuple[np.ndarray, int]]:
    for images, labels in export.parts(store):
        yield from zip(images, labels.tolist())


# Parquet ------------------------------------------------------------------------------------------


def _parquet_files(store: Store, export: Export, root: Path) -> list[str]:
    """data/train-00000-of-00001.parquet …, as many as the pixels fill."""
    rows, shape = _rows(store, export), export.plan.resolved.shape
    assert shape is not None, "a plan with pools has a shape"
    in_a_file = max(ROWS, FILE_BYTES // (shape.height * shape.width * shape.channels))
    files = -(-export.n // in_a_file)
    (root / "data").mkdir()
    names = [f"data/train-{k:05d}-of-{files:05d}.parquet" for k in range(files)]
    for name in names:
        _write_table(root / name, export, rows, in_a_file)
    return names


Row = tuple[dict[str, Any], int]


def _rows(store: Store, export: Export) -> Iterator[Row]:
    for number, (pixels, label) in enumerate(_each(store, export)):
        yield {"bytes": _png(pixels), "path": f"{number:07d}.png"}, label


def _write_table(path: Path, export: Export, rows: Iterator[Row], most: int | None = None) -> None:
    """Takes rows until there are `most`, or no more."""
    schema = _schema(export.classes)
    left = most if most is not None else export.n
    with pq.ParquetWriter(path, schema) as writer:
        while left > 0:
            lot = [row for _, row in zip(range(min(ROWS, left)), rows)]
            if not lot:
                return
            images = pa.array([cell for cell, _ in lot], schema.field("image").type)
            labels = pa.array([label for _, label in lot], pa.int64())
            writer.write_table(pa.Table.from_arrays([images, labels], schema=schema))
            left -= len(lot)


def _schema(classes: tuple[str, ...]) -> pa.Schema:
    """With the names of the classes as Hugging Face's library writes them."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [pa.field("image", image), pa.field("label", pa.int64())]
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


# A hub --------------------------------------------------------------------------------------------


def _to_hub(store: Store, export: Export, to: str) -> list[str]:
    """Uploads to hf://datasets/OWNER/NAME, at HF_ENDPOINT or the public hub; a new one is private.

    The token is huggingface_hub's own: HF_TOKEN, or of `hf auth login`.
    """
    repository = to.removeprefix(HUB)
    if not to.startswith(HUB) or repository.count("/") != 1 or not all(repository.split("/")):
        raise UserError(f"--to: {to}; write {HUB}OWNER/NAME")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    endpoint = os.environ.get("HF_ENDPOINT")
    with tempfile.TemporaryDirectory(prefix="equigrid-export-") as folder:
        names = _to_folder(store, export, Path(folder), parquet=True)
        api = HfApi(endpoint=endpoint)
        try:
            api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
            api.upload_folder(
                repo_id=repository,
                repo_type="dataset",
                folder_path=folder,
                commit_message=f"Synthetic images: {export.pool.generator}, pool {export.pool.id}",
            )
        except HFValidationError as error:
            raise UserError(f"--to: {to}: {in_a_line(str(error), 300)}") from error
        except Exception as error:  # its HTTP library's own, which changed with its versions
            raise UnavailableError(
                f"--to: {to} cannot be written: {in_a_line(str(error), 300)}"
            ) from error
    return names
