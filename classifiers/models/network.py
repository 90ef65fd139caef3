"""A classifier as trained and evaluated: pixels in, logits out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    """A network with its normalisation, so that its state needs nothing beside it.

    Takes (N, C, H, W) pixels in [0, 255], uint8 or float32, resizes them to input_size if they
    differ (bilinear, with a low-pass filter), and gives float32 logits (N, classes). C is the
    mean's, or 1, which is repeated for each of the mean's. With `bf16` set, the network computes in
    bfloat16 where autocast allows it; the weights stay float32.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: tuple[int, int],
    ):
        """mean, std: per channel, of pixels scaled to [0, 1]. input_size: (height, width)."""
        super().__init__()
        self.network, self.input_size = network, input_size
        self.bf16 = False
        self.partly_frozen = not all(p.requires_grad for p in network.parameters())
        # As one multiply-add: x·scale + shift = (x / 255 − mean) / std.
        m, s = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * s)).float().view(-1, 1, 1))
        self.register_buffer("shift", (-m / s).float().view(-1, 1, 1))

    def train(self, mode: bool = True) -> Classifier:
        """As torch's, but what has no weight that learns stays in evaluation mode: a BatchNorm that
        is frozen keeps its statistics too.
        """
        super().train(mode)
        if mode and self.partly_frozen:
            for module in self.network.modules():
                own = list(module.parameters())
                if own and not any(parameter.requires_grad for parameter in own):
                    module.eval()
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.float()
        if x.shape[-2:] != self.input_size:
            x = F.interpolate(
                x, self.input_size, mode="bilinear", antialias=True, align_corners=False
            )
        # A grey image is repeated here where scale and shift are of three channels.
        x = torch.addcmul(self.shift, x, self.scale)
        if not self.bf16:
            return self.network(x)
        # No cache of cast weights: each is used once, and a CUDA graph must not keep them.
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            return self.network(x).float()


def statistics(images: torch.Tensor) -> tuple[list[float], list[float]]:
    """Per-channel mean and deviation of (N, H, W, C) uint8 images scaled to [0, 1].

    Summed exactly, in integers, so that order, device and worker count do not matter. A constant
    channel gets the deviation of one grey level, the least that the storage can tell.
    """
    sums = torch.zeros(images.shape[-1], dtype=torch.int64, device=images.device)
    squares = torch.zeros_like(sums)
    for block in images.split(4096):
        values = block.reshape(-1, images.shape[-1]).long()
        sums += values.sum(0)
        squares += (values * values).sum(0)
    n = images[..., 0].numel()
    mean = [value / n for value in sums.tolist()]
    variance = [max(square / n - m * m, 1.0) for square, m in zip(squares.tolist(), mean)]
    return [m / 255 for m in mean], [v**0.5 / 255 for v in variance]
