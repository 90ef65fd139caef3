"""What a GPU makes of this project: right, and how fast. For any CUDA device, in the minutes that
there are.

    python benchmarks/gpu.py --out FOLDER --data CIFAR10 --minutes 15   # or: make gpu
    python benchmarks/gpu.py --out FOLDER --table                       # for benchmarks/README.md

Each phase is a process with a limit of its own, so neither a crash nor a hang takes along what
comes after it. Each figure is a line of FOLDER/figures.jsonl as soon as it is there, with device,
date and version. The same command again goes on: what was measured on this device is not measured
again.

The first phases need torch alone, and torchvision with Pillow for one of the plain loops; `tests`
and what follows need pydantic, `tests` pytest and hypothesis, the last ones pyarrow, and diffusers
where DiT is to be compared. None needs Ray. CIFAR10 holds train-*.parquet and test-*.parquet in
Hugging Face's layout; without it, random pictures stand for the images, and accuracies mean
nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

GRACE_S = 8.0  # beyond its own limit, before a phase is ended
START_S = 25.0  # that a phase has at least: PyTorch is slow to load the first time on a machine
ROOT = Path(__file__).resolve().parents[1]
# A recording that fails breaks the process that it fails in, before PyTorch 2.12: last, and alone.
DIFFUSION_TESTS = "tests/generators/stable_diffusion/test_diffusion.py"
BREAKS = "test_a_network_that_waits_for_the_device_trains_without_graphs"
Facts = dict[str, Any]


# Figures ------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """The lines of a folder, and the time that a phase has for more of them."""

    folder: Path
    phase: str
    seconds: float
    device: str
    tiny: bool = False
    began_s: float = field(default_factory=time.perf_counter)

    @property
    def left_s(self) -> float:
        return self.seconds - (time.perf_counter() - self.began_s)

    def write(self, what: str, **facts: Any) -> None:
        tiny = {"tiny": True} if self.tiny else {}
        append(
            self.folder,
            {"phase": self.phase, "what": what, **facts, **provenance(self.device), **tiny},
        )

    def take(self, what: str, measure: Callable[[], Facts], least_s: float = 5.0) -> None:
        """Measures a figure that is not there yet, if there may be time for it; its error is a line
        too.
        """
        if is_there(self.folder, self.phase, what, provenance(self.device)["device"]):
            return
        if self.left_s < least_s:
            self.write(what, skipped=f"{self.left_s:.0f} s left, {least_s:.0f} s wanted")
            return
        try:
            self.write(what, **measure())
        except Exception as error:  # the next figure may still be had
            traceback.print_exc()
            self.write(what, error=f"{type(error).__name__}: {error}".splitlines()[0][:300])
        else:
            return
        recover(self.device)  # outside the handler, whose error holds what lies on the device


def append(folder: Path, line: Facts) -> None:
    file = folder / "figures.jsonl"
    torn = file.exists() and not file.read_bytes().endswith(b"\n")
    with open(file, "a") as out:
        out.write("\n" * torn + json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def lines(folder: Path) -> list[Facts]:
    """Without a line that the end of its process, or a full disk, has torn."""
    file, found = folder / "figures.jsonl", []
    for text in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(text))
    return found


def is_figure(line: Facts) -> bool:
    return not any(name in line for name in ("error", "skipped"))


def is_there(folder: Path, phase: str, what: str, device: str) -> bool:
    """device: its name; what another one gave is no figure of this one."""
    return any(
        (line["phase"], line["what"], line.get("device")) == (phase, what, device)
        and is_figure(line)
        for line in lines(folder)
    )


def provenance(device: str) -> Facts:
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    date = datetime.now(UTC).date().isoformat()
    return {"device": name, "date": date, "torch": torch.__version__}


def recover(device: str) -> None:
    """Frees what a failure left. After an error that stays, nothing more can be measured here."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


# Phases that need torch alone ---------------------------------------------------------------------


