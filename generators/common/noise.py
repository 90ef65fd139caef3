"""The noise of a pool's images: a stream of normal draws for each, from (seed, number of the image)
alone.
"""

from collections.abc import Callable

import torch

from equigrid.generators.common.rng import seed_of


def streams(
    seed: int, numbers: range, shape: tuple[int, int, int], device: torch.device
) -> Callable[[], torch.Tensor]:
    """A function that gives the next standard normal draw of each image: (len(numbers), *shape)
    float32 on the device.

    Drawn on the CPU, whatever the device.
    """
    generators = [
        torch.Generator().manual_seed(seed_of(seed, "pool noise", number)) for number in numbers
    ]

    def noise() -> torch.Tensor:
        return torch.stack(
            [torch.randn(shape, generator=generator) for generator in generators]
        ).to(device)

    return noise
