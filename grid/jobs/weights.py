"""Weights in the store, as safetensors with a checksum in the manifest that names them."""

import hashlib

from equigrid.grid.datasets.shards import ShardCorrupt, corrupt_if_damaged
from equigrid.grid.store import Store, documents


def write(store: Store, name: str, tensors: dict) -> dict:
    """Writes tensors by name; what the manifest must say of them: `weights` and `checksum`."""
    from safetensors.torch import save

    data = save({key: tensor.contiguous().cpu() for key, tensor in tensors.items()})
    store.put(name, data)
    return {"weights": name, "checksum": digest(data)}


def read(store: Store, manifest: str) -> dict:
    """The tensors that a manifest names. Raises ShardCorrupt, with the manifest's name, if they are
    not there whole.
    """
    from safetensors.torch import load

    with corrupt_if_damaged(manifest):
        content = documents.read(store, manifest, documents.WeightsRecord)
    if content is None:
        raise ShardCorrupt(manifest, "is gone")
    for _ in range(2):  # the first answer may have been cut short on its way
        try:
            data = store.get(content.weights)
        except FileNotFoundError as error:
            raise ShardCorrupt(manifest, f"{content.weights} is gone") from error
        if digest(data) == content.checksum:
            return load(data)
    raise ShardCorrupt(manifest, f"{content.weights} has not the checksum {content.checksum[:12]}…")


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
