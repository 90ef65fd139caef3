"""Trials per hour: this project's training loop beside the loop most people write, and beside that
loop tuned.

    python benchmarks/trials.py                                   # scikit-learn's digits on a CPU,
    a minute
    python benchmarks/trials.py --data FOLDER --model resnet20 --images 1000 --epochs 2
    python benchmarks/trials.py --data FOLDER --model resnet110 --images 25000 --epochs 16
    --together 4   # a GPU
    python benchmarks/trials.py --loader                          # images/s of the streaming loader
    at 256×256

FOLDER holds train-*.parquet and test-*.parquet in Hugging Face's layout (`img` with `bytes`, and
`label`). All contenders train the same network on the same images for the same number of epochs, in
one run; seconds are from the decoded images in memory to the trained network, process start and
imports left out.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from plain_loops import tuned_loop, usual_loop

from equigrid.classifiers import models
from equigrid.classifiers.evaluation import evaluate
from equigrid.classifiers.hardware import cpu_has_bf16
from equigrid.classifiers.models.network import Classifier
from equigrid.classifiers.recipes import ResolvedRecipe, recipe, resolve
from equigrid.classifiers.training.loop import train, train_together

# Dense bf16 by the makers' data sheets, without sparsity.
DATASHEET_FLOPS = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
}


@dataclass(frozen=True)
class Task:
    """What all contenders train. images: (N, H, W, C) uint8, labels: (N,) int64."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    model: str
    recipe: ResolvedRecipe
    device: torch.device

    @property
    def epochs(self) -> int:
        return self.recipe.epochs


# This project -------------------------------------------------------------------------------------


def ours(task: Task, seed: int) -> Classifier:
    return _train(task, seed).module


def _train(task: Task, seed: int):
    return train(
        task.images, task.labels, model=task.model, recipe=task.recipe, classes=task.classes,
        seed=seed, device=task.device,
    )  # fmt: skip


def in_one_graph(task: Task, count: int) -> tuple[float, list[float]]:
    """(seconds, accuracies) of `count` seeds by `train_together`, as the grid trains the
    seeds of one mix on a GPU.
    """
    started = time.perf_counter()
    trained = train_together(
        task.images, task.labels, model=task.model, recipe=task.recipe, classes=task.classes,
        seeds=range(count), device=task.device,
    )  # fmt: skip
    _wait(task.device)
    return time.perf_counter() - started, [_accuracy(task, one.module) for one in trained]


def in_processes(task: Task, count: int, each: int) -> tuple[float, list[float]]:
    """(seconds, accuracies) of `count` processes on one device that make `each` trials, as the
    grid's slots do.

    Seconds from when all are warm to the end of the last training.
    """
    context = multiprocessing.get_context("spawn")
    if task.device.type == "cuda":
        torch.cuda.empty_cache()  # what the contenders before have left would be missing
    with ProcessPoolExecutor(count, context, _keep, (context.Barrier(count),)) as slots:
        seeds = [range(first, first + each) for first in range(0, count * each, each)]
        jobs = [slots.submit(_slot, task, 1 / count, own) for own in seeds]
        # As they end, so that the first error is the cause and not a barrier that it broke.
        started, ended, accuracies = zip(*(job.result() for job in as_completed(jobs)))
    return max(ended) - max(started), sum(accuracies, [])


def _keep(barrier) -> None:
    """A barrier passes to a process at its start only."""
    global _barrier
    _barrier = barrier


def _slot(task: Task, share: float, seeds: range) -> tuple[float, float, list[float]]:
    """(start, end, accuracies): one process's trials. On Linux, processes have the monotonic clock
    in common.
    """
    try:
        torch.set_num_threads(1)
        if task.device.type == "cuda":
            with torch.cuda.device(task.device):
                torch.cuda.set_per_process_memory_fraction(share)  # as grid/running/slots.py does
        _warm_up(task)
        _barrier.wait()
        started = time.monotonic()
        modules = [ours(task, seed) for seed in seeds]
        _wait(task.device)
        ended = time.monotonic()
        _barrier.wait()  # nobody evaluates while others train
        return started, ended, [_accuracy(task, module) for module in modules]
    except Exception:
        _barrier.abort()
        raise


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _warm_up(task: Task) -> None:
    """Imports, thread pools and the allocator, on a few images."""
    few = task.recipe.model_copy(update={"epochs": 1})
    train(
        task.images[:8], task.labels[:8], model=task.model, recipe=few, classes=task.classes,
        seed=0, device=task.device,
    )  # fmt: skip


