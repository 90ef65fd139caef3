"""Training and sampling speed of the EDM against plain eager implementations of the same network
and schedule.

Usage: python benchmarks/edm.py [--size tiny|small|full] [--device cpu|cuda] [--threads N]
[--seconds OF_EACH_FIGURE] [--json FILE]

Three variants in one run, one after another: "fp32 eager" (TF32 off) and "bf16 eager" (autocast,
channels-last), both written here without any of the project's speed-ups (torch's own dropout, Adam
and a loop over parameters for the average), and "equigrid", what `generators.edm` does on this
device, its sampling as the grid calls it: whole shards, straight to uint8.  A training batch that
does not fit the memory is taken in halves, quarters and so on, and the row says so.  full is the
published CIFAR-10 setting and wants a GPU; small is a reduced network for a CPU; tiny only shows
that the script runs.
"""

import contextlib
import gc
from collections.abc import Callable

import comparing
import numpy as np
import torch
import torch.nn.functional as F
from comparing import rates

from equigrid.generators import registry
from equigrid.generators.common import pools
from equigrid.generators.edm import network as network_module
from equigrid.generators.edm.config import EDMConfig
from equigrid.generators.edm.network import EDMNetwork, initialise
from equigrid.generators.edm.sampling import heun, ready
from equigrid.generators.edm.schedules import ema_decay, learning_rate
from equigrid.generators.edm.steps import Batch, batch_of, losses
from equigrid.generators.edm.trainer import DenoiserTrainer
from equigrid.generators.edm.weights import forward_flops as own_flops
from equigrid.generators.edm.weights import network_for
from equigrid.generators.registry import config
from equigrid.generators.trainer.trainer import sliced

CLASSES = 10
REDUCED = {
    "model_channels": 32,
    "channel_mult": [1, 2, 2],
    "num_blocks": 1,
    "attn_resolutions": [16],
}
SIZES = {
    "full": {
        "side": 32, "sampling_batch": 512, "shard": pools.shard_size(32, 32, 3), "steps": 10,
        "rounds": 3, "spec": {"preset": "cifar10"},
    },
    "small": {
        "side": 32, "sampling_batch": 16, "shard": 16, "steps": 3, "rounds": 5,
        "spec": {"network": REDUCED, "training": {"batch": 32}, "sampler": {"steps": 6}},
    },
    "tiny": {
        "side": 8, "sampling_batch": 4, "shard": 4, "steps": 1, "rounds": 1,
        "spec": {"preset": "digits"},
    },
}  # fmt: skip
"""shard: images that one call of "equigrid" samples; a whole shard takes a CPU too long."""


def measure(size: dict, device: torch.device) -> dict:
    spec = config({"kind": "edm", **size["spec"]})
    spec = spec.model_copy(
        update={"sampler": spec.sampler.model_copy(update={"batch": size["sampling_batch"]})}
    )
    rng = np.random.default_rng(0)
    side, channels = size["side"], 3
    images = rng.integers(0, 256, (2048, side, side, channels), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, 2048)
    shape, batch, sampling_batch = images.shape[1:], spec.training.batch, spec.sampler.batch
    trains = {
        "fp32 eager": lambda: PlainTraining(images, labels, spec, device, bf16=False),
        "bf16 eager": lambda: PlainTraining(images, labels, spec, device, bf16=True),
        "equigrid": lambda: own_training(images, labels, spec, device),
    }
    weights = fresh(spec, shape).state_dict()
    samples = {
        "fp32 eager": (
            sampling_batch,
            lambda: plain_sampler(weights, spec, shape, device, bf16=False),
        ),
        "bf16 eager": (
            sampling_batch,
            lambda: plain_sampler(weights, spec, shape, device, bf16=True),
        ),
        "equigrid": (
            size["shard"],
            lambda: own_sampler(weights, spec, shape, device, size["shard"]),
        ),
    }
    found = {
        name: training_rate(f"training, {name}", make, batch, device, size)
        for name, make in trains.items()
    }
    for name, (nimg, make) in samples.items():
        found[name]["sampling"] = rate(
            f"sampling, {name}", make(), nimg, device, {**size, "steps": 1}
        )
        free_memory(device)
    return {
        "rates": found,
        "forward_flops_per_image": forward_flops(spec, shape),
        "matmul_flops_per_s": matmul_rate(device),
        "evaluations_per_sample": spec.sampler.evaluations,
        "batch": batch,
        "sampling_batch": sampling_batch,
    }


def training_rate(name: str, make: Callable, batch: int, device: torch.device, size: dict) -> dict:
    """Images per second of what `make` returns, and how many it took at once; alone on the
    device.
    """
    training = make()
    found = {
        "training": rate(name, training.advance, batch, device, size),
        "at_once": training.microbatch,
    }
    del training
    free_memory(device)
    return found


def rate(
    name: str, work: Callable[[], None], images: int, device: torch.device, size: dict
) -> float:
    return rates({name: work}, images, device, size)[name]


