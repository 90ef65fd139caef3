"""The benchmark scripts run, and their count of operations is that of the network."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """benchmarks/edm.py as a module."""
    monkeypatch.syspath_prepend(FOLDER)  # as when it runs
    spec = importlib.util.spec_from_file_location("edm_benchmark", FOLDER / "edm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_operations_of_the_published_network(script):
    """Counted block by block: convolutions, projections and attention; the rest is below a
    thousandth.
    """
    from equigrid.generators.registry import config

    chosen = config({"kind": "edm"})
    blocks, products = chosen.layout(32, 32), 9 * 3 * 128 * 32**2 + 9 * 256 * 3 * 32**2
    for block in (*blocks.encoder, *blocks.decoder):
        pixels = int(block.name.split("x")[0]) ** 2
        products += 9 * (block.c_in + block.c_out) * block.c_out * pixels
        if block.c_in != block.c_out or block.resample:
            products += block.c_in * block.c_out * pixels
        if block.attention:
            products += 4 * block.c_out**2 * pixels + 2 * block.c_out * pixels**2
    assert script.forward_flops(chosen, (32, 32, 3)) == pytest.approx(2 * products, rel=1e-3)


def test_a_baseline_that_does_not_fit_takes_halves_and_says_so(script, monkeypatch):
    from equigrid.generators.registry import config

    chosen = config(
        {"kind": "edm", "preset": "digits", "network": {"dropout": 0.0}, "training": {"batch": 12}}
    )
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(20) % 10

    def steps(limit: int):
        def short_of_memory(self, part):
            if len(part.clean) > limit:
                raise torch.OutOfMemoryError("no memory for this batch")
            real(self, part)

        real = script.PlainTraining.add_gradients
        with monkeypatch.context() as patched:
            patched.setattr(script.PlainTraining, "add_gradients", short_of_memory)
            training = script.PlainTraining(images, labels, chosen, torch.device("cpu"), bf16=False)
            for _ in range(3):
                training.advance()
        return training

    halves, whole = steps(4), steps(12)
    assert (halves.microbatch, whole.microbatch) == (3, 12)
    for one, two in zip(halves.average, whole.average):
        assert torch.allclose(one, two, atol=1e-4)  # the order of sums, which Adam enlarges
    with pytest.raises(torch.OutOfMemoryError):
        steps(0)
    rates = {"fp32 eager": {"training": 1.0, "sampling": 1.0, "at_once": 3}}
    machine = {
        "device": "cpu",
        "threads": 1,
        "torch": "2",
        "cuda": None,
        "date": "today",
        "size": "tiny",
    }
    figures = {
        "batch": 12,
        "sampling_batch": 4,
        "forward_flops_per_image": 1,
        "matmul_flops_per_s": 1.0,
    }
    report = {"rates": rates, **figures, "evaluations_per_sample": 1, **machine}
    assert "| fp32 eager, 3 images at once in training | 1 |" in script.table(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("edm", {"fp32 eager", "bf16 eager", "equigrid"}),
        ("dit", {"fp32 eager, encoding each step", "fp32 eager, latents kept", "equigrid"}),
    ],
)
def test_it_runs_on_a_cpu(name, variants, tmp_path):
    command = [
        sys.executable,
        str(FOLDER / f"{name}.py"),
        "--size",
        "tiny",
        "--device",
        "cpu",
        "--json",
        "b.json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "| equigrid |" in done.stdout
    report = json.loads((tmp_path / "b.json").read_text())
    assert all(report[key] for key in ("device", "torch", "date", "threads"))
    training = (
        report["training"]
        if name == "dit"
        else {key: of["training"] for key, of in report["rates"].items()}
    )
    assert set(training) == variants
    assert all(value > 0 for value in training.values())


def test_each_figure_is_printed_at_once_and_has_its_time(monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    comparing = importlib.import_module("comparing")
    now, called = [0.0], {"slow": 0, "fast": 0}
    monkeypatch.setattr(comparing.time, "perf_counter", lambda: now[0])

    def work(name, seconds):
        def once():
            called[name] += 1
            now[0] += seconds
            if called["fast"] == 3:  # its first timed round: the slow one's figure stands already
                printed.append(capsys.readouterr().err)

        return once

    printed = []
    size = {"steps": 10, "rounds": 3, "seconds": 60}
    found = comparing.rates(
        {"slow": work("slow", 20.0), "fast": work("fast", 0.5)}, 40, torch.device("cpu"), size
    )
    assert found == {"slow": 2.0, "fast": 80.0}
    assert "slow: 2 per s, round 1" in printed[0]
    # Compiled, timed, and rounds of one call until a minute is over; of ten, three times.
    assert called == {"slow": 5, "fast": 32}


def test_the_dits_benchmark_says_what_it_lacks():
    """Before anything is measured."""
    code = "import runpy, sys; sys.modules['diffusers'] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER / "dit.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(FOLDER)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("there is no diffusers here: pip install diffusers")
