"""Plans: the cheapest real and synthetic additions that reach an accuracy, at a stated confidence,
or the best ones that a budget allows.

Accuracies are those of the effective-sample-size model's draws, cut at 0 and 100.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from equigrid.analysis.conclusions.worth import SyntheticWorth
from equigrid.analysis.data.estimates import Estimate
from equigrid.analysis.data.trials import Floats, Numbers
from equigrid.analysis.fitting.effective_samples import misfit_features
from equigrid.analysis.settings import NAMES

CONFIDENCES = (0.5, 0.9)
_REAL, _SYN = 41, 49  # amounts tried at first
_FINER, _ROUNDS = 15, 4  # then around the best
_FURTHEST = 4.0  # times the largest measured amount: further out nothing is planned


@dataclass(frozen=True)
class Prices:
    """In any one currency: per image, and `generator` once if any synthetic image is made."""

    real: float
    syn: float
    generator: float = 0.0

    def of(self, n_real: Numbers, n_syn: Numbers) -> Numbers:
        """Of additions, in images."""
        return n_real * self.real + n_syn * self.syn + (n_syn > 0) * self.generator


@dataclass(frozen=True)
class Plan:
    """`n_real`, `n_syn`: images to add; `accuracy` there, percent, with its interval; `asked`: the
    confidence that was wanted (None: the best within the budget); `probability` of reaching the
    target there.
    """

    asked: float | None
    target: float | None
    n_real: int
    n_syn: int
    cost: float
    accuracy: Estimate
    probability: float | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict:
        """Plain values."""
        return {
            **self.__dict__,
            "accuracy": self.accuracy.to_json(),
            "warnings": list(self.warnings),
        }

    def lines(self, metric: str = "top1") -> list[str]:
        """Plain words. metric: what the accuracy is."""
        a = self.accuracy
        measure = "accuracy" if metric == "top1" else NAMES[metric]
        sure = "" if self.probability is None else f", {self.target:g}% with {self.probability:.0%}"
        there = f"{measure} {a.value:.2f} ({a.low:.2f} to {a.high:.2f}{sure})"
        mix = f"{self.n_real:,} real and {self.n_syn:,} synthetic images for {self.cost:,.2f}"
        if self.asked is None:
            text = f"the best within the budget: {mix}: {there}"
        else:
            text = f"{self.target:g}% at {self.asked:.0%} confidence: {mix}: {there}"
        return [text, *(f"  note: {warning}" for warning in self.warnings)]


@dataclass(frozen=True)
class Planned:
    """Plans for a target, the most sure last; `unreached`: a sentence for each confidence that no
    mix reaches; `metric`: what the accuracies are.
    """

    plans: tuple[Plan, ...]
    unreached: tuple[str, ...]
    metric: str = "top1"

    @property
    def lines(self) -> list[str]:
        """Plain words."""
        return [*(line for plan in self.plans for line in plan.lines(self.metric)), *self.unreached]

    def to_json(self) -> dict:
        """Plain values."""
        return {"plans": [plan.to_json() for plan in self.plans], "unreached": list(self.unreached)}


def plan_mixes(
    worth: SyntheticWorth,
    n_base: float,
    *,
    prices: Prices,
    real_most: float,
    target: float | None,
    budget: float | None,
) -> Planned:
    """For a target (percent): the cheapest additions that reach it, at each of CONFIDENCES, within
    the budget; without one, the most accurate additions that the budget allows.

    real_most: images that could be added at most. Synthetic amounts are none, or from the smallest
    measured one; neither kind goes further than four times what was measured, since there a plan
    would rest on the curve's supposed end. n_base: a measured base size.
    """
    mixes = _Mixes(worth, n_base, prices, real_most, budget)
    if target is None:
        best = mixes.best(lambda acc, cost: -np.median(acc, axis=0))
        assert best is not None, "nothing can be had for nothing"
        return Planned((mixes.plan(*best, None, None),), ())
    plans, unreached = [], []

    def dear(asked: float) -> Callable[[Floats, Floats], Floats]:
        """The cost where the target is reached with that confidence, else infinite."""
        return lambda acc, cost: np.where((acc >= target).mean(axis=0) >= asked, cost, np.inf)

    for confidence in CONFIDENCES:
        found = mixes.best(dear(confidence))
        if found is not None:
            plans.append(mixes.plan(*found, confidence, target))
        else:
            unreached.append(mixes.unreached(confidence, target))
    return Planned(tuple(plans), tuple(unreached))


class _Mixes:
    """Accuracies of real and synthetic additions at one base size, by the draws."""

    def __init__(
        self, worth: SyntheticWorth, n_base: float, prices: Prices, real_most: float,
        budget: float | None,
    ):  # fmt: skip
        b = worth.base_index(n_base)
        assert b is not None
        assert worth.fit is not None
        self.fit, self.b, self.j, self.n = worth.fit, b, worth.source, n_base
        self.level, self.prices, self.budget = worth.level, prices, budget
        layout = self.fit.layout
        real, syn = layout.pure(b, -1), layout.pure(b, self.j)
        self.measured_real = float(layout.real[real].max()) if len(real) else 0.0
        self.measured_syn = layout.amount[syn, self.j]
        self.real_most = max(min(real_most / n_base, _FURTHEST * self.measured_real), 0.0)
        own = layout.cells_of(b)
        self.mixed = bool(((layout.real[own] > 0) & (layout.amount[own, self.j] > 0)).any())
        # What real and synthetic images do together, beyond the sum of their effective numbers,
        # is as uncertain as the model's form: one common deviation per draw.
        draws = self.fit.draws.theta.shape[1]
        self._together: Floats = np.random.default_rng(0).standard_normal((draws,))

    def accuracy(self, r: Floats, x: Floats) -> Floats:
        """(D, P) percent, of P additions of r real and x synthetic images, multiples of n_base."""
        curves, b, j = self.fit.draws, self.b, self.j
        distinct, at = np.unique(x, return_inverse=True)
        effective = curves.effective(b, j, distinct)[0][:, at]
        theta = curves.theta[0]
        value = curves.surface.accuracy(theta, b, 1.0 + r + effective)
        of_real, of_syn = misfit_features(r), misfit_features(x)
        value = value + curves.zeta[0, :, b, 0] @ of_real.T + curves.zeta[0, :, b, 2 + j] @ of_syn.T
        size = self.fit.misfit_share[0] * self.fit.scale[0, b]
        strength = (self.fit.prior.real_misfit * of_real) ** 2
        both = (r > 0) & (x > 0)
        spread = size * np.sqrt(0.5 * (strength.sum(axis=1) + (of_syn**2).sum(axis=1))) * both
        return np.clip(value + self._together[:, None] * spread, 0.0, 100.0)

    def best(self, score: Callable[[Floats, Floats], Floats]) -> tuple[float, float] | None:
        """The additions of the lowest score of those within the budget; None where all are
        infinite.
        """
        syn = self.measured_syn
        least = float(syn.min()) if len(syn) else 1.0
        r_axis = np.linspace(0.0, self.real_most, _REAL)
        x_axis = np.append(
            0.0, np.geomspace(least, _FURTHEST * float(syn.max()) if len(syn) else least, _SYN)
        )
        found: tuple[float, float] | None = None
        for _ in range(1 + _ROUNDS):
            r, x = (a.ravel() for a in np.meshgrid(r_axis, x_axis, indexing="ij"))
            r, x = self._affordable(r, x)
            if not len(r):
                return found
            cost = np.asarray(self.prices.of(r * self.n, x * self.n))
            values = np.asarray(score(self.accuracy(r, x), cost))
            # Of equal scores the cheaper: beyond the top of a curve, more images are no better.
            order = np.lexsort((cost, values))[0]
            if not np.isfinite(values[order]):
                return found
            found = (float(r[order]), float(x[order]))
            r_axis, x_axis = _around(found[0], r_axis), _around(found[1], x_axis, least)
        return found

    def _affordable(self, r: Floats, x: Floats) -> tuple[Floats, Floats]:
        if self.budget is None:
            return r, x
        if self.prices.real > 0:  # also as many real images as are left for
            left = self.budget - np.asarray(self.prices.of(np.zeros_like(x), x * self.n))
            most = np.minimum(left / self.prices.real / self.n, self.real_most)
            r, x = np.append(r, most[left >= 0]), np.append(x, x[left >= 0])
        fine = np.asarray(self.prices.of(r * self.n, x * self.n)) <= self.budget * (1 + 1e-9)
        return r[fine], x[fine]

    def plan(self, r: float, x: float, asked: float | None, target: float | None) -> Plan:
        """The additions, in whole images."""
        up = np.ceil if asked is not None else np.floor
        n_real, n_syn = int(up(round(r * self.n, 6))), int(up(round(x * self.n, 6)))
        draws = self.accuracy(np.array([n_real / self.n]), np.array([n_syn / self.n]))[:, 0]
        cost = float(self.prices.of(np.array(float(n_real)), np.array(float(n_syn))))
        reached = None if target is None else float((draws >= target).mean())
        return Plan(asked, target, n_real, n_syn, cost, self._estimate(draws), reached,
                    tuple(self._warnings(r, x)))  # fmt: skip

    def unreached(self, confidence: float, target: float) -> str:
        """Why there is no plan at this confidence: the highest that is reached with it."""
        tail = 1 - confidence
        best = self.best(lambda acc, cost: -np.quantile(acc, tail, axis=0))
        within = "" if self.budget is None else f" within {self.budget:,.2f}"
        if best is None:
            return f"{target:g}% at {confidence:.0%} confidence: nothing can be bought{within}"
        draws = self.accuracy(np.array([best[0]]), np.array([best[1]]))[:, 0]
        top = np.quantile(draws, tail)
        return (
            f"{target:g}% at {confidence:.0%} confidence: no mix reaches it{within}; the highest "
            f"with that confidence is {top:.2f}%, with {best[0] * self.n:,.0f} real and "
            f"{best[1] * self.n:,.0f} synthetic images"
        )

    def _estimate(self, draws: Floats) -> Estimate:
        tail = (1 - self.level) / 2
        low, value, high = (float(q) for q in np.quantile(draws, [tail, 0.5, 1 - tail]))
        return Estimate(value, low, high, self.level)

    def _warnings(self, r: float, x: float) -> list[str]:
        words = []
        if r > 0 and x > 0 and not self.mixed:
            words.append(
                "real and synthetic images were never added together here: that their effective "
                "numbers add is the model's assumption (a mixed arm would measure it)"
            )
        if r > self.measured_real * (1 + 1e-6):
            most = f"{self.measured_real * self.n:,.0f}"
            words.append(f"{r * self.n:,.0f} added real images, measured up to {most}")
        top = float(self.measured_syn.max()) if len(self.measured_syn) else 0.0
        if x > top * (1 + 1e-6):
            words.append(
                f"{x * self.n:,.0f} synthetic images, measured up to {top * self.n:,.0f}: it "
                "supposes that the curve goes on alike"
            )
        return words


def _around(at: float, axis: Floats, least: float = 0.0) -> Floats:
    """A finer axis between the neighbours of `at`; none (0) stays possible."""
    below, above = axis[axis < at - 1e-12], axis[axis > at + 1e-12]
    low = below.max() if len(below) else at
    high = above.min() if len(above) else at
    fine = np.linspace(max(low, least), max(high, least), _FINER)
    return np.unique(np.concatenate([[0.0, at], fine]))