def machine(figures: Figures, given: argparse.Namespace) -> None:
    """What the device does at best."""
    import torch

    def facts() -> Facts:
        found: Facts = {"python": sys.version.split()[0], "cpus": os.cpu_count()}
        if given.on_gpu:
            own = torch.cuda.get_device_properties(given.device)
            found |= {"gib": own.total_memory / 2**30, "multiprocessors": own.multi_processor_count}
            found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        return found

    def rate(work: Callable[[], object], amount: float) -> Facts:
        work()
        wait(given.device)
        began = time.perf_counter()
        for _ in range(5):
            work()
        wait(given.device)
        return {"value": 5 * amount / (time.perf_counter() - began)}

    side, n = (8192, 2**30) if given.on_gpu else (256, 2**20)
    least_s = 3.0 * given.scale
    figures.take("machine", facts, 0)
    a, b = torch.randn(2, side, side, device=given.device, dtype=torch.bfloat16)
    figures.take("bf16 product, TFLOP/s", lambda: rate(lambda: a @ b, 2e-12 * side**3), least_s)
    to, of = torch.empty(2, n, device=given.device)
    figures.take("copy, TB/s", lambda: rate(lambda: to.copy_(of), 8e-12 * n), least_s)


def plain(figures: Figures, given: argparse.Namespace) -> None:
    """The loops that trainings are compared with, without their start: from the second epoch's
    beginning to the last one's.
    """
    import torch
    from plain_loops import tuned_loop, usual_loop

    rng = np.random.default_rng(0)
    size = given.size

    def rate(loop: Callable, epochs: int) -> Facts:
        began_s: list[float] = []

        def lr_at(step: int, n: int) -> float:
            """Both loops ask for an epoch's rate at its beginning."""
            wait(given.device)
            began_s.append(time.perf_counter())
            return 0.1

        recipe = SimpleNamespace(
            batch=size.batch, augmentation=SimpleNamespace(crop_padding_px=4, flip=True),
            lr=0.1, momentum=0.9, weight_decay=1e-4, lr_at=lr_at,
            steps_per_epoch=lambda n: -(-n // size.batch),
        )  # fmt: skip
        images = rng.integers(0, 256, (size.images, 32, 32, 3), dtype=np.uint8)
        task = SimpleNamespace(
            images=images, labels=np.arange(size.images) % 10, classes=10, model=size.model,
            recipe=recipe, device=torch.device(given.device), epochs=2 + epochs,
        )  # fmt: skip
        loop(task, seed=0)
        assert len(began_s) == task.epochs, "an epoch's rate is asked for once"
        return {"images_per_s": epochs * size.images / (began_s[-1] - began_s[1])}

    figures.take("usual loop", lambda: rate(usual_loop, 2), 20 * given.scale)
    figures.take("tuned loop", lambda: rate(tuned_loop, 3), 10 * given.scale)


# Is it right? -------------------------------------------------------------------------------------


def tests(figures: Figures, given: argparse.Namespace) -> None:
    """`pytest -m gpu`, file by file; what breaks its process comes last."""
    marker = "gpu" if given.on_gpu else "not gpu and not long"
    chosen = [
        ("classifiers", ["tests/classifiers/training/test_gpu.py", "-k", f"not {BREAKS}"], 60),
        ("generators", ["tests/generators/test_gpu.py"], 80),
        ("zero-shot", ["tests/classifiers/zero_shot"], 20),
        ("DiT and Stable Diffusion", ["tests/generators/dit", DIFFUSION_TESTS], 40),
        ("a recording that fails", ["tests/classifiers/training/test_gpu.py", "-k", BREAKS], 25),
    ]
    needs = {"zero-shot": ("sklearn",), "DiT and Stable Diffusion": ("diffusers", "transformers")}
    if not given.on_gpu:
        chosen = [("classifiers", ["tests/test_fake_cuda.py"], 5)]

    def run(arguments: list[str]) -> Facts:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marker]
        # Before what is on the path already: there may be the packages that this machine lacks.
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        file = figures.folder / "tests.txt"
        with open(file, "ab") as out:  # as it comes: what runs out of time has said something
            before = out.tell()
            done = subprocess.run(
                [*command, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
                stdout=out, stderr=subprocess.STDOUT, timeout=max(1.0, figures.left_s),
            )  # fmt: skip
        return {"tests": verdict(file.read_bytes()[before:].decode(), done.returncode)}

    for what, arguments, least_s in chosen:
        if absent := missing(needs.get(what, ())):
            figures.write(what, skipped=f"needs {', '.join(absent)}")
            continue
        figures.take(what, lambda arguments=arguments: run(arguments), least_s * given.scale)


def verdict(said: str, status: int) -> str:
    """pytest's last word. Raises RuntimeError unless tests ran, and none failed."""
    ended = r"^=*\s*(\d+ (?:passed|failed|skipped|error|deselected).*?)\s*=*$"
    last = (re.findall(ended, said, re.MULTILINE) or ["no result"])[-1]
    if status or " passed" not in last:
        raise RuntimeError(f"{last}, exit status {status} (tests.txt has more)")
    return last


# Classifiers --------------------------------------------------------------------------------------


def own_rate(
    given: argparse.Namespace, *, n: int, seeds: range, steps: int, skip: int, start_at: float = 0,
    **speed: Any,
) -> Facts:  # fmt: skip
    """Images/s of `train_together` after its first `skip` steps, all seeds together.

    start_at: seconds since the epoch, before which step `skip` is not passed: so that processes
    measure at the same time.
    """
    from equigrid.classifiers.compute import Speed
    from equigrid.classifiers.recipes import recipe, resolve
    from equigrid.classifiers.training.loop import train_together

    images, labels = pictures(given, "train")
    own = recipe({"extends": "paper/cifar10", "steps": steps, "batch": given.size.batch})
    own = resolve(own, n_base=n, n_total=n, n_dataset=n, classifier=given.size.model)
    marks: dict[int, float] = {}

    def look(step: int, make_states: object) -> None:
        if step in (skip, steps):
            wait(given.device)
            if step == skip:
                time.sleep(max(0.0, start_at - time.time()))
            marks[step] = time.time()

    began = time.time()
    trained = train_together(
        images[:n], labels[:n], model=given.size.model, recipe=own, classes=10, seeds=seeds,
        device=given.device, checkpoint=look, speed=Speed(**speed),
    )  # fmt: skip
    for one in trained:
        if isinstance(one, FloatingPointError):
            raise one
    per_step = n / own.steps_per_epoch(n) * len(seeds)
    took = marks[steps] - marks[skip]
    return {
        "images_per_s": per_step * (steps - skip) / took,
        "ms_per_step": 1000 * took / (steps - skip),
        "until_warm_s": marks[skip] - began, "peak_gb": trained[0].peak_device_bytes / 1e9,
        "begin": marks[skip], "end": marks[steps], "images": per_step * (steps - skip),
    }  # fmt: skip


def classifiers(figures: Figures, given: argparse.Namespace) -> None:
    """One network: eager, graphed, several seeds as branches of one graph."""
    size, graphs = given.size, True if given.on_gpu else None
    many = {"n": size.images, "steps": size.steps, "skip": size.skip}

    def take(what: str, seeds: int = 1, least_s: float = 12.0, **options: Any) -> None:
        chosen = {**many, "graphs": graphs, **options}
        figures.take(
            what, lambda: own_rate(given, seeds=range(seeds), **chosen), least_s * given.scale
        )

    take("eager", graphs=False)
    take("graph")
    for seeds in size.branches:
        take(f"graph of {seeds} branches", seeds, 10.0 + 3 * seeds)
    few = min(500, size.images - 50)
    # Until its partial batches have a graph too: one an epoch.
    skip = 30 * -(-few // size.batch) if given.on_gpu and not given.tiny else size.skip
    take("graph, 500 images: a partial batch in each epoch", n=few, skip=skip)
    take("graph, float32", bf16=False)


def packed(figures: Figures, given: argparse.Namespace) -> None:
    """Several processes at once, as the grid's slots are; with MPS, if that runs."""
    if given.one_of:
        start_at, first, count = map(float, given.one_of.split(":"))
        size = given.size
        found = own_rate(
            given, n=size.images, steps=2 * size.steps, skip=size.skip, start_at=start_at,
            seeds=range(int(first), int(first + count)), graphs=True if given.on_gpu else None,
        )  # fmt: skip
        print(json.dumps(found))
        return

    def run(processes: int, branches: int) -> Facts:
        start_at = time.time() + (30.0 if given.on_gpu else 15.0)
        command = [sys.executable, __file__, "--phase", "packed", *given.passed_on]
        running = [
            subprocess.Popen(
                [*command, "--one-of", f"{start_at}:{i * branches}:{branches}"],
                stdout=subprocess.PIPE, text=True,
            )
            for i in range(processes)
        ]  # fmt: skip
        try:
            said = [p.communicate(timeout=max(1.0, figures.left_s))[0] for p in running]
        finally:
            for process in running:
                process.kill()
        if failed := [process.returncode for process in running if process.returncode]:
            raise RuntimeError(f"{len(failed)} of {processes} ended with exit status {failed[0]}")
        found = [json.loads(text.splitlines()[-1]) for text in said]
        begun = [one["begin"] for one in found]
        took = max(one["end"] for one in found) - min(begun)
        return {
            "images_per_s": sum(one["images"] for one in found) / took,
            "began_apart_s": max(begun) - min(begun),
            "mps": bool(os.environ.get("CUDA_MPS_PIPE_DIRECTORY")),
        }  # fmt: skip

    for processes, branches in given.size.packings:
        figures.take(
            f"{processes} processes of {branches} branches",
            lambda p=processes, b=branches: run(p, b),
            50 * given.scale,
        )


# Generators ---------------------------------------------------------------------------------------


def edm(figures: Figures, given: argparse.Namespace) -> None:
    """Training and sampling of the published network against plain eager code; float32 is without
    TF32, as in benchmarks/edm.py.
    """
    import edm as script
    import torch
    from comparing import fp32_means_fp32

    fp32_means_fp32()
    device = torch.device(given.device)
    size = {**script.SIZES["full" if given.on_gpu else "tiny"], "rounds": 2, "seconds": 20.0}
    spec = script.config({"kind": "edm", **size["spec"]})
    batch = {"batch": size["sampling_batch"]}
    spec = spec.model_copy(update={"sampler": spec.sampler.model_copy(update=batch)})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2048, size["side"], size["side"], 3), dtype=np.uint8)
    labels, shape = rng.integers(0, 10, 2048), images.shape[1:]
    weights = script.fresh(spec, shape).state_dict()

    def plain(bf16: bool) -> Callable:
        return lambda: script.PlainTraining(images, labels, spec, device, bf16=bf16)

    makes = {
        "float32 eager": plain(False),
        "bf16 eager": plain(True),
        "equigrid": lambda: script.own_training(images, labels, spec, device),
    }
    for name, make in makes.items():
        figures.take(
            f"EDM training, {name}",
            lambda name=name, make=make: script.training_rate(
                name, make, spec.training.batch, device, size
            ),
            (90 if name == "equigrid" else 40) * given.scale,
        )
    given_to_all = weights, spec, shape, device
    samplers = {
        "float32 eager": (batch["batch"], lambda: script.plain_sampler(*given_to_all, bf16=False)),
        "bf16 eager": (batch["batch"], lambda: script.plain_sampler(*given_to_all, bf16=True)),
        "equigrid": (size["shard"], lambda: script.own_sampler(*given_to_all, size["shard"])),
    }
    for name, (n, make) in samplers.items():
        figures.take(
            f"EDM sampling, {name}",
            lambda name=name, n=n, make=make: {
                "images_per_s": script.rate(name, make(), n, device, {**size, "steps": 1})
            },
            (90 if name == "equigrid" else 40) * given.scale,
        )


