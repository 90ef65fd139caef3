"""What a trained classifier sees in images: its features before the last layer, and the classifier
kept and rebuilt.
"""

from __future__ import annotations

import numpy as np
import torch

from equigrid.classifiers import models
from equigrid.classifiers.data.mix import from_numpy
from equigrid.classifiers.models.network import Classifier
from equigrid.classifiers.models.pretraining import Start


def rebuilt(
    weights: dict[str, torch.Tensor],
    *,
    model: str,
    classes: int,
    channels: int,
    input_size: tuple[int, int],
    device: torch.device | str,
    start: Start | None = None,
) -> Classifier:
    """The classifier whose `state_dict()` the weights are, in evaluation mode.

    input_size: (height, width) that the network sees. start: how one was built that started from
    pre-trained weights, without their path. Raises ValueError for weights of another
    classifier.
    """
    network = models.build(
        model, classes=classes, height=input_size[0], width=input_size[1], channels=channels,
        start=start,
    )  # fmt: skip
    # Its statistics are in the weights.
    seen = start.how.channels if start else channels
    module = Classifier(network, [0.0] * seen, [1.0] * seen, input_size)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"these weights are not {model}'s: {' '.join(str(error).split())[:200]}"
        ) from error
    return module.to(device).eval()


class Features:
    """A function from images (n, H, W, C) uint8 to features (n, d) float32: the input of the last
    linear layer.
    """

    def __init__(self, module: Classifier, device: torch.device | str, *, batch: int = 512):
        self.module, self.device, self.batch = module, torch.device(device), batch
        self._seen: list[torch.Tensor] = []
        models.last_layer(module.network).register_forward_pre_hook(
            lambda _, inputs: self._seen.append(inputs[0])
        )

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(images), self.batch):
            pixels = from_numpy(np.ascontiguousarray(images[start : start + self.batch])).to(
                self.device
            )
            self._seen.clear()
            self.module(pixels.permute(0, 3, 1, 2))
            found.append(self._seen.pop().flatten(1).float().cpu().numpy())
        return np.concatenate(found)
