"""Training a classifier on one mix and evaluating it on the whole test set."""

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.classifiers.zero_shot.config import ZeroShotConfig
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.errors import StoreError
from equigrid.grid.ids import REVISIONS, seed_of
from equigrid.grid.jobs import computing, inputs, zero_shot
from equigrid.grid.jobs.checkpoints import Checkpoints, Saving
from equigrid.grid.jobs.classifier import FromWeights, started
from equigrid.grid.jobs.job import HOW, Identified, Job, Payload, Stream, Subset, Synthetic
from equigrid.grid.jobs.kind import (
    POOL_AND_TRAIN,
    Cost,
    Finished,
    JobKind,
    Reads,
    Together,
    Took,
    Work,
)
from equigrid.grid.jobs.provenance import (
    device_bytes,
    device_name,
    device_of,
    peak_device_bytes,
    provenance,
    reserved_device_bytes,
    reset_peak,
)
from equigrid.grid.jobs.ray_train import fit
from equigrid.grid.jobs.request import Request
from equigrid.grid.jobs.signs import Signs
from equigrid.grid.spec import Validation
from equigrid.grid.store import Store, layout, results

if TYPE_CHECKING:
    from torch import nn

    from equigrid.classifiers.data.mix import Mix
    from equigrid.classifiers.data.stream import StreamedMix
    from equigrid.classifiers.evaluation import Evaluation
    from equigrid.classifiers.training import loop

T = TypeVar("T")

OK, FAILED = "ok", "failed"  # a row's status
TIMED = ["status", "fingerprint", "classifier", "steps", "seconds", "device", "world_size"]
# What of an evaluation stands in a row.
EVALUATED = (
    *("top1", "top5", "balanced_accuracy", "macro_f1", "auc", "sensitivity", "specificity"),
    *("per_class", "confusion", "loss"),
)
EVALUATED_AT_ONCE_BYTES = 2**30  # a larger test set is evaluated shard by shard


@dataclass(frozen=True, kw_only=True)
class Copies(Identified):
    """So many images of the base, each repeated: the control for synthetic ones. shares: the
    classes' shares of them, as of the pools that they are the control for; None for equal ones.
    by_class: how many of each class, where the spec says that.
    """

    n: int
    shares: tuple[int, ...] | None = None
    by_class: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class TrialPayload(Payload):
    """dataset: the fingerprint. zero_shot: what of the spec's `zero_shot` determines the trial;
    zero_shot_config: the whole of it. syn_by_class: for amounts by class, in place of `syn`: the
    first images of pools of one class each, in the order of the classes. pretrained: what the
    classifier starts from, if not from scratch.
    """

    dataset: str
    real: Subset
    syn: Synthetic | None
    copies: Copies | None
    classifier: str
    recipe: ResolvedRecipe
    seed: int
    stream: Stream | None = None
    validation: Validation | None = None
    zero_shot: Mapping[str, Any] | None = None
    zero_shot_config: ZeroShotConfig | None = field(default=None, metadata=HOW)
    syn_by_class: tuple[Synthetic, ...] = ()
    pretrained: FromWeights | None = None

    @property
    def synthetic(self) -> tuple[Synthetic, ...]:
        """What is taken of each pool."""
        return self.syn_by_class or ((self.syn,) if self.syn else ())

    @property
    def label(self) -> str:
        """The classifier's name in rows."""
        return self.pretrained.label if self.pretrained else self.classifier

    @property
    def n_total(self) -> int:
        """The images of an epoch."""
        added = (*self.synthetic, *((self.copies,) if self.copies else ()))
        return self.real.n + sum(part.n for part in added)


def training_parts(request: Request[TrialPayload]) -> list[inputs.Part]:
    """The images that a trial trains on: real, copies, synthetic."""
    payload = request.payload
    found = inputs.parts(request.train, inputs.real_indices(request, payload.real))
    if payload.copies:
        indices = inputs.copies_indices(
            request, payload.real, payload.copies.n, dataset=payload.dataset,
            shares=payload.copies.shares, by_class=payload.copies.by_class,
        )  # fmt: skip
        found += inputs.parts(request.train, indices)
    if payload.syn and payload.zero_shot:
        unseen, config = payload.zero_shot["unseen"], payload.zero_shot_config
        assert config, "its whole beside what determines the trial"
        shares = config.shares(request.class_names, request.classes)
        found += inputs.parts(request.syn, inputs.indices_of(request, payload.syn, unseen, shares))
    elif payload.syn:
        found += inputs.whole(request.syn, payload.syn.n)
    else:
        found += inputs.of_classes(request, payload.syn_by_class)
    return found


