"""Can a classifier tell a pool's images from real ones? (the paper's Section 3, Figs. 1 and 12)"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from equigrid.classifiers import recipes
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.errors import UserError
from equigrid.grid.ids import seed_of
from equigrid.grid.jobs import computing, inputs, reference_classifier, shard
from equigrid.grid.jobs.checkpoints import Checkpoints, Saving
from equigrid.grid.jobs.classifier import FromWeights, started
from equigrid.grid.jobs.grid_facts import GridFacts
from equigrid.grid.jobs.job import FLAT, Job, Payload, Stream, Subset, Synthetic
from equigrid.grid.jobs.kind import Cost, JobKind, Work
from equigrid.grid.jobs.pool import PlannedPool
from equigrid.grid.jobs.provenance import device_name, device_of, provenance
from equigrid.grid.jobs.ray_train import fit
from equigrid.grid.jobs.request import Request
from equigrid.grid.jobs.signs import Signs
from equigrid.grid.spec import DomainGap
from equigrid.grid.store import Store, documents
from equigrid.grid.store.layout import DOMAIN_GAPS

if TYPE_CHECKING:
    from equigrid.classifiers.models.network import Classifier

PERPLEXITY = 30.0
TRAINED = 0.9  # of the job, once its training is done: for what is told of how far it is


@dataclass(frozen=True, kw_only=True)
class DomainGapPayload(Payload):
    """dataset: the fingerprint. syn, real: as many images of each side. held_out: the part of each
    side that is tested on. patch_px: the side of the square that is seen of each image; None for
    all of it. tsne: images of each side in the figure. reference: the id of the grid's own
    classifier, if there is one. later: fields that a spec's `domain_gap` has gained, as set.
    pretrained: what the classifier starts from, if not from scratch.
    """

    dataset: str
    syn: Synthetic
    real: Subset
    classifier: str
    recipe: ResolvedRecipe
    held_out: float
    patch_px: int | None
    tsne: int
    reference: str | None
    stream: Stream | None = None
    later: Mapping[str, Any] = field(default_factory=dict, metadata=FLAT)
    pretrained: FromWeights | None = None


def planned(grid: GridFacts, pool: PlannedPool) -> Iterator[Job]:
    """The classifiers of a pool's images against real ones, and what they need. Raises
    UserError.
    """
    gap = grid.spec.domain_gap
    if gap is None:
        return
    for patch_px in (None, *gap.patches):
        payload, before = _payload(grid, gap, pool, patch_px)
        yield from before
        yield KIND.job(payload, [grid.ingest, *(job.id for job in before)], pool.where)


def _payload(
    grid: GridFacts, gap: DomainGap, pool: PlannedPool, patch_px: int | None
) -> tuple[DomainGapPayload, list[Job]]:
    shape = grid.shape
    n = pool.at_most(gap.images or pool.n_used)
    n = grid.n_train if n >= grid.n_train else min(n, grid.n_different)
    if patch_px is not None and patch_px > min(shape.height, shape.width):
        what = f"{patch_px} px squares do not fit into images of {shape.height}×{shape.width}"
        raise UserError(f"domain_gap.patches: {what}")
    classifier = grid.classifier(gap.classifier) if gap.classifier else grid.first_classifier
    sizes: dict[str, Any] = {"n_base": n, "n_total": 2 * n, "n_dataset": grid.n_train}
    try:
        recipe = recipes.resolve(grid.domain_recipe, **sizes, classifier=classifier.name)
        recipe = classifier.settled(recipe)
    except ValueError as error:
        raise UserError(f"domain_gap.recipe: {error}") from error
    where = "domain_gap" if patch_px is None else f"domain_gap.patches: {patch_px}"
    grid.check_recipe(classifier.name, recipe, where, patch_px)
    if not grid.recorded and not 0 < round(gap.held_out * n) < n:
        what = f"held_out {gap.held_out:g} of {n:,} images, as pool {pool.where} has them, leaves"
        right = "ask for more synthetic images, or leave domain_gap out"
        raise UserError(f"domain_gap: {what} none on one side; {right}")
    stream = grid.stream(2 * n, patch_px)
    other = "domain_gap fewer images"
    grid.check_streamed(recipe, stream, 2 * n, "domain_gap.recipe", other)
    before, tsne = shard.planned(pool, n), gap.tsne if patch_px is None else 0
    if tsne:
        before.insert(0, reference_classifier.planned(grid))
    payload = DomainGapPayload(
        dataset=grid.dataset,
        syn=Synthetic(pool=pool.pool.id, n=n),
        real=grid.subset(n, 0),
        classifier=classifier.model,
        recipe=recipe,
        held_out=gap.held_out,
        patch_px=patch_px,
        tsne=tsne,
        reference=before[0].id if tsne else None,
        stream=stream,
        later=gap.added(),
        pretrained=classifier.weights,
    )
    return payload, before


def measure(store: Store, request: Request[DomainGapPayload]) -> dict:
    """Trains and tests the domain classifier, draws the t-SNE if asked to, and writes both."""
    found = fit(
        _loop,
        {"store": store, "request": request},
        name=request.id,
        gpus=request.gpus,
        cpus=request.cpus,
    )
    store.put_json(DOMAIN_GAPS.manifest(request.id), {**found, **provenance(request)})
    Checkpoints(store, DOMAIN_GAPS.checkpoints(request.id)).clear()
    return {}


def _loop(config: dict) -> dict:
    """The TorchTrainer loop, in one process."""
    from equigrid.classifiers.domain_gap import domain_gap

    store, request = config["store"], config["request"]
    payload, device = request.payload, device_of(request)
    clock = time.perf_counter()
    checkpoints = Checkpoints(store, DOMAIN_GAPS.checkpoints(request.id))
    real = inputs.parts(request.train, inputs.real_indices(request, request.payload.real))
    made = inputs.whole(request.syn, payload.syn.n)
    signs = Signs(request.id, request.tell)
    n_tested = round(payload.held_out * payload.syn.n)  # of each side
    steps = payload.recipe.total_steps(2 * (payload.syn.n - n_tested))
    with Saving(
        checkpoints, every_s=request.checkpoint_every_s, steps=steps,
        told=signs.part(0, TRAINED),
    ) as saving:  # fmt: skip
        gap = domain_gap(
            inputs.fetchers(real), inputs.fetchers(made), request.image_shape,
            classes=request.classes, model=payload.classifier, recipe=payload.recipe,
            seed=seed_of(request.id, "domain"), device=device, held_out=payload.held_out,
            patch_px=payload.patch_px, window=payload.stream and payload.stream.window,
            resume=checkpoints.load(), checkpoint=saving, start=started(payload.pretrained),
            tested_share=signs.part(TRAINED, 1),
        )  # fmt: skip
    facts = {
        field.name: getattr(gap, field.name)
        for field in fields(gap)
        if field.name not in ("module", "tested")
    }
    facts["per_class"] = [None if np.isnan(value) else value for value in facts["per_class"]]
    if payload.tsne:
        facts["tsne"] = _panels(store, request, gap.module, gap.tested, device)
    seconds = time.perf_counter() - clock
    return {**facts, "pool": payload.syn.pool, "seconds": seconds, "device": device_name(device)}


def _panels(
    store: Store, request: Request, module: "Classifier", tested: np.ndarray, device: str
) -> dict:
    """t-SNE of the same images of both sides in the features of the domain classifier and of the
    ordinary one.

    Of those that the domain classifier was tested on alone: images that it has learnt by heart
    would lie apart whether there is a gap or not.
    """
    from equigrid.classifiers.features import Features

    n = min(request.payload.tsne, len(tested))
    shown = tested[np.linspace(0, len(tested) - 1, n).round().astype(int)]
    real = inputs.parts(request.train, inputs.real_indices(request, request.payload.real)[shown])
    images, labels = inputs.gathered(request, real + inputs.parts(request.syn, shown))
    ordinary = reference_classifier.load(store, request.payload.reference, request, device)
    seed = seed_of(request.id, "t-SNE") % 2**32
    return {
        "n": n, "perplexity": _perplexity(2 * n), "labels": labels.tolist(),
        "domain": _embedded(Features(module, device)(images), seed),
        "ordinary": _embedded(Features(ordinary, device)(images), seed),
    }  # fmt: skip


def _perplexity(n: int) -> float:
    return min(PERPLEXITY, (n - 1) / 3)


def _embedded(features: np.ndarray, seed: int) -> list[list[float]]:
    """(2n, 2) coordinates; the first half are the real images'."""
    from sklearn.manifold import TSNE

    tsne = TSNE(init="pca", perplexity=_perplexity(len(features)), random_state=seed)
    return np.round(tsne.fit_transform(features.astype(np.float64)).astype(float), 3).tolist()


def _computed(payload: DomainGapPayload, shape: Shape) -> Work | None:
    """Of both sides, but what is held out for the test; t-SNE is left out."""
    n, side = 2 * payload.syn.n, payload.patch_px
    seen = replace(shape, height=side, width=side) if side else shape
    tested = round(n * payload.held_out)
    return computing.training(
        payload.classifier, payload.recipe, max(1, n - tested), seen, evaluated=tested,
        weights=payload.pretrained,
    )  # fmt: skip


KIND = JobKind(
    name="domain",
    payload=DomainGapPayload,
    body=measure,
    words="domain gap",
    plural="domain gaps",
    outputs=DOMAIN_GAPS,
    record=documents.DomainGapRecord,
    wanted=True,
    plan=planned,
    cost=Cost(flops=_computed),
    kept=True,
)
