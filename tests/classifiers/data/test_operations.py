"""Each operation on a batch against torchvision's function, image by image."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2 import functional as tv

from equigrid.classifiers.data import operations
from equigrid.classifiers.data.policies import NUMBER, OPERATIONS

MAGNITUDES = {
    "Identity": (0.0,),
    "ShearX": (-0.99, -0.3, -0.07, 0.0, 0.13, 0.3, 0.7),
    "ShearY": (-0.99, -0.3, -0.07, 0.0, 0.13, 0.3, 0.7),
    "TranslateX": (-32.0, -5.0, -1.0, 0.0, 1.0, 3.0, 40.0),
    "TranslateY": (-32.0, -5.0, -1.0, 0.0, 1.0, 3.0, 40.0),
    "Rotate": (-135.0, -30.0, -3.3, 0.0, 1.5, 30.0, 77.0, 135.0),
    "Brightness": (-0.99, -0.5, -0.03, 0.0, 0.31, 0.9, 0.99),
    "Color": (-0.99, -0.5, -0.03, 0.0, 0.31, 0.9, 0.99),
    "Contrast": (-0.99, -0.5, -0.03, 0.0, 0.31, 0.9, 0.99),
    "Sharpness": (-0.99, -0.5, -0.03, 0.0, 0.31, 0.9, 0.99),
    "Posterize": (2.0, 3.0, 4.0, 6.0, 8.0),
    "Solarize": (0.0, 0.1, 0.5, 0.9, 1.0),
    "AutoContrast": (0.0,),
    "Equalize": (0.0,),
    "Invert": (0.0,),
}


def torchvisions(name: str, image: torch.Tensor, magnitude: float) -> torch.Tensor:
    """(C, H, W) uint8 by torchvision."""
    still = {"angle": 0.0, "scale": 1.0}
    degrees = math.degrees(math.atan(magnitude))
    functions = {
        "Identity": lambda: image,
        "ShearX": lambda: tv.affine(
            image, translate=[0, 0], shear=[degrees, 0.0], center=[0, 0], **still
        ),
        "ShearY": lambda: tv.affine(
            image, translate=[0, 0], shear=[0.0, degrees], center=[0, 0], **still
        ),
        "TranslateX": lambda: tv.affine(
            image, translate=[int(magnitude), 0], shear=[0.0, 0.0], **still
        ),
        "TranslateY": lambda: tv.affine(
            image, translate=[0, int(magnitude)], shear=[0.0, 0.0], **still
        ),
        "Rotate": lambda: tv.rotate(image, magnitude),
        "Brightness": lambda: tv.adjust_brightness(image, 1.0 + magnitude),
        "Color": lambda: tv.adjust_saturation(image, 1.0 + magnitude),
        "Contrast": lambda: tv.adjust_contrast(image, 1.0 + magnitude),
        "Sharpness": lambda: tv.adjust_sharpness(image, 1.0 + magnitude),
        "Posterize": lambda: tv.posterize(image, int(magnitude)),
        "Solarize": lambda: tv.solarize(image, 255 * magnitude),
        "AutoContrast": lambda: tv.autocontrast(image),
        "Equalize": lambda: tv.equalize(image),
        "Invert": lambda: tv.invert(image),
    }
    return functions[name]()


def pictures(channels: int) -> torch.Tensor:
    """(12, C, 24, 32) uint8: parts of photographs, and what is hard: noise, flat, few levels."""
    draw = np.random.default_rng(0)
    found = []
    for photograph in load_sample_images().images:
        for corner in (40, 130, 200):
            found.append(photograph[corner : corner + 96 : 4, 2 * corner : 2 * corner + 128 : 4])
    found.append(draw.integers(0, 256, (24, 32, 3)))
    found.append(np.full((24, 32, 3), 77))
    found.append(draw.integers(90, 93, (24, 32, 3)))
    found.append(np.full((24, 32, 3), 0))
    found.append(draw.choice([0, 255], (24, 32, 3), p=[0.999, 0.001]))
    found.append(np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3))
    return torch.from_numpy(np.stack(found).astype(np.uint8)).permute(0, 3, 1, 2)[:, :channels]


def near_a_tie(name: str, magnitude: float, height: int, width: int) -> torch.Tensor:
    """(H, W): where a pixel's place in the image lies half way between two, to a thousandth."""
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    angle = math.radians(magnitude)
    columns, rows = {
        "ShearX": (x + magnitude * (y + height / 2), y),
        "ShearY": (x, y + magnitude * (x + width / 2)),
        "Rotate": (
            x * math.cos(angle) - y * math.sin(angle),
            x * math.sin(angle) + y * math.cos(angle),
        ),
    }.get(name, (x - 0.5, y - 0.5))
    columns, rows = columns + (width - 1) / 2, rows + (height - 1) / 2
    return torch.from_numpy(
        (np.abs(columns % 1 - 0.5) < 1e-3) | (np.abs(rows % 1 - 0.5) < 1e-3)
    )  # fmt: skip


