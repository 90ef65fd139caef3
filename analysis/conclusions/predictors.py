"""Whether a measure of a pool's quality predicts what the pool brings.

The paper's Tables 2, 3 and 7 set FID and Inception Score beside accuracies: here each measure of
each pool stands beside the gain of its synthetic images, and their ranks are correlated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, spearmanr

from equigrid.analysis.conclusions.equivalence import Analysis
from equigrid.analysis.data.estimates import Estimate

LEAST_POOLS = 4
"""With three, a rank correlation has no interval."""


class Measure(NamedTuple):
    """A measure of a pool, in words. better: +1 where higher is better, -1 where lower, 0 where
    neither."""

    words: str
    better: int


MEASURES: Mapping[str, Measure] = {
    "fid": Measure("FID (Inception)", -1),
    "inception_score": Measure("Inception Score", 1),
    "diversity": Measure("diversity (ViT)", 1),
    "feature_distance": Measure("Fréchet distance, grid's classifier", -1),
    "feature_diversity": Measure("diversity, grid's classifier", 1),
    "fd": Measure("FD", -1),
    "fd_infinity": Measure("FD∞", -1),
    "kid": Measure("KID", -1),
    "precision": Measure("precision", 1),
    "recall": Measure("recall", 1),
    "density": Measure("density", 1),
    "coverage": Measure("coverage", 1),
    "nearer_than_held_out": Measure("nearer than held-out images", 0),
    "near_copies": Measure("near copies", 0),
}
COMPARED = tuple(MEASURES)[5:]
"""Those of `quality.metrics`, in the features of one network."""


@dataclass(frozen=True)
class Point:
    """The pools of one generator at one base size: measures (several pools are averaged), and the
    gain of their synthetic images over the base at `scale`, in points."""

    family: tuple[str, str, str]
    generator: str
    n_base: float
    scale: float
    gain: Estimate
    measures: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictor:
    """How the ranks of a measure and of the gain agree over `pools` points of a family. base: that
    base size alone, None for all. correlation: Spearman's, with the sign turned where lower is
    better, so that 1 says the better pool brings more; None where there are too few pools."""

    family: tuple[str, str, str]
    measure: str
    base: float | None
    pools: int
    correlation: Estimate | None

    def reading(self) -> str:
        """In words."""
        if self.correlation is None:
            if self.pools < LEAST_POOLS:
                return f"{self.pools} pools: too few to say, {LEAST_POOLS} at least"
            return "all pools are equal in it"
        if not self.correlation.excludes(0):
            return "undecided: the interval holds 0"
        positive = (self.correlation.value or 0) > 0
        if not MEASURES[self.measure].better:
            return "the higher, the larger the gain" if positive else "the higher, the smaller"
        return "better pools bring more" if positive else "better pools bring less"


def scale_near_one(analysis: Analysis) -> float | None:
    """The amount nearest to 1:1 with synthetic images; None without any."""
    scales = {gain.scale for curve in analysis.curves for gain in curve.gains if gain.arm == "syn"}
    return min(sorted(scales), key=lambda scale: abs(scale - 1)) if scales else None


def pool_points(analysis: Analysis, quality: list[dict]) -> list[Point]:
    """quality: mappings with dataset, generator, n_base (nominal; None for what holds at all base
    sizes), and of MEASURES what was measured, with <name>_low and <name>_high where known."""
    scale = scale_near_one(analysis)
    if scale is None:
        return []
    points = []
    for curve in analysis.curves:
        key = curve.key
        own = [r for r in quality if (r["dataset"], r["generator"]) == (key.dataset, key.generator)]
        for gain in curve.gains:
            if (gain.arm, gain.over) != ("syn", "base") or not np.isclose(gain.scale, scale, 0.005):
                continue
            rows = [r for r in own if _holds_at(r.get("n_base"), gain.n_base)]
            if rows and gain.gain.value is not None:
                family = (key.dataset, key.classifier, key.recipe)
                means = {name: mean for name in MEASURES if (mean := _mean(rows, name))}
                points.append(Point(family, key.generator, gain.n_base, scale, gain.gain, means))
    return points


def _holds_at(base: float | None, n_base: float) -> bool:
    return base is None or bool(np.isnan(base)) or bool(np.isclose(base, n_base))


def _mean(rows: list[dict], name: str) -> Estimate | None:
    """Of a measure over pools; their intervals are of different images, and shrink together."""
    found = [row for row in rows if row.get(name) is not None]
    if not found:
        return None
    value = float(np.mean([row[name] for row in found]))
    ends = [(row.get(f"{name}_low"), row.get(f"{name}_high")) for row in found]
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    if len(known) < len(found):
        return Estimate(value, None, None, 0.95)
    if len(known) == 1:
        return Estimate(value, *known[0], 0.95)
    half = float(np.linalg.norm([(high - low) / 2 for low, high in known])) / len(known)
    # No end lies beyond all pools' own: those stay inside what is possible.
    low, high = (pick(ends) for pick, ends in zip((min, max), zip(*known)))
    return Estimate(value, max(value - half, low), min(value + half, high), 0.95)


def predictors(points: list[Point]) -> list[Predictor]:
    """Of every measure and family: over all base sizes, and within each that has enough pools where
    there are several. Pools of several base sizes differ in more than their quality."""
    found = []
    for family in sorted({point.family for point in points}):
        own = [point for point in points if point.family == family]
        bases = sorted({point.n_base for point in own})
        for name in MEASURES:
            having = [point for point in own if name in point.measures]
            if not having:
                continue
            found.append(_predictor(family, name, None, having))
            for base in bases if len(bases) > 1 else ():
                within = [point for point in having if point.n_base == base]
                if len(within) >= LEAST_POOLS:
                    found.append(_predictor(family, name, base, within))
    return found


def _predictor(
    family: tuple[str, str, str], name: str, base: float | None, points: list[Point]
) -> Predictor:
    values = np.array([point.measures[name].value for point in points], float)
    gains = np.array([point.gain.value for point in points], float)
    sign = MEASURES[name].better or 1
    return Predictor(family, name, base, len(points), rank_correlation(sign * values, gains))


def rank_correlation(one: np.ndarray, other: np.ndarray, level: float = 0.95) -> Estimate | None:
    """Spearman's of (n,) and (n,), with the interval of Bonett & Wright 2000 ("Sample size
    requirements for estimating Pearson, Kendall and Spearman correlations"): by Fisher's z, with
    variance (1 + r²/2) / (n - 3). For it, r is at most 1 - 1/n². None for n < 4, or equal values.
    """
    n = len(one)
    if n < LEAST_POOLS or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    value = float(spearmanr(one, other).statistic)
    inner = float(np.clip(value, -1 + 1 / n**2, 1 - 1 / n**2))
    half = norm.ppf((1 + level) / 2) * np.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(inner) + np.array([-half, half]))
    return Estimate(value, float(min(low, value)), float(max(high, value)), level)
