"""The bodies of the jobs: functions of plain values that read inputs, do the work and write their own outputs.

None of them needs Ray: `fetch` turns shard handles into arrays (`ray.get` in a slot, nothing in a test). Each
returns an outcome, a small dict for the driver; the output itself is already in the store by then.
"""

import io
import platform
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from grid import datasets, results, shards, subsets
from grid.ids import REVISIONS, seed_of
from grid.store import Store, StoreError
from grid.training import Checkpoints, fit, rank

OK, FAILED, CORRUPT, RETRY = "ok", "failed", "corrupt", "retry"
LIBRARIES = ("torch", "torchvision", "ray", "numpy", "timm", "diffusers", "pyarrow")


@dataclass(frozen=True)
class Request:
    """One attempt at one job, as the driver sends it.

    train, test, syn: handles of shards, in order, for `fetch`; hashes: the content hashes of all of them.
    row: the labels of a trial's row (grid, dataset, arm, amounts …).
    """

    id: str
    kind: str
    payload: dict
    attempt: str
    classes: int
    image_shape: tuple[int, int, int]
    train: tuple = ()
    test: tuple = ()
    syn: tuple = ()
    hashes: tuple[str, ...] = ()
    row: dict | None = None
    workers: int = 1
    gpus: float = 0
    cpus: float = 1
    threads: int = 1
    checkpoint_every_s: float = 120


def run(store: Store, request: Request, fetch: Callable[[tuple], list]) -> dict:
    """Does the job. A failure that repeating will not mend is written to the store and returned, not raised."""
    started = datetime.now(UTC)
    clock = time.perf_counter()
    try:
        facts = BODIES[request.kind](store, request, fetch)
        return {"id": request.id, "status": OK, "seconds": time.perf_counter() - clock, **facts}
    except Exception as error:  # every failure of a job ends here: it becomes a row, or goes back for another try
        seconds = time.perf_counter() - clock
        cause = getattr(error, "cause", None) or error  # Ray wraps what a task raised
        if isinstance(cause, shards.ShardCorrupt):
            return {"id": request.id, "status": CORRUPT, "manifest": cause.name, "error": str(cause)}
        if is_infrastructure(error) or is_infrastructure(cause):
            return {"id": request.id, "status": RETRY, "error": one_line(cause), "fresh_slot": is_out_of_memory(cause)}
        text = traceback.format_exc()
        row = record_failure(store, request, text, started, seconds)
        return {"id": request.id, "status": FAILED, "error": one_line(cause), "row": row, "seconds": seconds}


def is_infrastructure(error: BaseException) -> bool:
    """Whether another attempt, here or elsewhere, may well succeed: stores, lost objects and nodes, memory."""
    if isinstance(error, StoreError | ConnectionError | MemoryError) or is_out_of_memory(error):
        return True
    import ray.exceptions as gone

    return isinstance(error, gone.RayError) and not isinstance(error, gone.RayTaskError)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "OutOfMemory")


