"""The CLIP filter: an image's zero-shot confidence, and the least that it must be (He et al.
2023).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from equigrid.generators.stable_diffusion import models, prompts
from equigrid.generators.stable_diffusion.config import ClipFilter


class Scorer:
    """CLIP's zero-shot confidence in images' own classes."""

    def __init__(self, config: ClipFilter, names: tuple[str, ...], device: torch.device):
        """names: the classes in words, in the order of labels; their text features are computed
        here, once.
        """
        self.device = device
        self.processor, self.model = models.clip(config, device)
        texts = [prompts.prompt(config.prompt, name) for name in names]
        with torch.inference_mode():
            tokens = self.processor(
                text=texts, padding=True, truncation=True, return_tensors="pt"
            ).to(device)
            pooled = self.model.text_model(**tokens).pooler_output
            self.texts = F.normalize(self.model.text_projection(pooled), dim=1)  # (classes, d)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Confidence of images (n, h, w, 3) uint8 in their classes `labels` (n,): (n,) float32 in
        [0, 1].

        The softmax over all classes of CLIP's scaled cosine similarities.
        """
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"].to(
            self.device
        )
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        features = F.normalize(self.model.visual_projection(pooled), dim=1)  # (n, d)
        logits = self.model.logit_scale.exp() * features @ self.texts.T  # (n, classes)
        return logits.softmax(dim=1).cpu().numpy()[np.arange(len(labels)), labels]


def least(confidence: np.ndarray, config: ClipFilter, names: tuple[str, ...]) -> np.ndarray:
    """The least confidence at which an image of each class is kept: (classes,) float32.

    confidence: (classes, n), of n images of each class.  In scope "class" the floor(n * drop)
    lowest of each class lie below (as many less as are equal), in scope "all" that part of all
    together.  Raises ValueError where that keeps no image of a class, and for confidences that are
    not finite.
    """
    if not np.isfinite(confidence).all():
        raise ValueError("clip_filter: CLIP gives confidences that are not finite")
    if config.scope == "class":
        return np.sort(confidence, axis=1)[:, _dropped(confidence.shape[1], config.drop)]
    bound = np.sort(confidence, axis=None)[_dropped(confidence.size, config.drop)]
    for name, highest in zip(names, confidence.max(axis=1)):
        if highest < bound:
            raise ValueError(
                f"clip_filter keeps nothing of class {name!r}: its highest confidence "
                f"{highest:.3g} lies below {bound:.3g}, the bound of all classes; scope class, or "
                "a smaller drop, would keep some"
            )
    return np.full(len(confidence), bound, confidence.dtype)


def _dropped(n: int, drop: float) -> int:
    return math.floor(round(n * drop, 6))  # without float noise: 0.29 * 100 is 29