MOVES = ("ShearX", "ShearY", "Rotate")
# Grey levels that are cut off to whole ones, after float32 arithmetic in an order of its own: where
# the exact value is whole, one of both may come out one lower.
CUT_OFF = ("Brightness", "Color", "Contrast", "Sharpness", "AutoContrast")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions(name, channels):
    images = pictures(channels)
    for magnitude in MAGNITUDES[name]:
        ops = torch.full((len(images),), NUMBER[name], dtype=torch.int32)
        ours = operations.apply(images, ops, torch.full((len(images),), magnitude))
        theirs = torch.stack([torchvisions(name, image, magnitude) for image in images])
        difference = (ours.int() - theirs.int()).abs()
        if name in MOVES:
            ties = near_a_tie(name, magnitude, *images.shape[2:])
            assert not difference[..., ~ties].any(), magnitude
            assert ties.float().mean() < 0.2 or magnitude == 0 or not difference.any(), magnitude
        elif name in CUT_OFF:
            assert difference.max() <= 1, magnitude
            assert (difference > 0).float().mean() < 0.01, magnitude
        else:
            assert not difference.any(), magnitude
        assert ours.dtype == torch.uint8
        if name not in ("Identity",) and magnitude == MAGNITUDES[name][0] and channels == 3:
            assert (ours != images).any(), "the operation does something"


def mixed_draws(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(1)
    names = draw.choice(OPERATIONS, n)
    magnitudes = [float(draw.choice(MAGNITUDES[name])) for name in names]
    return torch.tensor([NUMBER[name] for name in names]), torch.tensor(magnitudes)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_a_batch_do_not_see_each_other(channels):
    """Bitwise: in a batch with any others, each comes out as alone."""
    images = pictures(channels).repeat(5, 1, 1, 1)
    ops, magnitudes = mixed_draws(len(images))
    together = operations.apply(images, ops, magnitudes)
    for i in range(len(images)):
        alone = operations.apply(images[i : i + 1], ops[i : i + 1], magnitudes[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)


def test_the_way_of_a_gpu_gives_the_same(monkeypatch):
    """There all parts are computed for all images, and dropped where they do not belong: so no
    shape depends on the draws, as a CUDA graph needs.
    """
    images = pictures(3).repeat(5, 1, 1, 1)
    ops, magnitudes = mixed_draws(len(images))
    on_cpu = operations.apply(images, ops, magnitudes)

    def all_of_them(concerned, change, images, ops, magnitudes):
        mask = operations._per_image(concerned)
        return torch.where(mask, change(images, ops, magnitudes), images)

    monkeypatch.setattr(operations, "_where", all_of_them)
    assert torch.equal(operations.apply(images, ops, magnitudes), on_cpu)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_images_come_through(side):
    images = torch.randint(0, 256, (len(OPERATIONS), 3, side, side), dtype=torch.uint8)
    ops = torch.arange(len(OPERATIONS))
    magnitudes = torch.tensor([MAGNITUDES[name][0] for name in OPERATIONS])
    ours = operations.apply(images, ops, magnitudes)
    for name in ("Invert", "Sharpness", "Equalize", "AutoContrast"):
        i = NUMBER[name]
        theirs = torchvisions(name, images[i], MAGNITUDES[name][0])
        assert (ours[i].int() - theirs.int()).abs().max() <= 1
