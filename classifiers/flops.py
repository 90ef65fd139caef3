"""What a classifier computes: floating-point operations of one forward pass of one image, a
multiplication and an addition counted as two.

Of convolutions, matrix products and attention alone, as torch's FlopCounterMode counts them. Those
of the networks that a plan may name without importing torch stand in a table; any other network of
timm's is counted on the spot.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from equigrid.classifiers.models.pretraining import Start
from equigrid.classifiers.names import CIFAR_RESNET_DEPTHS, canonical


class ForwardFlops(NamedTuple):
    """per_image: of one image. wide: whether the network has hundreds of channels, as devices like
    them.
    """

    per_image: float
    wide: bool


COUNTED: dict[str, tuple[int, int]] = {
    "digits-cnn": (8, 942_592),
    "resnet20": (32, 81_102_080),
    "resnet32": (32, 137_725_184),
    "resnet44": (32, 194_348_288),
    "resnet56": (32, 250_971_392),
    "resnet110": (32, 505_775_360),
    "resnet50": (224, 8_174_313_472),
    "vit_base_patch32_224": (224, 8_816_851_968),
}
"""By name: a side in pixels, and operations for an image of that side in three channels, ten
classes. `benchmarks/costs.py --count` prints them, a test counts them again.
"""


@functools.cache
def forward(
    name: str, height: int, width: int, channels: int, start: Start | None = None
) -> ForwardFlops | None:
    """Of one image of the size that the network *sees*; None where timm refuses it. start: of a
    network with pre-trained weights, which say its channels.

    From another size than the table's by the number of pixels: exact for convolutions but their
    first layer, within a few percent for transformers.
    """
    name = canonical(name)
    wide = name not in CIFAR_RESNET_DEPTHS and name != "digits-cnn"
    if name in COUNTED and start is None:
        side, count = COUNTED[name]
        return ForwardFlops(count * height * width / side**2, wide)
    try:
        return ForwardFlops(count_anew(name, height, width, channels, start), wide)
    except Exception:  # each of timm's networks refuses in a way of its own
        return None


def count_anew(
    name: str, height: int, width: int, channels: int, start: Start | None = None
) -> int:
    """Counted on a network without values: imports torch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from equigrid.classifiers.models.building import build

    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.inference_mode():
        # Lora's own products are made once a batch, not for each image.
        plain = start and Start(start.how.model_copy(update={"train": "all"}))
        network = build(
            name, classes=10, height=height, width=width, channels=channels, start=plain
        ).eval()
        seen = start.how.channels if start else channels
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, seen, height, width))
    return counter.get_total_flops()
