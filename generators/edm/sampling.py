"""Sampling (Karras et al. 2022, Algorithms 1 and 2), one stream of noise per image."""

import math
from collections.abc import Callable

import numpy as np
import torch

from generators import pools
from generators.edm.config import EDMConfig, Sampler
from generators.edm.devices import autocast, compiles, memory_format, precision_of
from generators.edm.network import EDMNetwork
from generators.edm.weights import load, network_for
from generators.pixels import to_uint8
from generators.random_draws import seed_of

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(images (N, C, H, W) float32, sigma (N,) float32) -> denoised (N, C, H, W) float32."""

SAMPLING_PRECISION = "fp16"
"""Of "auto" on a CUDA device: 3 bits finer than bf16, and without gradients its range suffices."""


def sample(
    weights: dict[str, torch.Tensor],
    config: EDMConfig,
    *,
    classes: int,
    shape: tuple[int, int, int],
    seed: int,
    start: int,
    stop: int,
    device: str | torch.device = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """The images `start` to `stop - 1` of the pool `seed`.

    shape: (H, W, C).  Returns images (stop - start, H, W, C) uint8 and labels (stop - start,) int64.

    Noise and label of image i come from (seed, i) alone.  Batches begin at multiples of sampler.batch,
    counted from image 0, and are always computed whole: so pixels are bitwise equal however the pool is cut
    into calls, on one device with one thread count and the same versions; another batch size or device
    changes them by rounding.  (A sampler.batch that divides the shard's size computes nothing twice.)
    Raises ValueError for weights that do not fit the configured network.
    """
    labels = pools.labels(seed, start, stop, classes)
    images = np.empty((stop - start, *shape), np.uint8)
    device = torch.device(device)
    network = ready(weights, config, classes=classes, shape=shape, device=device)
    denoise_batch = compiled(network, config, nimg=stop - start, device=device)
    batch = config.sampler.batch
    for first in range(start - start % batch, stop, batch):
        made = _batch(denoise_batch, config, classes=classes, shape=shape, seed=seed, first=first, device=device)
        low, high = max(start, first), min(stop, first + batch)
        images[low - start : high - start] = made[low - first : high - first]
    return images, labels


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
    return network.to(device, memory_format=memory_format(precision, device)).eval().requires_grad_(False)


def compiled(network: EDMNetwork, config: EDMConfig, *, nimg: int, device: torch.device) -> Callable:
    """The network, compiled where that pays, in the precision that the device has."""
    evaluations = 2 * config.sampler.steps - 1
    forward = network
    if compiles(config.compute, device, nimg * evaluations):
        forward = torch.compile(network, mode="reduce-overhead" if device.type == "cuda" else "default")
    precision = precision_of(config.compute.sampling_precision, device, auto=SAMPLING_PRECISION)

    def evaluate(images: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=memory_format(precision, device))
        with autocast(precision, device):
            return forward(images, sigma, labels)

    return evaluate


def _batch(
    evaluate: Callable,
    config: EDMConfig,
    *,
    classes: int,
    shape: tuple[int, int, int],
    seed: int,
    first: int,
    device: torch.device,
) -> np.ndarray:
    """Images first .. first + sampler.batch - 1: (batch, H, W, C) uint8."""
    height, width, channels = shape
    stop = first + config.sampler.batch
    labels = torch.from_numpy(pools.labels(seed, first, stop, classes)).to(device)
    streams = [torch.Generator().manual_seed(seed_of(seed, "pool noise", i)) for i in range(first, stop)]

    def noise() -> torch.Tensor:
        """The next standard normal draw of each image's own stream: (N, C, H, W) float32."""
        draws = [torch.randn(channels, height, width, generator=stream) for stream in streams]
        return torch.stack(draws).to(device)

    with torch.no_grad():
        made = heun(lambda x, sigma: evaluate(x, sigma, labels), noise, config.sampler)
    return to_uint8(made).cpu().numpy()


def sigmas(sampler: Sampler) -> list[float]:
    """Noise levels t_0 = sigma_max, ..., t_{N-1} = sigma_min, t_N = 0 (Karras et al. 2022, Eq. 5)."""
    n, rho = sampler.steps, sampler.rho
    high, low = sampler.sigma_max ** (1 / rho), sampler.sigma_min ** (1 / rho)
    levels = [(high + i / max(n - 1, 1) * (low - high)) ** rho for i in range(n)]
    return [*levels, 0.0]


def heun(denoise: Denoiser, noise: Callable[[], torch.Tensor], sampler: Sampler) -> torch.Tensor:
    """From noise to images: (N, C, H, W) float64.

    Karras et al. 2022, Algorithm 2; with S_churn = 0 it is Algorithm 1 and noise() is called once.  The
    state is float64; the denoiser is given float32.
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
    return x
