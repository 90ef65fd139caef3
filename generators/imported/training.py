"""Training of an imported set, so to speak: its images in a persisted order, each with a digest of
its bytes.
"""

import hashlib
import json

import numpy as np
import torch

from equigrid.generators.calls import TrainCall
from equigrid.generators.imported.config import ImportedConfig
from equigrid.generators.imported.listing import Listing
from equigrid.generators.imported.order import accepted, in_order
from equigrid.generators.trainer.devices import on_rank_0

_READ_AT_ONCE = 4096


def train(
    images: np.ndarray, labels: np.ndarray, config: ImportedConfig, call: TrainCall
) -> dict[str, torch.Tensor]:
    """The order in which the pool takes the set's images; the dataset's own images are not looked
    at.

    Returns `places`, uint8: JSON, a list of as many places as the pool has images, in their order
    by class, the r-th of each class in turn; and `digests`, (images per class, classes) int64, of
    the encoded bytes.  Where the classes' shares are not equal, it is all of the set's images,
    class after class, with `digests` (images,) int64 and `per_class` (classes,) int64, how many
    each class has.  They hold no path: a set that was moved serves.  Raises ValueError for a set
    whose classes are not the dataset's.
    """
    height, width, channels = images.shape[1:]
    config.check(height, width, channels, call.classes, len(images), call.class_names)
    listing = config.listing()
    names = call.class_names or tuple(map(str, range(call.classes)))
    per_class = {}
    if config.balance == "equal":
        order = accepted(listing, names, call.seed)
    else:
        columns = in_order(listing, names, call.seed)
        per_class = {"per_class": torch.tensor([len(column) for column in columns])}
        order = np.concatenate(columns)
    places = [listing.images[i].place for i in order.ravel()]
    digests = _digests(listing, places).reshape(order.shape)
    on_rank_0(call.log)({"step": 1, "images": len(listing.images), "accepted": order.size})
    return {"places": _encoded(places), "digests": torch.from_numpy(digests), **per_class}


def digest_of(data: bytes | None) -> int:
    """Of an image's encoded bytes, as an int64."""
    return int.from_bytes(
        hashlib.blake2b(data or b"", digest_size=8).digest(), "little", signed=True
    )


def _digests(listing: Listing, places: list[str]) -> np.ndarray:
    found = np.zeros(len(places), np.int64)
    order = sorted(range(len(places)), key=places.__getitem__)  # neighbours are read together
    for first in range(0, len(order), _READ_AT_ONCE):
        some = order[first : first + _READ_AT_ONCE]
        for i, data in listing.read([places[j] for j in some]):
            found[some[i]] = digest_of(data)
    return found


def _encoded(places: list[str]) -> torch.Tensor:
    text = json.dumps(places, ensure_ascii=True).encode()
    return torch.from_numpy(np.frombuffer(text, np.uint8).copy())


def places_of(weights: dict[str, torch.Tensor]) -> list[str]:
    """The list of places in a generator's weights."""
    return json.loads(weights["places"].numpy().tobytes())
