"""The benchmark script runs, and its count of operations is that of the network."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "edm.py"


def test_operations_of_the_published_network():
    """Counted block by block: convolutions, projections and attention; the rest is below a thousandth."""
    from generators import config

    spec = importlib.util.spec_from_file_location("edm_benchmark", SCRIPT)
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
def test_it_runs_on_a_cpu(tmp_path):
    command = [sys.executable, str(SCRIPT), "--size", "tiny", "--device", "cpu", "--json", str(tmp_path / "b.json")]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert "| equigrid |" in done.stdout
    rates = json.loads((tmp_path / "b.json").read_text())["rates"]
    assert set(rates) == {"fp32 eager", "bf16 eager", "equigrid"}
    assert all(value > 0 for found in rates.values() for value in found.values())
