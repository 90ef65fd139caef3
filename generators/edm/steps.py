"""One training step's random draws, noisy images and loss: functions of (seed, step), free of
state.
"""

from typing import NamedTuple

import torch

from equigrid.generators.common.pixels import to_float
from equigrid.generators.common.rng import order, seed_of
from equigrid.generators.edm import augmentation
from equigrid.generators.edm.config import EDMConfig


class Batch(NamedTuple):
    """What a network sees in a step; n images of a rank's part of the global batch."""

    clean: torch.Tensor
    """(n, C, H, W) float32, augmented."""
    noisy: torch.Tensor
    """(n, C, H, W) float32."""
    sigma: torch.Tensor
    """(n,) float32 noise levels."""
    labels: torch.Tensor
    """(n,) int64 classes."""
    augment: torch.Tensor | None
    """(n, A) float32."""
    dropout_keys: torch.Tensor | None
    """(n,) int32."""


def batch_of(
    images: torch.Tensor,
    labels: torch.Tensor,
    config: EDMConfig,
    *,
    seed: int,
    step: int,
    part: slice,
) -> Batch:
    """The images `part` of the global batch of step `step`.

    images (N, H, W, C) uint8 and labels (N,) int64 lie on the device; the draws are made for the
    global batch, the small ones on the CPU, and sliced.  ln(sigma) is normal (Karras et al. 2022,
    Table 1).
    """
    training, device = config.training, images.device
    n, height, width, channels = training.batch, *images.shape[1:]
    few = torch.Generator().manual_seed(seed_of(seed, "training", step))
    chosen = torch.from_numpy(order(len(images), seed, step * n, n)[part]).to(device)
    sigma = (
        (training.P_mean + training.P_std * torch.randn(n, generator=few)).exp()[part].to(device)
    )
    drawn = augmentation.draw(training.augmentation, n, height, width, few).part(part)
    keys = (
        torch.randint(-(2**31), 2**31, (n,), generator=few, dtype=torch.int32)[part].to(device)
        if config.network.dropout
        else None
    )
    many = torch.Generator(device).manual_seed(seed_of(seed, "training noise", step))
    noise = torch.randn(n, channels, height, width, generator=many, device=device)[part]
    clean = augmentation.apply(to_float(images[chosen]), drawn)
    return Batch(
        clean=clean,
        noisy=clean + sigma[:, None, None, None] * noise,
        sigma=sigma,
        labels=labels[chosen],
        augment=drawn.labels.to(device) if training.augmentation.kinds else None,
        dropout_keys=keys,
    )


def losses(denoised: torch.Tensor, batch: Batch, sigma_data: float) -> torch.Tensor:
    """Weighted squared error of each image, summed over its pixels: (n,) float32.

    The weight is 1 / c_out**2, so that every noise level starts with a loss of about 1 per pixel
    value (Karras et al. 2022, Eq. 8 and Table 1).
    """
    weight = (batch.sigma**2 + sigma_data**2) / (batch.sigma * sigma_data) ** 2
    return weight * (denoised - batch.clean).square().sum(dim=(1, 2, 3))
