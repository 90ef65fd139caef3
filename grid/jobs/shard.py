"""Sampling one whole shard of a pool."""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from statistics import median, mode

from equigrid.grid.datasets import shards
from equigrid.grid.jobs import weights
from equigrid.grid.jobs.provenance import (
    device_name,
    device_of,
    peak_device_bytes,
    provenance,
    reset_peak,
)
from equigrid.grid.jobs.request import Request
from equigrid.grid.store import CONNECTIONS, Store
from equigrid.grid.store.layout import GENERATORS, POOLS, beside

MOST_TIMED = 100  # shards of a pool that its cost is the median of; more would not move it


def sample(store: Store, request: Request) -> dict:
    """Samples a shard, writes what the generator says of each image (captions, scores), then the
    shard.
    """
    from equigrid.generators import registry

    payload = request.payload
    generator, device = registry.config(payload["mapping"]), device_of(request)
    start = payload["index"] * payload["size"]
    columns: dict[str, list] = {}
    reset_peak(device)
    weights_here = _weights(
        store, payload["generator"]
    )  # before the clock; what a kind loads by itself, see `cost`
    clock = time.perf_counter()
    images, labels = registry.sample(
        weights_here, generator,
        classes=request.classes, class_names=request.class_names, shape=request.image_shape,
        seed=payload["seed"], start=start, stop=start + payload["size"], device=device, facts=columns.update,
    )  # fmt: skip
    seconds = time.perf_counter() - clock
    if not len(images):
        raise ValueError(f"pool {payload['pool']}: there is no image from number {start:,} on")
    manifest = POOLS.manifest(request.id)
    facts = {
        "seconds": seconds, "seconds_per_image": seconds / len(images), "device": device_name(device),
        "peak_device_bytes": peak_device_bytes(device), "pool": payload["pool"], "generator": payload["generator"],
        "index": payload["index"], "kind": generator.kind,
        "cost": generator.cost_facts(*request.image_shape, request.classes, None),
        "columns": _write_columns(store, manifest, request, columns), **provenance(request),
    }  # fmt: skip
    ref = shards.write(store, manifest, images, labels, **facts)
    return {"shard": asdict(ref)}


def cost(store: Store, pool_id: str) -> dict | None:
    """What a pool's finished shards took, on the device that most of them ran on; None if there are
    none.

    seconds (of a shard) and seconds_per_image are medians: a process loads or compiles models in
    its first shard. peak_device_bytes is the largest (None on a CPU); shards, how many were looked
    at; facts, `cost_facts` of sampling.
    """
    manifests = _finished(store, pool_id)
    if not manifests:
        return None
    device = mode(content["device"] for content in manifests)
    alike = [content for content in manifests if content["device"] == device]
    peaks = [
        content["peak_device_bytes"]
        for content in alike
        if content["peak_device_bytes"] is not None
    ]
    return {
        "device": device, "shards": len(alike), "facts": alike[0]["cost"],
        "peak_device_bytes": max(peaks, default=None),
        **{name: median(content[name] for content in alike) for name in ("seconds", "seconds_per_image")},
    }  # fmt: skip


def _finished(store: Store, pool_id: str) -> list[dict]:
    """Manifests of a pool's finished shards; of more than MOST_TIMED so many at most, spread over
    the pool.
    """
    names = sorted(filter(POOLS.is_manifest, store.list(POOLS.pool(pool_id))))
    chosen = names[:: max(1, -(-len(names) // MOST_TIMED))]
    with ThreadPoolExecutor(CONNECTIONS) as threads:  # manifests are small: reading them is waiting
        return [content for content in threads.map(store.get_json, chosen) if content]


def _write_columns(
    store: Store, manifest: str, request: Request, columns: dict[str, list]
) -> str | None:
    """Captions, prompts and scores, as a Parquet file beside the shard; its name."""
    if not columns:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    name = beside(manifest, f"-{request.attempt}.parquet")
    store.put(name, sink.getvalue())
    return name


def _weights(store: Store, generator_id: str) -> dict:
    manifest = GENERATORS.manifest(generator_id)
    content = store.get_json(manifest)
    return _read_weights(store, manifest, (content or {}).get("checksum"))


@lru_cache(maxsize=2)  # a slot samples many shards of one pool, one after another
def _read_weights(store: Store, manifest: str, checksum: str | None) -> dict:
    """checksum: as the manifest has it now, so that weights that were made again are read again."""
    return weights.read(store, manifest)


def shard_name(pool_id: str, index: int) -> str:
    return POOLS.manifest(POOLS.job_id(pool_id, index))
