"""ResNets for 32×32 images (He et al. 2016, section 4.2), e.g. ResNet-110 with 1,727,962
parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class CifarResNet(nn.Module):
    """Depth 6·n + 2: a convolution, three stages of n blocks (16, 32, 64 channels), average,
    linear.

    Shortcuts are option A: where a stage halves the image, every second pixel is kept and the new
    channels are zeros, so shortcuts have no parameters.
    """

    def __init__(self, depth: int, channels: int = 3, classes: int = 10):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6·n + 2 (20, 32, 44, 56, 110, …), got {depth}")
        blocks = (depth - 2) // 6
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.stages = nn.Sequential(
            _stage(16, 16, blocks, stride=1),
            _stage(16, 32, blocks, stride=2),
            _stage(32, 64, blocks, stride=2),
        )
        self.head = nn.Linear(64, classes)
        self._initialise()

    def _initialise(self) -> None:
        """He normal for convolutions (He et al. 2015, the cited scheme); torch's own for the linear
        layer.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem_norm(self.stem(x)), inplace=True)  # (N, 16, H, W)
        x = self.stages(x)  # (N, 64, H/4, W/4)
        return self.head(x.mean(dim=(2, 3)))  # (N, classes)


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around an option-A shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.stride, self.new_channels = stride, channels - channels_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.norm2(self.conv2(out))
        return F.relu(out + self._shortcut(x), inplace=True)

    def _shortcut(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            x = F.pad(
                x, (0, 0, 0, 0, self.new_channels // 2, self.new_channels - self.new_channels // 2)
            )
        return x
