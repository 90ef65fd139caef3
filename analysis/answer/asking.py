"""Ask first, then spend: which trainings would narrow the answer to one question most.

`equigrid.analysis.answer.next_trials` ranks steps on a fit's own indices; here they are trainings
in the words of a results table, which a grid can run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from equigrid.analysis.answer.next_trials import (
    GENERATOR,
    SUBSET,
    Costs,
    Step,
    Suggestion,
    extended,
    rank,
)
from equigrid.analysis.conclusions.amounts import AT_LEAST, MATCHED, NEVER, UNDETERMINED, Amount
from equigrid.analysis.conclusions.worth import SyntheticWorth
from equigrid.analysis.data.trials import COPIES, Layout

LEAST_GAIN = 0.01  # of the variance; a step that removes less narrows nothing
CERTAIN = 0.95  # probability at which "no amount does" is an answer


class Training(NamedTuple):
    """One training to run: amounts in images, `n_base` nominal; seeds as a results table has them,
    None for the generator of a training without synthetic images.
    """

    n_base: int
    n_real_added: int
    n_syn: int
    n_copies: int
    generator: str | None
    subset_seed: int
    generator_seed: int | None
    seed: int


@dataclass(frozen=True)
class Suggested:
    """A step: its trainings, in words, and the factor within which the amount would be known after
    it (now and after: the interval is the value times or divided by about this). cost: as `Costs`.
    """

    trainings: tuple[Training, ...]
    text: str
    now: float
    after: float
    cost: float


@dataclass(frozen=True)
class Question:
    """How many images of a generator do what `n_real` more real ones do at a base of `n_base`, to
    be known within a factor `within` (None: as it is).
    """

    n_base: int
    n_real: int
    within: float | None = None
    generator: str | None = None
    classifier: str | None = None

    def is_answered(self, found: Amount) -> bool:
        """Whether an answer is narrow enough: within the factor, or that no amount does it."""
        if found.kind == NEVER:
            return found.probability[NEVER] >= CERTAIN
        if self.within is None or found.kind != MATCHED or found.factor is None:
            return False
        return found.factor <= self.within


def suggestions(
    worth: SyntheticWorth, question: Question, costs: Costs | None = None, *, steps: int = 5
) -> list[Suggested]:
    """What to run next, the best first: each is ranked as if those before it were done, whose
    outcome does not matter for the ranking. Empty where nothing narrows the answer.

    Raises ValueError where the base was not measured.
    """
    b = worth.base_index(question.n_base)
    if b is None or worth.fit is None or worth.seen is None:
        raise ValueError(f"base {question.n_base:,} was not measured: run the grid first")
    fit, found = worth.fit, []
    names = _Names(worth)
    for _ in range(steps):
        best = rank(fit, b, worth.source, question.n_real / question.n_base, costs, most=1)
        if not best or best[0].gain * best[0].step.cost < LEAST_GAIN:
            break
        found.append(_suggested(best[0], fit.layout, names))
        fit = replace(fit, layout=extended(fit.layout, best[0].step))
    return found


def why_open(found: Amount, question: Question) -> str:
    """What is not known yet, in a line."""
    if found.kind == MATCHED and found.factor is not None and question.within is not None:
        return f"known within ×{found.factor:.2g}, asked for ×{question.within:g}"
    if found.kind == AT_LEAST:
        return f"at least {found.low:,.0f} images, with no upper end yet"
    return "; ".join(found.reasons) if found.kind == UNDETERMINED else found.text


def _suggested(suggestion: Suggestion, layout: Layout, names: "_Names") -> Suggested:
    step = suggestion.step
    return Suggested(
        trainings=tuple(names.trainings(step, layout)),
        text=suggestion.text,
        now=_factor(suggestion.sd_now),
        after=_factor(suggestion.sd_after),
        cost=step.cost,
    )


def _factor(sd: float) -> float:
    """Of the 95% interval, for the standard deviation of the amount's logarithm."""
    return float(np.exp(min(1.96 * sd, 50.0)))


class _Names:
    """Indices of a layout as the seeds and amounts of a results table; seeds that steps have taken
    so far are not given twice.
    """

    def __init__(self, worth: SyntheticWorth):
        assert worth.seen
        self._subsets = list(worth.seen.subset_seeds)
        self._generators = list(worth.seen.generators)
        self._used = {place: set(seeds) for place, seeds in worth.seen.used.items()}

    def trainings(self, step: Step, layout: Layout) -> Iterator[Training]:
        subset_seed = self._subset(step)
        for m in step.cells:
            n_base = round(float(layout.n_base[layout.base[m]]))
            j = self._source(layout, m)
            generator_seed = None
            if j is not None:
                generator_seed = self._generator(step, n_base, subset_seed)
            amount = layout.amount[m]
            copies = layout.sources.index(COPIES) if COPIES in layout.sources else None
            yield Training(
                n_base=n_base,
                n_real_added=round(float(layout.real[m]) * n_base),
                n_syn=0 if j is None else round(float(amount[j]) * n_base),
                n_copies=0 if copies is None else round(float(amount[copies]) * n_base),
                generator=None if j is None else layout.sources[j],
                subset_seed=subset_seed,
                generator_seed=generator_seed,
                seed=self._seed(m, subset_seed, generator_seed),
            )

    def _subset(self, step: Step) -> int:
        while step.subset >= len(self._subsets):
            self._subsets.append(max(self._subsets) + 1)
        return self._subsets[step.subset]

    def _source(self, layout: Layout, m: int) -> int | None:
        for j, name in enumerate(layout.sources):
            if name != COPIES and layout.amount[m, j] > 0:
                return j
        return None

    def _generator(self, step: Step, n_base: int, subset_seed: int) -> int:
        """The generator seed of a step: a new one for a new generator; else that of the index, or
        of an index that is new the first seed of a generator in this subset.
        """
        own = [seed for n, s, seed in self._generators if (n, s) == (n_base, subset_seed)]
        known = [seed for seed in own if seed >= 0]
        if step.generator < len(self._generators):
            return max(self._generators[step.generator][2], 0)
        first = min((seed for *_, seed in self._generators if seed >= 0), default=0)
        seed = max(known, default=first - 1) + 1 if step.kind == GENERATOR else first
        if step.kind == SUBSET or not known:
            seed = first
        while len(self._generators) <= step.generator:
            self._generators.append((n_base, subset_seed, seed))
        return seed

    def _seed(self, m: int, subset_seed: int, generator_seed: int | None) -> int:
        taken = {
            seed
            for (cell, subset, trained), seeds in self._used.items()
            if (cell, subset) == (m, subset_seed) and generator_seed in (None, trained)
            for seed in seeds
        }
        seed = next(k for k in range(len(taken) + 1) if k not in taken)
        place = (m, subset_seed, -1 if generator_seed is None else generator_seed)
        self._used.setdefault(place, set()).add(seed)
        return seed
