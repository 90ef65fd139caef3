"""Cell means redrawn by the mixed model of a family's trainings: what gains are made of.

The draws are those of the effective-sample-size fit where there is one, so that with too few
repetitions the noise is also judged by the scatter about its curves.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.trials import COPIES, Floats, Layout, arrange
from equigrid.analysis.fitting import variance
from equigrid.analysis.fitting.effective_samples import Fit


@dataclass(frozen=True, eq=False)
class CellNoise:
    """`mean` (M,) percent, by generalised least squares; `drawn` (D, M) redrawn means."""

    layout: Layout
    mean: Floats
    drawn: Floats


def cell_noise(
    rows: pd.DataFrame, fit: Fit | None, *, draws: int, seed: int, n_test: int | None
) -> CellNoise | None:
    """Of the checked rows of one dataset, classifier and recipe; None where no cell has a real
    image.
    """
    if fit is not None:
        return CellNoise(fit.layout, fit.noise.mean[0], fit.raw[0, :draws])
    seen = arrange(rows)
    if not len(seen.layout.n_base):
        return None
    noise = variance.estimate(seen.layout, seen.values, n_test=n_test)
    errors = noise.draw(draws, np.random.default_rng(seed))[0] if draws else np.zeros((0, 1))
    return CellNoise(seen.layout, noise.mean[0], noise.mean[0] - errors)


def with_noise(
    data: list[BaseData], draws: list[np.ndarray], noise: CellNoise | None, generator: str
) -> tuple[list[BaseData], list[np.ndarray]]:
    """The base sizes of a generator's curve with the mixed model's means and draws (D, K) in the
    place of their own. Base sizes of which a cell is not in the model keep their own.
    """
    if noise is None:
        return data, draws
    means, redrawn = [], []
    for base, drawn in zip(data, draws):
        at = _places(base, noise.layout, generator)
        if (at >= 0).all():
            base, drawn = replace(base, mean=noise.mean[at]), noise.drawn[:, at]
        means.append(base)
        redrawn.append(drawn)
    return means, redrawn


def _places(base: BaseData, layout: Layout, generator: str) -> np.ndarray:
    """(K,) which cell of the layout each of the base size's is, -1 where none."""
    sizes = np.flatnonzero(np.isclose(layout.n_base, base.n_nominal))
    if not len(sizes):
        return np.full(len(base.mean), -1)
    cells = layout.cells_of(int(sizes[0]))
    by_source = {name: layout.amount[cells, j] for j, name in enumerate(layout.sources)}
    none = np.zeros(len(cells))
    theirs = sum((x for s, x in by_source.items() if s not in (generator, COPIES)), none)
    syn, copies = by_source.get(generator, none), by_source.get(COPIES, none)
    have = np.stack([layout.real[cells], syn, copies, theirs], axis=1) * base.n_nominal
    real = base.n_real - base.n_base
    wanted = np.stack([real, base.n_syn, base.n_copies, np.zeros(len(real))], axis=1)
    off = np.abs(wanted[:, None] - have).max(axis=2)  # (K, cells)
    return np.where(off.min(axis=1) < 0.5, cells[off.argmin(axis=1)], -1)
