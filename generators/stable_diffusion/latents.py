"""The base subset as a pipeline's latents: encoded once, kept by shards."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from equigrid.generators.calls import Artefacts
from equigrid.generators.common.pixels import to_float
from equigrid.generators.trainer.devices import group

SHARD_IMAGES = 1024
_AT_ONCE = 8  # 1024×1024 pixels in float32 take gigabytes in the autoencoder


class Latents:
    """Means and log-variances of the base images' latents, as they are and, with flips, mirrored.

    moments: (N, F, 2 * latent channels, h, w) float16 on the CPU, F 2 with flips, else 1.
    """

    def __init__(
        self,
        images: np.ndarray,
        vae: Any,
        artefacts: Artefacts,
        *,
        size: tuple[int, int],
        flips: bool,
    ):
        """images: (N, H, W, C) uint8, resized to `size` (height, width). vae: the pipeline's, on
        its device, float32.
        """
        self.images, self.vae, self.artefacts, self.size = images, vae, artefacts, size
        self.views = (False, True) if flips else (False,)
        starts, (rank, world) = range(0, len(images), SHARD_IMAGES), group()
        if world > 1:  # the ranks share the making, where they share a store
            for first in starts[rank::world]:
                self._shard(first)
            dist.barrier()
        self.moments = torch.from_numpy(np.concatenate([self._shard(first) for first in starts]))
        self.scale = float(vae.config.scaling_factor)
        self.shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image's latents: (C, h, w)."""
        return (self.moments.shape[2] // 2, *self.moments.shape[3:])

    def drawn(
        self, chosen: torch.Tensor, mirrored: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """A draw from each chosen image's latents, scaled as the denoiser knows them: (n, C, h, w)
        float32 on the noise's device.

        chosen (n,) int64 and mirrored (n,) bool on the CPU; noise as the result.
        """
        moments = self.moments[chosen, mirrored.long()].to(noise.device, torch.float32)
        mean, log_variance = moments.chunk(2, dim=1)
        return (mean + torch.exp(0.5 * log_variance) * noise - self.shift) * self.scale

    def _shard(self, first: int) -> np.ndarray:
        name = f"latents/{first // SHARD_IMAGES:05d}"
        kept = self.artefacts.get(name)
        if kept is None:
            kept = {"moments": self._encoded(first)}
            self.artefacts[name] = kept
        return kept["moments"]

    @torch.inference_mode()
    def _encoded(self, first: int) -> np.ndarray:
        stop, parts = min(first + SHARD_IMAGES, len(self.images)), []
        for start in range(first, stop, _AT_ONCE):
            some = torch.from_numpy(np.array(self.images[start : min(start + _AT_ONCE, stop)]))
            shown = resized(some, self.size).to(self.vae.device) * 2 - 1
            seen = [self.vae.encode(shown.flip(3) if view else shown) for view in self.views]
            moments = torch.stack([one.latent_dist.parameters for one in seen], dim=1)
            parts.append(moments.to("cpu", torch.float16).numpy())
        found = np.concatenate(parts)
        if not np.isfinite(found).all():
            raise ValueError("pipeline: its autoencoder gives latents that are not finite")
        return found


def resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Stored pixels (n, H, W, C) uint8 as a pipeline takes them: (n, 3, height, width) float32 in
    [0, 1], bicubic with a low-pass filter; greyscale as three equal channels.
    """
    made = (to_float(images) + 1) / 2
    if made.shape[1] == 1:
        made = made.expand(-1, 3, -1, -1)
    if made.shape[-2:] != size:
        made = F.interpolate(made, size, mode="bicubic", antialias=True, align_corners=False)
    return made.clamp(0, 1)
