"""The first stage: training the autoencoder on the base subset, and passing images through it."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from equigrid.generators.common.pixels import to_float, to_uint8
from equigrid.generators.common.rng import order, seed_of
from equigrid.generators.dit.config import DiTConfig
from equigrid.generators.dit.network import autoencoder, discriminator
from equigrid.generators.dit.trainer import DiTTrainer
from equigrid.generators.trainer.devices import autocast, precision_of

AT_ONCE = 16
"""Images that pass the autoencoder at once outside its training: fixed, so that no result depends
on it.
"""


class Pair(NamedTuple):
    clean: torch.Tensor
    """(n, C, H, W) float32 in [-1, 1]."""
    noise: torch.Tensor
    """(n, latent channels, h, w) float32."""


class Autoencoding(nn.Module):
    """Encoder, a draw from the latents' distribution, decoder; the mean and log-variance beside."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(
        self, clean: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        latents = self.vae.encode(clean).latent_dist
        mean, log_variance = latents.mean.float(), latents.logvar.float()
        return (
            self.vae.decode(mean + torch.exp(0.5 * log_variance) * noise).sample.float(),
            mean,
            log_variance,
        )


class AutoencoderTrainer(DiTTrainer[Pair]):
    """Rombach et al. 2022, Appendix G, without the loss in a pre-trained network's features.

    Per image: |x - x'| summed over its values, plus kl_weight times the divergence of its latents
    from a standard normal; the rows and the optimiser see both divided by the number of values.
    After the warm-up also `weight` times the adversarial loss, while the discriminator learns with
    the hinge loss.
    """

    COLUMNS = ("loss", "l1", "kl", "adversarial", "discriminator")

    def __init__(self, images: np.ndarray, config: DiTConfig, *, seed: int, device: torch.device):
        training = config.vae.training
        super().__init__(training, config.compute, seed=seed_of(seed, "autoencoder"), device=device)
        self.training, self.images, self.flips = training, images, config.flips
        side, channels = images.shape[1], images.shape[3]
        self.latent_shape = (config.vae.latent_channels, *[side // config.vae.downsample] * 2)
        self.starts_at = round(training.discriminator.starts_at_part * training.steps)
        vae = autoencoder(
            config.vae, side=side, channels=channels, seed=seed_of(self.seed, "initial weights")
        )
        judge = discriminator(
            training.discriminator,
            channels=channels,
            seed=seed_of(self.seed, "initial discriminator"),
        )
        self.checkpointed = vae
        self.learners = {
            "autoencoder": self.learner(Autoencoding(vae)),
            "discriminator": self.learner(judge),
        }

    def batch(self) -> Pair:
        n = self.batch_size
        chosen = order(len(self.images), self.seed, self.step * n, n)[self.part]
        few = torch.Generator().manual_seed(seed_of(self.seed, "training", self.step))
        mirrored = torch.rand(n, generator=few) < (0.5 if self.flips else 0.0)
        many = torch.Generator(self.device).manual_seed(
            seed_of(self.seed, "training noise", self.step)
        )
        noise = torch.randn(n, *self.latent_shape, generator=many, device=self.device)
        clean = to_float(torch.tensor(self.images[chosen], device=self.device))
        mirrored = mirrored[self.part].to(self.device)[:, None, None, None]
        return Pair(torch.where(mirrored, clean.flip(3), clean), noise[self.part])

    def losses_of(self, part: Pair, share: float, *, full: bool = False) -> torch.Tensor:
        learner, judge = self.learners["autoencoder"], self.learners["discriminator"]
        adversarial = full or self.step >= self.starts_at
        with self.autocast():
            made, mean, log_variance = learner.forward(*part)
        l1 = (made - part.clean).abs().mean()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean()
        loss = l1 + self.training.kl_weight * kl / part.clean[0].numel()
        fooled = judged = loss.new_zeros(())
        if adversarial:
            judge.network.requires_grad_(False)
            with self.autocast():
                fooled = -judge.network(made).float().mean()
            judge.network.requires_grad_(True)
        learner.backward(share * (loss + self.training.discriminator.weight * fooled))
        if adversarial:
            with self.autocast():
                real, fake = judge.forward(torch.cat([part.clean, made.detach()])).float().chunk(2)
            judged = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())  # hinge
            judge.backward(share * judged)
        return share * torch.stack([loss, l1, kl, fooled, judged]).detach()

    def weights(self) -> dict[str, torch.Tensor]:
        """The autoencoder's, under diffusers' names."""
        made = self.learners["autoencoder"].weights()
        return {name.removeprefix("vae."): value for name, value in made.items()}


class Autoencoder:
    """A trained autoencoder on a device, in batches of a fixed size.

    precision: "auto", "fp32", "bf16" or "fp16" of its convolutions.
    """

    def __init__(
        self,
        weights: dict[str, torch.Tensor],
        config: DiTConfig,
        *,
        side: int,
        channels: int,
        device: torch.device,
        precision: str = "fp32",
    ):
        with torch.device("meta"):
            vae = autoencoder(config.vae, side=side, channels=channels, seed=0)
        vae.load_state_dict(weights, strict=True, assign=True)
        vae.to(device)  # type: ignore[arg-type]  # diffusers' decorator hides what `to` takes
        self.vae = vae.eval().requires_grad_(False)
        self.device, self.precision = device, precision_of(precision, device, auto="bf16")

    def encode(self, images: np.ndarray, *, mirrored: bool = False) -> torch.Tensor:
        """Images (N, H, W, C) uint8 to means and log-variances, (N, 2 * latent channels, h, w)
        float32.
        """
        clean = to_float(torch.tensor(images, device=self.device))
        clean = clean.flip(3) if mirrored else clean
        parts = []
        with torch.no_grad(), autocast(self.precision, self.device):
            for part in clean.split(AT_ONCE):
                latents = self.vae.encode(part).latent_dist
                parts.append(torch.cat([latents.mean.float(), latents.logvar.float()], dim=1))
        return torch.cat(parts)

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (N, latent channels, h, w) float32, unscaled, to images (N, H, W, C) uint8."""
        with torch.no_grad(), autocast(self.precision, self.device):
            parts = [
                to_uint8(self.vae.decode(part).sample.float()) for part in latents.split(AT_ONCE)
            ]
        return torch.cat(parts).cpu().numpy()

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Images (N, H, W, C) uint8 through encoder and decoder, without a draw between: of the
        same kind.
        """
        return self.decode(self.encode(images).chunk(2, dim=1)[0])
