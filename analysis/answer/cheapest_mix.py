"""The cheapest mix of real and synthetic additions on a fitted surface."""

from dataclasses import dataclass

import numpy as np

from equigrid.analysis.conclusions.equivalence import BaseFit, CurveResult
from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.estimates import Estimate, percentile_estimate

_GRID = 1001  # synthetic amounts tried
_STEPS = 101  # real amounts tried for each, before halving
_HALVINGS = 40  # of a hundredth of the dataset: to less than one image


@dataclass(frozen=True)
class Mix:
    """`n_real`, `n_syn`: images to add; `accuracy`: there, percent; `cost`; `reaches`: whether the
    target is met within the budget (None without a target); `confidence`: share of the redrawn data
    in which it is.
    """

    n_real: int
    n_syn: int
    accuracy: Estimate
    cost: float
    target: float | None
    budget: float | None
    reaches: bool | None
    confidence: float | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict:
        """Plain values."""
        return {
            **self.__dict__,
            "accuracy": self.accuracy.to_json(),
            "warnings": list(self.warnings),
        }

    @property
    def lines(self) -> list[str]:
        """Plain words."""
        mix = f"{self.n_real:,} real and {self.n_syn:,} synthetic images for {self.cost:,.2f}"
        if self.target is None:
            text = f"best mix within {self.budget:,.2f}: {mix}, accuracy {self.accuracy.text(2)}"
        elif self.reaches:
            sure = (
                ""
                if self.confidence is None
                else f" (reached in {self.confidence:.0%} of the redrawn data)"
            )
            text = (
                f"cheapest mix for {self.target:g} %: {mix}, accuracy {self.accuracy.text(2)}{sure}"
            )
        elif self.budget is None:
            text = (
                f"no mix reaches {self.target:g} %; the highest on this surface is "
                f"{self.accuracy.text(2)} with {mix}"
            )
        else:
            text = (
                f"{self.target:g} % is out of reach within {self.budget:,.2f}; "
                f"the best mix is {mix}, accuracy {self.accuracy.text(2)}"
            )
        return [text, *(f"note: {warning}" for warning in self.warnings)]


def cheapest_mix(
    base: BaseFit,
    curve: CurveResult,
    *,
    cost_real: float,
    cost_syn: float,
    target: float | None,
    budget: float | None,
) -> Mix:
    """The cheapest mix that reaches `target` (percent) within `budget`; without a target, or where
    it cannot be reached, the mix of highest accuracy within the budget.

    Real images up to the dataset's size; synthetic ones none, or from the smallest measured amount
    (below it the surface is epsilon's) to the ratio limit.
    """
    data, surface, drawn = base.data, base.surface, base.drawn_surfaces
    assert surface is not None, "asked for where there is a surface"
    assert drawn is not None
    real_max = max(curve.n_total_dataset - data.n_nominal, 0.0)
    measured = data.n_syn[data.n_syn > 0]
    syn = np.append(
        0.0, np.geomspace(measured.min(), curve.settings.ratio_limit * data.n_nominal, _GRID)
    )
    found = None
    if target is not None:
        found = _cheapest(base, syn, real_max, cost_real, cost_syn, target)
        if (
            found is not None
            and budget is not None
            and found[0] * cost_real + found[1] * cost_syn > budget
        ):
            found = None
    n_real, n_syn = found or _most_accurate(base, syn, real_max, cost_real, cost_syn, budget)
    at = (data.n_base + n_real, n_syn)
    draws = drawn.accuracy(*at)
    accuracy = percentile_estimate(float(surface.accuracy(*at)[0]), draws, curve.settings.level)
    return Mix(
        n_real=n_real,
        n_syn=n_syn,
        accuracy=accuracy,
        cost=n_real * cost_real + n_syn * cost_syn,
        target=target,
        budget=budget,
        reaches=None if target is None else found is not None,
        confidence=None if target is None or not len(draws) else float((draws >= target).mean()),
        warnings=_warnings(data, n_real, n_syn, measured.max()),
    )


def _accuracy(base: BaseFit, real: np.ndarray, syn: np.ndarray) -> np.ndarray:
    """Fitted accuracy of equally long arrays of added amounts."""
    assert base.surface is not None
    return base.surface.accuracy((base.data.n_base + real)[:, None], syn[:, None])[:, 0]


def _cheapest(
    base: BaseFit,
    syn: np.ndarray,
    real_max: float,
    cost_real: float,
    cost_syn: float,
    target: float,
) -> tuple[int, int] | None:
    """The cheapest (real, synthetic) that reaches the target: for each synthetic amount the fewest
    real images, once on the whole range and once around the best. None where nothing reaches it.
    """
    for _ in range(2):
        real = _fewest_real(base, syn, real_max, target)
        cost = real * cost_real + np.where(np.isfinite(real), syn, np.inf) * cost_syn
        if not np.isfinite(real).any():
            return None
        best = int(np.nanargmin(np.where(np.isfinite(real), cost, np.nan)))
        kept = (int(np.ceil(real[best])), int(np.ceil(syn[best])))
        if best == 0:
            break
        syn = np.unique(np.linspace(syn[max(best - 1, 1)], syn[min(best + 1, len(syn) - 1)], _GRID))
        syn = np.append(syn, float(kept[1]))
    return kept


def _fewest_real(base: BaseFit, syn: np.ndarray, real_max: float, target: float) -> np.ndarray:
    """Per synthetic amount the smallest number of added real images that reaches the target; inf
    where none does.
    """
    steps = np.linspace(0.0, real_max, _STEPS)
    reached = np.stack(
        [_accuracy(base, np.full(len(syn), r), syn) >= target for r in steps], axis=1
    )
    first = reached.argmax(axis=1)
    high = steps[first]
    low = steps[np.maximum(first - 1, 0)]
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        enough = _accuracy(base, middle, syn) >= target
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    high = np.where(first == 0, 0.0, high)
    return np.where(reached.any(axis=1), high, np.inf)


def _most_accurate(
    base: BaseFit,
    syn: np.ndarray,
    real_max: float,
    cost_real: float,
    cost_syn: float,
    budget: float | None,
) -> tuple[int, int]:
    """The mix of highest accuracy that the budget allows; without a budget, of all."""
    left = np.inf if budget is None else budget - syn * cost_syn
    most = np.where(left >= 0, real_max, np.nan)
    if budget is not None and cost_real > 0:
        most = np.minimum(most, np.where(left >= 0, left, np.nan) / cost_real)
    best = (-np.inf, 0, 0)
    for share in np.linspace(0.0, 1.0, _STEPS):
        real = np.floor(share * most)
        accuracy = np.where(np.isfinite(real), _accuracy(base, np.nan_to_num(real), syn), -np.inf)
        i = int(accuracy.argmax())
        best = max(best, (float(accuracy[i]), int(np.nan_to_num(real[i])), int(np.floor(syn[i]))))
    return best[1], best[2]


def _warnings(data: BaseData, n_real: float, n_syn: float, measured_syn: float) -> tuple[str, ...]:
    words = []
    if n_real > 0 and n_syn > 0:
        words.append(
            "real and synthetic images were not added together in any trial: "
            "the surface interpolates"
        )
    if n_real > max(data.n_real - data.n_base) * (1 + 1e-9):
        words.append(
            f"{n_real:,.0f} added real images, measured up to {max(data.n_real - data.n_base):,.0f}"
        )
    if n_syn > measured_syn * (1 + 1e-9):
        words.append(f"{n_syn:,.0f} synthetic images, measured up to {measured_syn:,.0f}")
    return tuple(words)
