"""Distances between all of two sets of features, block by block: memory is that of one block."""

from collections.abc import Iterator

import numpy as np
import torch

from equigrid.generators.quality.banks import Seen, unseen

ROWS, COLUMNS = 1024, 8192
"""Of a block: 64 MiB of float64."""
Block = tuple[slice, slice, torch.Tensor]
"""Rows, columns, and their squared distances (rows, columns) float64, from 0 up."""


def blocks(
    one: np.ndarray, other: np.ndarray, device: str | torch.device = "cpu", seen: Seen = unseen
) -> Iterator[Block]:
    """All pairs of one (n, d) and other (m, d), a row of blocks after the other. seen: told of each
    row of blocks, how many of one it has.

    In float64: |a|² + |b|² - 2 a·b loses in float32 what tells near images from equal ones.
    """
    for rows in slices(len(one), ROWS):
        a = on(one[rows], device)
        own = (a * a).sum(dim=1)[:, None]  # (rows, 1)
        for columns in slices(len(other), COLUMNS):
            b = on(other[columns], device)
            squares = torch.addmm((b * b).sum(dim=1)[None] + own, a, b.T, alpha=-2)
            yield rows, columns, squares.clamp_(min=0)
        seen(len(a))


def nearest_squares(
    one: np.ndarray,
    other: np.ndarray | None,
    k: int,
    device: str | torch.device = "cpu",
    seen: Seen = unseen,
) -> torch.Tensor:
    """Of each of one (n, d) the squared distances to its k nearest of other (m, d), (n, k)
    ascending, on the device. other None: to its nearest of one, but for itself. seen: as in
    `blocks`. ValueError for too few images.
    """
    itself = other is None
    other = one if other is None else other
    if k > len(other) - itself:
        what = f"{k} nearest neighbours need {k + itself} images or more"
        raise ValueError(f"{what}, there are {len(other)}")
    best = torch.full((len(one), k), torch.inf, dtype=torch.float64, device=device)
    for rows, columns, squares in blocks(one, other, device, seen):
        if itself:
            _leave_out_itself(squares, rows, columns)
        candidates = torch.cat([best[rows], squares], dim=1)
        best[rows] = candidates.topk(k, dim=1, largest=False).values
    return best


def _leave_out_itself(squares: torch.Tensor, rows: slice, columns: slice) -> None:
    low, high = max(rows.start, columns.start), min(rows.stop, columns.stop)
    if low < high:
        same = torch.arange(low, high, device=squares.device)
        squares[same - rows.start, same - columns.start] = torch.inf


def slices(n: int, size: int) -> Iterator[slice]:
    """0 to n in steps of size."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def on(features: np.ndarray, device: str | torch.device) -> torch.Tensor:
    """As float64 on the device."""
    return torch.from_numpy(np.asarray(features, np.float64)).to(device)
