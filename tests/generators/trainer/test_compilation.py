"""A compilation that fails costs speed and one line in the log, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from equigrid.generators import registry
from equigrid.generators.edm.weights import forward_flops
from equigrid.generators.registry import config
from equigrid.generators.trainer.compilation import Compiled, compiles_training

ROOT = Path(__file__).parents[3]

ON_A_MACHINE_WITHOUT_A_COMPILER = """
import json, logging
import numpy as np
from equigrid.generators import registry
from equigrid.generators.registry import config

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("equigrid.generators").addHandler(handler)

rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 10

def made(compile):
    chosen = config({
        "kind": "edm", "preset": "digits", "training": {"batch": 8, "total_nimg": 24},
        "sampler": {"steps": 2, "batch": 8}, "compute": {"compile": compile},
    })
    weights = registry.train(images, labels, chosen, classes=10, seed=1)
    pool, _ = registry.sample(
        weights, chosen, classes=10, shape=(8, 8, 1), seed=2, start=0, stop=8
    )
    return weights, pool

weights, pool = made("off")
others, other = made("on")
same = all(np.array_equal(value, others[name]) for name, value in weights.items())
print(json.dumps({"same": same and np.array_equal(pool, other), "lines": lines}))
"""


@pytest.mark.long
def test_without_a_compiler_a_generator_is_trained_and_sampled_eagerly(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ON_A_MACHINE_WITHOUT_A_COMPILER],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": str(tmp_path),
            "CXX": "no-such-compiler",
            "CC": "no-such-compiler",
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),  # nothing compiled before
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"]
    assert len(found["lines"]) == 2  # of the training, and of the sampling
    for line in found["lines"]:
        assert line.startswith("a network runs without being compiled: ")
        assert "no-such-compiler" in line and "\n" not in line


class Fake:
    """Stands in for torch.compile: what comes out raises `error` the first `times` it is called."""

    def __init__(self, error, times=1):
        self.error, self.times, self.calls = error, times, 0

    def __call__(self, network, **options):
        def forward(*args):
            self.calls += 1
            if self.calls <= self.times:
                raise self.error
            return network(*args)

        return forward


@pytest.mark.parametrize("times", [1, 99])
def test_memory_that_does_not_suffice_is_no_failed_compilation(times, monkeypatch, caplog):
    """It is the caller's to make room, and the network stays compiled."""
    fake = Fake(torch.OutOfMemoryError("no memory"), times)
    monkeypatch.setattr(torch, "compile", fake)
    compiled = Compiled(nn.Linear(2, 2))
    for _ in range(2):
        try:
            compiled(torch.ones(1, 2))
        except torch.OutOfMemoryError:
            continue
    assert fake.calls == 2
    assert not compiled.gave_up and not caplog.records


def test_the_networks_own_error_is_raised_and_blames_no_compiler(monkeypatch, caplog):
    monkeypatch.setattr(torch, "compile", Fake(RuntimeError("backend='inductor' raised:")))
    compiled = Compiled(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compiled(torch.ones(1, 3))
    assert not compiled.gave_up and not caplog.records


class BackwardFails(torch.autograd.Function):
    """As where the backward pass is compiled at its first call."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError(
            "Failed to find C compiler.\nSet CC.\n\nSet TORCHDYNAMO_VERBOSE=1 for more"
        )


def test_a_backward_pass_that_cannot_be_compiled(monkeypatch, caplog):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 10

    def trained(compile):
        chosen = config(
            {
                "kind": "edm",
                "preset": "digits",
                "training": {"batch": 8, "total_nimg": 24},
                "compute": {"compile": compile},
            }
        )
        return registry.train(images, labels, chosen, classes=10, seed=1)

    def compile(network, **options):
        return lambda *args: BackwardFails.apply(network(*args))

    plain = trained("off")
    monkeypatch.setattr(torch, "compile", compile)
    without = trained("on")
    assert all(torch.equal(value, without[name]) for name, value in plain.items())
    assert [record.getMessage() for record in caplog.records] == [
        "a network runs without being compiled: Failed to find C compiler. Set CC."
    ]


@pytest.mark.parametrize(
    ("preset", "shape", "nimg", "pays"),
    [
        ("cifar10", (32, 32, 3), 250_000, True),
        ("cifar10", (32, 32, 3), 200_000, False),
        ("digits", (8, 8, 1), 10**9, False),
    ],
)
def test_compiling_a_training_goes_by_all_of_its_operations(preset, shape, nimg, pays):
    chosen = config({"kind": "edm", "preset": preset})
    work = lambda: nimg * forward_flops(chosen, shape, 10)  # noqa: E731
    assert compiles_training(chosen.compute, torch.device("cuda"), work) == pays


def test_operations_are_counted_only_where_the_answer_hangs_on_them():
    def never():
        raise AssertionError("counted")

    auto, on = (config({"kind": "edm", "compute": {"compile": c}}).compute for c in ("auto", "on"))
    assert not compiles_training(auto, torch.device("cpu"), never)
    assert compiles_training(on, torch.device("cuda"), never)


def test_operations_of_the_published_transformer():
    """118.64 billion multiplications with additions (Peebles and Xie 2023, Table 4), two each."""
    pytest.importorskip("diffusers")
    from equigrid.generators.dit.denoising import forward_flops as of_dit

    chosen = config({"kind": "dit", "preset": "dit-xl2"})
    assert of_dit(chosen, 32, 1000) == pytest.approx(2 * 118.64e9, rel=0.01)
