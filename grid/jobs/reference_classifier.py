"""The grid's own classifier, trained on the whole training set: its features measure pools where
ImageNet's cannot.
"""

from datetime import UTC, datetime

from equigrid.grid.ids import seed_of
from equigrid.grid.jobs import inputs, weights
from equigrid.grid.jobs.checkpoints import Checkpoints
from equigrid.grid.jobs.provenance import device_name, device_of, provenance
from equigrid.grid.jobs.ray_train import fit, rank
from equigrid.grid.jobs.request import Request
from equigrid.grid.store import Store
from equigrid.grid.store.layout import REFERENCE_CLASSIFIERS


def train(store: Store, request: Request) -> dict:
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
    Checkpoints(store, REFERENCE_CLASSIFIERS.checkpoints(request.id), every_s=0).clear()
    return {}


def _loop(config: dict) -> dict:
    """The TorchTrainer loop: one process of `workers`."""
    from equigrid.classifiers.recipes import ResolvedRecipe
    from equigrid.classifiers.training import loop
    from equigrid.grid.jobs.trial import mix

    store, request = config["store"], config["request"]
    payload, device = request.payload, device_of(request)
    recipe = ResolvedRecipe.model_validate(payload["recipe"])
    checkpoints = Checkpoints(
        store, REFERENCE_CLASSIFIERS.checkpoints(request.id), every_s=request.checkpoint_every_s
    )
    trained = loop.train(
        mix(request, inputs.parts(request.train, inputs.real_indices(request))),
        model=payload["classifier"], recipe=recipe, classes=request.classes,
        seed=seed_of(request.id, "training"), device=device, resume=checkpoints.load(), checkpoint=checkpoints,
    )  # fmt: skip
    if rank() != 0:
        return {}
    name = REFERENCE_CLASSIFIERS.weights(request.id, request.attempt)
    written = weights.write(store, name, trained.module.state_dict())
    facts = {**written, "seconds": trained.seconds, "device": device_name(device)}
    return {
        **facts,
        "model": payload["classifier"],
        "input_size": list(recipe.input_size(*request.image_shape[:2])),
    }


def load(store: Store, reference_id: str, request: Request, device: str):
    """The trained classifier: `equigrid.classifiers.models.network.Classifier`."""
    from equigrid.classifiers.features import rebuilt

    tensors = weights.read(store, REFERENCE_CLASSIFIERS.manifest(reference_id))
    manifest = store.get_json(REFERENCE_CLASSIFIERS.manifest(reference_id))
    return rebuilt(
        tensors, model=manifest["model"], classes=request.classes,
        channels=request.image_shape[2], input_size=tuple(manifest["input_size"]), device=device,
    )  # fmt: skip


manifest_name = REFERENCE_CLASSIFIERS.manifest
