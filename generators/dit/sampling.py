"""Sampling: ancestral steps with the learned variance and classifier-free guidance, one stream of
noise per image.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from equigrid.generators.calls import SampleCall, ignore
from equigrid.generators.common import pools
from equigrid.generators.common.noise import streams
from equigrid.generators.dit.autoencoding import Autoencoder
from equigrid.generators.dit.config import DiTConfig
from equigrid.generators.dit.diffusion import Diffusion, diffusion
from equigrid.generators.dit.parts import Sampler
from equigrid.generators.dit.weights import loaded, part_of
from equigrid.generators.trainer.compilation import compiles_sampling, kept
from equigrid.generators.trainer.devices import autocast, precision_of

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents (N, C, h, w) float32, the network's step (N,) int64) -> noise and v (N, 2C, h, w)
float32.
"""

_GUIDED_CHANNELS = {"all": None, "three": 3}


def sample(
    weights: dict[str, torch.Tensor], config: DiTConfig, call: SampleCall
) -> tuple[np.ndarray, np.ndarray]:
    """See `equigrid.generators.registry.sample`; all noise of an image, 250 draws and more, comes
    from one stream.
    """
    painter = Painter(weights, config, shape=call.shape, device=torch.device(call.device))

    def make(numbers: range, labels: np.ndarray) -> np.ndarray:
        return painter.batch(
            call.seed, numbers, labels,
            progress=lambda share: call.progress(pools.share_done(call, numbers, share)),
        )  # fmt: skip

    return pools.in_batches(make, call, batch=config.sampler.batch)


def reconstructor(
    weights: dict[str, torch.Tensor],
    config: DiTConfig,
    *,
    shape: tuple[int, int, int],
    device: str | torch.device,
) -> Callable[[np.ndarray], np.ndarray]:
    """See `equigrid.generators.registry.reconstructor`."""
    return _coder(weights, config, shape, torch.device(device)).reconstruct


def _coder(
    weights: dict, config: DiTConfig, shape: tuple[int, int, int], device: torch.device
) -> Autoencoder:
    return Autoencoder(
        part_of(weights, "vae"), config, side=shape[0], channels=shape[2], device=device
    )


class Painter:
    """Both networks on a device, and whole batches of a pool."""

    def __init__(
        self,
        weights: dict[str, torch.Tensor],
        config: DiTConfig,
        *,
        shape: tuple[int, int, int],
        device: torch.device,
    ):
        """shape: (H, W, C) of the images."""
        self.config, self.device, self.side = config, device, config.latent_side(*shape[:2])
        self.precision = precision_of(config.compute.sampling_precision, device, auto="fp16")
        network = loaded(part_of(weights, "dit"), config, side=self.side)
        self.unlabelled = int(network.config["num_embeds_ada_norm"])
        network.to(device)  # type: ignore[arg-type]  # diffusers' decorator hides what `to` takes
        network.eval().requires_grad_(False)
        self.forward: Callable[..., Any] = network
        if compiles_sampling(config.compute, device, sum(p.numel() for p in network.parameters())):
            self.forward = kept.compiled(network, (config, self.unlabelled, self.side, device))
        self.coder = _coder(weights, config, shape, device)
        self.scale = float(weights["measured.scale"])

    def batch(
        self,
        seed: int,
        numbers: range,
        classes: np.ndarray,
        progress: Callable[[float], None] = ignore,
    ) -> np.ndarray:
        """Images of these numbers of the pool `seed`, of these classes of the dataset: (N, H, W, C)
        uint8. progress: see `ancestral`.
        """
        labels = torch.from_numpy(classes)
        if self.config.class_indices is not None:
            labels = torch.tensor(self.config.class_indices)[labels]
        labels = labels.to(self.device)
        steps = self.config.sampler.steps
        shape = self.config.vae.latent_channels, self.side, self.side
        noise = streams(seed, numbers, shape, self.device, draws=steps)
        with torch.no_grad():
            latents = ancestral(self.guided(labels), noise, diffusion(steps), progress)
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
            labelled, unlabelled = made.chunk(2)
            return guide(labelled, unlabelled, self.config.sampler)

        return denoise


def guide(labelled: torch.Tensor, unlabelled: torch.Tensor, sampler: Sampler) -> torch.Tensor:
    """Classifier-free guidance (Peebles and Xie 2023, Section 3.1) of the noise; the rest is the
    labelled output's.

    Both outputs are (N, 2C, h, w), noise first.  With guidance_channels "three" the noise of the
    channels after the third is the labelled output's too.
    """
    channels = labelled.shape[1] // 2
    guided = min(_GUIDED_CHANNELS[sampler.guidance_channels] or channels, channels)
    with_label, without = labelled[:, :guided], unlabelled[:, :guided]
    return torch.cat(
        [without + sampler.guidance * (with_label - without), labelled[:, guided:]], dim=1
    )


def ancestral(
    denoise: Denoiser,
    noise: Callable[[], torch.Tensor],
    chain: Diffusion,
    progress: Callable[[float], None] = ignore,
) -> torch.Tensor:
    """From noise to latents, (N, C, h, w) float64 (DDPM, Algorithm 2, with the learned variance).
    progress: told the share of the steps done.

    The state is float64; the denoiser is given float32.  The last step adds no noise.
    """
    x = noise().to(torch.float64)
    for number in reversed(range(len(chain.betas))):
        step = torch.full((len(x),), number, dtype=torch.int64, device=x.device)
        output = denoise(x.to(torch.float32), chain.timesteps.to(x.device)[step]).to(torch.float64)
        x, log_variance = chain.reverse(x, output, step)
        if number > 0:
            x = x + torch.exp(0.5 * log_variance) * noise().to(torch.float64)
        progress(1 - number / len(chain.betas))
    return x
