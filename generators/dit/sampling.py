"""Sampling: ancestral steps with the learned variance and classifier-free guidance, one stream of noise per image."""

from collections.abc import Callable

import numpy as np
import torch

from generators import pools
from generators.dit.autoencoding import Autoencoder
from generators.dit.config import DiTConfig, Sampler
from generators.dit.diffusion import Diffusion, diffusion
from generators.dit.weights import loaded, part_of
from generators.edm.devices import autocast, compiles, precision_of
from generators.random_draws import seed_of

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents (N, C, h, w) float32, the network's step (N,) int64) -> noise and v (N, 2C, h, w) float32."""

_GUIDED_CHANNELS = {"all": None, "three": 3}


def sample(
    weights: dict[str, torch.Tensor],
    config: DiTConfig,
    *,
    classes: int,
    shape: tuple[int, int, int],
    seed: int,
    start: int,
    stop: int,
    device: str | torch.device = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """The images `start` to `stop - 1` of the pool `seed`; weights as `generators.dit.training.train` returns them.

    shape: (H, W, C).  Returns images (stop - start, H, W, C) uint8 and labels (stop - start,) int64.

    All noise of image i, 250 draws and more, comes from one stream of (seed, i).  Batches begin at multiples of
    sampler.batch, counted from image 0, and are always computed whole: so pixels are bitwise equal however the pool
    is cut into calls, on one device with one thread count and the same versions.
    Raises ValueError for weights that do not fit the configured networks.
    """
    labels = pools.labels(seed, start, stop, classes)
    images = np.empty((stop - start, *shape), np.uint8)
    painter = Painter(weights, config, classes=classes, shape=shape, device=torch.device(device), nimg=stop - start)
    batch = config.sampler.batch
    for first in range(start - start % batch, stop, batch):
        made = painter.batch(seed, first)
        low, high = max(start, first), min(stop, first + batch)
        images[low - start : high - start] = made[low - first : high - first]
    return images, labels


class Painter:
    """Both networks on a device, and whole batches of a pool."""

    def __init__(
        self,
        weights: dict[str, torch.Tensor],
        config: DiTConfig,
        *,
        classes: int,
        shape: tuple[int, int, int],
        device: torch.device,
        nimg: int,
    ):
        height, width, channels = shape
        self.config, self.classes, self.device = config, classes, device
        self.side = config.latent_side(height, width)
        self.precision = precision_of(config.compute.sampling_precision, device, auto="fp16")
        network = loaded(part_of(weights, "dit"), config, side=self.side)
        self.unlabelled = network.config.num_embeds_ada_norm
        network = network.to(device).eval().requires_grad_(False)
        evaluations = nimg * 2 * config.sampler.steps
        self.forward = torch.compile(network) if compiles(config.compute, device, evaluations) else network
        self.coder = Autoencoder(part_of(weights, "vae"), config, side=height, channels=channels, device=device)
        self.scale = float(weights["measured.scale"])

    def batch(self, seed: int, first: int) -> np.ndarray:
        """Images first .. first + sampler.batch - 1 of the pool `seed`: (batch, H, W, C) uint8."""
        numbers = range(first, first + self.config.sampler.batch)
        labels = torch.from_numpy(pools.labels(seed, numbers.start, numbers.stop, self.classes))
        if self.config.class_indices is not None:
            labels = torch.tensor(self.config.class_indices)[labels]
        labels = labels.to(self.device)
        streams = [torch.Generator().manual_seed(seed_of(seed, "pool noise", i)) for i in numbers]
        shape = (self.config.vae.latent_channels, self.side, self.side)

        def noise() -> torch.Tensor:
            """The next standard normal draw of each image's own stream: (N, C, h, w) float32."""
            return torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(self.device)

        with torch.no_grad():
            latents = ancestral(self.guided(labels), noise, diffusion(self.config.sampler.steps))
        return self.coder.decode((latents / self.scale).to(torch.float32))

    def guided(self, labels: torch.Tensor) -> Denoiser:
        """The network's output for labels (N,), guided."""
        both = torch.cat([labels, torch.full_like(labels, self.unlabelled)])

        def evaluate(x: torch.Tensor, t: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            with autocast(self.precision, self.device):
                return self.forward(x, timestep=t, class_labels=classes).sample.float()

        def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            if self.config.sampler.guidance == 1:
                return evaluate(x, t, labels)
            made = evaluate(torch.cat([x, x]), torch.cat([t, t]), both)
            return guide(*made.chunk(2), self.config.sampler)

        return denoise


def guide(labelled: torch.Tensor, unlabelled: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Classifier-free guidance (Peebles and Xie 2023, Section 3.1) of the noise; the rest is the labelled output's.

    Both outputs are (N, 2C, h, w), noise first.  With guidance_channels "three" the noise of the channels after the
    third is the labelled output's too.
    """
    channels = labelled.shape[1] // 2
    guided = min(_GUIDED_CHANNELS[sampler.guidance_channels] or channels, channels)
    with_label, without = labelled[:, :guided], unlabelled[:, :guided]
    return torch.cat([without + sampler.guidance * (with_label - without), labelled[:, guided:]], dim=1)


def ancestral(denoise: Denoiser, noise: Callable[[], torch.Tensor], chain: Diffusion) -> torch.Tensor:
    """From noise to latents, (N, C, h, w) float64 (DDPM, Algorithm 2, with the learned variance).

    The state is float64; the denoiser is given float32.  The last step adds no noise.
    """
    x = noise().to(torch.float64)
    for number in reversed(range(len(chain.betas))):
        step = torch.full((len(x),), number, dtype=torch.int64, device=x.device)
        output = denoise(x.to(torch.float32), chain.timesteps.to(x.device)[step]).to(torch.float64)
        x, log_variance = chain.reverse(x, output, step)
        if number > 0:
            x = x + torch.exp(0.5 * log_variance) * noise().to(torch.float64)
    return x
