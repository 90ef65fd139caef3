"""The one pair of conversions between stored pixels and what networks see."""

import torch


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Stored pixels to a network's input: (N, H, W, C) uint8 -> (N, C, H, W) float32 in [-1, 1]."""
    if images.dtype != torch.uint8:
        raise ValueError(f"stored images are uint8, got {images.dtype}")
    return images.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """A network's output to stored pixels: (N, C, H, W) float -> (N, H, W, C) uint8, to the nearest
    level.

    Values outside [-1, 1] are clipped.  Not-a-number raises ValueError: it has no nearest level.
    """
    if torch.isnan(images).any():
        raise ValueError("images hold values that are not a number")
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
