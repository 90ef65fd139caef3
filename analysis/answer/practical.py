"""The practical answer: how many synthetic images do what more real ones do, what each would cost,
and the cheapest additions for a target accuracy.

By amounts from the effective-sample-size model (`equigrid.analysis.conclusions.worth`); Appendix
A's reading stands beside them.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from equigrid.analysis.answer.cheapest_mix import Planned, Prices, plan_mixes
from equigrid.analysis.answer.next_steps import NOTHING_FITTED, next_step
from equigrid.analysis.conclusions.amounts import AT_LEAST, FEWER, MATCHED, NEVER, Amount
from equigrid.analysis.conclusions.equivalence import Analysis, BaseFit, CurveResult, analyse
from equigrid.analysis.conclusions.phrasing import (
    PARTS,
    exchange_sentence,
    extra_sentence,
    fill,
    first_sentence,
    unique,
    verdict,
)
from equigrid.analysis.conclusions.worth import SAME_BASE, BaseWorth, SyntheticWorth
from equigrid.analysis.data.cells import CurveKey
from equigrid.analysis.data.estimates import Estimate
from equigrid.analysis.fitting.solve import BELOW_ONE, NO_GAIN, solve_for_synthetic
from equigrid.analysis.fitting.solve import NEVER as NO_ROOT
from equigrid.analysis.fitting.tuples import ratio_estimate
from equigrid.analysis.settings import DEFAULTS, NAMES, Settings

MOST_IMAGES = 1e12  # beyond any dataset; larger numbers are slips of the hand
MOST_COST = 1e15


@dataclass(frozen=True)
class Costs:
    """In the caller's currency. `real`: of the real images; `syn_*`: of the synthetic ones that do
    the same, generator included, None where open; `generator`: what of that is fixed;
    `break_even`: a synthetic image is cheaper below this share of a real one's price, the fixed
    cost aside.
    """

    real: float
    syn: float | None
    syn_low: float | None
    syn_high: float | None
    generator: float
    break_even: float | None

    @property
    def lines(self) -> list[str]:
        """Plain words."""
        fixed = f", of which {self.generator:,.2f} for the generator" if self.generator else ""
        low, high = (
            "nothing" if end == 0 else "no limit" if end is None else f"{end:,.2f}"
            for end in (self.syn_low, self.syn_high)
        )
        middle = "" if self.syn is None else f"{self.syn:,.2f}, "
        lines = [f"cost: real {self.real:,.2f}; synthetic {middle}{low} to {high}{fixed}: "
                 f"{self.cheaper}"]  # fmt: skip
        if not self.generator:
            lines.append(
                "the cost of training the generator is taken as 0; if it has one, give it too"
            )
        if self.break_even is not None:
            beside = " (the generator's cost aside)" if self.generator else ""
            lines.append(
                "synthetic images are the cheaper ones below "
                f"{self.break_even:.2g} of a real image's price{beside}"
            )
        return lines

    @property
    def cheaper(self) -> str:
        """Which is, and whether that is sure."""
        if self.syn_high is not None and self.syn_high < self.real:
            return "synthetic is cheaper"
        if self.syn_low is not None and self.syn_low > self.real:
            return "real is cheaper"
        if self.syn is None:
            return "which is cheaper is open"
        guess = "synthetic" if self.syn < self.real else "real"
        return f"{guess} is cheaper at the best estimate; the interval does not exclude the other"

    def to_json(self) -> dict:
        """Plain values."""
        return {**self.__dict__, "cheaper": self.cheaper}


@dataclass(frozen=True)
class PaperReading:
    """Appendix A's answer to the same question: the root of Eq. 11's surface at this base size, and
    Eq. 13 where c1 and c2 are determined; in images, None where there is none.
    """

    surface: Estimate | None
    below_one: bool
    formula: Estimate | None
    status: str

    @property
    def text(self) -> str:
        """One line."""
        parts = []
        if self.surface is not None:
            if self.below_one:
                parts.append("Eq. 11 has no root of one image or more, which is ε's doing")
            elif self.surface.value is None:
                parts.append("on Eq. 11's surface no amount suffices")
            else:
                parts.append(f"Eq. 11's surface gives {_images(self.surface)}")
        if self.formula is not None and self.formula.value is not None:
            parts.append(f"Eq. 13 gives {_images(self.formula)}")
        parts.append(f"c1 and c2 are {self.status}")
        return f"the paper's reading (Appendix A): {'; '.join(parts)}"

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "surface": self.surface and self.surface.to_json(),
            "below_one": self.below_one,
            "formula": self.formula and self.formula.to_json(),
            "status": self.status,
        }


@dataclass(frozen=True)
class CurveAnswer:
    """The answer of one curve.

    `amount`: synthetic images that do what n_real added ones do, None where n_base was not
    measured; `headline`: what one real image is worth, and the verdict; `next_step`: what to do
    where it is undetermined; `warnings`: all that limits it.
    """

    key: CurveKey
    n_base: float
    n_real: float
    headline: tuple[str, ...]
    verdict: str
    amount: Amount | None
    next_step: str
    costs: Costs | None
    planned: Planned | None
    paper: PaperReading
    warnings: tuple[str, ...]

    def to_json(self) -> dict:
        """Plain values."""
        amount = None
        if self.amount is not None:
            from equigrid.analysis.conclusions.worth import plain

            amount = {**plain(dict(self.amount.__dict__)), "text": self.amount.text}
        return {
            **self.key.__dict__, "n_base": self.n_base, "n_real": self.n_real,
            "headline": list(self.headline), "verdict": self.verdict, "amount": amount,
            "next_step": self.next_step, "costs": self.costs and self.costs.to_json(),
            "planned": self.planned and self.planned.to_json(), "paper": self.paper.to_json(),
            "warnings": list(self.warnings),
        }  # fmt: skip

    @property
    def text(self) -> str:
        """A few lines of plain words, the answer first."""
        lines = [*self.headline]
        lines += [self.next_step] if self.next_step else []
        lines += self.costs.lines if self.costs else []
        lines += self.planned.lines if self.planned else []
        lines += [self.paper.text, *(f"note: {warning}" for warning in self.warnings)]
        return "\n".join([f"{self.key}:", *(f"  {line}" for line in lines)])


@dataclass(frozen=True)
class Answer:
    """Answers of all curves that were asked. metric: what the accuracies are."""

    curves: tuple[CurveAnswer, ...]
    problems: tuple[str, ...]
    metric: str = "top1"

    @property
    def text(self) -> str:
        """Plain words for a terminal."""
        about = [] if self.metric == "top1" else [f"by {NAMES[self.metric]}:"]
        nothing = [] if self.curves else [f"no curve yet. {NOTHING_FITTED}"]
        lines = [*self.problems, *about, *nothing, *(curve.text for curve in self.curves)]
        return "\n".join(lines)

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "curves": [curve.to_json() for curve in self.curves],
            "problems": list(self.problems),
            "metric": self.metric,
        }


@dataclass(frozen=True)
class _Question:
    n_base: float
    n_real: float
    prices: Prices | None
    target: float | None
    budget: float | None


def equiv(
    table_or_analysis: pd.DataFrame | Analysis,
    n_base: float,
    n_real: float,
    cost_real: float | None = None,
    cost_syn: float | None = None,
    target_accuracy: float | None = None,
    budget: float | None = None,
    cost_generator: float = 0.0,
    settings: Settings = DEFAULTS,
    **only: str | None,
) -> Answer:
    """How many synthetic images do what n_real added real ones do at n_base, and what each would
    cost.

    n_base, n_real: images; costs per image, cost_generator once, in any one currency;
    target_accuracy: percent; budget: in that currency. settings: of the analysis, where a table is
    given. `only`: dataset, classifier, recipe, generator, to ask one curve of several. Raises
    ValueError for amounts or costs out of range, for a budget or target without costs, and where
    no curve has the names asked for.
    """
    check(n_base, n_real, cost_real, cost_syn, cost_generator, target_accuracy, budget)
    if isinstance(table_or_analysis, Analysis):
        analysis = table_or_analysis
    else:
        analysis = analyse(table_or_analysis, settings=settings)
    prices = None
    if cost_real is not None and cost_syn is not None:
        prices = Prices(cost_real, cost_syn, cost_generator)
    question = _Question(float(n_base), float(n_real), prices, target_accuracy, budget)
    answers = [_answer(curve, question) for curve in _selected(analysis, only)]
    return Answer(tuple(answers), analysis.problems, analysis.settings.metric)


def check(
    n_base: float, n_real: float, cost_real: float | None, cost_syn: float | None,
    cost_generator: float, target_accuracy: float | None, budget: float | None,
) -> None:  # fmt: skip
    for name, amount in (("n_base", n_base), ("n_real", n_real)):
        # Compared, not converted: a Python integer may be larger than any float.
        if not 0 < amount <= MOST_IMAGES:
            raise ValueError(
                f"{name} is {amount}, must be a number of images from 1 to {MOST_IMAGES:.0e}"
            )
    costs = {"cost_real": cost_real, "cost_syn": cost_syn, "cost_generator": cost_generator,
             "budget": budget}  # fmt: skip
    for name, cost in costs.items():
        if cost is not None and not 0 <= cost <= MOST_COST:
            raise ValueError(f"{name} is {cost}, must be from 0 to {MOST_COST:.0e}")
    if (cost_real is None) != (cost_syn is None):
        missing = "cost_real" if cost_real is None else "cost_syn"
        raise ValueError(
            f"{missing} is missing: give the price of a real and of a synthetic image, or neither"
        )
    _check_target(target_accuracy)
    for name, given in (("target accuracy", target_accuracy), ("budget", budget)):
        if given is not None and cost_real is None:
            raise ValueError(f"a {name} needs cost_real and cost_syn")
    if cost_generator and cost_real is None:
        raise ValueError("cost_generator needs cost_real and cost_syn")


def _check_target(target: float | None) -> None:
    if target is None:
        return
    if 0 < target <= 1:
        raise ValueError(
            f"target_accuracy is {target}: is that a fraction? Write percent: {100 * target:g}"
        )
    if not 0 < target <= 100:
        raise ValueError(
            f"target_accuracy is {target}, must be in percent, above 1 and at most 100"
        )


def _selected(analysis: Analysis, only: dict[str, str | None]) -> list[CurveResult]:
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


def _answer(curve: CurveResult, question: _Question) -> CurveAnswer:
    worth = curve.worth
    base = _measured(worth, question.n_base)
    paper = _paper_reading(curve, question)
    if worth is None or base is None:
        return CurveAnswer(
            key=curve.key, n_base=question.n_base, n_real=question.n_real,
            headline=_unmeasured(worth, question), verdict="undetermined", amount=None,
            next_step=_how_to_measure(worth, question), costs=None, planned=None, paper=paper,
            warnings=_warnings(worth, None, None, curve),
        )  # fmt: skip
    amount = worth.amount(base.n_base, question.n_real)
    found = verdict(base, amount)
    generator = worth.generator
    headline = (
        exchange_sentence(base, generator),
        found.text,
        first_sentence(base, generator),
        extra_sentence(base.extra, base.n_base, generator),
    )
    planned = None
    if question.prices is not None and (question.target is not None or question.budget is not None):
        planned = plan_mixes(
            worth, base.n_base, prices=question.prices,
            real_most=max(curve.n_total_dataset - base.n_base, question.n_real),
            target=question.target, budget=question.budget,
        )  # fmt: skip
        planned = replace(planned, metric=curve.settings.metric)
    return CurveAnswer(
        key=curve.key, n_base=question.n_base, n_real=question.n_real, headline=headline,
        verdict=found.kind, amount=amount, next_step=next_step(worth, base, amount),
        costs=costs(amount, question.n_real, question.prices), planned=planned, paper=paper,
        warnings=_warnings(worth, base, amount, curve, question.n_real),
    )  # fmt: skip


def _measured(worth: SyntheticWorth | None, n_base: float) -> BaseWorth | None:
    for base in worth.bases if worth else ():
        if abs(base.n_base - n_base) <= SAME_BASE * n_base:
            return base
    return None


def _unmeasured(worth: SyntheticWorth | None, question: _Question) -> tuple[str, ...]:
    """What is said of a base size that was not measured: that, and its neighbours' answers to the
    same multiple. In between, nothing was shown to hold.
    """
    n = question.n_base
    if worth is None or not worth.bases:
        why = f": {'; '.join(worth.reasons)}" if worth else ": there are no synthetic images in it"
        return (f"No answer{why}.",)
    sizes = [base.n_base for base in worth.bases]
    listed = ", ".join(f"{size:,.0f}" for size in sizes)
    lines = [fill(PARTS["unmeasured"], {"n_base": f"{n:,.0f}", "listed": listed})]
    below = [base for base in worth.bases if base.n_base < n][-1:]
    above = [base for base in worth.bases if base.n_base > n][:1]
    for base in (*below, *above):
        ratio = question.n_real / n
        near = worth.amount(base.n_base, ratio * base.n_base)
        lines.append(f"Nearest measured base, the same {ratio:.2g} times the base: {near.text}.")
    return tuple(lines)


def _how_to_measure(worth: SyntheticWorth | None, question: _Question) -> str:
    if worth is None or not worth.bases:
        return NOTHING_FITTED
    return (
        f"Do this next: a block with n_base [{question.n_base:.0f}], and in it real, synthetic and "
        "copied images added."
    )


def _warnings(
    worth: SyntheticWorth | None,
    base: BaseWorth | None,
    amount: Amount | None,
    curve: CurveResult,
    n_real: float = 0.0,
) -> tuple[str, ...]:
    found = [*worth.warnings, *worth.notes] if worth else []
    found += list(amount.notes) if amount else []
    if amount is not None and amount.interpolation is not None:
        low, middle, high = (
            "beyond the measured amounts" if end is None else f"{end:,.0f}"
            for end in amount.interpolation
        )
        found.append(f"monotone interpolation of the measured means, beside it: {middle} ({low} to "
                     f"{high})")  # fmt: skip
    if base is not None and base.n_base + n_real > curve.n_total_dataset * (1 + SAME_BASE):
        found.append(
            f"{base.n_base + n_real:,.0f} real images, the dataset has {curve.n_total_dataset:,}"
        )
    if curve.missing:
        found.append(f"{len(curve.missing)} cells are incomplete, first: {curve.missing[0]}")
    return tuple(unique(found))


def costs(amount: Amount, n_real: float, prices: Prices | None) -> Costs | None:
    """What n_real real images cost, and synthetic ones that do the same; None without prices."""
    if prices is None:
        return None

    def of(count: float | None) -> float | None:
        return None if count is None else float(prices.generator + count * prices.syn)

    known = amount.kind in (MATCHED, FEWER, AT_LEAST, NEVER)
    bounded = amount.kind in (MATCHED, FEWER)
    return Costs(
        real=n_real * prices.real,
        syn=of(amount.value) if amount.kind == MATCHED else None,
        syn_low=of(amount.low) if known else None,
        syn_high=of(amount.high) if bounded else None,
        generator=prices.generator,
        break_even=n_real / amount.value if amount.kind == MATCHED and amount.value else None,
    )


# Appendix A ---------------------------------------------------------------------------------------


def _paper_reading(curve: CurveResult, question: _Question) -> PaperReading:
    base = next(
        (
            b
            for b in curve.bases
            if b.surface is not None
            and abs(b.data.n_nominal - question.n_base) <= SAME_BASE * question.n_base
        ),
        None,
    )
    surface, below_one = None, False
    if base is not None:
        surface, below_one = _by_surface(base, question.n_real, curve.settings.level)
    formula = None
    if curve.determined:
        ratio = curve.equivalent_ratio(question.n_base, question.n_real)
        value, low, high = (
            None if end is None else end * question.n_base
            for end in (ratio.value, ratio.low, ratio.high)
        )
        formula = Estimate(value, low, high, ratio.level)
    return PaperReading(surface, below_one, formula, curve.status)


def _by_surface(base: BaseFit, n_real: float, level: float) -> tuple[Estimate, bool]:
    """Eq. 12 on this base size's surface: images with interval; whether there is no root of one
    image or more.
    """
    solved = []
    assert base.surface is not None
    assert base.drawn_surfaces is not None
    for surfaces in (base.surface, base.drawn_surfaces):
        target = surfaces.accuracy(base.data.n_base + n_real, 0.0)
        solution = solve_for_synthetic(
            surfaces, base.data.n_base, target, n_nominal=base.data.n_nominal, ratio_limit=np.inf
        )
        nothing_needed = np.isin(solution.state, (NO_GAIN, BELOW_ONE))
        solved.append(
            np.select([nothing_needed, solution.state == NO_ROOT], [0.0, np.inf], solution.n_syn)
        )
    value, draws = solved
    return ratio_estimate(float(value[0]), draws, level), bool(value[0] == 0.0)


def _images(estimate: Estimate) -> str:
    low = "any" if estimate.low is None else f"{estimate.low:,.0f}"
    high = "no limit" if estimate.high is None else f"{estimate.high:,.0f}"
    return f"{estimate.value:,.0f} ({low} to {high})"
