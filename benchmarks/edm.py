"""Training and sampling speed of the EDM against plain eager implementations of the same network and schedule.

Usage: python benchmarks/edm.py [--size tiny|small|full] [--device cpu|cuda] [--threads N] [--json FILE]

Three variants in one run: "fp32 eager" (TF32 off) and "bf16 eager" (autocast, channels-last), both written here
without any of the project's speed-ups (torch's own dropout, Adam and a loop over parameters for the average),
and "equigrid", what `generators.edm` does on this device.  full is the published CIFAR-10 setting and wants a
GPU; small is a reduced network for a CPU; tiny only shows that the script runs.
"""

import contextlib
from collections.abc import Callable

import comparing
import numpy as np
import torch
import torch.nn.functional as F
from comparing import rates

from generators import config
from generators.edm import network as network_module
from generators.edm.config import EDMConfig
from generators.edm.network import EDMNetwork, initialise
from generators.edm.sampling import compiled, heun, ready
from generators.edm.schedules import ema_decay, learning_rate
from generators.edm.stage import DenoiserStage
from generators.edm.steps import batch_of, losses
from generators.edm.weights import network_for

CLASSES = 10
REDUCED = {"model_channels": 32, "channel_mult": [1, 2, 2], "num_blocks": 1, "attn_resolutions": [16]}
SIZES = {
    "full": {"side": 32, "sampling_batch": 512, "steps": 20, "rounds": 5, "spec": {"preset": "cifar10"}},
    "small": {
        "side": 32, "sampling_batch": 16, "steps": 3, "rounds": 5,
        "spec": {"network": REDUCED, "training": {"batch": 32}, "sampler": {"steps": 6}},
    },
    "tiny": {"side": 8, "sampling_batch": 4, "steps": 1, "rounds": 1, "spec": {"preset": "digits"}},
}  # fmt: skip


def measure(size: dict, device: torch.device) -> dict:
    spec = config({"kind": "edm", **size["spec"]})
    spec = spec.model_copy(update={"sampler": spec.sampler.model_copy(update={"batch": size["sampling_batch"]})})
    rng = np.random.default_rng(0)
    side, channels = size["side"], 3
    images = rng.integers(0, 256, (2048, side, side, channels), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, 2048)
    trains = {
        "fp32 eager": plain_step(images, labels, spec, device, bf16=False),
        "bf16 eager": plain_step(images, labels, spec, device, bf16=True),
        "equigrid": DenoiserStage(images, labels, spec, classes=CLASSES, seed=0, device=device).advance,
    }
    weights = {name: value.cpu() for name, value in fresh(spec, images.shape[1:]).state_dict().items()}
    samples = {
        "fp32 eager": plain_sampler(weights, spec, images.shape[1:], device, bf16=False),
        "bf16 eager": plain_sampler(weights, spec, images.shape[1:], device, bf16=True),
        "equigrid": own_sampler(weights, spec, images.shape[1:], device),
    }
    batch = spec.training.batch
    training = rates(trains, batch, device, size)
    sampling = rates(samples, spec.sampler.batch, device, {**size, "steps": 1})
    return {
        "rates": {name: {"training": training[name], "sampling": sampling[name]} for name in trains},
        "forward_flops_per_image": forward_flops(spec, images.shape[1:]),
        "matmul_flops_per_s": matmul_rate(device),
        "evaluations_per_sample": spec.sampler.evaluations,
        "batch": batch,
        "sampling_batch": spec.sampler.batch,
    }


def fresh(spec: EDMConfig, shape: tuple[int, int, int]) -> EDMNetwork:
    network = network_for(spec, shape=shape, classes=CLASSES).to_empty(device="cpu")
    initialise(network, torch.Generator().manual_seed(0))
    return network


@contextlib.contextmanager
def torch_dropout():
    """torch's own dropout in place of the project's, which pays for its reproducibility when not compiled."""
    own = network_module.drop
    network_module.drop = lambda x, probability, keys: F.dropout(x, probability) if keys is not None else x
    try:
        yield
    finally:
        network_module.drop = own