# Running ------------------------------------------------------------------------------------------


def _accuracy(task: Task, module: Classifier) -> float:
    return evaluate(
        module, task.test_images, task.test_labels, classes=task.classes, device=task.device
    ).top1


def compare(task: Task, repeats: int, together: int, seconds_at_most: float) -> list[dict]:
    """A row per contender with the least seconds of a trial; repeats alternate, so that drifts hit
    all. After seconds_at_most nothing new begins but the first trial of each.
    """
    contenders = {"usual loop": usual_loop, "tuned loop": tuned_loop, "equigrid": ours}
    rows = [
        {"contender": name, "seconds": math.inf, "cpu_s": math.inf, "accuracies": []}
        for name in contenders
    ]
    began = time.perf_counter()
    _warm_up(task)
    for seed in range(repeats):
        for row, contender in zip(rows, contenders.values()):
            started, cpu_started = time.perf_counter(), _cpu_seconds()
            module = contender(task, seed)
            _wait(task.device)
            row["seconds"] = min(row["seconds"], time.perf_counter() - started)
            row["cpu_s"] = min(row["cpu_s"], _cpu_seconds() - cpu_started)
            row["accuracies"].append(_accuracy(task, module))
            tell(row["contender"], row["seconds"])
        if time.perf_counter() - began > seconds_at_most:
            break
    if together > 1:
        packed = {
            f"equigrid, train_together of {together}": lambda: in_one_graph(task, together),
            f"equigrid, {together} processes": lambda: in_processes(task, together, repeats),
        }
        for name, measure in packed.items():
            if time.perf_counter() - began > seconds_at_most:
                print(f"{name}: no time left", file=sys.stderr, flush=True)
                continue
            seconds, found = measure()
            tell(name, seconds / len(found))
            rows.append(
                {
                    "contender": name,
                    "seconds": seconds / len(found),
                    "cpu_s": None,
                    "accuracies": found,
                }
            )
    flops = train_flops(task)
    for row in rows:
        row["trials_per_hour"] = 3600 / row["seconds"]
        row["times_usual"] = rows[0]["seconds"] / row["seconds"]
        row["times_tuned"] = rows[1]["seconds"] / row["seconds"]
        row["flops_per_s"] = flops / row["seconds"]
    return rows


def tell(contender: str, seconds: float) -> None:
    """A figure as soon as it is there: a machine may be taken away."""
    print(f"{contender}: {seconds:.2f} s per trial", file=sys.stderr, flush=True)


def _cpu_seconds() -> float:
    """Processor seconds of this process and its ended children: what a trial costs, however busy
    the machine.
    """
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def train_flops(task: Task) -> float:
    """Arithmetic of one trial: three times the forward pass of every image in every epoch."""
    from torch.utils.flop_counter import FlopCounterMode

    height, width, channels = task.images.shape[1:]
    network = models.build(
        task.model, classes=task.classes, height=height, width=width, channels=channels
    ).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, channels, height, width))
    return 3.0 * counter.get_total_flops() * len(task.labels) * task.epochs


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """The device's rate in a large dense product: what "peak" means for a device of unknown data
    sheet.
    """
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def loader(images_per_shard: int = 128, side: int = 256, batch: int = 192, steps: int = 60) -> dict:
    """Images/s per core of the streaming loader, and what a ResNet-50 step needs if there is a
    GPU.
    """
    from equigrid.classifiers.data.stream import Streamed, StreamedMix

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    shards = [
        (
            rng.integers(0, 256, (images_per_shard, side, side, 3), np.uint8),
            rng.integers(0, 10, images_per_shard),
        )
        for _ in range(12)
    ]
    mix = StreamedMix(
        [(lambda s=s: s, np.arange(images_per_shard)) for s in shards], (side, side, 3), window=8
    )
    own = recipe({"extends": "paper/imagenet", "steps": steps, "batch": batch})
    own = resolve(own, n_base=1, n_total=mix.n_total, n_dataset=1, classifier="resnet50")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = Streamed(mix, own, 0, 10, device).batches(0, 0)
    next(batches)
    wall, cpu, images = time.perf_counter(), time.process_time(), 0
    for _ in range(steps):
        images += next(batches).n_global
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    batches.close()
    found = {"images_per_s": images / wall, "images_per_core_s": images / cpu}
    if device.type == "cuda":
        trained = train(mix, model="resnet50", recipe=own, classes=10, seed=0, device=device)
        found["resnet50_images_per_s_with_this_loader"] = trained.images_per_s
    return found


