"""Training a generator on its base subset, or on images kept apart from every base."""

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from equigrid.generators.base_config import Flops, GeneratorConfig
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.ids import REVISIONS, canonical_json, seed_of
from equigrid.grid.jobs import inputs
from equigrid.grid.jobs.checkpoints import Checkpoints, Saving
from equigrid.grid.jobs.job import HOW, Job, Outside, Payload, Subset
from equigrid.grid.jobs.kind import (
    NOTHING,
    TRAIN,
    VAL,
    Alike,
    Cost,
    Finished,
    JobKind,
    Reads,
    Took,
    Work,
)
from equigrid.grid.jobs.provenance import (
    device_name,
    device_of,
    peak_device_bytes,
    provenance,
    reset_peak,
)
from equigrid.grid.jobs.ray_train import fit, rank
from equigrid.grid.jobs.request import Request
from equigrid.grid.jobs.signs import Signs
from equigrid.grid.jobs.weights import digest
from equigrid.grid.jobs.weights import write as write_weights
from equigrid.grid.store import Store, documents
from equigrid.grid.store.layout import (
    GENERATORS,
    WEIGHTS,
    artefact,
    artefact_manifest,
    artefact_name,
)

LOOK_SHARE = 0.1  # of a training's time, for looks at it
MOST_LOOK_S, FIRST_LOOK_S = 20.0, 0.1  # a look takes; the first is expected to take


@dataclass(frozen=True, kw_only=True)
class GeneratorPayload(Payload):
    """dataset: the fingerprint. subset: what it learns from; None for an open-set generator, which
    brings its own knowledge, or learns from images kept apart: `outside`. config: what of the
    configuration determines the training. mapping: the whole of it, as a spec writes it. name: in
    the spec, of the first that shares the training.
    """

    dataset: str
    subset: Subset | None
    config: Mapping[str, Any]
    seed: int
    mapping: Mapping[str, Any] = field(metadata=HOW)
    name: str = field(metadata=HOW)
    outside: Outside | None = None

    @property
    def n_images(self) -> int | None:
        """Images that it learns from; None for a generator that brings its own knowledge."""
        learned = self.subset or self.outside
        return learned.n if learned else None


def train(store: Store, request: Request[GeneratorPayload]) -> dict:
    """Trains a generator; writes weights, log and then the manifest."""
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
    manifest = {
        **facts, "config": request.payload.mapping, "world_size": request.workers,
        "rev": REVISIONS[KIND.name], "started_at": started.isoformat(), **provenance(request),
    }  # fmt: skip
    # One that another driver's attempt finished meanwhile stays: shards may have been sampled from
    # it.
    if not store.exists(GENERATORS.manifest(request.id)):
        store.put_json(GENERATORS.manifest(request.id), manifest)
    Checkpoints(store, GENERATORS.checkpoints(request.id)).clear()
    return {"facts": {key: facts[key] for key in ("train_seconds",)}}


