"""Shards: the one form in which a trainer sees images, real or synthetic.

A shard is uint8 images (n, H, W, C) and int64 labels (n,), as safetensors under a name that carries
its content hash, and a manifest (JSON) that is written last and names it. Shard without manifest:
not there.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as decode
from safetensors.numpy import save as encode

from equigrid.grid.errors import DocumentError
from equigrid.grid.store import Store, documents, layout

FORMAT_VERSION = 1


class ShardCorrupt(Exception):
    """Bytes (of a shard, of weights) are not those that a manifest promised, or are gone. `name` is
    the manifest's.
    """

    def __init__(self, name: str, why: str):
        super().__init__(name, why)
        self.name, self.why = name, why

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@dataclass(frozen=True)
class ShardRef:
    """Where a shard lies and what it must contain: `manifest` is its manifest's name in the
    store.
    """

    manifest: str
    data: str
    checksum: str
    n: int


def checksum(images: np.ndarray, labels: np.ndarray) -> str:
    """32 hexadecimal digits over the shape and the content. images: (n, H, W, C) uint8; labels:
    (n,) int64.
    """
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or labels.dtype != np.int64
        or labels.shape != images.shape[:1]
    ):
        shapes = f"{images.dtype} {images.shape}, {labels.dtype} {labels.shape}"
        raise ValueError(f"a shard is uint8 (n, H, W, C) and int64 (n,), not {shapes}")
    digest = hashlib.blake2b(repr(images.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def write(
    store: Store, manifest: str, images: np.ndarray, labels: np.ndarray, **facts: object
) -> ShardRef:
    """Writes a shard's data, then its manifest `NAME.json`. `facts` (JSON) are kept in the
    manifest.
    """
    content = checksum(images, labels)
    data = layout.shard_data(manifest, content)
    store.put(
        data,
        encode({"images": np.ascontiguousarray(images), "labels": np.ascontiguousarray(labels)}),
    )
    where = {"data": data, "checksum": content, "n": len(labels)}
    store.put_json(manifest, {**facts, **where, "format": FORMAT_VERSION})
    return ShardRef(manifest, data, content, len(labels))


def ref(manifest: str, content: documents.ShardRecord) -> ShardRef:
    """The reference in a manifest's content."""
    return ShardRef(manifest, content.data, content.checksum, content.n)


@contextmanager
def corrupt_if_damaged(name: str) -> Iterator[None]:
    """Within, a document under `name` that is damaged raises ShardCorrupt: it is made again, as
    damaged data is.
    """
    try:
        yield
    except DocumentError as error:
        if error.name != name:
            raise
        raise ShardCorrupt(name, error.why) from error


def read(store: Store, shard: ShardRef) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, H, W, C) uint8 and labels (n,) int64. Raises ShardCorrupt if they are not what was
    written.

    What is wrong is read once more: the first answer may have been cut short on its way.
    """
    try:
        return _read(store, shard)
    except ShardCorrupt:
        return _read(store, shard)


def _read(store: Store, shard: ShardRef) -> tuple[np.ndarray, np.ndarray]:
    try:
        tensors = decode(store.get(shard.data))
        images, labels = tensors["images"], tensors["labels"]
        found = checksum(images, labels)
    except FileNotFoundError as error:
        raise ShardCorrupt(shard.manifest, f"{shard.data} is gone") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise ShardCorrupt(shard.manifest, f"{shard.data} cannot be decoded: {error}") from error
    if found != shard.checksum:
        raise ShardCorrupt(
            shard.manifest, f"{shard.data} has checksum {found[:12]}…, not {shard.checksum[:12]}…"
        )
    return images, labels


def load(store: Store, shard: ShardRef) -> dict:
    """A shard's arrays, and its name. The value of a Ray task, and so the cache: copied to a node
    once, mapped by all there.

    It stands here, not with the other task bodies, so that the processes that only load stay small.
    """
    images, labels = read(store, shard)
    return {"images": images, "labels": labels, "name": shard.manifest}


def load_in_lane(store: Store, shard: ShardRef, _after: None) -> tuple[dict | Exception, None]:
    """`load`, and a token that the next load in the lane waits for: so no node loads a whole set at
    once.

    An error is a value here, for whoever asks for the shard: raised, it would end the lane's other
    loads too.
    """
    try:
        return load(store, shard), None
    except Exception as error:
        return error, None