def run(store: Store, request: Request[TrialPayload]) -> dict:
    """Trains, evaluates, and writes the trial's row."""
    (outcome,) = run_together(store, [request])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def run_together(store: Store, requests: Sequence[Request[TrialPayload]]) -> list[dict | Exception]:
    """Trains trials of one mix beside each other; each is evaluated and gets its row as if alone,
    and an equal share of the time. In a trial's place stands what it failed of by itself; raises
    what all failed of.
    """
    started = datetime.now(UTC)
    clock = time.perf_counter()
    first = requests[0]
    found = fit(
        _loop,
        {"store": store, "requests": requests},
        name=first.id,
        workers=first.workers,
        gpus=first.gpus,
        cpus=first.cpus,
    )
    seconds = (time.perf_counter() - clock) / len(requests)
    return [
        one if isinstance(one, Exception) else _written(store, request, one, started, seconds)
        for request, one in zip(requests, found, strict=True)
    ]


def _written(
    store: Store, request: Request[TrialPayload], found: dict, started: datetime, seconds: float
) -> dict | Exception:
    """The outcome of a trial, once its row is in the store."""
    names = ("training_s", "reserved_bytes", "device_bytes", "together")
    facts = {name: found.pop(name) for name in names}
    written = {**row(request, started, seconds), "status": OK, "error": None, **found}
    try:
        results.write_part(store, written)
        Checkpoints(store, layout.checkpoints(request.id)).clear()
    except StoreError as error:
        return error
    return {"row": written, **facts}


def mix_of(payload: TrialPayload) -> Hashable | None:
    """What trials that may train beside each other have in common: all but the seed. None for those
    that train alone: what is streamed has no place on the device, and texts are one trial's.
    """
    if payload.stream or payload.zero_shot is not None:
        return None
    return replace(payload, seed=0)


def row(request: Request[TrialPayload], started: datetime, seconds: float) -> dict:
    """What a result's row says whether the trial succeeded or not."""
    return {
        **(request.row or {}), "trial_id": request.id, "attempt": request.attempt,
        "rev": REVISIONS[KIND.name], "seconds": seconds, "world_size": request.workers,
        "shards": list(request.hashes), "started_at": started, "finished_at": datetime.now(UTC),
        **provenance(request),
    }  # fmt: skip


def _loop(config: dict) -> list[dict | Exception]:
    """The TorchTrainer loop: one process of `workers`."""
    store, requests = config["store"], config["requests"]
    device = device_of(requests[0])
    reset_peak(device)
    kept = [Checkpoints(store, layout.checkpoints(request.id)) for request in requests]
    states = [checkpoints.load() for checkpoints in kept]
    images = _images(requests[0])
    found: dict[int, dict | Exception] = {}
    for numbers in _abreast(states):
        own = [requests[i] for i in numbers]
        with Saving(
            *(kept[i] for i in numbers), every_s=own[0].checkpoint_every_s,
            steps=own[0].payload.recipe.total_steps(own[0].payload.n_total), told=_told(own),
        ) as saving:  # fmt: skip
            made = _trained(store, own, images, device, [states[i] for i in numbers], saving)
        found |= dict(zip(numbers, made, strict=True))
    if len(found) == 1 and isinstance(found[0], Exception):
        raise found[0]  # in a worker group, so that no other rank waits for this one
    return [found[i] for i in range(len(requests))]


def _abreast(states: Sequence[dict | None]) -> list[list[int]]:
    """The numbers of the trainings that go on from the same step, which can do so together.

    (An attempt may have ended between the writing of two states.)
    """
    by_step: dict[int, list[int]] = defaultdict(list)
    for i, state in enumerate(states):
        by_step[state["step"] if state else 0].append(i)
    return list(by_step.values())


def _told(requests: Sequence[Request[TrialPayload]]) -> Callable[[float], None]:
    """Tells of each of the trials how far it is."""
    signs = [Signs(request.id, request.tell) for request in requests]

    def tell(share: float) -> None:
        for sign in signs:
            sign(share)

    return tell


def _images(request: Request[TrialPayload]) -> "Mix | StreamedMix":
    return inputs.mix(request, training_parts(request), request.payload.stream)


def _trained(
    store: Store,
    requests: Sequence[Request[TrialPayload]],
    images: "Mix | StreamedMix",
    device: str,
    states: list[dict | None],
    saving: Saving,
) -> list[dict | Exception]:
    """What is found of each of the trials that train on the same images from the same step on."""
    from equigrid.classifiers.training import loop

    request, payload = requests[0], requests[0].payload
    options: dict[str, Any] = {
        "model": payload.classifier,
        "recipe": payload.recipe,
        "device": device,
        "start": started(payload.pretrained),
    }
    seeds = [seed_of(request.id, "training") for request in requests]
    if payload.zero_shot:
        del options["start"]  # planning refuses pre-trained weights there
        assert payload.zero_shot_config, "its whole beside what determines the trial"
        what = zero_shot.ZeroShot(
            payload.zero_shot, payload.zero_shot_config, payload.syn is not None
        )
        options |= {"seed": seeds[0], "resume": states[0], "checkpoint": saving}
        trained, found = zero_shot.run(store, request, images, what, options)
        return [{**found, **_facts(trained, device, together=1)}]
    every = loop.train_together(
        images, classes=request.classes, validation=validation(request), seeds=seeds,
        resume=states, checkpoint=saving.several, **options,
    )  # fmt: skip
    return [_evaluated(trained, request, device, len(requests)) for trained in every]


