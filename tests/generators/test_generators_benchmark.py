"""The benchmark scripts run, and their count of operations is that of the network."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"


def test_operations_of_the_published_network(monkeypatch):
    """Counted block by block: convolutions, projections and attention; the rest is below a thousandth."""
    from generators import config

    monkeypatch.syspath_prepend(FOLDER)  # as when it runs
    spec = importlib.util.spec_from_file_location("edm_benchmark", FOLDER / "edm.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "variants"),
    [
        ("edm", {"fp32 eager", "bf16 eager", "equigrid"}),
        ("dit", {"fp32 eager, encoding each step", "fp32 eager, latents kept", "equigrid"}),
    ],
)
def test_it_runs_on_a_cpu(script, variants, tmp_path):
    command = [sys.executable, str(FOLDER / f"{script}.py"), "--size", "tiny", "--device", "cpu", "--json", "b.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "| equigrid |" in done.stdout
    report = json.loads((tmp_path / "b.json").read_text())
    assert all(report[name] for name in ("device", "torch", "date", "threads"))
    training = report["training"] if script == "dit" else {name: of["training"] for name, of in report["rates"].items()}
    assert set(training) == variants
    assert all(value > 0 for value in training.values())
