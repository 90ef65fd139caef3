"""How good a pool is: one row of `generators.quality`, in the networks that the spec chose."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from equigrid.grid.datasets.shards import ShardCorrupt, corrupt_if_damaged
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.errors import DocumentError
from equigrid.grid.ids import content_id
from equigrid.grid.jobs import inputs, reference_classifier, shard, weights
from equigrid.grid.jobs.grid_facts import GridFacts
from equigrid.grid.jobs.job import HOW, Job, Outside, Payload, Subset, Synthetic
from equigrid.grid.jobs.kind import NOTHING, POOL_AND_TRAIN, VAL, Cost, JobKind, Reads, Work
from equigrid.grid.jobs.pool import PlannedPool
from equigrid.grid.jobs.provenance import device_name, device_of, provenance
from equigrid.grid.jobs.request import Request
from equigrid.grid.store import Store, documents
from equigrid.grid.store.layout import GENERATORS, POOLS, QUALITY, neighbours_picture, statistics

if TYPE_CHECKING:
    from equigrid.classifiers.features import Features
    from equigrid.generators.quality.measure import Networks, Reference


@dataclass(frozen=True, kw_only=True)
class QualityPayload(Payload):
    """dataset: the fingerprint. subset, outside: what the pool's generator learned from; None for
    one that brings its own knowledge. reference: the id of the grid's own classifier, if its
    features are wanted. config: what of the spec's `quality` determines the row. networks: where
    they come from.
    """

    dataset: str
    syn: Synthetic
    subset: Subset | None
    reference: str | None
    config: Mapping[str, Any]
    networks: Mapping[str, bool | str] = field(metadata=HOW)
    outside: Outside | None = None


def planned(grid: GridFacts, pool: PlannedPool) -> Iterator[Job]:
    """The measuring of a pool, and what it needs."""
    quality = grid.spec.quality
    if quality is None:
        return
    n = pool.at_most(quality.images or pool.n_used)
    before = shard.planned(pool, n)
    if quality.features:
        before.insert(0, reference_classifier.planned(grid))
    config, networks = grid.quality_payload()
    payload = QualityPayload(
        dataset=grid.dataset,
        syn=Synthetic(pool=pool.pool.id, n=n),
        subset=pool.training.payload.subset,
        reference=before[0].id if quality.features else None,
        config=config,
        networks=networks,
        outside=pool.training.payload.outside,
    )
    yield from before
    yield KIND.job(payload, [grid.ingest, *(job.id for job in before)], pool.where)


def measure(store: Store, request: Request[QualityPayload]) -> dict:
    """Measures a pool, and its generator's autoencoder if it has one; writes the picture, then the
    row.
    """
    from equigrid.generators.quality import measure as measuring

    payload, device = request.payload, device_of(request)
    clock = time.perf_counter()
    pool, every = inputs.whole(request.syn, payload.syn.n), inputs.whole(request.train)
    base = inputs.learned_parts(request, payload.subset, payload.outside)
    if base is None:
        base = every  # the training images of a generator from elsewhere are not at hand
    features = _features(store, request, device)
    networks = measuring.load_networks(**payload.networks, features=features, device=device)
    neighbours = payload.config["neighbours"]
    row = measuring.quality(
        lambda: inputs.blocks(pool), lambda: inputs.blocks(base), networks,
        classes=request.classes, n_pool=payload.syn.n, n_neighbours=neighbours,
        reference=_statistics(store, request, networks, every),
    )  # fmt: skip
    if reconstruct := _reconstructor(store, request, device):
        row |= measuring.reconstruction(
            lambda: inputs.blocks(base), reconstruct, networks, classes=request.classes
        )
    if neighbours:
        picture = measuring.neighbour_picture(
            lambda: inputs.blocks(pool), lambda: inputs.blocks(base)
        )
        store.put(neighbours_picture(request.id), picture)
    seconds = time.perf_counter() - clock
    facts = {
        "pool": payload.syn.pool,
        "seconds": seconds,
        "device": device_name(device),
        **provenance(request),
    }
    store.put_json(QUALITY.manifest(request.id), {**row, **facts})
    return {}


def _statistics(
    store: Store, request: Request, networks: "Networks", every: list[inputs.Part]
) -> "Reference":
    """What the real images leave behind in the networks: measured for the first pool, kept for all
    others.
    """
    from equigrid.generators.quality import measure as measuring

    payload = request.payload
    what = {name: payload.config[name] for name in ("inception", "vit")}
    what |= {
        "missing": list(networks.missing),
        "dataset": payload.dataset,
        "reference": payload.reference,
    }
    name = statistics(content_id("statistics", what), ".npz")
    try:
        return store.get_decoded(name, measuring.Reference.from_npz, "statistics of images")
    except (FileNotFoundError, DocumentError):  # damaged ones are measured anew
        found = measuring.measured(inputs.blocks(every), networks, classes=request.classes)
    store.put(name, found.to_npz())
    return found


def _reconstructor(
    store: Store, request: Request, device: str
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Passes images through the autoencoder of the pool's generator; None if that has none."""
    from equigrid.generators import registry
    from equigrid.generators.registry import config

    shard_name = POOLS.manifest(POOLS.job_id(request.payload.syn.pool, 0))
    first = _manifest(store, shard_name, documents.PoolShard)
    if not registry.reconstructs(first.kind):
        return None
    name = GENERATORS.manifest(first.generator)
    chosen = config(_manifest(store, name, documents.GeneratorRecord).config)
    return registry.reconstructor(
        weights.read(store, name), chosen, shape=request.image_shape, device=device
    )


def _manifest(store: Store, name: str, model: type[documents.D]) -> documents.D:
    with corrupt_if_damaged(name):
        content = documents.read(store, name, model)
    if content is None:
        raise ShardCorrupt(name, "is gone")  # so it is made again
    return content


def _features(store: Store, request: Request, device: str) -> "Features | None":
    if request.payload.reference is None:
        return None
    from equigrid.classifiers.features import Features

    return Features(
        reference_classifier.load(store, request.payload.reference, request, device), device
    )


def _reads(payload: QualityPayload) -> Reads:
    own = payload.outside is not None and payload.outside.own
    return POOL_AND_TRAIN | (VAL if own else NOTHING)


INCEPTION_FLOPS = 11_426_432_192  # of an image at 299×299; benchmarks/costs.py --count
VIT_FLOPS = 35_127_656_448  # of ViT-B/16, an image at 224×224


def _computed(payload: QualityPayload, shape: Shape) -> Work | None:
    """The pool, its base and the training set through Inception and ViT. The training set once for
    all pools: of each it is counted. Neighbours and the grid's own classifier are left out.
    """
    asked = {"inception": INCEPTION_FLOPS, "vit": VIT_FLOPS}
    per_image = sum(flops for name, flops in asked.items() if payload.networks.get(name))
    learned = payload.outside or payload.subset
    n_base = learned.n if learned else 0
    return Work(per_image * (payload.syn.n + n_base + shape.n_train), True)


KIND = JobKind(
    name="quality",
    payload=QualityPayload,
    body=measure,
    words="pool quality",
    plural="pool qualities",
    outputs=QUALITY,
    record=documents.QualityRecord,
    wanted=True,
    reads=_reads,
    plan=planned,
    cost=Cost(flops=_computed),
    kept=True,
)