def _evaluated(
    trained: "loop.Trained | FloatingPointError", request: Request, device: str, together: int
) -> dict | Exception:
    """What is found of a trial, or what it failed of."""
    try:
        if isinstance(trained, Exception):
            raise trained  # here it gets a traceback
        evaluation = _evaluate(trained.module, request, device)
    except Exception as error:
        return error
    found = {name: known(getattr(evaluation, name)) for name in EVALUATED}
    return {**found, **_facts(trained, device, together=together)}


def _facts(trained: "loop.Trained", device: str, *, together: int) -> dict:
    return {
        "epochs": trained.epochs, "steps": trained.steps, "images_per_s": trained.images_per_s,
        "val_top1": trained.validation[-1][1].top1 if trained.validation else None,
        "training_s": trained.seconds, "device": device_name(device),
        "peak_device_bytes": peak_device_bytes(device), "device_bytes": device_bytes(device),
        "reserved_bytes": reserved_device_bytes(device), "together": together,
    }  # fmt: skip


def known(value: T) -> T | None:
    """The value, None for a number that a set has not, such as the sensitivity of ten classes."""
    return None if isinstance(value, float) and np.isnan(value) else value


def validation(request: Request) -> "loop.Validation | None":
    """The split to look at every few epochs; nothing is selected by it, and never the test set
    is.
    """
    wanted = request.payload.validation
    if wanted is None:
        return None
    from equigrid.classifiers.data.mix import Mix
    from equigrid.classifiers.training.loop import Validation

    if wanted.images == "own":
        held = inputs.whole(request.val)
    else:
        held = inputs.parts(request.train, inputs.held_out_indices(request, wanted.images))
    return Validation(Mix(inputs.arrays(held, training=False)), wanted.every_epochs)


def _evaluate(module: "nn.Module", request: Request, device: str) -> "Evaluation":
    from equigrid.classifiers import evaluation
    from equigrid.classifiers.data import mix

    test = inputs.whole(request.test)
    if request.test.n * np.prod(request.image_shape) > EVALUATED_AT_ONCE_BYTES:
        return evaluation.evaluate_blocks(
            module, inputs.blocks(test), classes=request.classes, device=device
        )
    whole = mix.Mix(inputs.arrays(test, training=False))
    return evaluation.evaluate(module, whole, classes=request.classes, device=device)


def _record_failure(
    store: Store, request: Request[TrialPayload], error: str, started: datetime, seconds: float
) -> dict:
    failed = {**row(request, started, seconds), "status": FAILED, "error": error}
    results.write_part(store, failed)
    return failed


# What trials take ---------------------------------------------------------------------------------


def _work(payload: TrialPayload, shape: Shape) -> float:
    return payload.recipe.total_steps(payload.n_total)


def _computed(payload: TrialPayload, shape: Shape) -> Work | None:
    return computing.training(
        payload.classifier, payload.recipe, payload.n_total, shape, evaluated=shape.n_test,
        weights=payload.pretrained,
    )  # fmt: skip


def _finished(kind: JobKind[TrialPayload], store: Store, jobs: list[Job], shape: Shape) -> Finished:
    """All that were ever run on the dataset, this grid's or not."""
    dataset = jobs[0].payload.dataset if jobs else None
    for row in results.read(store, TIMED).to_pylist():
        told = row["steps"] and row["seconds"] is not None and row["world_size"]
        if row["status"] == OK and told and row["fingerprint"] == dataset:
            seconds = row["seconds"] * row["world_size"] / row["steps"]
            yield [row["classifier"]], Took(seconds, row["device"])


def _reads(payload: TrialPayload) -> Reads:
    own = payload.validation is not None and payload.validation.images == "own"
    return POOL_AND_TRAIN | {"test"} | ({"val"} if own else set())


KIND = JobKind(
    name="trial",
    payload=TrialPayload,
    body=run,
    words="trial",
    plural="trials",
    wanted=True,
    reads=_reads,
    many_devices=True,
    shares_device=True,
    together=Together(alike=mix_of, body=run_together),
    done=lambda store, jobs: results.finished(store) & {job.id for job in jobs},
    record_failure=_record_failure,
    images=lambda outcome: outcome["row"]["epochs"] * outcome["row"]["n_total"],
    cost=Cost(
        finished=_finished, alike=lambda payload: [payload.label], work=_work, flops=_computed
    ),
    kept=True,
)
