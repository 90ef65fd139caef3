"""The operations of augmentation policies on a whole batch, each image with its own.

torchvision's functions on uint8 images are the reference. Rotations, shears and translations are
one gather by a matrix per image; what changes each grey level by itself is one gather from a table
of 256 per image and channel; colour and sharpness are blends. An image that a part does not concern
comes out of it bit by bit as it went in. On a CPU each part sees only the images that it concerns.
On a GPU all are computed and the others dropped: no shape depends on the draws and nothing waits
for the device, so that a step can be recorded as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from equigrid.classifiers.data.policies import NUMBER

_GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # of R, G, B: ITU-R 601, as torchvision rounds them
_LEVELS = 256

Change = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def apply(images: torch.Tensor, ops: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    """One operation on each of (B, C, H, W) uint8 images with 1 or 3 channels.

    ops: (B,) numbers in `policies.OPERATIONS`; magnitudes: (B,) float32 as `policies.draw` gives.
    """
    for names, change in _PARTS:
        concerned = _is_one_of(ops, names)
        images = _where(concerned, change, images, ops, magnitudes)
    return images


def _is_one_of(ops: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
    found = ops == NUMBER[names[0]]
    for name in names[1:]:
        found = found | (ops == NUMBER[name])
    return found


def _where(
    concerned: torch.Tensor,
    change: Change,
    images: torch.Tensor,
    ops: torch.Tensor,
    magnitudes: torch.Tensor,
) -> torch.Tensor:
    if images.device.type != "cpu":
        return torch.where(_per_image(concerned), change(images, ops, magnitudes), images)
    chosen = concerned.nonzero()[:, 0]
    if not len(chosen):
        return images
    changed = change(images[chosen], ops[chosen], magnitudes[chosen])
    return images.index_copy(0, chosen, changed)


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


# Moving pixels ------------------------------------------------------------------------------------

_MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def _moved(images: torch.Tensor, ops: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    """The nearest pixel of where each came from, black where that is outside the image.

    Coordinates are pixels from the image's centre. Shears keep the corner, as in AutoAugment.
    """
    count, channels, height, width = images.shape
    y = torch.arange(height, device=images.device) - (height - 1) / 2  # (H,)
    x = torch.arange(width, device=images.device) - (width - 1) / 2  # (W,)
    a, b, c, d, e, f = (value[:, None, None] for value in _matrix(ops, magnitudes, height, width))
    columns = a * x + b * y[:, None] + c + (width - 1) / 2  # (B, H, W)
    rows = d * x + e * y[:, None] + f + (height - 1) / 2
    columns, rows = columns.round().long(), rows.round().long()
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    places = (rows * width + columns).where(inside, 0).view(count, -1, 1)
    pixels = images.permute(0, 2, 3, 1).reshape(count, height * width, channels)
    pixels = pixels.gather(1, places.expand(-1, -1, channels)).view(count, height, width, channels)
    return (pixels * inside[..., None]).permute(0, 3, 1, 2)


def _matrix(
    ops: torch.Tensor, magnitudes: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, ...]:
    """a to f, (B,) each: place (x, y) of the result is (ax + by + c, dx + ey + f) of the image."""

    def of(name: str) -> torch.Tensor:
        return torch.where(ops == NUMBER[name], magnitudes, 0.0)

    angle = torch.deg2rad(of("Rotate"))
    cos, sin, shear_x, shear_y = angle.cos(), angle.sin(), of("ShearX"), of("ShearY")
    c = shear_x * (height / 2) - of("TranslateX")
    f = shear_y * (width / 2) - of("TranslateY")
    return cos, shear_x - sin, c, shear_y + sin, cos, f


# Grey levels one by one ---------------------------------------------------------------------------

_TABLED = ("Brightness", "Contrast", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")


def _looked_up(images: torch.Tensor, ops: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    count, channels, height, width = images.shape
    flat = images.reshape(count, channels, height * width).long()
    table = _tables(images, flat, ops, magnitudes)  # (B, C, 256)
    return table.gather(2, flat).view(count, channels, height, width)


def _tables(
    images: torch.Tensor, flat: torch.Tensor, ops: torch.Tensor, magnitudes: torch.Tensor
) -> torch.Tensor:
    """(B, C, 256) uint8: what becomes of each grey level in each channel of each image."""
    levels = torch.arange(_LEVELS, device=images.device)
    strength = magnitudes[:, None, None]
    equalized, stretched = _equalized(flat), _stretched(flat)
    bits = torch.where(ops == NUMBER["Posterize"], magnitudes, 8.0).int()[:, None, None]
    inverted = 255 - levels
    made = {
        "Brightness": _whole(levels * (1 + strength)),
        "Contrast": _blended(levels.float(), _mean_grey(images), strength),
        "Posterize": (levels >> (8 - bits)) << (8 - bits),
        "Solarize": torch.where(levels >= strength * 255, inverted, levels),
        "AutoContrast": stretched,
        "Equalize": equalized,
        "Invert": inverted,
    }
    table = levels.to(torch.uint8).expand(equalized.shape)
    for name, values in made.items():
        chosen = (ops == NUMBER[name])[:, None, None]
        table = torch.where(chosen, values.to(torch.uint8), table)
    return table


def _mean_grey(images: torch.Tensor) -> torch.Tensor:
    """(B, 1, 1) float32."""
    return _grey(images).mean((1, 2, 3))[:, None, None]


def _stretched(flat: torch.Tensor) -> torch.Tensor:
    """(B, C, 256): the darkest level of each channel to 0, the brightest to 255."""
    low, high = (end[:, :, None].float() for end in flat.aminmax(dim=2))
    levels = torch.arange(_LEVELS, device=flat.device)
    found = _whole((levels - low) / ((high - low) * (1 / 255)))
    return torch.where(high > low, found, levels.to(torch.uint8))


def _equalized(flat: torch.Tensor) -> torch.Tensor:
    """(B, C, 256): levels by how many pixels are darker, as Pillow's `ImageOps.equalize` counts:
    all but the brightest level's pixels share 255 steps.
    """
    counts = torch.zeros((*flat.shape[:2], _LEVELS), dtype=torch.int64, device=flat.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    of_brightest = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - of_brightest) // 255
    darker = counts.cumsum(2) - counts
    found = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, found, torch.arange(_LEVELS, device=flat.device))


# Blends -------------------------------------------------------------------------------------------


def _coloured(images: torch.Tensor, ops: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    """Away from, or towards, its grey image. Grey images have no colour to change."""
    if images.shape[1] == 1:
        return images
    return _blended(images.float(), _grey(images), _per_image(magnitudes))


def _grey(images: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) float32, whole numbers."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = (images[:, i : i + 1] * _GREY_WEIGHTS[i] for i in range(3))
    return (red + green + blue).floor()


def _sharpened(images: torch.Tensor, ops: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    """Away from, or towards, its blurred image: of nine pixels, the middle one counting five times.
    The outermost pixels stay.
    """
    height, width = images.shape[2:]
    if min(height, width) <= 2:
        return images
    x = images.float()
    three = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    inner = x[:, :, 1:-1, 1:-1]
    blurred = ((three[..., :-2] + three[..., 1:-1] + three[..., 2:] + 4 * inner) / 13).round()
    out = images.clone()
    out[:, :, 1:-1, 1:-1] = _whole(inner - _per_image(magnitudes) * (blurred - inner))
    return out


def _blended(values: torch.Tensor, others: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """`strength` further away from the others; at -1 it is them."""
    return _whole(values * (1 + strength) - strength * others)


def _whole(values: torch.Tensor) -> torch.Tensor:
    """Grey levels, cut off rather than rounded, as torchvision and Pillow do."""
    return values.clamp(0, 255).to(torch.uint8)


_PARTS: tuple[tuple[tuple[str, ...], Change], ...] = (
    (_MOVES, _moved),
    (_TABLED, _looked_up),
    (("Color",), _coloured),
    (("Sharpness",), _sharpened),
)
