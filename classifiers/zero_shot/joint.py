"""The joint space of images and class texts: logits are scaled cosine similarities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

_SCALE_MAX = 100.0
# The rates that suit weights (SGD at 0.1) throw a logarithm of the scale about until it is stuck
# near nothing.
_SCALE_GAIN = 0.1
# Of classes that are no candidates: finite, and nothing beside a cosine times _SCALE_MAX.
_NO_CANDIDATE = -1e4


class JointSpace(nn.Module):
    """In place of a classifier's last layer: image features (N, width) to logits float32 (N,
    classes).

    Image and text features are each projected linearly onto `joint` dimensions and normalised;
    logit c is the cosine between image and text c, times a learnt scale (Radford et al. 2021, Fig.
    3). The texts are frozen. Logits of classes that are no candidates are -10,000.
    """

    texts: torch.Tensor
    absent: torch.Tensor

    def __init__(
        self,
        width: int,
        texts: torch.Tensor,
        *,
        joint: int,
        temperature: float,
        candidates: Sequence[int],
    ):
        """texts: (classes, text width) float32."""
        super().__init__()
        self.image, self.text = nn.Linear(width, joint), nn.Linear(texts.shape[1], joint)
        self.log_scale_start = -math.log(temperature)
        # The scale's change, so that weight decay draws it to the start.
        self.scale_change = nn.Parameter(torch.zeros(()))
        self.register_buffer("texts", texts)
        self.register_buffer("absent", torch.ones(len(texts), dtype=torch.bool))
        self.choose(candidates)

    def choose(self, candidates: Sequence[int]) -> None:
        """Let these classes, and no others, compete."""
        self.absent.fill_(True)
        self.absent[list(candidates)] = False

    @property
    def scale(self) -> torch.Tensor:
        """One over the temperature, at most 100."""
        return (self.log_scale_start + _SCALE_GAIN * self.scale_change).exp().clamp(max=_SCALE_MAX)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # In bfloat16 a cosine times 100 would be off by a quarter.
        with torch.autocast(features.device.type, enabled=False):
            images = F.normalize(self.image(features.float()), dim=1)  # (N, joint)
            texts = F.normalize(self.text(self.texts), dim=1)  # (classes, joint)
            return (self.scale * images @ texts.T).masked_fill(self.absent, _NO_CANDIDATE)
