"""The tuples of Eq. 12 with intervals, and marks on whatever lies outside the measured range."""

from dataclasses import dataclass

import numpy as np

from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.estimates import Estimate, finite
from equigrid.analysis.fitting.procedure import Procedure, Solved
from equigrid.analysis.fitting.solve import ABOVE_LIMIT, OK, WHY

_SLACK = 1e-9  # relative, so that rounding does not make a measured amount an extrapolated one


@dataclass(frozen=True)
class EquivalenceTuple:
    """One (n_base, n_real+, n_syn+). Ratios are multiples of the nominal base size."""

    n_base: float
    real_ratio: float
    syn_ratio: Estimate
    used: bool
    why_not: str | None
    roots: tuple[float, ...]  # all n_syn / n_base at which the surface passes the accuracy
    extrapolated: tuple[str, ...]  # amounts outside the measured range

    def to_json(self) -> dict:
        """Plain values."""
        return {
            **self.__dict__, "syn_ratio": self.syn_ratio.to_json(), "roots": list(self.roots),
            "extrapolated": list(self.extrapolated),
        }  # fmt: skip


def list_tuples(
    procedure: Procedure, point: Solved, drawn: Solved, n_total: int
) -> list[EquivalenceTuple]:
    """All tuples of a curve, used or not; `point` has one replicate."""
    settings = procedure.settings
    tuples = []
    for t, i in enumerate(point.base_index):
        base, state, ratio = procedure.data[i], int(point.state[0, t]), point.ratio[0, t]
        estimate = ratio_estimate(ratio, drawn.ratio[:, t], settings.level)
        why = WHY.get(state)
        if state == ABOVE_LIMIT:
            why = f"n_syn / n_base is {ratio:,.0f}, above the limit of {settings.ratio_limit:g}"
        real_ratio = float(point.real_ratio[t])
        tuples.append(
            EquivalenceTuple(
                n_base=base.n_nominal,
                real_ratio=real_ratio,
                syn_ratio=estimate,
                used=state == OK,
                why_not=why,
                roots=tuple(sorted(float(r) for r in point.roots[0, t] if np.isfinite(r))),
                extrapolated=tuple(
                    outside_measured(base, real_ratio * base.n_nominal, estimate.value, n_total)
                ),
            )
        )
    return tuples


def ratio_estimate(value: float, draws: np.ndarray, level: float) -> Estimate:
    """Interval of n_syn / n_base. Infinite draws (never reached) open the upper end, NaN (no
    surface) both.
    """
    if len(draws) == 0:
        return Estimate(finite(value), None, None, level)
    tail = (1 - level) / 2
    low = np.quantile(np.where(np.isnan(draws), -np.inf, draws), tail, method="inverted_cdf")
    high = np.quantile(np.where(np.isnan(draws), np.inf, draws), 1 - tail, method="inverted_cdf")
    return Estimate(finite(value), finite(low), finite(high), level)


def outside_measured(
    base: BaseData, n_real: float, syn_ratio: float | None, n_total: int
) -> list[str]:
    """Words for each amount beyond what was measured at this base size, or beyond the dataset.
    n_real: images.
    """
    words = []
    measured_real = max(base.n_real - base.n_base)
    if n_real > measured_real * (1 + _SLACK):
        words.append(f"{n_real:,.0f} added real images, measured up to {measured_real:,.0f}")
    if base.n_nominal + n_real > n_total * (1 + _SLACK):
        words.append(f"{base.n_nominal + n_real:,.0f} real images, the dataset has {n_total:,}")
    measured_syn = base.n_syn[base.n_syn > 0]
    if syn_ratio is not None and len(measured_syn):
        n_syn = syn_ratio * base.n_nominal
        if n_syn > measured_syn.max() * (1 + _SLACK):
            words.append(f"{n_syn:,.0f} synthetic images, measured up to {measured_syn.max():,.0f}")
        if 0 < n_syn < measured_syn.min() * (1 - _SLACK):
            words.append(f"{n_syn:,.0f} synthetic images, measured from {measured_syn.min():,.0f}")
    return words
