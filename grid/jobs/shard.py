"""Sampling one whole shard of a pool."""

import io
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import median, mode
from typing import Any

from equigrid.analysis.paper.costs import costs
from equigrid.grid.datasets import shards
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.ids import seed_of
from equigrid.grid.jobs import generator, inputs, real_images, weights
from equigrid.grid.jobs.job import Job, Payload, Subset
from equigrid.grid.jobs.kind import NOTHING, TRAIN, Cost, Finished, JobKind, Reads, Took, Work
from equigrid.grid.jobs.pool import PlannedPool
from equigrid.grid.jobs.provenance import (
    device_name,
    device_of,
    peak_device_bytes,
    provenance,
    reset_peak,
)
from equigrid.grid.jobs.request import Request
from equigrid.grid.jobs.signs import Signs
from equigrid.grid.store import Store, documents
from equigrid.grid.store.layout import GENERATORS, POOLS, SHARD_COLUMNS, SHARD_DATA, shard_columns

MOST_TIMED = 100  # shards of a pool that its cost is the median of; more would not move it


@dataclass(frozen=True, kw_only=True)
class ShardPayload(Payload):
    """`size` images of a pool from number `start` on. The job's id names them: see `PoolIdentity`
    for what determines the pool's. generator: the id of the training. mapping: the configuration by
    which the pool is sampled. shares: the classes' shares of its labels. one_class: whether they
    are all of one, and no batch is larger than a shard. varied: the base, where images are made
    from images of it.
    """

    pool: str
    generator: str
    index: int
    mapping: Mapping[str, Any]
    start: int
    size: int
    seed: int
    shares: tuple[int, ...] | None = None
    one_class: bool = False
    varied: Subset | None = None


def planned(pool: PlannedPool, n: int) -> list[Job]:
    """The jobs of the shards that hold a pool's first n images."""
    own, seed = pool.pool, seed_of(pool.pool.id, "pool")
    payloads = (
        ShardPayload(
            pool=own.id,
            generator=own.generator_id,
            index=index,
            mapping=pool.mapping,
            start=own.shard(index).start,
            size=len(own.shard(index)),
            seed=seed,
            shares=pool.shares,
            one_class=own.label is not None,
            varied=pool.varied,
        )
        for index in range(own.shards(n))
    )
    needs = [own.generator_id, *(pool.training.needs if pool.varied else ())]  # the real images
    return [KIND.job(payload, needs, pool.where) for payload in payloads]


