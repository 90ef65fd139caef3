"""The second stage: training the transformer on latents."""

from typing import NamedTuple

import torch

from equigrid.generators.common.rng import order, seed_of
from equigrid.generators.dit.config import DiTConfig
from equigrid.generators.dit.diffusion import TRAIN_STEPS, diffusion
from equigrid.generators.dit.latents import Latents
from equigrid.generators.dit.network import initialise, transformer
from equigrid.generators.dit.schedules import ema_decay
from equigrid.generators.dit.trainer import DiTTrainer
from equigrid.generators.trainer.compilation import compiles_training, flops_of


class Noised(NamedTuple):
    clean: torch.Tensor
    """(n, C, h, w) float32 latents."""
    noise: torch.Tensor
    """(n, C, h, w) float32."""
    t: torch.Tensor
    """(n,) int64 in 0..999."""
    labels: torch.Tensor
    """(n,) int64; the number of classes where the label is dropped."""


def forward_flops(config: DiTConfig, side: int, classes: int) -> int:
    """Floating-point operations of one latent's forward pass, (channels, side, side)."""
    meta, channels = torch.device("meta"), config.vae.latent_channels
    with meta:
        network = transformer(config.network, side=side, channels=channels, classes=classes)
    return flops_of(
        network.to(meta).eval(),  # type: ignore[arg-type]  # diffusers' decorator hides its types
        torch.empty(1, channels, side, side, device=meta),
        timestep=torch.zeros(1, dtype=torch.int64, device=meta),
        class_labels=torch.zeros(1, dtype=torch.int64, device=meta),
    )


class TransformerTrainer(DiTTrainer[Noised]):
    """Peebles and Xie 2023, Section 4, with the hybrid loss of improved DDPM."""

    COLUMNS = ("loss", "mse", "vb")

    def __init__(
        self,
        latents: Latents,
        labels: torch.Tensor,
        config: DiTConfig,
        *,
        classes: int,
        seed: int,
        device: torch.device,
    ):
        training = config.training
        super().__init__(training, config.compute, seed=seed_of(seed, "transformer"), device=device)
        self.latents, self.labels, self.classes = latents, labels, classes
        self.training, self.flips = training, config.flips
        self.diffusion = diffusion()
        channels, side = config.vae.latent_channels, latents.moments.shape[-1]
        network = transformer(config.network, side=side, channels=channels, classes=classes)
        initialise(network, torch.Generator().manual_seed(seed_of(self.seed, "initial weights")))
        self.checkpointed = network
        compiled = compiles_training(
            config.compute,
            device,
            lambda: training.steps * training.batch * forward_flops(config, side, classes),
        )
        self.learners = {"transformer": self.learner(network, averages=True, compiled=compiled)}

    def batch(self) -> Noised:
        n, part = self.batch_size, self.part
        chosen = torch.from_numpy(order(len(self.labels), self.seed, self.step * n, n))
        few = torch.Generator().manual_seed(seed_of(self.seed, "training", self.step))
        mirrored = torch.rand(n, generator=few) < (0.5 if self.flips else 0.0)
        dropped = torch.rand(n, generator=few) < self.training.label_dropout
        t = torch.randint(0, TRAIN_STEPS, (n,), generator=few)
        labels = torch.where(dropped, self.classes, self.labels[chosen])
        many = torch.Generator(self.device).manual_seed(
            seed_of(self.seed, "training noise", self.step)
        )
        shape = (n, self.latents.moments.shape[2] // 2, *self.latents.moments.shape[3:])
        spread, noise = (
            torch.randn(shape, generator=many, device=self.device)[part] for _ in range(2)
        )
        clean = self.latents.drawn(chosen[part], mirrored[part], spread)
        return Noised(clean, noise, t[part].to(self.device), labels[part].to(self.device))

    def losses_of(self, part: Noised, share: float, *, full: bool = False) -> torch.Tensor:
        learner = self.learners["transformer"]
        noisy = self.diffusion.noised(part.clean, part.noise, part.t)
        with self.autocast():
            output = learner.forward(noisy, timestep=part.t, class_labels=part.labels).sample
        squared, bound = self.diffusion.losses(
            output.float(), part.clean, part.noise, noisy, part.t
        )
        mse, vb = squared.mean(), bound.mean()
        learner.backward(share * (mse + vb))
        return share * torch.stack([mse + vb, mse, vb]).detach()

    def rates(self) -> tuple[float, float]:
        return super().rates()[0], ema_decay(self.training, self.step)
