"""The practical answer: how many synthetic images match, which is cheaper, and the cheapest mix for
a target.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from equigrid.analysis.answer.cheapest_mix import Mix, cheapest_mix
from equigrid.analysis.conclusions.equivalence import Analysis, BaseFit, CurveResult, analyse
from equigrid.analysis.data.cells import CurveKey
from equigrid.analysis.data.estimates import Estimate, finite
from equigrid.analysis.fitting.solve import BELOW_ONE, NEVER, NO_GAIN, solve_for_synthetic
from equigrid.analysis.fitting.tuples import outside_measured, ratio_estimate

_SAME_BASE = 0.005  # relative: base sizes this close are one (11,959 and 12,000)


@dataclass(frozen=True)
class CurveAnswer:
    """The answer of one curve.

    `n_syn`: synthetic images that match n_real added ones at n_base, with interval; `method`:
    'surface' (n_base was measured) or 'formula' (Eq. 13) or 'none'; `unreachable`: share of the
    redrawn data in which no amount suffices; `below_measured`: the smallest measured synthetic
    amount where `n_syn` lies below it, else None. `warnings`: extrapolation, and why there is no
    answer. Costs in the caller's currency.
    """

    key: CurveKey
    n_base: float
    n_real: float
    method: str
    n_syn: Estimate
    by_formula: Estimate | None
    reachable: bool
    unreachable: float
    below_measured: float | None
    warnings: tuple[str, ...]
    cost_real: float | None
    cost_syn: Estimate | None
    # Price of a synthetic image, as a share of a real one's, below which it is cheaper.
    break_even: Estimate | None
    mix: Mix | None

    def to_json(self) -> dict:
        """Plain values."""
        optional = {
            name: getattr(self, name) for name in ("by_formula", "cost_syn", "break_even", "mix")
        }
        return {
            **self.key.__dict__,
            "n_base": self.n_base,
            "n_real": self.n_real,
            "method": self.method,
            "n_syn": self.n_syn.to_json(),
            "reachable": self.reachable,
            "unreachable": self.unreachable,
            "below_measured": self.below_measured,
            "warnings": list(self.warnings),
            "cost_real": self.cost_real,
            **{name: value and value.to_json() for name, value in optional.items()},
        }

    @property
    def text(self) -> str:
        """A few lines of plain words."""
        lines = [f"{self.key}:", f"  {self._headline()}"]
        if (
            self.by_formula is not None
            and self.by_formula.value is not None
            and self.method == "surface"
        ):
            lines.append(f"  by the fitted formula (Eq. 13): {_images(self.by_formula)}")
        lines += [f"  {line}" for line in self._cost_lines()]
        if self.mix is not None:
            lines += [f"  {line}" for line in self.mix.lines]
        return "\n".join([*lines, *(f"  note: {warning}" for warning in self.warnings)])

    def _headline(self) -> str:
        what = f"{self.n_real:,.0f} more real images at a base of {self.n_base:,.0f}"
        if self.method == "none":
            return f"no answer for {what}"
        if not self.reachable:
            return f"no amount of synthetic data reaches what {what} bring"
        if self.n_syn.value == 0:
            return f"on the surface {what} bring no gain that would need synthetic images"
        if self.below_measured is not None:
            return (
                f"{what} are matched by fewer than {self.below_measured:,.0f} synthetic images, "
                "the smallest measured amount (between none and that the surface, which is not "
                f"measured there, gives {_images(self.n_syn)})"
            )
        doubt = (
            f" ({self.unreachable:.0%} of the redrawn data: no amount does)"
            if self.unreachable > 0.005
            else ""
        )
        return f"{what} are matched by {_images(self.n_syn)}{doubt}"

    def _cost_lines(self) -> list[str]:
        lines = []
        cost_syn = None if self.cost_syn is None else self.cost_syn.value
        if (
            self.cost_real is not None
            and self.below_measured is not None
            and cost_syn is not None
            and self.n_syn.value
        ):
            most = self.below_measured * cost_syn / self.n_syn.value
            verdict = (
                "synthetic is cheaper" if most < self.cost_real else "which is cheaper is open"
            )
            return [f"cost: real {self.cost_real:,.2f}, synthetic at most {most:,.2f}: {verdict}"]
        if (
            self.cost_real is not None
            and self.cost_syn is not None
            and self.cost_syn.value is not None
        ):
            cheaper = "synthetic" if self.cost_syn.value < self.cost_real else "real"
            sure = (
                cheaper == "synthetic"
                and self.cost_syn.high is not None
                and self.cost_syn.high < self.cost_real
            ) or (
                cheaper == "real"
                and self.cost_syn.low is not None
                and self.cost_syn.low > self.cost_real
            )
            lines.append(
                f"cost: real {self.cost_real:,.2f}, "
                f"synthetic {self.cost_syn.text(2)}: {cheaper} is cheaper"
                + ("" if sure else ", but the interval does not exclude the other")
            )
        if self.break_even is not None and self.break_even.value is not None:
            lines.append(
                "synthetic images are cheaper below "
                f"{self.break_even.text(4)} of a real image's price"
            )
        return lines


@dataclass(frozen=True)
class Answer:
    """Answers of all curves that were asked."""

    curves: tuple[CurveAnswer, ...]
    problems: tuple[str, ...]

    @property
    def text(self) -> str:
        """Plain words for a terminal."""
        return "\n".join([*self.problems, *(curve.text for curve in self.curves)])

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "curves": [curve.to_json() for curve in self.curves],
            "problems": list(self.problems),
        }


def equiv(
    table_or_analysis: pd.DataFrame | Analysis,
    n_base: float,
    n_real: float,
    cost_real: float | None = None,
    cost_syn: float | None = None,
    target_accuracy: float | None = None,
    budget: float | None = None,
    **only: str,
) -> Answer:
    """How many synthetic images match n_real added real ones at n_base, and what each would cost.

    n_base, n_real: images; costs per image, in any one currency; target_accuracy: percent; budget:
    in that currency. `only`: dataset, classifier, recipe, generator, to ask one curve of several.
    Raises ValueError for amounts or costs out of range, for a budget or target without costs, and
    where no curve has the names asked for.
    """
    _check(n_base, n_real, cost_real, cost_syn, target_accuracy, budget)
    given = table_or_analysis
    analysis = given if isinstance(given, Analysis) else analyse(given)
    curves = _selected(analysis, only)
    answers = [
        _answer(curve, float(n_base), float(n_real), cost_real, cost_syn, target_accuracy, budget)
        for curve in curves
    ]
    return Answer(tuple(answers), analysis.problems)


def _check(
    n_base: float,
    n_real: float,
    cost_real: float | None,
    cost_syn: float | None,
    target_accuracy: float | None,
    budget: float | None,
) -> None:
    if not n_base > 0:
        raise ValueError(f"n_base is {n_base}, must be a positive number of images")
    if not n_real > 0:
        raise ValueError(f"n_real is {n_real}, must be a positive number of images")
    for name, cost in (("cost_real", cost_real), ("cost_syn", cost_syn), ("budget", budget)):
        if cost is not None and not cost >= 0:
            raise ValueError(f"{name} is {cost}, must not be negative")
    if (cost_real is None) != (cost_syn is None):
        missing = "cost_real" if cost_real is None else "cost_syn"
        raise ValueError(
            f"{missing} is missing: give the price of a real and of a synthetic image, or neither"
        )
    if target_accuracy is not None and not 0 < target_accuracy <= 100:
        raise ValueError(
            f"target_accuracy is {target_accuracy}, must be in percent, above 0 and at most 100"
        )
    if (target_accuracy is not None or budget is not None) and cost_real is None:
        raise ValueError("a target accuracy or a budget needs cost_real and cost_syn")


def _selected(analysis: Analysis, only: dict[str, str]) -> list[CurveResult]:
    unknown = sorted(set(only) - {"dataset", "classifier", "recipe", "generator"})
    if unknown:
        raise ValueError(f"cannot select by {unknown}; by dataset, classifier, recipe or generator")
    wanted = {name: value for name, value in only.items() if value is not None}
    found = [
        c
        for c in analysis.curves
        if all(getattr(c.key, name) == value for name, value in wanted.items())
    ]
    if not found and analysis.curves:
        raise ValueError(
            f"no curve has {wanted}; there are: {'; '.join(str(c.key) for c in analysis.curves)}"
        )
    return found


def _answer(
    curve: CurveResult,
    n_base: float,
    n_real: float,
    cost_real: float | None,
    cost_syn: float | None,
    target: float | None,
    budget: float | None,
) -> CurveAnswer:
    base = _measured_base(curve, n_base)
    warnings = [] if curve.determined else [f"Eq. 13 is undetermined: {'; '.join(curve.reasons)}"]
    formula = _by_formula(curve, n_base, n_real) if curve.determined else None
    reachable, unreachable = True, 0.0
    if base is not None:
        method = "surface"
        n_syn, reachable, unreachable = _by_surface(base, n_real, curve.settings.level)
        ratio = None if n_syn.value is None else n_syn.value / base.data.n_nominal
        warnings += outside_measured(base.data, n_real, ratio, curve.n_total_dataset)
    elif formula is not None:
        method, n_syn = "formula", formula
        warnings += _outside_bases(curve, n_base, n_real)
    else:
        method, n_syn = "none", Estimate(None, None, None, curve.settings.level)
        measured = ", ".join(
            f"{b.data.n_nominal:,.0f}" for b in curve.bases if b.surface is not None
        )
        warnings.append(
            f"base {n_base:,.0f} was not measured (measured: {measured or 'none'}), "
            "and without Eq. 13 nothing can be said between base sizes"
        )
    mix = None
    asked = target is not None or budget is not None
    if cost_real is not None and cost_syn is not None and asked:
        if base is None:
            warnings.append(
                "the cheapest mix needs an accuracy surface at "
                f"{n_base:,.0f}, which was not measured"
            )
        else:
            mix = cheapest_mix(
                base, curve, cost_real=cost_real, cost_syn=cost_syn, target=target, budget=budget
            )
    return CurveAnswer(
        key=curve.key, n_base=n_base, n_real=n_real, method=method, n_syn=n_syn, by_formula=formula,
        reachable=reachable, unreachable=unreachable,
        below_measured=_below_measured(base, n_syn), warnings=tuple(warnings),
        cost_real=None if cost_real is None else n_real * cost_real,
        cost_syn=None if cost_syn is None else _scaled(n_syn, cost_syn),
        break_even=None if _below_measured(base, n_syn) else _break_even(n_syn, n_real), mix=mix,
    )  # fmt: skip


def _measured_base(curve: CurveResult, n_base: float) -> BaseFit | None:
    for base in curve.bases:
        if base.surface is not None and abs(base.data.n_nominal - n_base) <= _SAME_BASE * n_base:
            return base
    return None


def _below_measured(base: BaseFit | None, n_syn: Estimate) -> float | None:
    if base is None or not n_syn.value:
        return None
    smallest = float(base.data.n_syn[base.data.n_syn > 0].min())
    return smallest if n_syn.value < smallest else None


def _by_formula(curve: CurveResult, n_base: float, n_real: float) -> Estimate:
    return _scaled(curve.equivalent_ratio(n_base, n_real), n_base)


def _by_surface(base: BaseFit, n_real: float, level: float) -> tuple[Estimate, bool, float]:
    """Eq. 12 on this base size's surface: images with interval, whether reachable, share of draws
    where it is not.
    """
    solved = []
    for surfaces in (base.surface, base.drawn_surfaces):
        assert surfaces is not None, "asked for where there is a surface"
        target = surfaces.accuracy(base.data.n_base + n_real, 0.0)
        solution = solve_for_synthetic(
            surfaces, base.data.n_base, target, n_nominal=base.data.n_nominal, ratio_limit=np.inf
        )
        nothing_needed = np.isin(solution.state, (NO_GAIN, BELOW_ONE))
        solved.append(
            np.select([nothing_needed, solution.state == NEVER], [0.0, np.inf], solution.n_syn)
        )
    value, draws = solved
    unreachable = float(np.isposinf(draws).mean()) if len(draws) else 0.0
    return ratio_estimate(value[0], draws, level), not np.isposinf(value[0]), unreachable


def _outside_bases(curve: CurveResult, n_base: float, n_real: float) -> list[str]:
    measured = [b.data.n_nominal for b in curve.bases if b.surface is not None]
    ratios = [ratio for b in curve.bases for ratio in b.data.real_ratios]
    words = [f"base {n_base:,.0f} lies between measured base sizes: by Eq. 13"]
    if not min(measured) <= n_base <= max(measured):
        words = [
            f"base {n_base:,.0f} is outside the measured "
            f"{min(measured):,.0f} to {max(measured):,.0f}"
        ]
    if n_real / n_base > max(ratios):
        words.append(
            f"{n_real / n_base:.2g} times the base in real images, measured up to {max(ratios):.2g}"
        )
    if n_base + n_real > curve.n_total_dataset:
        words.append(
            f"{n_base + n_real:,.0f} real images, the dataset has {curve.n_total_dataset:,}"
        )
    return words


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    value, low, high = (
        None if v is None else v * factor for v in (estimate.value, estimate.low, estimate.high)
    )
    return Estimate(value, low, high, estimate.level)


def _break_even(n_syn: Estimate, n_real: float) -> Estimate | None:
    """n_real / n_syn: one synthetic image is worth this many real ones here."""
    if n_syn.value is None or n_syn.value <= 0:
        return None
    high = finite(n_real / n_syn.low) if n_syn.low else None
    low = 0.0 if n_syn.high is None else finite(n_real / n_syn.high) if n_syn.high else None
    return Estimate(n_real / n_syn.value, low, high, n_syn.level)


def _images(estimate: Estimate) -> str:
    if estimate.value is None:
        return "no number of synthetic images"
    low = "any" if estimate.low is None else f"{estimate.low:,.0f}"
    high = "no limit" if estimate.high is None else f"{estimate.high:,.0f}"
    return (
        f"{estimate.value:,.0f} synthetic images ({estimate.level:.0%} interval: {low} to {high})"
    )
