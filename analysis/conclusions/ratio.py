"""The improvement ratio (Eq. 7): the gain of closed-set over that of open-set synthetic images, at
equal amounts.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from equigrid.analysis.conclusions.equivalence import Analysis, BaseFit, CurveResult
from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.estimates import Estimate, finite


@dataclass(frozen=True)
class ImprovementRatio:
    """One base size. `ratio` with Fieller's interval: an end is None where the open-set gain may be
    zero.
    """

    dataset: str
    classifier: str
    closed: str
    open: str
    n_base: float
    scale: float
    ratio: Estimate
    gain_closed: float  # points
    gain_open: float

    def to_json(self) -> dict:
        """Plain values."""
        return {**self.__dict__, "ratio": self.ratio.to_json()}


def improvement_ratios(
    analysis: Analysis, *, closed: str | None = None, open: str | None = None, scale: float = 1.0
) -> list[ImprovementRatio]:
    """Every base size at which a closed-set and an open-set generator were measured at `scale`
    (n_syn / n_base).

    `closed`, `open`: generator names; None takes every generator of that setting. Empty where there
    are no pairs.
    """
    found = []
    for first in _having(analysis, closed, "closed"):
        for second in _having(analysis, open, "open"):
            if (first.key.dataset, first.key.classifier, first.key.recipe) == (
                second.key.dataset, second.key.classifier, second.key.recipe,
            ):  # fmt: skip
                found += _pair(first, second, scale)
    return found


def _having(analysis: Analysis, name: str | None, setting: str) -> list[CurveResult]:
    return [
        c
        for c in analysis.curves
        if (c.key.generator == name if name is not None else c.setting == setting)
    ]


def _pair(closed: CurveResult, opened: CurveResult, scale: float) -> list[ImprovementRatio]:
    others = {base.data.n_nominal: base for base in opened.bases}
    found = []
    for base in closed.bases:
        other = others.get(base.data.n_nominal)
        if other is None or base.data.base_accuracy is None:
            continue
        i, j = _cell(base.data, scale), _cell(other.data, scale)
        if i is None or j is None:
            continue
        gains, covariance, df = _gains(base, other, i, j)
        ratio = fieller(gains, covariance, df, closed.settings.level)
        found.append(
            ImprovementRatio(
                closed.key.dataset,
                closed.key.classifier,
                closed.key.generator,
                opened.key.generator,
                base.data.n_nominal,
                scale,
                ratio,
                float(gains[0]),
                float(gains[1]),
            )  # fmt: skip
        )
    return found


def _cell(data: BaseData, scale: float) -> int | None:
    found = np.nonzero(
        (data.arm == "syn") & np.isclose(data.n_syn, scale * data.n_nominal, rtol=0.005)
    )[0]
    return int(found[0]) if len(found) else None


def _gains(
    closed: BaseFit, opened: BaseFit, i: int, j: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Both gains (2,), the covariance of their means (2, 2), and its degrees of freedom.

    Over clusters (subset seeds) the gains are paired, so what the subset does to all cells cancels.
    Without clusters the base's mean is common to both gains.
    """
    a, b = closed.data, opened.data
    base_a, base_b = (int(np.nonzero(d.arm == "base")[0][0]) for d in (a, b))
    gains = np.array([a.mean[i] - a.mean[base_a], b.mean[j] - b.mean[base_b]])
    if a.clusters_are == b.clusters_are == "subset_seed":
        table = [
            (x.table[k] - x.table[z], x.clusters) for x, k, z in ((a, i, base_a), (b, j, base_b))
        ]
        common = sorted(set(table[0][1]) & set(table[1][1]))
        paired = np.array(
            [[values[clusters.index(c)] for c in common] for values, clusters in table]
        )
        paired = paired[:, np.isfinite(paired).all(axis=0)]
        if paired.shape[1] > 1:
            return gains, np.cov(paired) / paired.shape[1], paired.shape[1] - 1.0
    variances = [
        noise.sd**2 / noise.count[k]
        for noise, k in ((closed.noise, i), (opened.noise, j), (closed.noise, base_a))
    ]
    covariance = np.diag(variances[:2]) + variances[2]
    return gains, covariance, min(closed.noise.df, opened.noise.df)


def fieller(gains: np.ndarray, covariance: np.ndarray, df: float, level: float) -> Estimate:
    """Ratio gains[0] / gains[1] of two normal means with Fieller's (1954) interval.

    The set {r : |g0 - r g1| <= t se(g0 - r g1)}. Where it is not an interval (the denominator may
    be zero) both ends are None.
    """
    value = finite(gains[0] / gains[1]) if gains[1] != 0 else None
    if df < 1 or not np.isfinite(covariance).all():
        return Estimate(value, None, None, level)
    t2 = stats.t.ppf(0.5 + level / 2, df) ** 2
    a = gains[1] ** 2 - t2 * covariance[1, 1]
    b = gains[0] * gains[1] - t2 * covariance[0, 1]
    c = gains[0] ** 2 - t2 * covariance[0, 0]
    inside = b**2 - a * c
    if a <= 0 or inside < 0:
        return Estimate(value, None, None, level)
    return Estimate(value, float((b - inside**0.5) / a), float((b + inside**0.5) / a), level)