def dit(figures: Figures, given: argparse.Namespace) -> None:
    """The same for DiT, against diffusers' classes."""
    import torch

    def measure() -> Facts:
        import dit as script
        from comparing import fp32_means_fp32

        fp32_means_fp32()
        size = {**script.SIZES["full" if given.on_gpu else "tiny"], "seconds": 15.0}
        found = script.measure(size, torch.device(given.device))
        return {key: found[key] for key in ("training", "sampling", "batch", "microbatch")}

    figures.take("DiT", measure, 120 * given.scale)


# A small real result ------------------------------------------------------------------------------


def pictures(given: argparse.Namespace, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(images (n, 32, 32, 3) uint8, labels (n,) int64), decoded once; random without `--data`."""
    n = given.size.train if split == "train" else given.size.test
    kept = given.out / f"{split}-{n}-{'real' if given.data else 'random'}.npz"
    if not kept.exists():
        if given.data:
            from trials import read_parquet

            images, labels = read_parquet(given.data, split, n)
        else:
            rng = np.random.default_rng(n)
            labels = rng.integers(0, 10, n)
            noise = rng.integers(0, 100, (n, 32, 32, 3)) + 15 * labels[:, None, None, None]
            images = noise.astype(np.uint8)
        np.savez(kept.with_suffix(".part.npz"), images=images, labels=labels)
        kept.with_suffix(".part.npz").rename(kept)
    with np.load(kept) as arrays:
        return arrays["images"], arrays["labels"]


def small_edm(given: argparse.Namespace, nimg: int) -> Any:
    from equigrid.generators.registry import config

    training = {**given.size.edm["training"], "total_nimg": nimg, "lr_decay_nimg": nimg // 3}
    return config({"kind": "edm", **given.size.edm, "training": training})


def generator(figures: Figures, given: argparse.Namespace) -> None:
    """An EDM of the base images, for as long as there is time; it goes on in the next call."""
    import torch

    from equigrid.generators import registry

    kept, images, labels = given.out / "edm-state.pt", *pictures(given, "train")
    if (given.out / "edm.pt").exists():
        return
    chosen = small_edm(given, given.size.nimg)
    resume = torch.load(kept, weights_only=True) if kept.exists() else None
    rows: list[Facts] = []
    saved_s = [time.perf_counter()]

    class OutOfTime(Exception):
        pass

    def keep(step: int, make_state: Callable[[], Facts]) -> None:
        over = figures.left_s < 3
        if over or time.perf_counter() - saved_s[0] > 30:
            torch.save(make_state(), kept.with_suffix(".part"))
            kept.with_suffix(".part").rename(kept)
            saved_s[0] = time.perf_counter()
        if over:
            raise OutOfTime("the same command goes on from here")

    def train() -> Facts:
        began = time.perf_counter()
        weights = registry.train(
            images[: given.size.base], labels[: given.size.base], chosen, classes=10, seed=1,
            device=given.device, resume=resume, checkpoint=keep, log=rows.append,
        )  # fmt: skip
        torch.save(weights, given.out / "edm.pt")
        facts = {key: rows[-1][key] for key in ("nimg", "loss", "images_per_s")} if rows else {}
        return {**facts, "seconds_of_this_call": time.perf_counter() - began}

    figures.take("EDM of the base images", train, 10 * given.scale)


def pool(figures: Figures, given: argparse.Namespace) -> None:
    """As many images as the base has."""
    import torch

    from equigrid.generators import registry
    from equigrid.generators.sheets import sheet

    if not (given.out / "edm.pt").exists():
        figures.write("pool", skipped="there is no EDM yet")
        return
    chosen = small_edm(given, given.size.nimg)

    def sample() -> Facts:
        weights = torch.load(given.out / "edm.pt", weights_only=True)
        began = time.perf_counter()
        images, labels = registry.sample(
            weights, chosen, classes=10, shape=(32, 32, 3), seed=5, start=0, stop=given.size.base,
            device=given.device,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        np.savez(given.out / "pool.npz", images=images, labels=labels)
        (given.out / "sheet.png").write_bytes(sheet(images, labels, classes=10))
        return {"images_per_s": len(images) / seconds}

    figures.take("pool", sample, 10 * given.scale)


def trials(figures: Figures, given: argparse.Namespace) -> None:
    """Accuracies of the base, and with as many synthetic, real or repeated images: seeds of an arm
    together, as the grid trains them.
    """
    from equigrid.classifiers.data.mix import Mix
    from equigrid.classifiers.evaluation import evaluate
    from equigrid.classifiers.recipes import recipe, resolve
    from equigrid.classifiers.training.loop import train_together

    size = given.size
    images, labels = pictures(given, "train")
    test, of = pictures(given, "test")
    base = np.arange(size.base)
    arms: dict[str, list] = {"base": []}
    if (given.out / "pool.npz").exists():
        made = np.load(given.out / "pool.npz")
        arms["base + synthetic"] = [(made["images"], made["labels"], base)]
    arms["base + real"] = [(images, labels, size.base + base)]
    arms["base + copies"] = [(images, labels, base)]

    def train(added: list) -> Facts:
        mix = Mix([(images, labels, base), *added])
        own = recipe({"extends": "paper/cifar10", "epochs": size.epochs, "batch": size.batch})
        own = resolve(
            own, n_base=size.base, n_total=mix.n_total, n_dataset=50_000, classifier=size.model
        )
        began = time.perf_counter()
        trained = train_together(
            mix, model=size.model, recipe=own, classes=10, seeds=range(size.seeds),
            device=given.device,
        )  # fmt: skip
        found = [
            evaluate(one.module, test, of, classes=10, device=given.device).top1 for one in trained
        ]
        return {
            "top1": found, "n_total": mix.n_total, "epochs": size.epochs,
            "images_per_s": trained[0].images_per_s,
            "images_are": "real" if given.data else "random",
            "seconds_per_trial": (time.perf_counter() - began) / size.seeds,
        }  # fmt: skip

    for arm, added in arms.items():
        figures.take(arm, lambda added=added: train(added), 60 * given.scale)


# All of them --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """work: measures figures. weight: its part of the time that is left, against the phases that
    follow. needs: modules.
    """

    work: Callable[[Figures, argparse.Namespace], None]
    weight: float
    needs: tuple[str, ...] = ()


OWN = ("pydantic",)
PHASES = {
    "machine": Phase(machine, 25),
    "plain": Phase(plain, 60, ("torchvision", "PIL")),
    "tests": Phase(tests, 200, ("pytest", "hypothesis", *OWN)),
    "classifiers": Phase(classifiers, 120, OWN),
    "packed": Phase(packed, 150, OWN),
    "edm": Phase(edm, 240, OWN),
    "generator": Phase(generator, 150, (*OWN, "pyarrow", "PIL")),
    "pool": Phase(pool, 30, (*OWN, "pyarrow", "PIL")),
    "trials": Phase(trials, 150, (*OWN, "pyarrow", "PIL")),
    "dit": Phase(dit, 120, (*OWN, "diffusers")),
}

FULL = SimpleNamespace(
    model="resnet110", batch=128, images=39 * 128, steps=300, skip=60, branches=(3, 8),
    packings=((2, 1), (4, 1), (2, 4)), train=10_000, test=10_000, base=5_000, epochs=60, seeds=3,
    nimg=4_000_000, edm={
        "network": {"model_channels": 64, "channel_mult": [2, 2, 2], "num_blocks": 2,
                    "attn_resolutions": [16]},
        "training": {"batch": 512, "lr": 1e-3, "lr_rampup_nimg": 50_000,
                     "ema_halflife_nimg": 100_000},
        "sampler": {"batch": 512},
    },
)  # fmt: skip
TINY = SimpleNamespace(
    model="resnet20", batch=32, images=128, steps=6, skip=2, branches=(2,), packings=((2, 1),),
    train=200, test=100, base=48, epochs=1, seeds=2, nimg=64, edm={
        "network": {"model_channels": 16, "channel_mult": [1, 1], "num_blocks": 0,
                    "attn_resolutions": []},
        "training": {"batch": 16, "lr": 1e-3, "lr_rampup_nimg": 32, "ema_halflife_nimg": 64},
        "sampler": {"batch": 8, "steps": 3},
    },
)  # fmt: skip


def run_all(given: argparse.Namespace) -> None:
    """Each phase in a process of its own; the time that one leaves is the others'."""
    ends_s = time.perf_counter() + 60 * given.minutes
    chosen = [name for name in PHASES if not given.only or name in given.only]
    for i, name in enumerate(chosen):
        left_s = ends_s - time.perf_counter() - GRACE_S
        weights = [PHASES[other].weight for other in chosen[i:]]
        seconds = max(min(START_S, left_s), left_s * weights[0] / sum(weights))
        print(f"=== {name}: {seconds:.0f} of {left_s:.0f} s", flush=True)
        if left_s > 0:
            run_phase(name, seconds, given)


def run_phase(name: str, seconds: float, given: argparse.Namespace) -> None:
    command = [sys.executable, __file__, "--phase", name, "--seconds", str(seconds)]
    process = subprocess.Popen([*command, *given.passed_on], start_new_session=True)
    try:
        status = process.wait(seconds + GRACE_S)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
        process.wait()
    if status != 0:
        why = f"exit status {status}" if status is not None else "ended after its time"
        append(given.out, {"phase": name, "what": "process", "error": why})


def missing(needs: tuple[str, ...]) -> list[str]:
    return [name for name in needs if importlib.util.find_spec(name) is None]


# The table ----------------------------------------------------------------------------------------


def table(found: list[Facts]) -> str:
    """The newest of each figure as Markdown; images/s beside those of the usual loop, and of
    float32 eager code.
    """
    newest = {(line["phase"], line["what"]): line for line in found if is_figure(line)}
    base = {}  # by device: a figure is compared with those of its own
    for (_, what), line in newest.items():
        if what == "usual loop":
            base[line["device"], ""] = line["images_per_s"]
        if what.endswith(", float32 eager"):
            rate = line.get("images_per_s", line.get("training"))
            base[line["device"], what.partition(",")[0]] = rate
    rows = ["| phase | what | figure | × plain | device, date, torch |", "|---|---|---|---|---|"]
    for (phase, what), line in newest.items():
        for label, figure, rate in values(what, line):
            kind = label.partition(",")[0] if phase == "edm" else ""
            plain = base.get((line["device"], kind))
            compared = phase in ("plain", "classifiers", "packed", "edm")
            times = f"{rate / plain:.2f}" if rate and plain and compared else ""
            where = f"{line['device']}, {line['date']}, {line['torch']}"
            where += ", tiny: means nothing" if line.get("tiny") else ""
            rows.append(f"| {phase} | {label} | {figure} | {times} | {where} |")
    failed: dict[tuple[str, str], Facts] = {}
    for line in found:
        if not is_figure(line):
            failed[line["phase"], line["what"]] = line
            continue
        for what in (line["what"], "phase", "process"):  # of the whole phase: it went on
            failed.pop((line["phase"], what), None)
    for key in newest:
        failed.pop(key, None)
    for (phase, what), line in failed.items():
        rows.append(f"| {phase} | {what} | {line.get('error') or line.get('skipped')} | | |")
    return "\n".join(rows)


def values(what: str, line: Facts) -> Iterator[tuple[str, str, float | None]]:
    """(label, figure, images/s) of a line; several of one that has several."""
    if "top1" in line:
        spread = np.std(line["top1"], ddof=1) if len(line["top1"]) > 1 else math.nan
        mean = f"{np.mean(line['top1']):.2f} ± {spread:.2f} of {len(line['top1'])}"
        yield what, f"top-1 {mean} ({line['images_are']} images)", None
    elif isinstance(line.get("training"), dict):  # DiT's
        for kind in ("training", "sampling"):
            for variant, rate in line[kind].items():
                yield f"{what} {kind}, {variant}", f"{rate:.4g} images/s", None
    elif "training" in line:
        yield what, f"{line['training']:.4g} images/s, {line['at_once']} at once", line["training"]
    elif "images_per_s" in line:
        yield what, f"{line['images_per_s']:.4g} images/s", line["images_per_s"]
    elif "tests" in line:
        yield what, line["tests"], None
    elif "value" in line:
        yield what, f"{line['value']:.4g}", None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder; the same one goes on")
    parser.add_argument("--data", type=Path, help="a folder of CIFAR-10's Parquet files")
    parser.add_argument("--minutes", type=float, default=15.0, help="for all phases together")
    parser.add_argument("--only", nargs="+", choices=PHASES, help="these phases alone")
    parser.add_argument("--table", action="store_true", help="print the table, measure nothing")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="show that it runs: figures mean nothing"
    )
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=math.inf, help=argparse.SUPPRESS)
    parser.add_argument("--one-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    given.on_gpu = given.device.startswith("cuda")
    given.size = TINY if given.tiny else FULL
    kept = [line for line in lines(given.out) if line.get("device")]
    if not given.table and any(line.get("tiny", False) != given.tiny for line in kept):
        parser.error(f"{given.out} has figures {'without' if given.tiny else 'of'} --tiny; "
                     "take another folder for these")  # fmt: skip
    given.scale = 0.0 if given.tiny else 1.0  # of the seconds that a figure may take
    passed_on = ["--out", given.out, "--device", given.device]
    passed_on += ["--data", given.data] if given.data else []
    given.passed_on = [*map(str, passed_on), *(["--tiny"] if given.tiny else [])]
    return given


def main() -> None:
    given = arguments()
    if given.table:
        print(table(lines(given.out)))
    elif not given.phase:
        run_all(given)
        print(table(lines(given.out)))
    else:
        phase = PHASES[given.phase]
        figures = Figures(given.out, given.phase, given.seconds, given.device, given.tiny)
        if absent := missing(phase.needs):
            figures.write("phase", skipped=f"needs {', '.join(absent)}")
        else:
            phase.work(figures, given)


if __name__ == "__main__":
    main()
