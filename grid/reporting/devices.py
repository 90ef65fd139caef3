"""How fast devices are at what a grid computes, for estimates before anything ran.

A figure is a device's peak times an efficiency, and both are given as they are known: the peak from
the maker's data sheet, the efficiency as a range of what was seen.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Speed(NamedTuple):
    """Floating-point operations per second: a guess between the least and the most that is
    likely.
    """

    least: float
    likely: float
    most: float


@dataclass(frozen=True)
class Device:
    """name: as NVIDIA's tools write it, or a part of that. wide, narrow: the speeds with networks
    of hundreds of channels, and of a few dozen.
    """

    name: str
    wide: Speed
    narrow: Speed


# The parts of a GPU's peak in half precision that are reached.
#
# Wide. By published times and our counts: training EDM 15% (Karras et al. 2022, Appendix F: 200
# million images in about two days of eight V100), training ResNet-50 23% (111 ms for 128 images on
# a V100, in github.com/sandeepkumar-skb/pytorch_experiments); by the paper's Table 8, sampling DiT
# 22% and EDM 26% of an A6000's and an A4500's, Stable Diffusion 3 47%. Nothing measured by us yet.
_WIDE = (0.10, 0.25, 0.60)
# Narrow. No publication that we know. ResNet-110's first layers do about 18 operations per byte
# that they move, so an A6000's 768 GB/s allow 9% of its peak; small kernels take away most of that.
_NARROW = (0.01, 0.03, 0.10)


def _gpu(name: str, peak_tflops: float) -> Device:
    peak = peak_tflops * 1e12
    wide, narrow = (Speed(*(part * peak for part in parts)) for parts in (_WIDE, _NARROW))
    return Device(name, wide, narrow)


CPU = "CPU"
DEVICES = {
    device.name: device
    for device in (
        # NVIDIA's data sheets: tensor cores, FP16 with FP32 sums, dense (half of "with sparsity").
        _gpu("T4", 65),
        _gpu("V100", 125),
        _gpu("L4", 121),
        _gpu("A4500", 94.6),
        _gpu("A6000", 154.8),
        _gpu("A100", 312),
        _gpu("H100", 989),
        _gpu("H200", 989),
        _gpu("RTX 3090", 71),
        _gpu("RTX 4090", 165.2),
        # A core of an AMD EPYC with AVX-512, measured by us (docs/costs.md): 65 GFLOP/s in an EDM
        # of middle size, 12 to 102 in small generators and ResNet-20, half of them at 45 or less.
        Device(CPU, Speed(30e9, 60e9, 120e9), Speed(10e9, 45e9, 120e9)),
    )
}
PAPERS = "A6000"
"""The card of most of the paper's Table 8."""


def device(name: str) -> Device | None:
    """The device of the longest name in the table that is a part of this one, "NVIDIA A100-SXM4" or
    "a100"; None where there is none.
    """
    named = [known for known in DEVICES if known.lower() in name.lower()]
    return DEVICES[max(named, key=len)] if named else None
