"""Training a classifier on one mix and evaluating it on the whole test set."""

import time
from datetime import UTC, datetime

import numpy as np

from equigrid.grid.ids import REVISIONS, seed_of
from equigrid.grid.jobs import inputs, zero_shot
from equigrid.grid.jobs.checkpoints import Checkpoints
from equigrid.grid.jobs.provenance import (
    device_bytes,
    device_name,
    device_of,
    peak_device_bytes,
    provenance,
    reset_peak,
)
from equigrid.grid.jobs.ray_train import fit
from equigrid.grid.jobs.request import Request
from equigrid.grid.store import Store, layout, results

OK = "ok"
# What of an evaluation stands in a row.
EVALUATED = (
    *("top1", "top5", "balanced_accuracy", "macro_f1", "auc", "sensitivity", "specificity"),
    *("per_class", "confusion", "loss"),
)
EVALUATED_AT_ONCE_BYTES = 2**30  # a larger test set is evaluated shard by shard


def run(store: Store, request: Request) -> dict:
    """Trains, evaluates, and writes the trial's row."""
    started = datetime.now(UTC)
    clock = time.perf_counter()
    config = {"store": store, "request": request}
    outcome = fit(
        _loop,
        config,
        name=request.id,
        workers=request.workers,
        gpus=request.gpus,
        cpus=request.cpus,
    )
    training_s, memory = outcome.pop("training_s"), outcome.pop("device_bytes")
    seconds = time.perf_counter() - clock
    written = {**row(request, started, seconds), "status": OK, "error": None, **outcome}
    results.write_part(store, written)
    Checkpoints(store, layout.checkpoints(request.id), every_s=0).clear()
    return {"row": written, "training_s": training_s, "device_bytes": memory}


def row(request: Request, started: datetime, seconds: float) -> dict:
    """What a result's row says whether the trial succeeded or not."""
    return {
        **request.row, "trial_id": request.id, "attempt": request.attempt, "rev": REVISIONS["trial"],
        "seconds": seconds, "world_size": request.workers, "shards": list(request.hashes),
        "started_at": started, "finished_at": datetime.now(UTC), **provenance(request),
    }  # fmt: skip


def _loop(config: dict) -> dict:
    """The TorchTrainer loop: one process of `workers`."""
    from equigrid.classifiers.recipes import ResolvedRecipe
    from equigrid.classifiers.training import loop

    store, request = config["store"], config["request"]
    payload, device = request.payload, device_of(request)
    reset_peak(device)
    checkpoints = Checkpoints(
        store, layout.checkpoints(request.id), every_s=request.checkpoint_every_s
    )
    options = {
        "model": payload["classifier"], "recipe": ResolvedRecipe.model_validate(payload["recipe"]),
        "seed": seed_of(request.id, "training"), "device": device,
        "resume": checkpoints.load(), "checkpoint": checkpoints,
    }  # fmt: skip
    images = mix(request, inputs.training_parts(request))
    if "zero_shot" in payload:
        trained, found = zero_shot.run(store, request, images, options)
    else:
        trained = loop.train(
            images, classes=request.classes, validation=_validation(request), **options
        )
        evaluation = _evaluate(trained.module, request, device)
        found = {name: _known(getattr(evaluation, name)) for name in EVALUATED}
    return {
        **found, "epochs": trained.epochs, "steps": trained.steps, "images_per_s": trained.images_per_s,
        "val_top1": trained.validation[-1][1].top1 if trained.validation else None,
        "training_s": trained.seconds, "device": device_name(device),
        "peak_device_bytes": peak_device_bytes(device), "device_bytes": device_bytes(device),
    }  # fmt: skip


def _known(value):
    """The value, None for a number that a set has not, such as the sensitivity of ten classes."""
    return None if isinstance(value, float) and np.isnan(value) else value


def mix(request: Request, wanted: list[inputs.Part]):
    """Images to train on: on the device whole, or streamed past it."""
    from equigrid.classifiers.data.mix import Mix
    from equigrid.classifiers.data.stream import StreamedMix

    stream = request.payload.get("stream")
    if stream is None:
        return Mix(inputs.arrays(wanted, training=True))
    return StreamedMix(inputs.fetchers(wanted), request.image_shape, window=stream["window"])


def _validation(request: Request):
    """The split to look at every few epochs; nothing is selected by it, and never the test set
    is.
    """
    wanted = request.payload.get("validation")
    if wanted is None:
        return None
    from equigrid.classifiers.data.mix import Mix
    from equigrid.classifiers.training.loop import Validation

    if wanted["images"] == "own":
        held = inputs.whole(request.val)
    else:
        held = inputs.parts(request.train, inputs.held_out_indices(request, wanted["images"]))
    return Validation(Mix(inputs.arrays(held, training=False)), wanted["every_epochs"])


def _evaluate(module, request: Request, device: str):
    from equigrid.classifiers import evaluation
    from equigrid.classifiers.data import mix

    test = inputs.whole(request.test)
    if request.test.n * np.prod(request.image_shape) > EVALUATED_AT_ONCE_BYTES:
        return evaluation.evaluate_blocks(
            module, inputs.blocks(test), classes=request.classes, device=device
        )
    whole = mix.Mix(inputs.arrays(test, training=False))
    return evaluation.evaluate(module, whole, classes=request.classes, device=device)