def one_line(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


# Generators ----------------------------------------------------------------------------------------------------


def train_generator(store: Store, request: Request, fetch: Callable) -> dict:
    """Trains a generator on its base subset; writes weights, log and then the manifest."""
    started = datetime.now(UTC)
    config = _loop_config(store, request, fetch)
    facts = fit(_generator_loop, config, name=request.id, **_scaling(request))
    manifest = {
        **facts, "config": request.payload["mapping"], "world_size": request.workers, "rev": REVISIONS["generator"],
        "started_at": started.isoformat(), **surroundings(request),
    }  # fmt: skip
    store.put_json(generator_manifest(request.id), manifest)
    Checkpoints(store, f"generators/{request.id}/checkpoints", every_s=0).clear()
    return {"facts": {key: facts[key] for key in ("train_seconds",)}}


def _generator_loop(config: dict) -> dict:
    """The TorchTrainer loop of a generator: one process of `workers`."""
    import generators
    from generators import backends

    store, request = config["store"], config["request"]
    device = _device(request)
    images, labels = _gather(_subset_parts(config))
    checkpoints = Checkpoints(store, f"generators/{request.id}/checkpoints", every_s=request.checkpoint_every_s)
    log: list[dict] = []
    clock = time.perf_counter()
    weights = backends.train(
        images, labels, generators.config(request.payload["mapping"]),
        classes=request.classes, seed=seed_of(request.id, "training"), device=device,
        resume=checkpoints.load(), checkpoint=checkpoints, log=log.append,
    )  # fmt: skip
    seconds = time.perf_counter() - clock
    if rank() != 0:
        return {}
    from safetensors.torch import save

    data = f"generators/{request.id}/weights-{request.attempt}.safetensors"
    store.put(data, save({name: tensor.contiguous().cpu() for name, tensor in weights.items()}))
    if log:
        store.put(f"generators/{request.id}/log.parquet", _parquet(log))
    parameters = sum(tensor.numel() for tensor in weights.values())
    facts = {"weights": data, "train_seconds": seconds, "values": parameters, "n_images": len(labels)}
    return {**facts, "device": device_name(device), "peak_device_bytes": peak_device_bytes(device)}


def generator_manifest(generator_id: str) -> str:
    return f"generators/{generator_id}/manifest.json"


# Pools -----------------------------------------------------------------------------------------------------------


def sample_shard(store: Store, request: Request, fetch: Callable) -> dict:
    """Samples one whole shard of a pool and writes it."""
    import generators
    from generators import backends

    payload = request.payload
    device = _device(request)
    start = payload["index"] * payload["size"]
    _reset_peak(device)
    clock = time.perf_counter()
    images, labels = backends.sample(
        _weights(store, payload["generator"]), generators.config(payload["mapping"]),
        classes=request.classes, shape=request.image_shape, seed=payload["seed"],
        start=start, stop=start + payload["size"], device=device,
    )  # fmt: skip
    seconds = time.perf_counter() - clock
    facts = {
        "seconds": seconds, "seconds_per_image": seconds / payload["size"], "device": device_name(device),
        "peak_device_bytes": peak_device_bytes(device), "pool": payload["pool"], "generator": payload["generator"],
        "index": payload["index"], **surroundings(request),
    }  # fmt: skip
    manifest = f"pools/{payload['pool']}/{payload['index']:05d}.json"
    ref = shards.write(store, manifest, images, labels, **facts)
    return {"shard": asdict(ref)}


@lru_cache(maxsize=2)  # a slot samples many shards of one pool, one after another
def _weights(store: Store, generator_id: str) -> dict:
    from safetensors.torch import load

    manifest = store.get_json(generator_manifest(generator_id))
    if manifest is None:
        raise FileNotFoundError(f"generator {generator_id} has no manifest")
    return load(store.get(manifest["weights"]))


# Trials ------------------------------------------------------------------------------------------------------------


def run_trial(store: Store, request: Request, fetch: Callable) -> dict:
    """Trains a classifier on one mix, evaluates it on the whole test set, and writes its row."""
    started = datetime.now(UTC)
    clock = time.perf_counter()
    outcome = fit(_trial_loop, _loop_config(store, request, fetch), name=request.id, **_scaling(request))
    training_s = outcome.pop("training_s")
    seconds = time.perf_counter() - clock
    row = {**_row(request, started, seconds), "status": OK, "error": None, **outcome}
    results.write_part(store, row)
    Checkpoints(store, f"checkpoints/{request.id}", every_s=0).clear()
    return {"row": row, "training_s": training_s}


def _trial_loop(config: dict) -> dict:
    """The TorchTrainer loop of a trial: one process of `workers`."""
    from classifiers import data, evaluation, training
    from classifiers.recipes import ResolvedRecipe

    store, request = config["store"], config["request"]
    payload, device = request.payload, _device(request)
    _reset_peak(device)
    mix = data.Mix(_subset_parts(config) + _copies_parts(config) + _syn_parts(config))
    checkpoints = Checkpoints(store, f"checkpoints/{request.id}", every_s=request.checkpoint_every_s)
    trained = training.train(
        mix, model=payload["classifier"], recipe=ResolvedRecipe.model_validate(payload["recipe"]),
        classes=request.classes, seed=seed_of(request.id, "training"), device=device,
        resume=checkpoints.load(), checkpoint=checkpoints,
    )  # fmt: skip
    test = data.Mix([_whole(part) for part in config["test"]])
    found = evaluation.evaluate(trained.module, test, classes=request.classes, device=device)
    return {
        "epochs": trained.epochs, "steps": trained.steps, "images_per_s": trained.images_per_s,
        "top1": found.top1, "top5": found.top5, "per_class": found.per_class, "confusion": found.confusion,
        "loss": found.loss, "training_s": trained.seconds,
        "device": device_name(device), "peak_device_bytes": peak_device_bytes(device),
    }  # fmt: skip


def _row(request: Request, started: datetime, seconds: float) -> dict:
    return {
        **request.row, "trial_id": request.id, "attempt": request.attempt, "rev": REVISIONS["trial"],
        "seconds": seconds, "world_size": request.workers, "shards": list(request.hashes),
        "started_at": started, "finished_at": datetime.now(UTC), **surroundings(request),
    }  # fmt: skip


def record_failure(store: Store, request: Request, error: str, started: datetime, seconds: float) -> dict | None:
    """Writes a failed attempt: a trial as a row of the results, any other job as a JSON file of its own."""
    if request.kind == "trial":
        row = {**_row(request, started, seconds), "status": FAILED, "error": error}
        results.write_part(store, row)
        return row
    failure = {"id": request.id, "kind": request.kind, "error": error, "at": started.isoformat()}
    store.put_json(f"failures/{request.id}/{request.attempt}.json", {**failure, **surroundings(request)})
    return None


BODIES: dict[str, Callable] = {"generator": train_generator, "shard": sample_shard, "trial": run_trial}


# Ingest -----------------------------------------------------------------------------------------------


def ingest(store: Store, dataset: str | dict) -> datasets.Dataset:
    """Reads a spec's dataset and writes its shards and manifest."""
    return datasets.ingest(store, datasets.source(dataset))


# What bodies share ---------------------------------------------------------------------------------------------


def _loop_config(store: Store, request: Request, fetch: Callable) -> dict:
    if request.workers > 1:  # workers on other nodes fetch for themselves
        return {"store": store, "request": request, "train": request.train, "test": request.test, "syn": request.syn}
    handles = (*request.train, *request.test, *request.syn)
    arrays = fetch(handles)
    first, second = len(request.train), len(request.train) + len(request.test)
    return {
        "store": store, "request": request, "train": arrays[:first], "test": arrays[first:second],
        "syn": arrays[second:],
    }  # fmt: skip


def _arrays(part) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a shard that came as arrays, or as a reference to them."""
    if not isinstance(part, dict):
        import ray

        part = ray.get(part)
    return part["images"], part["labels"]


def _train_labels(config: dict) -> np.ndarray:
    return np.concatenate([_arrays(part)[1] for part in config["train"]])


def _subset_parts(config: dict) -> list[tuple]:
    """The real images of a job, as (images, labels, indices) per shard."""
    payload = config["request"].payload
    chosen = payload["real"] if "real" in payload else payload["subset"]
    indices = subsets.subset(_train_labels(config), chosen["n"], chosen["subset_seed"] or 0)
    return _parts(config["train"], indices)


def _copies_parts(config: dict) -> list[tuple]:
    payload = config["request"].payload
    if not payload["copies"]:
        return []
    labels = _train_labels(config)
    subset_seed = payload["real"]["subset_seed"] or 0
    base = subsets.subset(labels, payload["real"]["n"], subset_seed)
    seed = seed_of(payload["dataset"], "copies", subset_seed)
    return _parts(config["train"], subsets.copies(labels, base, payload["copies"]["n"], seed))


def _syn_parts(config: dict) -> list[tuple]:
    payload, parts = config["request"].payload, []
    left = payload["syn"]["n"] if payload["syn"] else 0
    for part in config["syn"]:
        images, labels = _arrays(part)
        parts.append((images, labels, np.arange(min(left, len(labels)))))
        left -= len(parts[-1][2])
    if left > 0:
        raise ValueError(f"the pool's shards are {left} images short")
    return parts


def _parts(handles: list, indices: np.ndarray) -> list[tuple]:
    """Splits indices into the whole set by shard: a list of (images, labels, indices within the shard)."""
    parts, start = [], 0
    for handle in handles:
        images, labels = _arrays(handle)
        here = indices[(indices >= start) & (indices < start + len(labels))] - start
        if len(here):
            parts.append((images, labels, here))
        start += len(labels)
    return parts


def _whole(part) -> tuple:
    images, labels = _arrays(part)
    return images, labels, np.arange(len(labels))


def _gather(parts: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([images[indices] for images, _, indices in parts]),
        np.concatenate([labels[indices] for _, labels, indices in parts]),
    )


def _scaling(request: Request) -> dict:
    return {"workers": request.workers, "gpus": request.gpus, "cpus": request.cpus}


def _device(request: Request) -> str:
    import torch

    torch.set_num_threads(request.threads)
    if not request.gpus:
        return "cpu"
    if request.workers > 1:
        from ray.train.torch import get_device

        return str(get_device())
    return "cuda"


def _reset_peak(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peak_device_bytes(device: str) -> int | None:
    """Peak bytes of the device since its last reset; None on a CPU, where there is no such count."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device)


@cache
def device_name(device: str) -> str:
    """A device in words."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"CPU {model}".strip() or f"CPU {platform.machine()}"


def surroundings(request: Request) -> dict:
    return {"threads": request.threads, "versions": versions(), "code": code_version(), "node": platform.node()}


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_version() -> str:
    """This project's version, and the commit where it runs from a checkout."""
    base = version("equigrid")
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return base
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return base
    return f"{base}+{commit}"


def _parquet(rows: list[dict]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()
