"""Sampling one whole shard of a pool."""

import io
import time
from dataclasses import asdict
from functools import lru_cache

from grid import shards
from grid.store import Store
from grid.tasks import weights
from grid.tasks.generators import manifest_name
from grid.tasks.request import Request
from grid.tasks.surroundings import device_name, device_of, peak_device_bytes, reset_peak, surroundings


def shard_name(pool_id: str, index: int) -> str:
    """The manifest of a pool's shard."""
    return f"pools/{pool_id}/{index:05d}.json"


def sample(store: Store, request: Request) -> dict:
    """Samples a shard, writes what the generator says of each image (captions, scores), then the shard."""
    import generators
    from generators import backends

    payload = request.payload
    generator, device = generators.config(payload["mapping"]), device_of(request)
    start = payload["index"] * payload["size"]
    columns: dict[str, list] = {}
    reset_peak(device)
    clock = time.perf_counter()
    images, labels = backends.sample(
        _weights(store, payload["generator"]), generator,
        classes=request.classes, class_names=request.class_names, shape=request.image_shape,
        seed=payload["seed"], start=start, stop=start + payload["size"], device=device, facts=columns.update,
    )  # fmt: skip
    seconds = time.perf_counter() - clock
    if not len(images):
        raise ValueError(f"pool {payload['pool']}: there is no image from number {start:,} on")
    manifest = shard_name(payload["pool"], payload["index"])
    facts = {
        "seconds": seconds, "seconds_per_image": seconds / len(images), "device": device_name(device),
        "peak_device_bytes": peak_device_bytes(device), "pool": payload["pool"], "generator": payload["generator"],
        "index": payload["index"], "kind": generator.kind,
        "cost": generator.cost_facts(*request.image_shape, request.classes, None),
        "columns": _write_columns(store, manifest, request, columns), **surroundings(request),
    }  # fmt: skip
    ref = shards.write(store, manifest, images, labels, **facts)
    return {"shard": asdict(ref)}


def _write_columns(store: Store, manifest: str, request: Request, columns: dict[str, list]) -> str | None:
    """Captions, prompts and scores, as a Parquet file beside the shard; its name."""
    if not columns:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    name = f"{manifest.removesuffix('.json')}-{request.attempt}.parquet"
    store.put(name, sink.getvalue())
    return name


@lru_cache(maxsize=2)  # a slot samples many shards of one pool, one after another
def _weights(store: Store, generator_id: str) -> dict:
    return weights.read(store, manifest_name(generator_id))
