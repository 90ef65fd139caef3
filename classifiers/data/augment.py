"""Batched augmentation on the device: each is a few gathers over the whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from equigrid.classifiers.data import operations
from equigrid.classifiers.data.rng import FLIP, HEIGHT, INDEX, LEFT, TOP, WIDTH, Columns
from equigrid.classifiers.recipes import Augmentation


def pad(images: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Images (N, H, W, C) uint8 as `batch` wants them: with the black border (torchvision's fill)
    around them.
    """
    padding = augmentation.crop_padding_px
    return F.pad(images, (0, 0, padding, padding, padding, padding)) if padding else images


def batch(padded: torch.Tensor, draws: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """The augmented batch (B, C, h, w), channels last in memory, of pixels in [0, 255].

    padded: (N, H, W, C) uint8 from `pad`. draws: (B, 6 or more) int32 on the same device, as in
    `rng.epoch`. uint8 where pixels are whole grey levels, float32 where they are interpolated or
    mixed. With mixup or cutmix the first row is the second's partner alone (`batches.own_rows`),
    and the batch is one image shorter.

    In the order that is usual: crop, flip, the policy's operations, erasing, mixing. A policy is of
    whole grey levels: what a crop interpolated is rounded for it.
    """
    images, columns = _cropped(padded, draws, augmentation), Columns.of(augmentation)
    if columns.operations and images.is_floating_point():
        images = images.round().to(torch.uint8)
    for number, magnitude in columns.operations:
        images = operations.apply(images, draws[:, number], as_floats(draws, magnitude))
    if augmentation.erasing and columns.erased:
        inside = _inside(images, draws[:, columns.erased])
        images = torch.where(inside, augmentation.erasing.value, images)
    return images if columns.part is None else _mixed(images, draws, columns)


def as_floats(draws: torch.Tensor, column: int) -> torch.Tensor:
    """(B,) float32: a column that holds the bits of such."""
    return draws[:, column].contiguous().view(torch.float32)


def _mixed(images: torch.Tensor, draws: torch.Tensor, columns: Columns) -> torch.Tensor:
    """(B - 1, C, h, w) float32: each image but the first with the one before it, a part of all of
    it, or a box.
    """
    assert columns.part is not None, "the batch is mixed"
    assert columns.box is not None, "beside it"
    part, box = as_floats(draws, columns.part)[1:], draws[1:, columns.box]
    inside = _inside(images, box)  # (B - 1, 1, h, w)
    cuts = (box[:, 2] > 0)[:, None, None, None]
    own = torch.where(cuts, (~inside).float(), part[:, None, None, None])
    return torch.lerp(images[:-1].float(), images[1:].float(), own)


def _inside(images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) whether a pixel lies in its image's box, (B, 4) of top, left, height, width."""
    height, width = images.shape[2:]
    top, left, tall, wide = (boxes[:, i, None] for i in range(4))
    y = torch.arange(height, device=images.device)
    x = torch.arange(width, device=images.device)
    rows, columns = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _cropped(padded: torch.Tensor, draws: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
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