def free_memory(device: torch.device) -> None:
    registry.release()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def fresh(spec: EDMConfig, shape: tuple[int, int, int]) -> EDMNetwork:
    network = network_for(spec, shape=shape, classes=CLASSES).to_empty(device="cpu")
    initialise(network, torch.Generator().manual_seed(0))
    return network


@contextlib.contextmanager
def torch_dropout():
    """torch's own dropout in place of the project's, which pays for its reproducibility when not
    compiled.
    """
    own = network_module.drop
    network_module.drop = lambda x, probability, keys: (
        F.dropout(x, probability) if keys is not None else x
    )
    try:
        yield
    finally:
        network_module.drop = own


class PlainTraining:
    """Training steps as one would first write them; `microbatch` images at once."""

    def __init__(self, images, labels, spec: EDMConfig, device: torch.device, *, bf16: bool):
        self.spec, self.device, self.bf16 = spec, device, bf16
        self.layout = torch.channels_last if bf16 else torch.contiguous_format
        self.network = fresh(spec, images.shape[1:]).to(device, memory_format=self.layout)
        self.average = [p.detach().clone() for p in self.network.parameters()]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.training.optimizer]
        self.optimizer = kind(self.network.parameters(), lr=spec.training.lr)
        self.data = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
        self.number, self.microbatch = 0, spec.training.batch

    def advance(self) -> None:
        training, nimg = self.spec.training, self.number * self.spec.training.batch
        batch = batch_of(
            *self.data, self.spec, seed=0, step=self.number, part=slice(0, training.batch)
        )
        while not self.fits(batch):
            self.microbatch = -(-self.microbatch // 2)
            free_memory(self.device)
        self.optimizer.param_groups[0]["lr"] = learning_rate(training, nimg)
        self.optimizer.step()
        beta = ema_decay(training, nimg)
        with torch.no_grad():
            for mean, p in zip(self.average, self.network.parameters()):
                mean.copy_(p.lerp(mean, beta))
        self.number += 1

    def fits(self, batch: Batch) -> bool:
        """Whether the memory suffices for the gradients of a batch, which are then there."""
        self.optimizer.zero_grad()
        try:
            for first in range(0, len(batch.clean), self.microbatch):
                self.add_gradients(sliced(batch, slice(first, first + self.microbatch)))
        except torch.OutOfMemoryError:
            if self.microbatch == 1:
                raise
            return False
        return True

    def add_gradients(self, part: Batch) -> None:
        noisy = part.noisy.contiguous(memory_format=self.layout)
        with torch_dropout(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            denoised = self.network(noisy, part.sigma, part.labels, part.augment, part.dropout_keys)
        loss = losses(denoised, part, self.spec.network.sigma_data).sum() / self.spec.training.batch
        loss.backward()


def own_training(images, labels, spec: EDMConfig, device: torch.device) -> DenoiserTrainer:
    """As `equigrid.generators.edm.training` begins it."""
    stage = DenoiserTrainer(images, labels, spec, classes=CLASSES, seed=0, device=device)
    stage.prepare()
    return stage


def plain_sampler(
    weights, spec: EDMConfig, shape, device: torch.device, *, bf16: bool
) -> Callable[[], None]:
    network = ready(weights, spec, classes=CLASSES, shape=shape, device=device)
    layout = torch.channels_last if bf16 else torch.contiguous_format
    network = network.to(memory_format=layout)

    def evaluate(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return network(x.contiguous(memory_format=layout), sigma, labels)

    height, width, channels = shape
    n = spec.sampler.batch
    labels = torch.arange(n, device=device) % CLASSES
    noise = torch.randn(n, channels, height, width, device=device)

    def once() -> None:
        with torch.no_grad():
            heun(lambda x, sigma: evaluate(x, sigma, labels), lambda: noise, spec.sampler)

    return once


def own_sampler(
    weights, spec: EDMConfig, shape, device: torch.device, nimg: int
) -> Callable[[], None]:
    """As the grid has a shard made, over and over."""
    options = {
        "classes": CLASSES,
        "shape": shape,
        "seed": 0,
        "start": 0,
        "stop": nimg,
        "device": device,
    }
    return lambda: registry.sample(weights, spec, **options)


def forward_flops(spec: EDMConfig, shape: tuple[int, int, int]) -> int:
    """Floating-point operations (two per multiplication with addition) of one image's forward
    pass.
    """
    return own_flops(spec, shape, CLASSES)


def matmul_rate(device: torch.device) -> float:
    """bf16 operations per second of one large matrix product: what the device gives at best."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return rates({"product": lambda: a @ b}, 2 * side**3, device, {"steps": 10, "rounds": 3})[
        "product"
    ]


def table(report: dict) -> str:
    """The figures as a Markdown table; x: times the fp32 eager rate; %: of the device's bf16 matrix
    rate.
    """
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
        parts = (
            ""
            if found["at_once"] == report["batch"]
            else f", {found['at_once']} images at once in training"
        )
        lines.append(f"| {name}{parts} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    comparing.main(__doc__, SIZES, measure, table)
