"""How good a pool is: one row of `generators.quality`, in the networks that the spec chose."""

import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from equigrid.generators import balance
from equigrid.generators.quality.config import LEAST_IMAGES
from equigrid.generators.quality.names import CLASSIFIER, DINOV2, SPLITS, VIT
from equigrid.grid.datasets.shards import ShardCorrupt, corrupt_if_damaged
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.errors import DocumentError, UserError
from equigrid.grid.ids import content_id
from equigrid.grid.jobs import inputs, reference_classifier, shard, weights
from equigrid.grid.jobs.grid_facts import GridFacts
from equigrid.grid.jobs.job import HOW, Job, Outside, Payload, Subset, Synthetic
from equigrid.grid.jobs.kind import NOTHING, POOL_AND_TRAIN, VAL, Cost, JobKind, Reads, Work
from equigrid.grid.jobs.pool import PlannedPool
from equigrid.grid.jobs.provenance import device_name, device_of, provenance
from equigrid.grid.jobs.request import Request
from equigrid.grid.jobs.signs import Signs
from equigrid.grid.store import Store, documents
from equigrid.grid.store.layout import GENERATORS, POOLS, QUALITY, neighbours_picture, statistics

if TYPE_CHECKING:
    from equigrid.classifiers.features import Features
    from equigrid.generators.quality.banks import Bank
    from equigrid.generators.quality.comparison import Extract, Real
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
    config, networks = grid.quality_payload()
    classified = quality.features or _extractor(config) == CLASSIFIER
    if not grid.recorded:
        _check_distances(grid, pool, n, bool(networks["inception"]), bool(networks["vit"]))
    _check_enough(config, grid, pool, n)
    if classified:
        before.insert(0, reference_classifier.planned(grid))
    payload = QualityPayload(
        dataset=grid.dataset,
        syn=Synthetic(pool=pool.pool.id, n=n),
        subset=pool.training.payload.subset,
        reference=before[0].id if classified else None,
        config=config,
        networks=networks,
        outside=pool.training.payload.outside,
    )
    yield from before
    yield KIND.job(payload, [grid.ingest, *(job.id for job in before)], pool.where)


def _extractor(config: Mapping[str, Any]) -> str | None:
    """The network of `quality.metrics`; None where none of them is asked for."""
    return config["extractor"]["name"] if "extractor" in config else None


def _check_distances(
    grid: GridFacts, pool: PlannedPool, n: int, inception: bool, vit: bool
) -> None:
    """Raises UserError for fewer images than FID (two), Inception Score and diversity (two of a
    class) need.
    """
    assert grid.spec.quality is not None, "asked for"
    features = grid.spec.quality.features
    least = 2 if inception or features else 1
    if inception:
        least = SPLITS
    if (vit or features) and max(grid.shape.train_counts) < 2:
        raise UserError("quality: no class has two training images; write quality: off")
    if vit or features:
        shares = pool.shares or (1,) * len(grid.shape.classes)
        least = max(least, balance.first_pair(shares))
    if n < least:
        what = f"pool {pool.where} has {n:,} images, and {least:,} are the fewest"
        why = "two of one class" if vit or features else "it is of distributions"
        right = f"ask for more synthetic images, write quality: {{images: {max(least, 10)}}} or off"
        raise UserError(f"quality: {what} ({why}); {right}")


def _check_enough(config: Mapping[str, Any], grid: GridFacts, pool: PlannedPool, n: int) -> None:
    """Raises UserError for metrics of fewer images than they need, or than there are classes."""
    if _extractor(config) is None:
        return
    classes = len(grid.shape.classes)
    least = max(LEAST_IMAGES, classes)
    why = f"an image of each of the {classes:,} classes" if classes > LEAST_IMAGES else (
        "an interval needs groups of images")  # fmt: skip
    for n_images, what, right in (
        (n, f"pool {pool.where} has", "ask for more synthetic images, or raise quality.images"),
        (grid.shape.n_train, "training set has", "leave quality.metrics out"),
    ):
        if n_images < least:
            raise UserError(
                f"quality.metrics: the {what} {n_images:,} images, and {least:,} are the fewest "
                f"({why}); {right}"
            )


NEAREST, NEAREST_PASSES = 0.05, 5
"""What an image counts as that is a candidate for the nearest, against one that a network sees; and
how often each of the base is looked at for that.
"""


