"""Pools of Stable Diffusion: image i is the first candidate made for it that the CLIP filter
keeps.
"""

import numpy as np
import torch
import torch.nn.functional as F

from equigrid.generators.calls import SampleCall
from equigrid.generators.common import pools
from equigrid.generators.common.pixels import to_uint8
from equigrid.generators.stable_diffusion.candidates import Candidate, Candidates, Wanted
from equigrid.generators.stable_diffusion.clip_filter import least
from equigrid.generators.stable_diffusion.config import StableDiffusionConfig

WINDOW = 64
"""Images that are filtered together, so that new candidates come in batches: the smallest size of a
shard.
"""
_ATTEMPTS = 100
_LUMA = (0.299, 0.587, 0.114)  # Rec. 601


def sample(
    weights: dict[str, torch.Tensor], config: StableDiffusionConfig, call: SampleCall
) -> tuple[np.ndarray, np.ndarray]:
    """See `equigrid.generators.registry.sample`; images are resized with a low-pass filter, C = 1
    takes their luminance.

    Candidates for image i have its label, and depend on (seed, i, attempt) alone.  With a filter,
    batches begin at multiples of WINDOW.  Another batch or device changes pixels by rounding, which
    may also change a caption, or keep a candidate of borderline confidence.

    facts is told prompt, at_once (images of its batch); with captions template and caption (its
    number within the class); with a variation source (its place in the base); with a filter
    confidence and candidate (how many were refused before it).

    Raises ValueError for class names that are missing or numbers, for pre-trained parts that are
    not there, with what to place where, for weights of another number of classes, and where the
    filter keeps none of _ATTEMPTS candidates.
    """
    start, stop = call.start, call.stop
    names = config.names(call.class_names, call.classes)
    bounds = _bounds(weights, config, names)
    images = np.empty((stop - start, *call.shape), np.uint8)
    rows: list[dict] = []
    candidates = Candidates(
        config, names, seed=call.seed, device=torch.device(call.device), shares=call.shares,
        weights=weights, base=call.base,
    )  # fmt: skip
    size = config.sampler.batch if bounds is None else WINDOW
    size = min(size, call.at_once or size)
    for first in range(start - start % size, stop, size):
        for number, (attempt, made) in enumerate(
            _window(candidates, bounds, first, size), start=first
        ):
            if start <= number < stop:
                images[number - start] = resized(made.image[None], call.shape)[0]
                filtered = (
                    {} if bounds is None else {"confidence": made.confidence, "candidate": attempt}
                )
                rows.append({**made.facts, **filtered})
        call.progress(pools.share_done(call, range(first, first + size), 1.0))
    call.facts({name: [row[name] for row in rows] for name in rows[0]} if rows else {})
    return images, pools.labels(call.seed, start, stop, call.classes, call.shares)


def _window(
    candidates: Candidates, bounds: np.ndarray | None, first: int, size: int
) -> list[tuple[int, Candidate]]:
    """For each of the images first .. first + size - 1 (attempt, candidate) of the first one that
    is kept.
    """
    labels = pools.labels(
        candidates.seed, first, first + size, len(candidates.names), candidates.shares
    )
    kept: dict[int, tuple[int, Candidate]] = {}
    for attempt in range(_ATTEMPTS):
        wanted = [
            Wanted(first + i, int(label), attempt)
            for i, label in enumerate(labels)
            if first + i not in kept
        ]
        for one, made in zip(wanted, candidates.make(wanted)):
            if bounds is None or made.confidence >= bounds[one.label]:
                kept[one.number] = attempt, made
        if len(kept) == size:
            return [kept[number] for number in sorted(kept)]
    name = candidates.names[
        next(int(label) for i, label in enumerate(labels) if first + i not in kept)
    ]
    raise ValueError(
        f"clip_filter keeps none of {_ATTEMPTS} candidates of class {name!r}; choose a smaller drop"
    )


def _bounds(
    weights: dict, config: StableDiffusionConfig, names: tuple[str, ...]
) -> np.ndarray | None:
    """Each class's least confidence, (classes,); None without a filter."""
    if config.clip_filter is None:
        return None
    confidence = weights.get("confidence")
    wanted = (len(names), config.clip_filter.calibration_per_class)
    if confidence is None or tuple(confidence.shape) != wanted:
        have = "missing" if confidence is None else f"of shape {list(confidence.shape)}"
        raise ValueError(
            f"weights: confidence is {have}; the filter was calibrated with {list(wanted)}"
        )
    return least(confidence.numpy(), config.clip_filter, names)


def resized(images: torch.Tensor, shape: tuple[int, int, int]) -> np.ndarray:
    """(n, 3, h, w) float in [0, 1] to stored pixels, (n, H, W, C) uint8 of `shape`, bicubic with a
    low-pass filter.
    """
    height, width, channels = shape
    if images.shape[-2:] != (height, width):
        images = F.interpolate(
            images, (height, width), mode="bicubic", antialias=True, align_corners=False
        )
    if channels == 1:
        images = torch.einsum("nchw,c->nhw", images, torch.tensor(_LUMA))[:, None]
    return to_uint8(images * 2 - 1).numpy()
