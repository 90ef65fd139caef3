"""A number with its interval, and what an interval is when some draws have no value."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """`value` with the interval [`low`, `high`] at `level`; None where it is not defined or not
    bounded.
    """

    value: float | None
    low: float | None
    high: float | None
    level: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high); None where an end is open."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def bounded(self) -> bool:
        """Whether both ends of the interval exist."""
        return self.interval is not None

    @property
    def bar(self) -> tuple[float, float]:
        """Lengths of an error bar below and above the value; 0 where there is no interval."""
        if self.value is None or self.interval is None:
            return 0.0, 0.0
        low, high = self.interval
        return self.value - low, high - self.value

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside a bounded interval."""
        if self.interval is None:
            return False
        low, high = self.interval
        return not low <= value <= high

    def to_json(self) -> dict:
        """Plain values."""
        return {"value": self.value, "low": self.low, "high": self.high, "level": self.level}

    def text(self, digits: int = 2, unit: str = "") -> str:
        """'1.23 [0.98, 1.50]', with 'none' and open ends where there are any."""
        if self.value is None:
            return "not defined"
        low = "-∞" if self.low is None else f"{self.low:,.{digits}f}"
        high = "∞" if self.high is None else f"{self.high:,.{digits}f}"
        return f"{self.value:,.{digits}f}{unit} [{low}, {high}]"


def finite(value: float) -> float | None:
    """A plain float, None for NaN and infinities (JSON has neither)."""
    return float(value) if value is not None and math.isfinite(value) else None


def percentile_estimate(
    value: float, draws: np.ndarray, level: float, *, undefined: str = "both"
) -> Estimate:
    """Interval from draws (B,). Draws without a value (NaN) count as beyond the end named by
    `undefined`: 'both', 'high' or 'low'; an end that they reach is open. So an interval is bounded
    only if nearly all draws have a value.
    """
    if undefined not in ("both", "high", "low"):
        raise ValueError(f"undefined is {undefined!r}, must be 'both', 'high' or 'low'")
    if len(draws) == 0:
        return Estimate(finite(value), None, None, level)
    tail = (1 - level) / 2
    missing = ~np.isfinite(draws)
    low_draws = np.where(missing, np.inf if undefined == "high" else -np.inf, draws)
    high_draws = np.where(missing, -np.inf if undefined == "low" else np.inf, draws)
    low = np.quantile(low_draws, tail, method="inverted_cdf")
    high = np.quantile(high_draws, 1 - tail, method="inverted_cdf")
    return Estimate(finite(value), finite(low), finite(high), level)


def student_estimate(values: np.ndarray, level: float) -> Estimate:
    """The mean of independent values (n,) with Student's interval; none from a single value."""
    if len(values) < 2:
        return Estimate(finite(np.mean(values)), None, None, level)
    half = (
        stats.t.ppf(0.5 + level / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    )
    return Estimate(
        finite(np.mean(values)),
        finite(np.mean(values) - half),
        finite(np.mean(values) + half),
        level,
    )