class _Passes:
    """How far a measuring is: by the images that networks see, and whose distances are taken, one
    that is seen twice as two. What an earlier pool has left behind counts as seen at once.
    """

    def __init__(self, request: Request[QualityPayload], n_base: int, reconstructs: bool):
        n, n_real, config = request.payload.syn.n, request.train.n, request.payload.config
        self._signs = Signs(request.id, request.tell)
        self._total: float = n + n_real + (2 * n_base if reconstructs else 0)
        self._total += NEAREST * NEAREST_PASSES * n_base if config["neighbours"] else 0
        if _extractor(config):
            from equigrid.generators.quality.comparison import most_seen

            self._total += n + n_real + most_seen(n, n_real, config["metrics"])
        self._seen = 0.0

    def __call__(self, n: float) -> None:
        """n images more."""
        self._seen += n
        self._signs(self._seen / self._total)

    def candidates(self, parts: list[inputs.Part]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images and labels among which the nearest are looked for, part by part."""
        for images, labels in inputs.blocks(parts):
            yield images, labels
            self(NEAREST * len(images))


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
    wanted = {name: payload.networks[name] for name in ("inception", "vit")}
    own = features if payload.config["features"] else None
    networks = measuring.load_networks(**wanted, features=own, device=device)
    neighbours = payload.config["neighbours"]
    reconstruct = _reconstructor(store, request, device)
    seen = _Passes(request, sum(len(rows) for _, rows in base), reconstruct is not None)
    row = measuring.quality(
        lambda: inputs.blocks(pool), lambda: seen.candidates(base), networks,
        classes=request.classes, n_pool=payload.syn.n, n_neighbours=neighbours,
        reference=_statistics(store, request, networks, every, seen), seen=seen,
    )  # fmt: skip
    if reconstruct:
        row |= measuring.reconstruction(
            lambda: inputs.blocks(base), reconstruct, networks, classes=request.classes, seen=seen
        )
    if "extractor" in payload.config:
        row = _with_metrics(row, store, request, networks, features, device, seen)
    if neighbours:
        picture = measuring.neighbour_picture(
            lambda: inputs.blocks(pool), lambda: seen.candidates(base)
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


def _with_metrics(
    row: dict,
    store: Store,
    request: Request[QualityPayload],
    networks: "Networks",
    features: "Features | None",
    device: str,
    seen: _Passes,
) -> dict:
    """A row with what `quality.metrics` asks for, in the features of its extractor."""
    from equigrid.generators.quality import measure as measuring
    from equigrid.generators.quality.comparison import extractor_name
    from equigrid.generators.quality.networks import NetworkMissing

    payload = request.payload
    try:
        extract = _extract(payload, networks, features, device)
    except NetworkMissing as error:
        return {**row, "note": "; ".join(filter(None, (row["note"], str(error))))}
    pool = inputs.whole(request.syn, payload.syn.n)
    found, notes = measuring.comparison(
        lambda: inputs.blocks(pool),
        extract,
        _real(store, request, extract, seen),
        n_pool=payload.syn.n,
        metrics=payload.config["metrics"],
        extractor=extractor_name(payload.config["extractor"]),
        device=device,
        seen=seen,
    )
    return {**row, **found, "note": "; ".join(filter(None, (row["note"], *notes)))}  # fmt: skip


def _extract(
    payload: QualityPayload, networks: "Networks", features: "Features | None", device: str
) -> "Extract":
    """From images to the features of the extractor. Raises NetworkMissing."""
    from equigrid.generators.quality.extractors import Extractor
    from equigrid.generators.quality.networks import NetworkMissing

    chosen, inception = payload.config["extractor"], networks.inception
    if chosen["name"] == CLASSIFIER:
        assert features is not None, "planned with its classifier"
        return features
    if chosen["name"] == "inception":
        if inception is None:
            raise NetworkMissing("quality.extractor: Inception's weights could not be had")
        return lambda images: inception(images)[0]
    weights = payload.networks.get("extractor_weights")
    return Extractor(
        chosen["name"], size=chosen["size"], device=device,
        weights=weights if isinstance(weights, str) else None,
    )  # fmt: skip


def _real(
    store: Store, request: Request[QualityPayload], extract: "Extract", seen: _Passes
) -> "Real":
    """The training set's features, and which of them the pool's generator learned from."""
    from equigrid.generators.quality.banks import extracted
    from equigrid.generators.quality.comparison import Real

    payload, bank = request.payload, _real_features(store, request, extract, seen)
    outside, rows = payload.outside, None
    if outside is not None and outside.own:
        own = extracted(inputs.blocks(inputs.whole(request.val)), extract, request.val.n)
        return Real(bank, own.features, np.arange(bank.n))
    if outside is not None:
        rows = inputs.outside_indices(request, outside)
    elif payload.subset is not None:
        rows = inputs.real_indices(request, payload.subset)
    if rows is None:
        return Real(bank)
    return Real(bank, bank.features[rows], np.setdiff1d(np.arange(bank.n), rows))


def _real_features(
    store: Store, request: Request[QualityPayload], extract: "Extract", seen: _Passes
) -> "Bank":
    """Of the whole training set: extracted for the first pool, kept for all others."""
    from equigrid.generators.quality.banks import Bank, extracted

    payload = request.payload
    what = {"dataset": payload.dataset, "extractor": payload.config["extractor"]}
    if _extractor(payload.config) == CLASSIFIER:
        what["reference"] = payload.reference
    elif _extractor(payload.config) == "inception":
        what["inception"] = payload.config["inception"]
    name = statistics(content_id("features", what), ".npy")
    bank = Bank(request.train.n)
    try:
        kept = store.get_decoded(name, _array, "features of images")
        bank.add(kept, inputs.labels(request))
        bank.complete()
        seen(bank.n)
        return bank
    except (FileNotFoundError, DocumentError, ValueError):  # damaged ones are extracted anew
        every = inputs.whole(request.train)
    bank = extracted(inputs.blocks(every), extract, request.train.n, seen=seen)
    file = io.BytesIO()
    np.save(file, bank.features)
    store.put(name, file.getvalue())
    return bank


def _array(content: bytes) -> np.ndarray:
    """Raises ValueError for what are not an array's bytes."""
    found = np.load(io.BytesIO(content))
    if not isinstance(found, np.ndarray) or found.ndim != 2:
        raise ValueError("no features")
    return found


def _statistics(
    store: Store, request: Request, networks: "Networks", every: list[inputs.Part], seen: _Passes
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
        "reference": payload.reference if payload.config["features"] else None,
    }
    name = statistics(content_id("statistics", what), ".npz")
    try:
        kept = store.get_decoded(name, measuring.Reference.from_npz, "statistics of images")
        seen(request.train.n)
        return kept
    except (FileNotFoundError, DocumentError):  # damaged ones are measured anew
        found = measuring.measured(
            inputs.blocks(every), networks, classes=request.classes, seen=seen
        )
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
DINOV2_FLOPS = 162_023_964_672  # of its ViT-L/14, an image at 224×224
EXTRACTORS = {
    "inception": (0, 2048),  # its features are those of FID
    DINOV2: (DINOV2_FLOPS, 1024),
    VIT: (VIT_FLOPS, 768),
    CLASSIFIER: (0, 64),  # the features of ResNet-110, as many as of most others
}
"""By what is known of an extractor: operations per image, dimensions of its features."""


def _computed(payload: QualityPayload, shape: Shape) -> Work | None:
    """The pool, its base and the training set through Inception, ViT and the extractor, and the
    distances between all of two sets. The training set once for all pools: of each it is counted.
    Neighbours and the grid's own classifier are left out. None for an extractor of unknown size.
    """
    asked = {"inception": INCEPTION_FLOPS, "vit": VIT_FLOPS}
    per_image = sum(flops for name, flops in asked.items() if payload.networks.get(name))
    learned = payload.outside or payload.subset
    n_base = learned.n if learned else 0
    n, n_train = payload.syn.n, shape.n_train
    every = per_image * (n + n_base + n_train)
    if (extractor := _extractor(payload.config)) is None:
        return Work(every, True)
    if extractor not in EXTRACTORS:
        return None
    own, width = EXTRACTORS[extractor]
    pairs = n**2 + n_train**2 + n * n_train
    return Work(every + own * (n + n_train) + 2 * width * pairs, True)


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
