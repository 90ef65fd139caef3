"""Non-leaking augmentation: images are warped, and the network is told how (Karras et al. 2022,
F.2).

At sampling the labels are zero, "not augmented", so the pool shows none of it.  Parameters are
drawn on the CPU, for the global batch, and then sliced: they depend neither on the device nor on
the number of workers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from equigrid.generators.edm.config import Augmentation

SCALE_OCTAVES = 0.2  # deviation of the logarithm (base 2) of size, and of stretch
TRANSLATE_SIDES = 0.125  # deviation of a translation, in image sides
TURNED_STRETCHES = 0.5  # part of the stretches that is along a random direction, the others along x

SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""Daubechies' least asymmetric wavelet of 12 taps: orthonormal to its even shifts, so that
upsampling with it and downsampling with it is the identity.
"""

_SYM6_CENTRE = sum(i * tap for i, tap in enumerate(SYM6)) / sum(SYM6)
_SYM6_REACH = len(SYM6) // 4  # input pixels on either side


@dataclass(frozen=True)
class Drawn:
    """Parameters of n augmented images, on the CPU."""

    labels: torch.Tensor
    """(n, A) float32, what the network is told; zeros where nothing is done."""
    flip_x: torch.Tensor
    """(n,) bool; likewise flip_y."""
    flip_y: torch.Tensor
    inverse: torch.Tensor
    """(n, 3, 3) float32: position in the warped image -> position in the original, pixels from the
    centre.
    """
    shift: torch.Tensor
    """(n, 2) int64: pixels to the right and down."""

    def part(self, which: slice) -> "Drawn":
        return Drawn(
            self.labels[which],
            self.flip_x[which],
            self.flip_y[which],
            self.inverse[which],
            self.shift[which],
        )


def draw(
    augmentation: Augmentation, n: int, height: int, width: int, generator: torch.Generator
) -> Drawn:
    """Parameters of n images of height x width; `generator` is a CPU generator."""

    def normal() -> torch.Tensor:
        return torch.randn(n, generator=generator)

    def uniform() -> torch.Tensor:
        return torch.rand(n, generator=generator)

    def enabled(values: torch.Tensor) -> torch.Tensor:
        return torch.where(uniform() < augmentation.probability, values, torch.zeros_like(values))

    labels: list[torch.Tensor] = []
    flip_x = flip_y = torch.zeros(n, dtype=torch.bool)
    shift = torch.zeros(n, 2, dtype=torch.int64)
    inverse = torch.eye(3).expand(n, 3, 3)
    # Sizes as in Karras et al. 2022, Table 6; the matrices compose to: scale, turn, stretch,
    # translate.
    for kind in augmentation.kinds:
        if kind == "x_flip":
            flip_x = uniform() < 0.5
            labels += [flip_x.float()]
        elif kind == "y_flip":
            flip_y = enabled((uniform() < 0.5).float()) > 0
            labels += [flip_y.float()]
        elif kind == "scale":
            octaves = enabled(normal())
            size = torch.exp2(SCALE_OCTAVES * octaves)
            inverse = inverse @ _scaling(1 / size, 1 / size)
            labels += [octaves]
        elif kind == "rotate":
            angle = enabled((2 * uniform() - 1) * math.pi)
            inverse = inverse @ _rotation(angle)
            labels += [angle.cos() - 1, angle.sin()]
        elif kind == "stretch":
            octaves = enabled(normal())
            turned = uniform() < TURNED_STRETCHES
            angle = torch.where(turned, (2 * uniform() - 1) * math.pi, torch.zeros(n))
            stretch = torch.exp2(SCALE_OCTAVES * octaves)
            inverse = (
                inverse @ _rotation(-angle) @ _scaling(1 / stretch, stretch) @ _rotation(angle)
            )
            labels += [octaves * angle.cos(), octaves * angle.sin()]
        elif kind == "translate":
            on = enabled(torch.ones(n))
            right, down = on * normal(), on * normal()
            inverse = inverse @ _translation(
                -right * TRANSLATE_SIDES * width, -down * TRANSLATE_SIDES * height
            )
            labels += [right, down]
        elif kind == "shift":
            most = augmentation.shift_pixels
            whole = torch.randint(-most, most + 1, (n, 2), generator=generator)
            shift = torch.where((uniform() < augmentation.probability)[:, None], whole, shift)
            labels += list((shift / most).unbind(1))
    stacked = torch.stack(labels, dim=1) if labels else torch.zeros(n, 0)
    return Drawn(labels=stacked, flip_x=flip_x, flip_y=flip_y, inverse=inverse, shift=shift)


