"""Values with intervals, from groups of images drawn at random.

An interval says what other images of the same generator, and other real images, would have given.
Both sides are cut into groups: the intervals are of both together. Two ways are used:

- delete-a-group jackknife, for what is cheap to compute anew (the Fréchet distance);
- disjoint subsets, for what needs all pairs (KID; precision, recall, density, coverage): the value
  is that of all images, the interval from the spread of the values of the subsets, whose variance
  falls with the number of images (Politis, Romano & Wolf 1999, "Subsampling").
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import t

GROUPS = 10
LEAST_GROUPS = 5
LEVEL = 0.95


class Value(NamedTuple):
    """low, high: the 95% interval; None where there are too few images for one."""

    value: float
    low: float | None = None
    high: float | None = None
    se: float | None = None

    def clipped(self, least: float = -np.inf, most: float = np.inf) -> "Value":
        """With an interval inside what is possible."""
        if self.low is None or self.high is None:
            return self
        return self._replace(low=max(self.low, least), high=min(self.high, most))

    def columns(self, name: str) -> dict[str, float | None]:
        """name, name_low, name_high."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def with_interval(value: float, variance: float, freedom: int) -> Value:
    """value with Student's interval."""
    se = float(np.sqrt(variance))
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * se
    return Value(float(value), float(value - half), float(value + half), se)


def groups(n: int, number: int, purpose: int) -> list[np.ndarray]:
    """0 to n - 1 in `number` random groups, whose sizes differ by one at most; each ascending.

    purpose: another number, another draw. The same n gives the same groups.
    """
    order = np.random.default_rng([n, number, purpose]).permutation(n)
    return [np.sort(part) for part in np.array_split(order, number)]


def jackknife_variance(without: np.ndarray) -> float:
    """Of a statistic whose values without each group in turn are given (G,)."""
    number = len(without)
    return float((number - 1) / number * np.square(without - without.mean()).sum())


def of_subsets(value: float, parts: np.ndarray) -> Value:
    """value of all images, with the interval that its values on disjoint subsets (S,) give."""
    return with_interval(value, float(parts.var(ddof=1)) / len(parts), len(parts) - 1)
