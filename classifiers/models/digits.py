"""A small network for 8×8 greyscale digits, fast on one CPU core."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class DigitsCNN(nn.Module):
    """Three 3×3 convolutions with BatchNorm and a linear layer, 15,418 parameters for 10
    classes.
    """

    def __init__(self, channels: int = 1, classes: int = 10, width: int = 16):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.norm1, self.norm2, self.norm3 = (
            nn.BatchNorm2d(w) for w in (width, 2 * width, 2 * width)
        )
        self.head = nn.Linear(2 * width * 4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.conv1(x)))  # (N, 16, H, W)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)  # (N, 32, H/2, W/2)
        x = F.relu(self.norm3(self.conv3(x)))  # (N, 32, H/2, W/2)
        x = F.adaptive_avg_pool2d(x, 2)  # (N, 32, 2, 2)
        return self.head(x.flatten(1))  # (N, classes)