def _loop(config: dict) -> dict:
    """The TorchTrainer loop: one process of `workers`."""
    from equigrid.generators import registry

    store, request = config["store"], config["request"]
    device, generator = device_of(request), registry.config(dict(request.payload.mapping))
    reset_peak(device)
    images, labels = _images(request)
    checkpoints = Checkpoints(store, GENERATORS.checkpoints(request.id))
    height, width, channels = request.image_shape
    cost = generator.cost_facts(height, width, channels, request.classes, len(labels))
    steps = cost.get("training_steps", 0) + cost.get("autoencoder_steps", 0)
    signs = Signs(request.id, request.tell)
    resume = checkpoints.load()
    before_s = resume.pop("equigrid_seconds", 0.0) if resume else 0.0
    clock = time.perf_counter()
    log: list[dict] = []
    looks = Looks()

    def checkpoint(step: int, make_state: Callable[[], dict]) -> None:
        if steps:
            signs(step / steps)
        if saving.due():
            with saving.holding():
                state = make_state()
                spent = before_s + time.perf_counter() - clock
                saving.save(step, [{**state, "equigrid_seconds": spent}])
                _write_log(store, request, log)
            with looks.one(time.perf_counter() - clock) as allowed_s:
                if allowed_s:
                    _write_sheet(store, request, step, state, generator, device, allowed_s)

    with Saving(checkpoints, every_s=request.checkpoint_every_s) as saving:
        weights = registry.train(
            images, labels, generator, classes=request.classes, class_names=request.class_names,
            seed=seed_of(request.id, "training"), device=device, resume=resume,
            checkpoint=checkpoint, log=log.append,
            artefacts=Artefacts(store, GENERATORS.artefacts(request.id)),
        )  # fmt: skip
    seconds = before_s + time.perf_counter() - clock
    if rank() != 0:
        return {}
    written = write_weights(store, GENERATORS.weights(request.id, request.attempt), weights)
    _write_log(store, request, log)
    facts = {
        **written,
        "train_seconds": seconds,
        "values": sum(t.numel() for t in weights.values()),
    }
    facts |= {"n_images": len(labels), "setting": generator.setting, "name": request.payload.name}
    facts["cost"] = cost
    return {**facts, "device": device_name(device), "peak_device_bytes": peak_device_bytes(device)}


def _images(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """What it learns from; nothing for a generator that brings its own knowledge."""
    payload = request.payload
    wanted = inputs.learned_parts(request, payload.subset, payload.outside)
    if wanted is None:
        return np.empty((0, *request.image_shape), np.uint8), np.empty(0, np.int64)
    own = payload.outside is not None and payload.outside.own
    return inputs.gathered(request, wanted, own_outside=own)


def _write_log(store: Store, request: Request, log: list[dict]) -> None:
    """The training log as Parquet: this attempt's rows (an earlier attempt's file stays beside
    it).
    """
    if not log:
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in log for name in row))
    sink = io.BytesIO()
    pq.write_table(pa.table({name: [row.get(name) for row in log] for name in names}), sink)
    store.put(GENERATORS.log(request.id, request.attempt), sink.getvalue())


def _write_sheet(
    store: Store,
    request: Request,
    step: int,
    state: dict,
    generator: GeneratorConfig,
    device: str,
    allowed_s: float,
) -> None:
    """What the generator makes now, as a picture, one row per class; not every kind has one in
    mid-training.
    """
    from equigrid.generators import previews

    picture = previews.preview(
        state, generator, classes=request.classes, class_names=request.class_names,
        shape=request.image_shape, seed=seed_of(request.id, "sheets"), device=device,
        budget_s=allowed_s,
    )  # fmt: skip
    if picture is not None:
        store.put(GENERATORS.sheet(request.id, step), picture)


