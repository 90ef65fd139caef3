"""Batched augmentation on the device: each is a few gathers over the whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from equigrid.classifiers.data.rng import FLIP, HEIGHT, INDEX, LEFT, TOP, WIDTH
from equigrid.classifiers.recipes import Augmentation


def pad(images: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Images (N, H, W, C) uint8 as `batch` wants them: with the black border (torchvision's fill)
    around them.
    """
    padding = augmentation.crop_padding_px
    return F.pad(images, (0, 0, padding, padding, padding, padding)) if padding else images


def batch(padded: torch.Tensor, draws: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """The augmented batch (B, C, h, w), channels last in memory, of pixels in [0, 255].

    padded: (N, H, W, C) uint8 from `pad`. draws: (B, 6) integers on the same device, as in
    `draws.epoch`. uint8 where pixels are only moved, float32 where they are interpolated.
    """
    if augmentation.resized_crop:
        return _resized_crop(
            padded[draws[:, INDEX].long()], draws, augmentation.resized_crop.size_px
        )
    if augmentation.crop_padding_px or augmentation.flip:
        return _crop_and_flip(padded, draws, augmentation.crop_padding_px)
    return padded[draws[:, INDEX].long()].permute(0, 3, 1, 2)


def _crop_and_flip(padded: torch.Tensor, draws: torch.Tensor, padding: int) -> torch.Tensor:
    """Crop, then flip, as one gather of whole pixels."""
    _, full_height, full_width, channels = padded.shape
    height, width = full_height - 2 * padding, full_width - 2 * padding
    # (B, H)
    rows = torch.arange(padding, padding + height, device=padded.device) + draws[:, TOP, None]
    columns = torch.arange(width, device=padded.device)
    columns = torch.where(draws[:, FLIP, None] == 1, width - 1 - columns, columns)  # (B, W)
    rows = (draws[:, INDEX, None].long() * full_height + rows) * full_width
    columns = columns + (draws[:, LEFT, None] + padding)
    places = rows[:, :, None] + columns[:, None, :]  # (B, H, W) in the list of all pixels
    pixels = padded.view(-1, channels).index_select(0, places.view(-1))
    return pixels.view(-1, height, width, channels).permute(0, 3, 1, 2)


def _resized_crop(images: torch.Tensor, draws: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear sampling of each image's box on a size × size grid of pixel centres.

    Without a low-pass filter: the usual shrinking is at most 256 to 224 pixels.
    """
    _, height, width, _ = images.shape
    y = _sample_points(draws[:, TOP], draws[:, HEIGHT], size, flip=None)
    x = _sample_points(draws[:, LEFT], draws[:, WIDTH], size, flip=draws[:, FLIP])
    # grid_sample's unit: -1 and 1 are the outer edges of the image (align_corners=False).
    y, x = (2 * y + 1) / height - 1, (2 * x + 1) / width - 1
    # (B, S, S, 2) of (x, y)
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    pixels = images.permute(0, 3, 1, 2).float()
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _sample_points(
    start: torch.Tensor, length: torch.Tensor, size: int, flip: torch.Tensor | None
) -> torch.Tensor:
    """(B, S) pixel coordinates of the output's centres, kept inside the box as a cut-out image's
    would be.
    """
    place = (torch.arange(size, device=start.device) + 0.5) / size  # (S,)
    place = place.expand(len(start), -1)
    if flip is not None:
        place = torch.where(flip[:, None] == 1, 1 - place, place)
    inside = (place * length[:, None] - 0.5).clamp_min(0)
    return start[:, None] + torch.minimum(inside, length[:, None] - 1.0)
