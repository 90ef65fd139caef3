"""How sure a difference between two cells is, where both were trained on the same subsets.

A cell's accuracy is its own mean, plus what a subset does to all cells alike, plus what is left of
cell and subset, plus each trial's noise. A difference on the same subsets is free of the second.
What is left is pooled over cells only where it may be taken for equally large: among cells of one
*source*, such as all that train on the base's images alone, or all amounts of one generator, whose
luck they share. Between two sources it is measured by their mean difference, subset by subset.
`benchmarks/rivals.py` measures what these intervals cover.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Repeated:
    """What was trained of one cell. source: of its images, see above. accuracies: of the trials, by
    subset seed.
    """

    source: str
    accuracies: dict[int, np.ndarray]

    @property
    def subsets(self) -> tuple[int, ...]:
        """Their seeds, sorted."""
        return tuple(sorted(self.accuracies))

    def means(self, subsets: Sequence[int]) -> np.ndarray:
        """Of the trials of some subsets."""
        return np.array([self.accuracies[subset].mean() for subset in subsets])

    @property
    def per_trial(self) -> float:
        """The part of a trial's variance that is left in a subset's mean, on average."""
        return float(np.mean([1 / len(values) for values in self.accuracies.values()]))

    @property
    def repetitions(self) -> np.ndarray:
        """The means of its subsets, or the trials of a single one."""
        first, *others = self.subsets
        return self.means(self.subsets) if others else self.accuracies[first]


def repeated(source: str, trials: pd.DataFrame) -> Repeated:
    """From rows with `subset_seed` and `accuracy`, one a trial."""
    by_subset: Any = trials.groupby("subset_seed")["accuracy"]
    return Repeated(source, {int(seed): values.to_numpy() for seed, values in by_subset})


class Gain(NamedTuple):
    """A difference in points; variance: of it, NaN where nothing was repeated; df: of the
    variance.
    """

    value: float
    variance: float
    df: float


class _Part(NamedTuple):
    """A part of a variance, and its degrees of freedom."""

    variance: float
    df: float


class Contrasts:
    """The differences of several cells over one of them."""

    def __init__(self, cells: Sequence[Repeated], reference: int) -> None:
        self._cells, self._reference = cells, cells[reference]
        self._trial = _pooled([one for cell in cells for one in cell.accuracies.values()])
        self._apart = _pooled([cell.repetitions for cell in cells])
        self._subsets = self._reference.subsets
        self._sources = {
            source: [c for c in cells if c.source == source and c.subsets == self._subsets]
            for source in {cell.source for cell in cells}
        }
        self._left_of: dict[str, _Part] = {}

    def gain(self, place: int) -> Gain:
        """Of the cell at a place, another one, over the reference."""
        cell, other = self._cells[place], self._reference
        common = sorted({*cell.subsets} & {*self._subsets})
        if len(common) > 1:
            pairs = cell.means(common) - other.means(common)
            whole = cell.subsets == self._subsets
            parts = self._parts(cell) if whole else [_own(pairs)]
            return Gain(float(pairs.mean()), *_added(parts))
        value = float(cell.repetitions.mean() - other.repetitions.mean())
        n, of_other = len(cell.repetitions), len(other.repetitions)
        if min(n, of_other) < 2:
            return Gain(value, np.nan, 0)
        # Of one subset alone, or of none in common.
        single = len(cell.subsets) == len(other.subsets) == 1
        variance, df = self._trial if single else self._apart
        return Gain(value, variance * (1 / n + 1 / of_other), df)

    def _parts(self, cell: Repeated) -> list[_Part]:
        """Independent parts of a difference's variance, on all subsets of the reference."""
        other, n = self._reference, len(self._subsets)
        if cell.source == other.source:
            left = self._left(cell.source)
            parts = [_Part(2 * left.variance / n, left.df)]
            weights = [(cell, 1.0), (other, 1.0)]
        elif n == 2:
            # With a single degree of freedom the approximation below covers 87%.
            return [_own(cell.means(self._subsets) - other.means(self._subsets))]
        else:
            parts = [_own(self._mean(cell.source) - self._mean(other.source))]
            weights = []
            for one in (cell, other):
                alike = len(self._sources[one.source])
                if alike > 1:
                    left = self._left(one.source)
                    parts.append(_Part(left.variance * (1 - 1 / alike) / n, left.df))
                    weights.append((one, 1 - 2 / alike))
        return [*parts, self._of_uneven_trials(weights)]

    def _of_uneven_trials(self, weights: list[tuple[Repeated, float]]) -> _Part:
        """What is left is that of an average cell; those with fewer trials vary more. Those with
        more are not taken for less: where little is left, that would be by chance.
        """
        uneven = sum(
            weight * (cell.per_trial - self._per_trial(cell.source)) for cell, weight in weights
        )
        if uneven < 1e-9 or not self._trial.df:
            return _Part(0.0, 1)
        return _Part(self._trial.variance * uneven / len(self._subsets), self._trial.df)

    def _per_trial(self, source: str) -> float:
        return float(np.mean([cell.per_trial for cell in self._sources[source]]))

    def _mean(self, source: str) -> np.ndarray:
        """Of all cells of a source, by subset."""
        return np.mean([cell.means(self._subsets) for cell in self._sources[source]], axis=0)

    def _left(self, source: str) -> _Part:
        """What is left of cells and subsets of a source once the means of both are taken away."""
        if source not in self._left_of:
            y = np.array([cell.means(self._subsets) for cell in self._sources[source]])
            left = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
            df = (y.shape[0] - 1) * (y.shape[1] - 1)
            self._left_of[source] = _Part(float((left**2).sum()) / df, df)
        return self._left_of[source]


def _added(parts: Sequence[_Part]) -> _Part:
    """The sum of independent parts, with Satterthwaite's (1946) degrees of freedom."""
    total = sum(part.variance for part in parts)
    squares = sum(part.variance**2 / part.df for part in parts)
    return _Part(total, total**2 / squares if squares else 0.0)


def _own(pairs: np.ndarray) -> _Part:
    """The variance of the mean of differences, by these alone."""
    return _Part(float(pairs.var(ddof=1)) / len(pairs), len(pairs) - 1)


def _pooled(groups: list[np.ndarray]) -> _Part:
    """The variance within groups; NaN without any that has two values."""
    df = sum(len(values) - 1 for values in groups)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in groups)
    return _Part(squares / df if df else np.nan, df)