def sample(store: Store, request: Request[ShardPayload]) -> dict:
    """Samples a shard, writes what the generator says of each image (captions, scores), then the
    shard.
    """
    from equigrid.generators import registry

    payload = request.payload
    config, device = registry.config(dict(payload.mapping)), device_of(request)
    start = payload.start
    columns: dict[str, list] = {}
    reset_peak(device)
    # Before the clock; what a kind loads by itself, see `cost`.
    weights_here = _weights(store, payload.generator)
    clock = time.perf_counter()
    images, labels = registry.sample(
        weights_here, config, classes=request.classes, class_names=request.class_names,
        shape=request.image_shape, seed=payload.seed, start=start, stop=start + payload.size,
        shares=payload.shares, at_once=payload.size if payload.one_class else None,
        base=inputs.base(request, payload.varied), device=device, facts=columns.update,
        progress=Signs(request.id, request.tell),
    )  # fmt: skip
    seconds = time.perf_counter() - clock
    if not len(images):
        raise ValueError(f"pool {payload.pool}: there is no image from number {start:,} on")
    real = real_images.looked_for(request, images, labels, columns) if _brings(payload) else {}
    manifest = POOLS.manifest(request.id)
    facts = {
        "seconds": seconds, "seconds_per_image": seconds / len(images),
        "device": device_name(device), "peak_device_bytes": peak_device_bytes(device),
        "pool": payload.pool, "generator": payload.generator, "index": payload.index,
        "kind": config.kind, "cost": config.cost_facts(*request.image_shape, request.classes, None),
        "columns": _write_columns(store, manifest, request, columns), **real,
        **provenance(request),
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
    manifests = _manifests(store, pool_id)
    if not manifests:
        return None
    device = mode(content.device for content in manifests)
    alike = [content for content in manifests if content.device == device]
    peaks = [one.peak_device_bytes for one in alike if one.peak_device_bytes is not None]
    return {
        "device": device, "shards": len(alike), "facts": alike[0].cost,
        "peak_device_bytes": max(peaks, default=None),
        "seconds": median(content.seconds for content in alike),
        "seconds_per_image": median(content.seconds_per_image for content in alike),
    }  # fmt: skip


def _manifests(store: Store, pool_id: str) -> list[documents.SamplingRecord]:
    """Manifests of a pool's finished shards; of more than MOST_TIMED so many at most, spread over
    the pool.
    """
    names = sorted(filter(POOLS.is_manifest, store.list(POOLS.pool(pool_id))))
    chosen = names[:: max(1, -(-len(names) // MOST_TIMED))]
    return [one for one in documents.read_all(store, chosen, documents.SamplingRecord) if one]


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
    name = shard_columns(manifest, request.attempt)
    store.put(name, sink.getvalue())
    return name


def _weights(store: Store, generator_id: str) -> dict:
    manifest = GENERATORS.manifest(generator_id)
    with shards.corrupt_if_damaged(manifest):
        content = documents.read(store, manifest, documents.WeightsRecord)
    return _read_weights(store, manifest, content.checksum if content else None)


@lru_cache(maxsize=2)  # a slot samples many shards of one pool, one after another
def _read_weights(store: Store, manifest: str, checksum: str | None) -> dict:
    """checksum: as the manifest has it now, so that weights that were made again are read again."""
    return weights.read(store, manifest)


def _work(payload: ShardPayload, shape: Shape) -> float:
    """Evaluations of the network."""
    return payload.size * _evaluations(payload, shape)


def _evaluations(payload: ShardPayload, shape: Shape) -> float:
    """Of the network, for an image."""
    return generator.cost_facts(payload.mapping, shape, None).get("evaluations_per_image", 1)


def _computed(payload: ShardPayload, shape: Shape) -> Work | None:
    found = generator.flops(payload.mapping, shape, 0)
    return found and Work(payload.size * found.per_image, found.wide)


def _published_s(payload: ShardPayload, shape: Shape, device: str) -> float | None:
    """By the paper's Table 8: the same sampler on the same card. Images that a filter drops are
    made too; whether Table 8 counts them is not said.
    """
    facts = generator.cost_facts(payload.mapping, shape, None)
    name = _published_name(payload.mapping, shape)
    for row in costs():
        same = row.machine in device and row.sampling_steps == facts.get("sampler_steps")
        if same and row.generator == name:
            kept = 1 - ((payload.mapping.get("clip_filter") or {}).get("drop") or 0)
            return payload.size * row.seconds_per_image / kept
    return None


def _published_name(mapping: Mapping[str, Any], shape: Shape) -> str | None:
    """The name in Table 8 of a configuration that is the paper's own; None for any other."""
    flops = generator.flops(mapping, shape, 0)
    full = flops is not None and flops.wide
    if mapping["kind"] == "edm":
        return "edm" if full and shape.image == (32, 32, 3) else None
    if mapping["kind"] == "dit":
        return "dit" if full and shape.image == (256, 256, 3) else None
    pipeline = str(mapping.get("pipeline", ""))
    names = {"stable-diffusion-2": "sd2", "stable-diffusion-3": "sd3"}
    return next((name for text, name in names.items() if text in pipeline), None)


def _finished(kind: JobKind[ShardPayload], store: Store, jobs: list[Job], shape: Shape) -> Finished:
    """A pool's shards speak with one voice."""
    for job in {job.payload.pool: job for job in jobs}.values():
        if found := cost(store, job.payload.pool):
            seconds = found["seconds_per_image"] / _evaluations(job.payload, shape)
            yield generator.alike(job.payload.mapping), Took(seconds, found["device"])


def _bytes(payload: ShardPayload, like: Took | None, shape: Shape | None) -> float | None:
    if shape is None:
        return None
    return payload.size * (shape.height * shape.width * shape.channels + 8)  # and its label


def _brings(payload: ShardPayload) -> bool:
    """Whether the images are files of somebody's, which may be the dataset's own."""
    from equigrid.generators import registry

    return registry.KINDS[payload.mapping["kind"]][0].brings_images


def _reads(payload: ShardPayload) -> Reads:
    if _brings(payload):
        return real_images.READS
    return TRAIN if payload.varied else NOTHING


KIND = JobKind(
    name="shard",
    payload=ShardPayload,
    body=sample,
    words="shard",
    plural="shards",
    outputs=POOLS,
    record=documents.PoolShard,
    reads=_reads,
    id_of=lambda payload: POOLS.job_id(payload.pool, payload.index),
    images=lambda outcome: outcome["shard"]["n"],
    cost=Cost(
        finished=_finished,
        alike=lambda payload: generator.alike(payload.mapping),
        work=_work,
        bytes=_bytes,
        flops=_computed,
        published_s=_published_s,
    ),
    leftovers={SHARD_DATA: "data", SHARD_COLUMNS: "columns"},
)
