"""A zero-shot trial: real images of the seen classes, synthetic ones of the unseen (the paper's
Appendix G.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from equigrid.classifiers.zero_shot.config import ZeroShotConfig
from equigrid.grid.errors import DocumentError
from equigrid.grid.ids import content_id
from equigrid.grid.jobs import inputs
from equigrid.grid.jobs.request import Request
from equigrid.grid.store import Store
from equigrid.grid.store.layout import ZERO_SHOT, statistics

if TYPE_CHECKING:
    from equigrid.classifiers.data.mix import Mix
    from equigrid.classifiers.data.stream import StreamedMix


@dataclass(frozen=True)
class ZeroShot:
    """split: what the configuration's `payload` says. synthetic: whether there are synthetic images
    of the unseen classes.
    """

    split: Mapping[str, Any]
    config: ZeroShotConfig
    synthetic: bool


def run(
    store: Store,
    request: Request,
    images: "Mix | StreamedMix",
    what: ZeroShot,
    options: dict[str, Any],
) -> tuple:
    """Trains on `images`; the training, and the row's columns."""
    from equigrid.classifiers.data.mix import Mix
    from equigrid.classifiers.zero_shot.training import zero_shot

    unseen = what.split["unseen"]
    seen = sorted(set(range(request.classes)) - set(unseen))
    found = zero_shot(
        images, Mix(inputs.arrays(inputs.whole(request.test), training=False)), unseen=unseen,
        text_features=_text_features(store, request, what, options["device"]), config=what.config,
        candidates=range(request.classes) if what.synthetic else seen, **options,
    )  # fmt: skip
    facts = {
        field.name: getattr(found, field.name) for field in fields(found) if field.name != "trained"
    }
    facts["per_class"] = [None if np.isnan(value) else value for value in found.per_class]
    store.put_json(ZERO_SHOT.manifest(request.id), facts)
    row = {
        "top1": found.among_unseen,
        "top5": None,
        "per_class": found.per_class,
        "confusion": None,
        "loss": None,
    }
    return found.trained, row


def _text_features(store: Store, request: Request, what: ZeroShot, device: str) -> np.ndarray:
    """The classes' texts, encoded for the first trial and kept for all others."""
    from safetensors.numpy import save

    from equigrid.classifiers.zero_shot.text import text_features

    texts = {name: what.split[name] for name in ("texts", "text_encoder")}
    name = statistics(content_id("texts", texts), ".safetensors")
    try:
        return store.get_decoded(name, _features, "features of texts")
    except (FileNotFoundError, DocumentError):  # damaged ones are made anew
        features = text_features(request.class_names, what.config, device=device)
    store.put(name, save({"features": features}))
    return features


def _features(data: bytes) -> np.ndarray:
    """Raises ValueError if these are not the bytes that were written."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)["features"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error
