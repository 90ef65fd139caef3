"""The dataset's own images in a pool that somebody brings, found by the digest of their pixels.

A classifier that trains on test images says nothing of new ones. Images that were made smaller,
turned or packed anew are not found: exact copies alone are.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from equigrid.grid.datasets import ingest
from equigrid.grid.jobs import inputs
from equigrid.grid.jobs.kind import Reads
from equigrid.grid.jobs.request import Request

READS: Reads = frozenset({"train", "val", "test"})
HELD_BACK = ("test", "val")
_SHOWN = 3

_known: dict[str, dict[str, frozenset[bytes]]] = {}  # by generator; a slot samples many shards


def looked_for(
    request: Request, images: np.ndarray, labels: np.ndarray, columns: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, int]]:
    """How many images (n, H, W, C) uint8 of a pool each split of the dataset has too, for the
    manifest: `real`, by split. columns: what the generator says of each; `place` names it.

    Raises ValueError for images that are held back to test on, unless `test_images` keeps them.
    """
    known = _digests(request)
    hashes = [ingest.hash_of(image) for image in images]
    found = {
        split: [i for i, one in enumerate(hashes) if one in own] for split, own in known.items()
    }
    for split in HELD_BACK:
        if (leaked := found.get(split)) and _refuses(request):
            numbers = range(request.payload.start, request.payload.start + len(images))
            places = columns.get("place") or [f"number {number}" for number in numbers]
            some = ", ".join(str(places[i]) for i in leaked[:_SHOWN])
            some += ", …" if len(leaked) > _SHOWN else ""
            name = request.class_names[int(labels[leaked[0]])]
            what = f"{len(leaked):,} of {len(images):,} images are {split} images of the dataset"
            right = "remove them, or set test_images: keep"
            raise ValueError(f"{what}, pixel by pixel, such as {some} (class {name}); {right}")
    return {"real": {split: len(numbers) for split, numbers in found.items()}}


def _refuses(request: Request) -> bool:
    return request.payload.mapping.get("test_images", "refuse") == "refuse"


def _digests(request: Request) -> dict[str, frozenset[bytes]]:
    """Of all images of each split."""
    generator = request.payload.generator
    if generator not in _known:
        _known.clear()
        splits = {"train": request.train, "val": request.val, "test": request.test}
        _known[generator] = {
            split: frozenset(
                ingest.hash_of(image)
                for images, _ in inputs.blocks(inputs.whole(own))
                for image in images
            )
            for split, own in splits.items()
            if own.n
        }
    return _known[generator]