class Looks:
    """When a training may be looked at: however often it is saved, looks take at most LOOK_SHARE of
    its time, and the one that has just been taken.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._spent_s, self._last_s = clock, 0.0, FIRST_LOOK_S

    @contextmanager
    def one(self, trained_s: float) -> Iterator[float]:
        """How many seconds a look may take now, 0 for none. trained_s: since this attempt began."""
        allowed_s = LOOK_SHARE * trained_s - self._spent_s
        if allowed_s < self._last_s:
            yield 0.0
            return
        began_s = self._clock()
        try:
            yield min(allowed_s, MOST_LOOK_S)
        finally:
            self._last_s = self._clock() - began_s
            self._spent_s += self._last_s


class Artefacts(MutableMapping):
    """Arrays that a training keeps between its attempts (latents, for one), as safetensors with a
    checksum.

    One whose bytes are not those written counts as not there: it is then made again.
    """

    def __init__(self, store: Store, prefix: str):
        self.store, self.prefix = store, prefix

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        content = self._manifest(name)
        try:
            data = self.store.get(content.data)
            if digest(data) != content.checksum:
                raise KeyError(name)
            return load(data)
        except (FileNotFoundError, SafetensorError) as error:
            raise KeyError(name) from error

    def __setitem__(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        from safetensors.numpy import save

        data = save({key: np.ascontiguousarray(value) for key, value in arrays.items()})
        checksum = digest(data)
        place = artefact(self.prefix, name, checksum)
        self.store.put(place, data)
        self.store.put_json(
            artefact_manifest(self.prefix, name), {"data": place, "checksum": checksum}
        )

    def __delitem__(self, name: str) -> None:
        content = self._manifest(name)
        self.store.delete(artefact_manifest(self.prefix, name))
        self.store.delete(content.data)

    def _manifest(self, name: str) -> documents.ArtefactRecord:
        manifest = artefact_manifest(self.prefix, name)
        content = documents.readable(self.store, manifest, documents.ArtefactRecord)
        if content is None:
            raise KeyError(name)
        return content

    def __iter__(self) -> Iterator[str]:
        names = (artefact_name(self.prefix, name) for name in self.store.list(self.prefix))
        return (name for name in names if name is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


# What trainings take ------------------------------------------------------------------------------


def alike(mapping: Mapping[str, Any]) -> Alike:
    """What a training, and a pool's sampling, is like: the same configuration, else the kind."""
    return canonical_json(mapping), mapping["kind"]


def cost_facts(mapping: Mapping[str, Any], shape: Shape, n_images: int | None) -> dict[str, Any]:
    """`cost_facts` of a configuration: of a training on so many images, or (None) of sampling."""
    return _cost_facts(canonical_json(mapping), shape, n_images)


@lru_cache(maxsize=1024)  # asked for each shard of a pool
def _cost_facts(mapping: str, shape: Shape, n_images: int | None) -> dict[str, Any]:
    from equigrid.generators import registry

    config = registry.config(json.loads(mapping))
    return config.cost_facts(*shape.image, len(shape.classes), n_images)


def flops(mapping: Mapping[str, Any], shape: Shape, n_images: int) -> Flops | None:
    """What training a configuration on so many images, and sampling from it, compute."""
    return _flops(canonical_json(mapping), shape, n_images)


@lru_cache(maxsize=1024)
def _flops(mapping: str, shape: Shape, n_images: int) -> Flops | None:
    from equigrid.generators import registry

    return registry.config(json.loads(mapping)).flops(*shape.image, len(shape.classes), n_images)


def _computed(payload: GeneratorPayload, shape: Shape) -> Work | None:
    found = flops(payload.mapping, shape, payload.n_images or 0)
    return found and Work(found.training, found.wide)


def _work(payload: GeneratorPayload, shape: Shape) -> float:
    return cost_facts(payload.mapping, shape, payload.n_images).get("training_steps", 1)


def _finished(
    kind: JobKind[GeneratorPayload], store: Store, jobs: list[Job], shape: Shape
) -> Finished:
    for job in jobs:
        name = GENERATORS.manifest(job.id)
        if content := documents.readable(store, name, documents.TrainingRecord):
            seconds = content.train_seconds * content.world_size / _work(job.payload, shape)
            took = Took(seconds, content.device, 4 * content.values)
            yield alike(job.payload.mapping), took


def _reads(payload: GeneratorPayload) -> Reads:
    if payload.outside is not None and payload.outside.own:
        return VAL
    return NOTHING if payload.n_images is None else TRAIN


KIND = JobKind(
    name="generator",
    payload=GeneratorPayload,
    body=train,
    words="generator",
    plural="generators",
    outputs=GENERATORS,
    record=documents.GeneratorRecord,
    reads=_reads,
    many_devices=True,
    cost=Cost(
        finished=_finished,
        alike=lambda payload: alike(payload.mapping),
        work=_work,
        bytes=lambda payload, like, shape: like and like.bytes,
        flops=_computed,
    ),
    leftovers={WEIGHTS: "weights"},
)
