"""The base's images that a pool's images begin as: which, and as the pipeline takes them."""

from collections.abc import Sequence

import numpy as np
import torch

from equigrid.generators.calls import Base
from equigrid.generators.common import pools
from equigrid.generators.common.rng import permutation
from equigrid.generators.stable_diffusion.latents import resized


class SourceImages:
    """Image i of a pool begins as one of the base, of its class: the k-th of the class in the pool
    as the k-th of the class in the base, in an order drawn from the pool's seed, round and round.
    """

    def __init__(
        self,
        base: Base | None,
        names: tuple[str, ...],
        *,
        seed: int,
        shares: tuple[int, ...] | None,
        size: tuple[int, int],
    ):
        """names: the classes in words; size: (height, width) of the pipeline's images."""
        if base is None:
            raise ValueError("variation begins with images of the base, and none are given")
        self.base, self.classes, self.shares, self.size = base, len(names), shares, size
        self.places = []
        for label, name in enumerate(names):
            of_class = np.flatnonzero(base.labels == label)
            wanted = shares is None or shares[label] > 0
            if wanted and not len(of_class):
                raise ValueError(f"variation: the base has no image of class {name!r}")
            self.places.append(of_class[permutation(seed, "sources", label, len(of_class))])

    def place(self, number: int, label: int) -> int:
        """Where in the base the source of image `number`, of class `label`, lies."""
        before = pools.earlier(np.array([number]), label, self.classes, self.shares)
        own = self.places[label]
        return int(own[int(before[0]) % len(own)])

    def images(self, places: Sequence[int]) -> torch.Tensor:
        """(n, 3, height, width) float32 in [0, 1]."""
        return resized(torch.from_numpy(self.base.pixels(np.array(places))), self.size)