def plain_step(images, labels, spec: EDMConfig, device: torch.device, *, bf16: bool) -> Callable[[], None]:
    """A training step as one would first write it."""
    network = fresh(spec, images.shape[1:]).to(device)
    if bf16:
        network = network.to(memory_format=torch.channels_last)
    average = [p.detach().clone() for p in network.parameters()]
    training = spec.training
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    optimizer = kind(network.parameters(), lr=training.lr)
    data = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    steps = iter(range(10**9))

    def step() -> None:
        number = next(steps)
        nimg = number * training.batch
        batch = batch_of(*data, spec, seed=0, step=number, part=slice(0, training.batch))
        noisy = batch.noisy.contiguous(memory_format=torch.channels_last) if bf16 else batch.noisy
        optimizer.param_groups[0]["lr"] = learning_rate(training, nimg)
        optimizer.zero_grad()
        with torch_dropout(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            denoised = network(noisy, batch.sigma, batch.labels, batch.augment, batch.dropout_keys)
        (losses(denoised, batch, spec.network.sigma_data).sum() / training.batch).backward()
        optimizer.step()
        beta = ema_decay(training, nimg)
        with torch.no_grad():
            for mean, p in zip(average, network.parameters()):
                mean.copy_(p.lerp(mean, beta))

    return step


def plain_sampler(weights, spec: EDMConfig, shape, device: torch.device, *, bf16: bool) -> Callable[[], None]:
    network = ready(weights, spec, classes=CLASSES, shape=shape, device=device)
    layout = torch.channels_last if bf16 else torch.contiguous_format
    network = network.to(memory_format=layout)

    def evaluate(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return network(x.contiguous(memory_format=layout), sigma, labels)

    return sampler_of(evaluate, spec, shape, device)


def own_sampler(weights, spec: EDMConfig, shape, device: torch.device) -> Callable[[], None]:
    network = ready(weights, spec, classes=CLASSES, shape=shape, device=device)
    return sampler_of(compiled(network, spec, nimg=50_000, device=device), spec, shape, device)


def sampler_of(evaluate: Callable, spec: EDMConfig, shape, device: torch.device) -> Callable[[], None]:
    height, width, channels = shape
    n = spec.sampler.batch
    labels = torch.arange(n, device=device) % CLASSES
    noise = torch.randn(n, channels, height, width, device=device)

    def once() -> None:
        with torch.no_grad():
            heun(lambda x, sigma: evaluate(x, sigma, labels), lambda: noise, spec.sampler)

    return once


def forward_flops(spec: EDMConfig, shape: tuple[int, int, int]) -> int:
    """Floating-point operations (two per multiplication with addition) of one image's forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    height, width, channels = shape
    network = network_for(spec, shape=shape, classes=CLASSES)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, channels, height, width), torch.empty(1), torch.empty(1, dtype=torch.int64))
    return counter.get_total_flops()


def matmul_rate(device: torch.device) -> float:
    """bf16 operations per second of one large matrix product: what the device gives at best."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return rates({"product": lambda: a @ b}, 2 * side**3, device, {"steps": 10, "rounds": 3})["product"]


def table(report: dict) -> str:
    """The figures as a Markdown table; x: times the fp32 eager rate; %: of the device's bf16 matrix rate."""
    base = report["rates"]["fp32 eager"]
    peak, flops = report["matmul_flops_per_s"], report["forward_flops_per_image"]
    needed = {"training": 3 * flops, "sampling": report["evaluations_per_sample"] * flops}
    lines = [
        f"{comparing.headline(report)}, batches {report['batch']} and {report['sampling_batch']}, "
        f"{flops / 1e9:.3g} GFLOP per image forward, bf16 matrix rate {peak / 1e12:.3g} TFLOP/s",
        "",
        "| | training images/s | x | % | sampling images/s | x | % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in report["rates"].items():
        cells = []
        for what in ("training", "sampling"):
            value = found[what]
            ratio = value / base[what]
            cells += [f"{value:.4g}", f"{ratio:.2f}", f"{100 * value * needed[what] / peak:.1f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    comparing.main(__doc__, SIZES, measure, table)