def read_parquet(folder: Path, split: str, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(images (N, H, W, C) uint8, labels (N,) int64) of the first `limit` rows."""
    import pyarrow.parquet as pq
    from PIL import Image

    paths = sorted(folder.glob(f"{split}-*.parquet"))
    if not paths:
        raise SystemExit(f"{folder} holds no {split}-*.parquet")
    table = pq.read_table(paths[0]).slice(0, limit)
    decoded = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["img"].to_pylist()]
    images = np.stack(decoded)
    return images.reshape(*images.shape[:3], -1), table["label"].to_numpy().astype(np.int64)


def read_digits(limit: int | None) -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], data.target[order].astype(np.int64)
    return images[500:][:limit], labels[500:][:limit], images[:500], labels[:500]


def make_task(args: argparse.Namespace) -> Task:
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if args.data == "digits":
        arrays = read_digits(args.images)
        model = args.model or "digits-cnn"
        padding = 1
        flip = False
    else:
        folder = Path(args.data)
        arrays = (
            *read_parquet(folder, "train", args.images),
            *read_parquet(folder, "test", args.test_images),
        )
        model, padding, flip = args.model or "resnet110", 4, True
    own = recipe(
        {"extends": "paper/cifar10", "epochs": args.epochs, "batch": args.batch,
         "augmentation": {"crop_padding_px": padding, "flip": flip}}
    )  # fmt: skip
    n = len(arrays[1])
    resolved = resolve(own, n_base=n, n_total=n, n_dataset=n, classifier=model)
    return Task(*arrays, classes=10, model=model, recipe=resolved, device=device)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def print_table(task: Task, rows: list[dict]) -> None:
    height, width, channels = task.images.shape[1:]
    bf16 = task.device.type == "cuda" or cpu_has_bf16()
    peak = matmul_flops(task.device, torch.bfloat16 if bf16 else torch.float32)
    sheet = DATASHEET_FLOPS.get(device_name(task.device))
    print(
        f"{device_name(task.device)}; {datetime.now(UTC):%Y-%m-%d}; torch {torch.__version__}, "
        f"python {platform.python_version()}; {task.model}, {len(task.labels)} images of "
        f"{height}×{width}×{channels}, {task.epochs} epochs of batch {task.recipe.batch}; large "
        f"product in {'bf16' if bf16 else 'float32'}: "
        f"{peak / 1e12:.2f} TFLOP/s" + (f", data sheet {sheet / 1e12:.0f}" if sheet else "") + "\n"
    )
    print(
        "| loop | s per trial | processor s | trials/h | × usual | × tuned | "
        "% of large product | top-1 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [
            row["contender"],
            f"{row['seconds']:.2f}",
            f"{row['cpu_s']:.2f}" if row["cpu_s"] else "–",
            f"{row['trials_per_hour']:.0f}",
            f"{row['times_usual']:.2f}",
            f"{row['times_tuned']:.2f}",
            f"{100 * row['flops_per_s'] / peak:.1f}",
            ", ".join(f"{value:.1f}" for value in row["accuracies"]),
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="digits, or a folder of Parquet files")
    parser.add_argument("--model")
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--test-images", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--together", type=int, default=os.cpu_count(), help="trials at once in each packed row"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf,
        help="after which nothing new begins but the first trial of each contender",
    )  # fmt: skip
    parser.add_argument("--device")
    parser.add_argument(
        "--threads", type=int, help="of each process in the single contenders; default: all cores"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--loader", action="store_true", help="the streaming loader alone")
    args = parser.parse_args()
    if args.loader:
        print(json.dumps(loader(), indent=1))
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    task = make_task(args)
    rows = compare(task, args.repeats, args.together, 60 * args.minutes)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        print_table(task, rows)


if __name__ == "__main__":
    main()
