"""The grid's own classifier, trained on the whole training set: its features measure pools where
ImageNet's cannot.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from equigrid.classifiers import names
from equigrid.classifiers.models.pretraining import Pretraining, Start
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.grid.datasets.shards import ShardCorrupt, corrupt_if_damaged
from equigrid.grid.errors import UserError
from equigrid.grid.ids import seed_of
from equigrid.grid.jobs import computing, inputs, weights
from equigrid.grid.jobs.checkpoints import Checkpoints, Saving
from equigrid.grid.jobs.classifier import FromWeights, started
from equigrid.grid.jobs.grid_facts import GridFacts
from equigrid.grid.jobs.job import Job, Payload, Stream, Subset
from equigrid.grid.jobs.kind import TRAIN, Cost, JobKind
from equigrid.grid.jobs.provenance import device_name, device_of, provenance
from equigrid.grid.jobs.ray_train import fit, rank
from equigrid.grid.jobs.request import Request
from equigrid.grid.jobs.signs import Signs
from equigrid.grid.store import Store, documents
from equigrid.grid.store.layout import REFERENCE_CLASSIFIERS, WEIGHTS

if TYPE_CHECKING:
    from equigrid.classifiers.models.network import Classifier


@dataclass(frozen=True, kw_only=True)
class ReferencePayload(Payload):
    """dataset: the fingerprint. classifier: the model's name. pretrained: what it starts from, if
    not from scratch.
    """

    dataset: str
    real: Subset
    classifier: str
    recipe: ResolvedRecipe
    stream: Stream | None = None
    pretrained: FromWeights | None = None


def planned(grid: GridFacts) -> Job:
    """The grid's own classifier: the spec's first, trained on real images alone. Raises
    UserError.
    """
    classifier, n = grid.first_classifier, grid.spec.reference_images or grid.n_train
    if n > grid.n_train:
        right = f"use at most {grid.n_train:,}, or leave it out for all"
        raise UserError(f"reference_images: {n:,} is more than there are training images; {right}")
    grid.check_different(n, "reference_images")
    if not grid.recorded:
        try:
            names.check_head(classifier.model)
        except ValueError as error:
            right = "write quality: {features: false} and no tsne to do without its features"
            raise UserError(f"classifiers.0: {error}; or {right}") from error
    recipe = grid.resolved_recipe(grid.recipe, n_base=n, n_total=n, classifier=classifier.name)
    stream = grid.stream(n)
    grid.check_streamed(recipe, stream, n, f"recipe {grid.recipe}", "reference_images: fewer")
    payload = ReferencePayload(
        dataset=grid.dataset,
        real=grid.subset(n, 0),
        classifier=classifier.model,
        recipe=recipe,
        stream=stream,
        pretrained=classifier.weights,
    )
    return KIND.job(payload, [grid.ingest], grid.where(n))


def train(store: Store, request: Request[ReferencePayload]) -> dict:
    """Trains the classifier; writes its weights and then the manifest."""
    started = datetime.now(UTC)
    config = {"store": store, "request": request}
    facts = fit(
        _loop,
        config,
        name=request.id,
        workers=request.workers,
        gpus=request.gpus,
        cpus=request.cpus,
    )
    manifest = {**facts, "started_at": started.isoformat(), **provenance(request)}
    store.put_json(REFERENCE_CLASSIFIERS.manifest(request.id), manifest)
    Checkpoints(store, REFERENCE_CLASSIFIERS.checkpoints(request.id)).clear()
    return {}


def _loop(config: dict) -> dict:
    """The TorchTrainer loop: one process of `workers`."""
    from equigrid.classifiers.training import loop

    store, request = config["store"], config["request"]
    payload, device = request.payload, device_of(request)
    checkpoints = Checkpoints(store, REFERENCE_CLASSIFIERS.checkpoints(request.id))
    indices = inputs.real_indices(request, payload.real)
    steps, signs = payload.recipe.total_steps(len(indices)), Signs(request.id, request.tell)
    with Saving(checkpoints, every_s=request.checkpoint_every_s, steps=steps, told=signs) as saving:
        trained = loop.train(
            inputs.mix(request, inputs.parts(request.train, indices), payload.stream),
            model=payload.classifier, recipe=payload.recipe, classes=request.classes,
            seed=seed_of(request.id, "training"), device=device, resume=checkpoints.load(),
            checkpoint=saving, start=started(payload.pretrained),
        )  # fmt: skip
    if rank() != 0:
        return {}
    name = REFERENCE_CLASSIFIERS.weights(request.id, request.attempt)
    written = weights.write(store, name, trained.module.state_dict())
    facts = {**written, "seconds": trained.seconds, "device": device_name(device)}
    how = payload.pretrained.how.model_dump(mode="json") if payload.pretrained else None
    return {
        **facts,
        "model": payload.classifier,
        "pretrained": how,
        "input_size": list(payload.recipe.input_size(*request.image_shape[:2])),
    }


def load(store: Store, reference_id: str, request: Request, device: str) -> "Classifier":
    """The trained classifier: `equigrid.classifiers.models.network.Classifier`."""
    from equigrid.classifiers.features import rebuilt

    name = REFERENCE_CLASSIFIERS.manifest(reference_id)
    tensors = weights.read(store, name)
    with corrupt_if_damaged(name):
        manifest = documents.read(store, name, documents.ReferenceRecord)
    if manifest is None:
        raise ShardCorrupt(name, "is gone")
    height, width = manifest.input_size
    how = manifest.pretrained and Pretraining.model_validate(manifest.pretrained)
    return rebuilt(
        tensors, model=manifest.model, classes=request.classes,
        channels=request.image_shape[2], input_size=(height, width), device=device,
        start=Start(how) if how else None,
    )  # fmt: skip


KIND = JobKind(
    name="reference",
    payload=ReferencePayload,
    body=train,
    words="reference classifier",
    plural="reference classifiers",
    outputs=REFERENCE_CLASSIFIERS,
    record=documents.ReferenceRecord,
    reads=lambda payload: TRAIN,
    cost=Cost(
        bytes=lambda payload, like, shape: None,
        flops=lambda payload, shape: computing.training(
            payload.classifier,
            payload.recipe,
            payload.real.n,
            shape,
            evaluated=0,
            weights=payload.pretrained,
        ),  # fmt: skip
    ),
    leftovers={WEIGHTS: "weights"},
)