def apply(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Augmented images: (n, C, H, W) float in [-1, 1] -> the same shape, a little outside [-1, 1]
    where warped.
    """
    device = images.device
    if drawn.flip_x.any():
        images = torch.where(drawn.flip_x.to(device)[:, None, None, None], images.flip(3), images)
    if drawn.flip_y.any():
        images = torch.where(drawn.flip_y.to(device)[:, None, None, None], images.flip(2), images)
    if drawn.shift.any():
        images = _shifted(images, drawn.shift)
    # By more than rounding.
    moved = ((drawn.inverse - torch.eye(3)).abs() > 1e-6).any(dim=2).any(dim=1)
    if moved.any():
        warped = _warped(images, drawn.inverse)
        images = torch.where(moved.to(device)[:, None, None, None], warped, images)
    return images


def _rotation(angle: torch.Tensor) -> torch.Tensor:
    matrix = torch.eye(3).repeat(len(angle), 1, 1)
    matrix[:, 0, 0], matrix[:, 0, 1] = angle.cos(), -angle.sin()
    matrix[:, 1, 0], matrix[:, 1, 1] = angle.sin(), angle.cos()
    return matrix


def _scaling(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    matrix = torch.eye(3).repeat(len(x), 1, 1)
    matrix[:, 0, 0], matrix[:, 1, 1] = x, y
    return matrix


def _translation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    matrix = torch.eye(3).repeat(len(x), 1, 1)
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def _shifted(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Whole-pixel shifts, (n, 2) to the right and down; pixels that enter are black (-1)."""
    n, channels, height, width = images.shape
    most = int(shift.abs().max())
    padded = F.pad(images, (most,) * 4, value=-1.0)
    rows = torch.arange(height) + most - shift[:, 1:]  # (n, H)
    columns = torch.arange(width) + most - shift[:, :1]  # (n, W)
    image = torch.arange(n)[:, None, None]
    place = [index.to(images.device) for index in (image, rows[:, :, None], columns[:, None, :])]
    # (n, H, W, C) -> (n, C, H, W)
    return padded.permute(0, 2, 3, 1)[tuple(place)].permute(0, 3, 1, 2)


def _warped(images: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Images under affine maps, filtered: upsampled by 2, sampled bilinearly, downsampled by 2.

    Outside, images go on mirrored, for at most one side's length.
    """
    height, width, device = *images.shape[2:], images.device
    taps = torch.tensor(SYM6, dtype=images.dtype, device=device)
    # How far the furthest position that is read lies outside, with the filter's own reach.
    reach_x, reach_y = (width - 1) / 2 + _SYM6_REACH, (height - 1) / 2 + _SYM6_REACH
    corners = torch.tensor([[reach_x, reach_y, 1], [reach_x, -reach_y, 1], [-reach_x, reach_y, 1],
                            [-reach_x, -reach_y, 1]])  # fmt: skip
    furthest = (inverse @ corners.T)[:, :2].abs().amax(dim=(0, 2))  # (n, 2, 4) -> (2,)
    pad_x = _margin(float(furthest[0]), width)
    pad_y = _margin(float(furthest[1]), height)
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y), mode="reflect")
    fine = _resample(F.conv_transpose2d, padded, taps)  # (n, C, 2 (H + 2 pad_y) + 10, ...)
    # Positions of the fine output in pixels from the centre, mapped, and back to the fine input's
    # indices.
    y = (torch.arange(2 * height + len(SYM6) - 2) - _SYM6_CENTRE) / 2 - (height - 1) / 2
    x = (torch.arange(2 * width + len(SYM6) - 2) - _SYM6_CENTRE) / 2 - (width - 1) / 2
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    # (2H + 10, 2W + 10, 3)
    points = torch.stack([grid_x, grid_y, torch.ones_like(grid_x)], dim=2).to(device)
    source = torch.einsum("nij,hwj->nhwi", inverse[:, :2].to(device), points)
    centre = torch.tensor([(width - 1) / 2 + pad_x, (height - 1) / 2 + pad_y], device=device)
    index = 2 * (source + centre) + _SYM6_CENTRE
    grid = 2 * index / torch.tensor([fine.shape[3] - 1, fine.shape[2] - 1], device=device) - 1
    sampled = F.grid_sample(fine, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return _resample(F.conv2d, sampled, taps)


def _margin(furthest: float, side: int) -> int:
    return min(max(math.ceil(furthest - (side - 1) / 2) + _SYM6_REACH, 0), side - 1)


def _resample(
    convolve: Callable[..., torch.Tensor], images: torch.Tensor, taps: torch.Tensor
) -> torch.Tensor:
    """Along both axes by a factor of 2: `convolve` is F.conv2d (down) or its adjoint (up)."""
    channels = images.shape[1]
    rows = taps.view(1, 1, -1, 1).repeat(channels, 1, 1, 1)
    images = convolve(images, rows, stride=(2, 1), groups=channels)
    return convolve(images, rows.transpose(2, 3), stride=(1, 2), groups=channels)
