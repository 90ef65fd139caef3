"""How uncertain the cell means are, and random draws of them: the input of every interval.

Each draw replaces all cell means of a curve at once; everything after it (choice of the surface,
solving, discarding, fitting) is then repeated, so intervals contain the whole procedure.

The data are clustered: a subset seed decides the base subset, and with it the generator and its
pool, so all cells of one cluster move together. A percentile bootstrap over three clusters covers
far too little; so the draws are parametric, with variances estimated over all cells and base sizes,
and each draw also draws the variances (scaled inverse chi-square), which gives Student's t for
linear quantities.

Within one base size the deviations of a cluster's cells are decomposed along orthonormal directions
that a subset or a generator moves coherently: all cells; synthetic against the others; a trend
along the real amounts; a trend along the synthetic amounts. Each direction has its own variance,
the rest is one residual variance. A direction's variance is taken as observed, not less the
residual's share, so nothing is truncated at zero.
"""

from dataclasses import dataclass

import numpy as np

from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.estimates import finite
from equigrid.analysis.settings import Settings

CLUSTERED, TRIALS, RESIDUAL, NONE = "clusters", "trials", "residual", "none"
EXPLAIN = {
    CLUSTERED: "spread over subset seeds, each with its own generator, and over trials",
    TRIALS: "spread over trial seeds alone: given this generator and subset",
    RESIDUAL: "no repetitions: the scatter of the cell means about the fitted surface stands in "
    "for the noise",
    NONE: "neither repetitions nor more cells than the surface has parameters: "
    "no noise can be estimated",
}


@dataclass(frozen=True)
class BaseNoise:
    """Noise of one base size. `sd` (points): residual standard deviation of one repetition; a
    cell's mean has sd / sqrt(count). `df`: its degrees of freedom. `directions` (K, q) orthonormal;
    `ratio` (q,): variance along them relative to sd**2; `ratio_df` (q,).
    """

    model: str
    sd: float
    df: float
    count: np.ndarray
    directions: np.ndarray
    ratio: np.ndarray
    ratio_df: np.ndarray

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "model": self.model,
            "explanation": EXPLAIN[self.model],
            "sd_points": finite(self.sd),
            "df": self.df,
        }


def estimate_noise(
    bases: list[BaseData], residual_sd: list[tuple[float, int]], settings: Settings
) -> list[BaseNoise]:
    """One BaseNoise per base size.

    residual_sd: per base size (standard deviation about the surface in points, degrees of freedom),
    the stand-in where nothing was repeated (or `settings.noise` is 'residual').
    """
    spreads = [_Spread(base) if settings.noise == "auto" else None for base in bases]
    pooled = _pool([s for s in spreads if s and s.df > 0]) if settings.pool_generators else {}
    fallback = _pooled_residual(residual_sd)
    noises = []
    for base, spread, (sd, df) in zip(bases, spreads, residual_sd):
        if spread is not None and spread.df > 0:
            noises.append(spread.noise(pooled))
        elif settings.noise == "auto" and base.within_df > 0:
            sd_trial = np.sqrt(base.within_ss / base.within_df)
            noises.append(_independent(TRIALS, sd_trial, base.within_df, base.trials))
        elif df > 0:
            noises.append(_independent(RESIDUAL, sd, df, np.ones(len(base.mean))))
        elif fallback is not None:
            noises.append(_independent(RESIDUAL, *fallback, np.ones(len(base.mean))))
        else:
            noises.append(_independent(NONE, np.nan, 0, np.ones(len(base.mean))))
    return noises


def _independent(model: str, sd: float, df: float, count: np.ndarray) -> BaseNoise:
    empty = np.zeros(0)
    # Equal values in every repetition (or a perfect fit) would give intervals of width zero;
    # accuracies are counts over a test set, so a spread below a thousandth of a point is not
    # credible.
    return BaseNoise(model, max(sd, 1e-3), df, count, np.zeros((len(count), 0)), empty, empty)


def _pooled_residual(residual_sd: list[tuple[float, int]]) -> tuple[float, int] | None:
    known = [(sd, df) for sd, df in residual_sd if df > 0]
    if not known:
        return None
    df = sum(df for _, df in known)
    return float(np.sqrt(sum(sd**2 * df for sd, df in known) / df)), df


