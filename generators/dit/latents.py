"""The base subset as latents: encoded once by the trained autoencoder, kept by shards, measured."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist

from equigrid.generators.calls import Artefacts
from equigrid.generators.dit.autoencoding import Autoencoder
from equigrid.generators.dit.config import DiTConfig
from equigrid.generators.quality.statistics import psnr_db
from equigrid.generators.trainer.devices import group

SHARD_IMAGES = 4096
RECONSTRUCTED = 1000
"""Images, evenly spread over the base, whose reconstruction error is measured."""

_FREE_PART = 0.25
"""Latents stay on the device while they take less than this part of its free memory."""


class Latents:
    """Means and log-variances of the base images' latents, as they are and, with flips, mirrored.

    moments: (N, F, 2 * latent channels, h, w) float16, F 2 with flips, else 1; on the device if
    there is room. measured: float32 tensors by name: `scale`, one over the deviation of the
    latents, draws from their distributions over all images and channels; `mean` and `std` of each
    latent channel; `psnr_db` and `l1` (pixel values from 0 to 255) of up to 1,000 reconstructed
    base images.
    """

    def __init__(
        self,
        images: np.ndarray,
        config: DiTConfig,
        weights: dict[str, torch.Tensor],
        artefacts: Artefacts,
        *,
        device: torch.device,
    ):
        self.device = device
        side, channels = images.shape[1], images.shape[3]
        coder = Autoencoder(
            weights,
            config,
            side=side,
            channels=channels,
            device=device,
            precision=config.compute.training_precision,
        )
        shards = _Shards(images, config, coder, artefacts, _digest(weights))
        latent_side = side // config.vae.downsample
        shape = (
            len(images),
            len(shards.views),
            2 * config.vae.latent_channels,
            latent_side,
            latent_side,
        )
        self.moments = torch.empty(shape, dtype=torch.float16, device=_home(shape, device))
        sums, first = _Sums(config.vae.latent_channels), 0
        for moments in shards:
            self.moments[first : first + len(moments)] = torch.from_numpy(moments)
            sums.add(moments)
            first += len(moments)
        self.measured = {**sums.result(), **_reconstruction(images, coder)}

    def drawn(
        self, chosen: torch.Tensor, mirrored: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """A draw from each chosen image's latents, scaled: (n, latent channels, h, w) float32 on
        the device.

        chosen (n,) int64 and mirrored (n,) bool on the CPU; noise as the result.
        """
        home = self.moments.device
        moments = self.moments[chosen.to(home), mirrored.to(home).long()].to(
            self.device, torch.float32
        )
        mean, log_variance = moments.chunk(2, dim=1)
        return (mean + torch.exp(0.5 * log_variance) * noise) * self.measured["scale"].to(
            self.device
        )


class _Sums:
    """Running sums over shards for the mean and deviation of draws from latents' distributions, in
    float64.
    """

    def __init__(self, channels: int):
        self.n = 0
        self.first, self.second = np.zeros(channels), np.zeros(channels)

    def add(self, moments: np.ndarray) -> None:
        for part in range(0, len(moments), 64):  # float64 is four times a shard
            mean, log_variance = np.split(moments[part : part + 64].astype(np.float64), 2, axis=2)
            self.n += mean.size // mean.shape[2]
            self.first += mean.sum((0, 1, 3, 4))
            self.second += (mean**2 + np.exp(log_variance)).sum((0, 1, 3, 4))

    def result(self) -> dict[str, torch.Tensor]:
        mean, square = self.first / self.n, self.second / self.n
        deviation = np.sqrt(square.mean() - mean.mean() ** 2)
        values = {"scale": 1 / deviation, "mean": mean, "std": np.sqrt(square - mean**2)}
        return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}


class _Shards:
    """Moments by shards, made where they are missing or another autoencoder's."""

    def __init__(
        self,
        images: np.ndarray,
        config: DiTConfig,
        coder: Autoencoder,
        artefacts: Artefacts,
        made_by: np.ndarray,
    ):
        self.images, self.coder, self.artefacts, self.made_by = images, coder, artefacts, made_by
        self.views = (False, True) if config.flips else (False,)
        self.starts = range(0, len(images), SHARD_IMAGES)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Every shard in turn; in a worker group the ranks first share the making, where they share
        a store.
        """
        rank, world = group()
        if world > 1:
            for first in self.starts[rank::world]:
                self._moments(first)
            dist.barrier()
        for first in self.starts:
            yield self._moments(first)

    def _moments(self, first: int) -> np.ndarray:
        """(n, F, 2 * latent channels, h, w) float16 of the images from number `first`."""
        name = f"latents/{first // SHARD_IMAGES:05d}"
        kept = self.artefacts.get(name)
        if kept is None or not np.array_equal(kept["made_by"], self.made_by):
            kept = {"moments": self._encoded(first), "made_by": self.made_by}
            self.artefacts[name] = kept
        return kept["moments"]

    def _encoded(self, first: int) -> np.ndarray:
        stop, parts = min(first + SHARD_IMAGES, len(self.images)), []
        for start in range(first, stop, 256):
            some = self.images[start : min(start + 256, stop)]
            seen = [self.coder.encode(some, mirrored=mirrored) for mirrored in self.views]
            parts.append(torch.stack(seen, dim=1).to("cpu", torch.float16).numpy())
        moments = np.concatenate(parts)
        if not np.isfinite(moments).all():
            raise ValueError(
                "latents are not finite in float16: the autoencoder's training went astray"
            )
        return moments


def _digest(weights: dict[str, torch.Tensor]) -> np.ndarray:
    """SHA-256 of all values: (32,) uint8."""
    made = hashlib.sha256()
    for value in weights.values():
        made.update(value.numpy().data)
    return np.frombuffer(made.digest(), np.uint8)


def _home(shape: tuple[int, ...], device: torch.device) -> torch.device:
    """Where latents of a shape are kept."""
    if (
        device.type == "cuda"
        and 2 * np.prod(shape) < _FREE_PART * torch.cuda.mem_get_info(device)[0]
    ):
        return device
    return torch.device("cpu")


def _reconstruction(images: np.ndarray, coder: Autoencoder) -> dict[str, torch.Tensor]:
    """Peak signal-to-noise ratio of the mean squared error over all, and mean absolute error, in
    levels of 255.
    """
    chosen = (
        np.linspace(0, len(images) - 1, min(RECONSTRUCTED, len(images))).round().astype(np.int64)
    )
    squared = absolute = 0.0
    for first in range(0, len(chosen), 64):
        some = images[chosen[first : first + 64]]
        difference = coder.reconstruct(some).astype(np.float64) - some
        squared += float((difference**2).mean((1, 2, 3)).sum())
        absolute += float(np.abs(difference).mean((1, 2, 3)).sum())
    values = {"psnr_db": psnr_db(squared / len(chosen)), "l1": absolute / len(chosen)}
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
