"""Which cells, repeated once more, would narrow an interval most.

By the delta method: the derivative of log c1 and log c2 by each cell mean, through the whole
procedure, times that mean's standard error. Where clusters exist, a new subset seed (with its
generator) narrows more than one cell can.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.fitting.noise import CLUSTERED, BaseNoise
from equigrid.analysis.fitting.procedure import Procedure

# of the standard error, for the numerical derivative; small against curvature, large against
# rounding
_STEP = 0.01


_Source = tuple[float, str, float, float]
"""Nominal base size, what is repeated, its variance, how often it was repeated."""


@dataclass(frozen=True)
class Narrowing:
    """`share`: of the variance of log c1 plus log c2's, how much comes from this source. `saves`:
    how much one more repetition of it would remove.
    """

    n_base: float
    source: str
    share: float
    saves: float

    def to_json(self) -> dict:
        """Plain values."""
        return dict(self.__dict__)


def narrowing(procedure: Procedure, noises: list[BaseNoise]) -> list[Narrowing]:
    """Sources of variance, the one whose repetition saves most first; empty where nothing is
    fitted.
    """
    if not procedure.data or any(not np.isfinite(noise.sd) for noise in noises):
        return []
    slopes = derivatives(procedure, noises)
    if slopes is None:
        return []
    found: list[_Source] = []
    for base, noise, derivative in zip(procedure.data, noises, slopes):
        found += _cells(base, noise, derivative)
        found += _clusters(base, noise, derivative)
    total = sum(variance for _, _, variance, _ in found)
    if total <= 0:
        return []
    rows = [
        Narrowing(n, source, v / total, v / total / (count + 1)) for n, source, v, count in found
    ]
    return sorted(rows, key=lambda row: -row.saves)


def derivatives(procedure: Procedure, noises: list[BaseNoise]) -> list[np.ndarray] | None:
    """Per base size (K, 2): derivatives of (log c1, log c2) by the cell means, per point; None
    without a fit.
    """
    sizes = [len(base.mean) for base in procedure.data]
    steps = np.concatenate([noise.sd / np.sqrt(noise.count) for noise in noises]) * _STEP
    total = sum(sizes)
    moves = np.concatenate([np.diag(steps), -np.diag(steps)])  # (2 total, total)
    edges = np.cumsum([0, *sizes])
    means = [base.mean + moves[:, a:b] for base, a, b in zip(procedure.data, edges, edges[1:])]
    _, _, fits = procedure.fit(means)
    if not fits.verified.all():
        return None
    logs = np.log(np.stack([fits.c1, fits.c2], axis=1))
    slope = (logs[:total] - logs[total:]) / (2 * steps[:, None])
    return [slope[a:b] for a, b in zip(edges, edges[1:])]


def _cells(base: BaseData, noise: BaseNoise, derivative: np.ndarray) -> Iterator[_Source]:
    outside = derivative - noise.directions @ (noise.directions.T @ derivative)
    variance = (outside**2).sum(axis=1) * noise.sd**2 / noise.count
    for k, v in enumerate(variance):
        amounts = [
            f"{amount:,.0f} {word}"
            for amount, word in (
                (base.n_real[k] - base.n_base, "real"),
                (base.n_syn[k], "synthetic"),
            )
            if amount > 0
        ]
        yield (
            base.n_nominal,
            "trials of base" + "".join(f" + {a}" for a in amounts),
            float(v),
            float(noise.count[k]),
        )


def _clusters(base: BaseData, noise: BaseNoise, derivative: np.ndarray) -> Iterator[_Source]:
    if noise.model == CLUSTERED:
        along = (noise.directions.T @ derivative) ** 2
        variance = float((along.sum(axis=1) * noise.ratio).sum() * noise.sd**2 / noise.count.mean())
        yield (
            base.n_nominal,
            "a subset seed with its generator, in all cells",
            variance,
            float(noise.count.mean()),
        )
