"""Sampling (Karras et al. 2022, Algorithms 1 and 2), one stream of noise per image."""

import math
from collections.abc import Callable

import numpy as np
import torch

from equigrid.generators.calls import SampleCall, ignore
from equigrid.generators.common import pools
from equigrid.generators.common.noise import streams
from equigrid.generators.common.pixels import to_uint8
from equigrid.generators.edm.config import EDMConfig, Sampler
from equigrid.generators.edm.network import EDMNetwork
from equigrid.generators.edm.weights import load, network_for
from equigrid.generators.trainer.compilation import compiles_sampling, kept
from equigrid.generators.trainer.devices import autocast, memory_format, precision_of

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(images (N, C, H, W) float32, sigma (N,) float32) -> denoised (N, C, H, W) float32."""

SAMPLING_PRECISION = "fp16"
"""Of "auto" on a CUDA device: 3 bits finer than bf16, and without gradients its range suffices."""


def sample(
    weights: dict[str, torch.Tensor], config: EDMConfig, call: SampleCall
) -> tuple[np.ndarray, np.ndarray]:
    """See `equigrid.generators.registry.sample`."""
    device, (height, width, channels) = torch.device(call.device), call.shape
    evaluate = evaluator(weights, config, classes=call.classes, shape=call.shape, device=device)

    def make(numbers: range, labels: np.ndarray) -> np.ndarray:
        of = torch.from_numpy(labels).to(device)
        draws = 1 + (config.sampler.steps if config.sampler.S_churn else 0)
        noise = streams(call.seed, numbers, (channels, height, width), device, draws=draws)
        with torch.no_grad():
            made = heun(
                lambda x, sigma: evaluate(x, sigma, of), noise, config.sampler,
                progress=lambda share: call.progress(pools.share_done(call, numbers, share)),
            )  # fmt: skip
        return to_uint8(made).cpu().numpy()

    return pools.in_batches(make, call, batch=config.sampler.batch)


def ready(
    weights: dict[str, torch.Tensor],
    config: EDMConfig,
    *,
    classes: int,
    shape: tuple[int, int, int],
    device: torch.device,
) -> EDMNetwork:
    """The configured network with `weights`, on the device, for evaluation alone."""
    config.check(*shape, classes, 1)
    network = network_for(config, shape=shape, classes=classes)
    load(network, weights)
    precision = precision_of(config.compute.sampling_precision, device, auto=SAMPLING_PRECISION)
    network.to(device).to(memory_format=memory_format(precision, device))
    return network.eval().requires_grad_(False)


def evaluator(
    weights: dict[str, torch.Tensor],
    config: EDMConfig,
    *,
    classes: int,
    shape: tuple[int, int, int],
    device: torch.device,
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """(images, sigma, labels) -> denoised, as in `EDMNetwork.forward`, in the precision that the
    device has.

    Compiled, with CUDA graphs, where `compiles_sampling` says so; then what it returns holds until
    its next call.
    """
    network = ready(weights, config, classes=classes, shape=shape, device=device)
    forward: Callable[..., torch.Tensor] = network
    if compiles_sampling(config.compute, device, sum(p.numel() for p in network.parameters())):
        forward = kept.compiled(
            network, (config, classes, shape, device), graphs=device.type == "cuda"
        )
    precision = precision_of(config.compute.sampling_precision, device, auto=SAMPLING_PRECISION)

    def evaluate(images: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=memory_format(precision, device))
        with autocast(precision, device):
            return forward(images, sigma, labels)

    return evaluate


def sigmas(sampler: Sampler) -> list[float]:
    """Noise levels t_0 = sigma_max, ..., t_{N-1} = sigma_min, t_N = 0 (Karras et al. 2022, Eq.
    5).
    """
    n, rho = sampler.steps, sampler.rho
    high, low = sampler.sigma_max ** (1 / rho), sampler.sigma_min ** (1 / rho)
    levels = [(high + i / max(n - 1, 1) * (low - high)) ** rho for i in range(n)]
    return [*levels, 0.0]


def heun(
    denoise: Denoiser,
    noise: Callable[[], torch.Tensor],
    sampler: Sampler,
    progress: Callable[[float], None] = ignore,
) -> torch.Tensor:
    """From noise to images: (N, C, H, W) float64. progress: told the share of the steps done.

    Karras et al. 2022, Algorithm 2; with S_churn = 0 it is Algorithm 1 and noise() is called once.
    The state is float64; the denoiser is given float32.
    """

    def slope(x: torch.Tensor, sigma: float) -> torch.Tensor:
        levels = torch.full((len(x),), sigma, dtype=torch.float32, device=x.device)
        return (x - denoise(x.to(torch.float32), levels).to(torch.float64)) / sigma  # dx / dt

    levels = sigmas(sampler)
    x = noise().to(torch.float64) * levels[0]
    most = math.sqrt(2) - 1
    for i, (now, after) in enumerate(zip(levels[:-1], levels[1:])):
        in_range = sampler.S_min <= now <= (math.inf if sampler.S_max is None else sampler.S_max)
        gamma = min(sampler.S_churn / sampler.steps, most) if in_range else 0.0
        if gamma > 0:
            raised = now + gamma * now
            x = x + math.sqrt(raised**2 - now**2) * sampler.S_noise * noise().to(torch.float64)
            now = raised
        first = slope(x, now)
        following = x + (after - now) * first  # Euler
        if i < sampler.steps - 1:  # the last step, to 0, stays Euler's
            following = x + (after - now) * (first + slope(following, after)) / 2
        x = following
        progress((i + 1) / sampler.steps)
    return x