class _Spread:
    """Decomposition of the deviations of the clusters of one base size."""

    def __init__(self, base: BaseData):
        self.base = base
        complete = np.isfinite(base.table)
        self.count = np.maximum(complete.sum(axis=1), 1)
        names, columns = _directions(base)
        # Clusters with too few cells tell nothing about directions.
        keep = complete.sum(axis=0) > columns.shape[1]
        n_clusters = int(keep.sum())
        self.names, self.directions = names, columns
        self.df = 0.0
        self.variance = np.zeros(len(names))
        self.variance_df = max(n_clusters - 1, 0)
        self.sd = 0.0
        if n_clusters < 2:
            return
        table, complete = base.table[:, keep], complete[:, keep]
        deviation = np.where(complete, table - base.mean[:, None], 0.0)
        # (q, C)
        effects = np.stack(
            [
                np.linalg.lstsq(columns[c], d[c], rcond=None)[0]
                for d, c in zip(deviation.T, complete.T)
            ],
            axis=1,
        )
        rest = np.where(complete, deviation - columns @ effects, 0.0)
        cells = (complete.sum(axis=1) > 1).sum()
        self.df = (
            float((complete.sum() - len(complete)) - len(names) * (n_clusters - 1))
            if cells
            else 0.0
        )
        if self.df > 0:
            self.sd = max(float(np.sqrt((rest**2).sum() / self.df)), 1e-3)
            centred = effects - effects.mean(axis=1, keepdims=True)
            self.variance = (centred**2).sum(axis=1) / self.variance_df

    def noise(self, pooled: dict[str, tuple[float, float]]) -> BaseNoise:
        """With the variance ratios pooled over base sizes, or this base size's own."""
        own = self.variance / self.sd**2
        values = [
            pooled.get(name, (ratio, self.variance_df)) for name, ratio in zip(self.names, own)
        ]
        ratio, df = (np.array([v[i] for v in values], dtype=float) for i in (0, 1))
        return BaseNoise(CLUSTERED, self.sd, self.df, self.count, self.directions, ratio, df)


def _directions(base: BaseData) -> tuple[list[str], np.ndarray]:
    """Names and orthonormal columns (K, q). Trends need at least three cells, to differ from noise
    in one cell.
    """
    syn = base.arm == "syn"
    columns: dict[str, np.ndarray] = {"level": np.ones(len(syn))}
    if syn.any() and not syn.all():
        columns["generator"] = np.where(syn, 1.0 / syn.sum(), -1.0 / (~syn).sum())
    real = np.isin(base.arm, ("base", "real"))
    for name, cells, amount in (
        ("real trend", real, base.n_real),
        ("synthetic trend", syn, base.n_syn),
    ):
        if cells.sum() >= 3:
            trend = np.zeros(len(syn))
            trend[cells] = np.log(amount[cells]) - np.log(amount[cells]).mean()
            columns[name] = trend
    names = list(columns)
    matrix = np.stack([columns[name] / np.linalg.norm(columns[name]) for name in names], axis=1)
    return names, matrix


def _pool(spreads: list[_Spread]) -> dict[str, tuple[float, float]]:
    """Per direction the variance ratio averaged over base sizes, weighted by degrees of freedom,
    and their sum.
    """
    pooled = {}
    for name in {name for spread in spreads for name in spread.names}:
        found = [
            (s.variance[s.names.index(name)] / s.sd**2, s.variance_df)
            for s in spreads
            if name in s.names
        ]
        df = sum(d for _, d in found)
        pooled[name] = (sum(r * d for r, d in found) / df, float(df))
    return pooled


def draw_means(
    bases: list[BaseData], noises: list[BaseNoise], replicates: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Per base size (replicates, K) percent: the cell means, redrawn. Cells that are one set of
    trainings in two base sizes share their residual draw.
    """
    shared: dict[int, np.ndarray] = {}
    ratio_scale: dict[tuple, np.ndarray] = {}
    drawn = []
    for base, noise in zip(bases, noises):
        sd = noise.sd * _variance_draw(noise.df, replicates, rng) ** 0.5
        z = np.stack(
            [_shared_normal(shared, key, replicates, rng) for key in base.trial_keys], axis=1
        )
        error = sd[:, None] * z
        if noise.directions.shape[1]:
            error -= (error @ noise.directions) @ noise.directions.T
            scales = [
                ratio_scale.setdefault((j, r, df), _variance_draw(df, replicates, rng))
                for j, (r, df) in enumerate(zip(noise.ratio, noise.ratio_df))
            ]
            size = noise.sd * np.sqrt(noise.ratio * np.stack(scales, axis=1))
            error += (size * rng.standard_normal(size.shape)) @ noise.directions.T
        drawn.append(base.mean + error / np.sqrt(noise.count))
    return drawn


def _shared_normal(
    shared: dict[int, np.ndarray], key: int, replicates: int, rng: np.random.Generator
) -> np.ndarray:
    if key not in shared:
        shared[key] = rng.standard_normal(replicates)
    return shared[key]


def _variance_draw(df: float, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """df / chi-square(df): what a variance estimated with df degrees of freedom may truly be,
    relative to it.
    """
    return df / rng.chisquare(df, replicates) if df > 0 else np.full(replicates, np.nan)
