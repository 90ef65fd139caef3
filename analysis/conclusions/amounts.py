"""Equivalent amounts: how many synthetic images do what n_real more real ones do, with honest kinds
of answer."""

from dataclasses import dataclass

import numpy as np

from equigrid.analysis.data.trials import COPIES, Floats, Layout
from equigrid.analysis.fitting.effective_samples import Curves, Fit

X_MOST = 1000.0  # multiples of n_base; what needs more than this counts as never
_T = np.linspace(0.0, np.log1p(X_MOST), 113)
_X = np.expm1(_T)
# Effective sizes at which a synthetic amount's worth is read off.
_U = np.geomspace(0.03, 60.0, 140)


def equivalent(curves: Curves, b: int, j: int, r: Floats) -> Floats:
    """(T, D, R) smallest amount of source j whose accuracy reaches that of r (R,) real images
    added; multiples of n_base, inf where none up to 1,000 does, NaN where the real images
    themselves bring nothing."""
    r = np.asarray(r, dtype=float)
    goal = curves.real(b, r)
    none = goal <= curves.real(b, np.zeros(1))
    found = _first_crossing(curves.source(b, j, _X), goal, _T)
    return np.where(none, np.nan, np.expm1(found))


def worth(curves: Curves, b: int, j: int, x: Floats) -> Floats:
    """(T, D, G): real images, as multiples of n_base, that do what x (G,) images of source j do;
    below zero: harm."""
    goal = curves.source(b, j, np.asarray(x, dtype=float))
    found = _first_crossing(curves.real(b, _U - 1), goal, np.log(_U))
    return np.where(np.isfinite(found), np.exp(found) - 1, np.inf)


def _first_crossing(path: Floats, goal: Floats, t: Floats) -> Floats:
    """(..., R) first t at which path (..., G) reaches goal (..., R); linear in between, inf where
    never."""
    out = np.empty(goal.shape)
    for k in range(goal.shape[-1]):
        above = path >= goal[..., k, None]
        first = above.argmax(axis=-1)
        before = np.maximum(first - 1, 0)
        low, high = (
            np.take_along_axis(path, i[..., None], axis=-1)[..., 0] for i in (before, first)
        )
        rise = np.where(high > low, high - low, 1.0)
        share = np.clip(np.where(first > 0, (goal[..., k] - low) / rise, 0.0), 0.0, 1.0)
        out[..., k] = np.where(
            above.any(axis=-1), t[before] + share * (t[first] - t[before]), np.inf
        )
    return out


# ---- monotone interpolation, the model-free reading ----


def _pooled(y: Floats) -> Floats:
    """Isotonic (not falling) means of y (..., K), all draws at once: max over starts of min over
    ends of means."""
    k = y.shape[-1]
    total = np.concatenate([np.zeros((*y.shape[:-1], 1)), np.cumsum(y, axis=-1)], axis=-1)
    out = np.full(y.shape, -np.inf)
    for i in range(k):
        best = np.full(y.shape[:-1], np.inf)
        for e in range(k - 1, -1, -1):
            if e < i:
                break
            best = np.minimum(best, (total[..., e + 1] - total[..., i]) / (e + 1 - i))
            out[..., e] = np.where(np.arange(k)[e] >= i, np.maximum(out[..., e], best), out[..., e])
    return out


def interpolated(layout: Layout, means: Floats, b: int, j: int, r: Floats) -> Floats:
    """(T, D, R) as `equivalent`, from cell means (T, D, M) alone: isotonic, linear in log(1 +
    amount). inf beyond the largest measured amount; NaN where r was not bracketed by measured real
    amounts, or cells are missing."""
    r = np.asarray(r, dtype=float)
    at, real, syn = layout.base_cell(b), layout.pure(b, -1), layout.pure(b, j)
    if at is None or not len(real) or not len(syn):
        return np.full((*means.shape[:2], len(r)), np.nan)
    real, syn = np.concatenate([[at], real]), np.concatenate([[at], syn])
    goal = _between(np.log1p(layout.real[real]), _pooled(means[..., real]), np.log1p(r))
    t = np.log1p(layout.amount[syn, j])
    found = np.expm1(_first_crossing(_pooled(means[..., syn]), goal, t))
    return np.where(np.isnan(goal), np.nan, found)


def _between(t: Floats, y: Floats, wanted: Floats) -> Floats:
    i = np.clip(np.searchsorted(t, wanted, side="right") - 1, 0, len(t) - 2)
    share = (wanted - t[i]) / (t[i + 1] - t[i])
    value = y[..., i] * (1 - share) + y[..., i + 1] * share
    return np.where((wanted >= 0) & (wanted <= t[-1] + 1e-9), value, np.nan)


# ---- summaries ----


@dataclass(frozen=True, eq=False)
class Summary:
    """Of draws (T, D) of an amount: `low`, `high` ends of the interval (inf: open), `middle` the
    median, and the shares of draws below the smallest measured amount, inside, beyond the largest,
    and never."""

    low: Floats
    middle: Floats
    high: Floats
    below: Floats
    inside: Floats
    beyond: Floats
    never: Floats


def summarise(draws: Floats, smallest: float, largest: float, level: float = 0.95) -> Summary:
    """draws (T, D), multiples of n_base. Draws in which real images bring nothing (NaN) say
    nothing: they count as beyond both ends."""
    low, middle, high = quantiles(draws, level)
    finite = np.isfinite(draws)
    # Between nothing and the smallest measured amount no shape is known: an answer there is "fewer
    # than" that amount.
    fewer = middle < smallest
    low, high = np.where(fewer, 0.0, low), np.where(fewer, np.maximum(high, smallest), high)
    return Summary(
        low,
        middle,
        high,
        (draws < smallest).mean(axis=-1),
        (finite & (draws >= smallest) & (draws <= largest)).mean(axis=-1),
        (finite & (draws > largest)).mean(axis=-1),
        (~finite).mean(axis=-1),
    )


def quantiles(draws: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    """Lower end, median and upper end over the last axis, before any rule about small amounts."""
    tail = (1 - level) / 2
    missing = np.isnan(draws)
    least, most = np.where(missing, 0.0, draws), np.where(missing, np.inf, draws)
    low = np.quantile(least, tail, axis=-1, method="inverted_cdf")
    middle = np.quantile(most, 0.5, axis=-1, method="inverted_cdf")
    high = np.quantile(most, 1 - tail, axis=-1, method="inverted_cdf")
    return low, middle, high


MATCHED = "matched"
AT_LEAST = "at least"
FEWER = "fewer than"
NEVER = "no amount does"
UNDETERMINED = "undetermined"
WIDEST = 10.0  # an interval wider than × or ÷ this is no answer
SURE = 0.95
NO_RISE = 0.025  # share of draws in which real images bring nothing, above which all is open
WHY_OPEN = {
    "no rise": "whether real images help at all is open ({share} of the draws: they do not)",
    "anything": "anything from the smallest measured amount to no amount at all fits the data",
    "wide": "the interval spans a factor of {span}",
}


# Low, middle, high; None: beyond the range.
Reading = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Amount:
    """The answer for one question. Amounts in images; `high` None: open to the right. `factor`: the
    interval is the value times or divided by about this. `probability` of each kind: shares of
    draws. `interpolation`: (low, middle, high) of the model-free reading, None ends open, or None
    where it says nothing. `copies_too`: see `ExtraWorth`."""

    n_base: float
    n_real: float
    source: str
    kind: str
    value: float | None
    low: float
    high: float | None
    level: float
    factor: float | None
    probability: dict[str, float]
    extrapolated: bool
    interpolation: Reading | None
    disagrees: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """One sentence."""
        what = f"{self.n_real:,.0f} more real images at a base of {self.n_base:,.0f}"
        if self.kind == MATCHED:
            how = "extrapolated; " if self.extrapolated else ""
            between = f"between {images(self.low)} and {images(self.high)}"
            within = f"{how}{between}, ×{self.factor:.2g}"
            return f"{what} are matched by {images(self.value)} of {self.source} ({within})"
        if self.kind == AT_LEAST:
            return f"{what} need at least {images(self.low)} images of {self.source}"
        if self.kind == FEWER:
            return f"{what} are matched by fewer than {images(self.high)} images of {self.source}"
        if self.kind == NEVER:
            return f"no amount of {self.source} does what {what} do"
        return f"{what}: undetermined: {'; '.join(self.reasons)}"


def images(value: float | None) -> str:
    """A count to two significant digits, '∞' without a limit."""
    if value is None or not np.isfinite(value):
        return "∞"
    digits = max(int(np.floor(np.log10(max(value, 1.0)))) - 1, 0)
    return f"{round(value, -digits):,.0f}"


def amount(fit: Fit, b: int, j: int, n_real: float, *, level: float = 0.95) -> Amount:
    """How many images of source j match n_real more real ones at base size b (T = 1)."""
    layout = fit.layout
    n, r = float(layout.n_base[b]), np.array([n_real / layout.n_base[b]])
    measured = layout.amount[layout.pure(b, j), j] if len(layout.pure(b, j)) else np.zeros(0)
    missing = missing_for(layout, b, j)
    if missing:
        return _unanswered(n, n_real, layout.sources[j], level, missing)
    draws = equivalent(fit.draws, b, j, r)[0, :, 0]
    found = summarise(draws[None], measured.min(), measured.max(), level)
    free = interpolated(layout, fit.raw, b, j, r)[0, :, 0]
    probability = {
        FEWER: found.below[0],
        "inside": found.inside[0],
        "beyond": found.beyond[0],
        NEVER: found.never[0],
    }
    low, middle, high = (float(a[0]) for a in (found.low, found.middle, found.high))
    kind, reasons = _kind(low, middle, high, measured, probability, float(np.isnan(draws).mean()))
    beyond = (kind == AT_LEAST and low > measured.max()) or (
        kind == MATCHED and high > measured.max()
    )
    reading, disagrees = _beside(free, low, high, n, level)
    return Amount(
        n,
        n_real,
        layout.sources[j],
        kind,
        middle * n if np.isfinite(middle) else None,
        low * n,
        high * n if np.isfinite(high) else None,
        level,
        float(np.sqrt(high / low)) if low > 0 and np.isfinite(high) else None,
        {name: float(p) for name, p in probability.items()},
        bool(middle > measured.max() or r[0] > _most_real(layout, b)),
        reading,
        disagrees,
        tuple(reasons),
        tuple(_notes(fit, b, r[0], disagrees, beyond)),
    )


def missing_for(layout: Layout, b: int, j: int) -> list[str]:
    """What is missing for any answer at base size b about source j."""
    n = layout.n_base[b]
    checks = (
        (layout.base_cell(b) is not None, f"the base of {n:,.0f} alone was not trained"),
        (
            len(layout.pure(b, j)) > 0,
            f"nothing was trained with {layout.sources[j]} added at a base of {n:,.0f}",
        ),
        (
            any(len(layout.pure(k, -1)) for k in range(len(layout.n_base))),
            "nothing was trained with real images added",
        ),
    )
    return [text for fine, text in checks if not fine]


def _most_real(layout: Layout, b: int) -> float:
    real = layout.pure(b, -1)
    return float(layout.real[real].max()) * (1 + 1e-6) if len(real) else 0.0


def _kind(
    low: float, middle: float, high: float, measured: Floats, p: dict[str, float], no_rise: float
) -> tuple[str, list[str]]:
    if no_rise > NO_RISE:
        return UNDETERMINED, [WHY_OPEN["no rise"].format(share=f"{no_rise:.0%}")]
    if p[NEVER] >= SURE:
        return NEVER, []
    if not np.isfinite(high):
        if low >= measured.min():
            return AT_LEAST, []
        return UNDETERMINED, [WHY_OPEN["anything"]]
    if middle < measured.min():
        return FEWER, []
    if high > WIDEST**2 * max(low, 1e-9):
        return UNDETERMINED, [WHY_OPEN["wide"].format(span=f"{high / max(low, 1e-9):,.0f}")]
    return MATCHED, []


def _beside(
    free: Floats, low: float, high: float, n: float, level: float
) -> tuple[Reading | None, bool]:
    """The interpolated reading in images, and whether it contradicts the model: intervals that do
    not meet."""
    known = free[~np.isnan(free)]
    if len(known) < 0.5 * len(free):
        return None, False
    tail = (1 - level) / 2
    ends = np.quantile(known, [tail, 0.5, 1 - tail], method="inverted_cdf")
    first, middle, last = (float(e) * n if np.isfinite(e) else None for e in ends)
    return (first, middle, last), bool(ends[0] > high or ends[2] < low)


def _notes(fit: Fit, b: int, r: float, disagrees: bool, beyond: bool) -> list[str]:
    found = []
    if disagrees:
        found.append(
            "monotone interpolation of the measured means gives another amount: look at the curves"
        )
    if r > _most_real(fit.layout, b):
        found.append(
            "so many real images were not measured at this base: the real curve is extrapolated"
        )
    if beyond:
        found.append(
            "it lies beyond the measured amounts: it supposes that the curve goes on alike"
        )
    if fit.misfit_share[0] > 0.1:
        found.append(
            f"the curves' form misses the data by {fit.misfit_share[0]:.0%} of their range"
        )
    if fit.noise.unmeasured:
        found.append(
            f"nothing was repeated that tells the spread of: {', '.join(fit.noise.unmeasured)}; "
            "a prior stands in for it"
        )
    return found


def _unanswered(n: float, n_real: float, source: str, level: float, reasons: list[str]) -> Amount:
    return Amount(
        n,
        n_real,
        source,
        UNDETERMINED,
        None,
        0.0,
        None,
        level,
        None,
        {},
        False,
        None,
        False,
        tuple(reasons),
        (),
    )


# ---- worth and copies ----


@dataclass(frozen=True)
class Worth:
    """What images of a source are worth, with interval; ends None where open or undefined."""

    value: float | None
    low: float | None
    high: float | None


def _worth(draws: Floats, level: float) -> Worth:
    tail = (1 - level) / 2
    ends = np.quantile(draws, [tail, 0.5, 1 - tail], method="inverted_cdf")
    low, value, high = (float(e) if np.isfinite(e) else None for e in ends)
    return Worth(value, low, high)


def first_worth(fit: Fit, b: int, j: int, *, level: float = 0.95) -> Worth:
    """w: real images per synthetic one, over the first n_base synthetic ones."""
    return _worth(worth(fit.draws, b, j, np.ones(1))[0, :, 0], level)


@dataclass(frozen=True)
class Exchange:
    """ "One real image is worth k synthetic ones here": k over the first n_base real images, and
    over the next."""

    first: Worth
    following: Worth


def exchange(fit: Fit, b: int, j: int, *, level: float = 0.95) -> Exchange:
    """k at base size b for source j. Where no amount does, its ends are open (None)."""
    x = equivalent(fit.draws, b, j, np.array([1.0, 2.0]))[0]
    x = np.where(np.isnan(x), np.inf, x)
    with np.errstate(invalid="ignore"):
        following = np.where(np.isfinite(x[:, 0]), x[:, 1] - x[:, 0], np.inf)
    return Exchange(_worth(x[:, 0], level), _worth(following, level))


@dataclass(frozen=True)
class ExtraWorth:
    """What source j is worth beyond as many copies of the base (the same number of steps): E_j -
    E_copies, in real images as multiples of n_base, at `amount`. `determined`: which sign it has,
    at 99.5% one-sided; `reasons` if not."""

    amount: float
    extra: Worth
    determined: bool
    positive: float
    reasons: tuple[str, ...]


SIGN = 0.995


def extra_worth(
    fit: Fit, b: int, j: int, *, x: float | None = None, level: float = 0.95
) -> ExtraWorth:
    """At x (default: the largest amount at which both were measured, or in between)."""
    layout = fit.layout
    missing = missing_for(layout, b, j)
    if COPIES not in layout.sources or not len(layout.pure(b, layout.sources.index(COPIES))):
        missing.append("copies of the base were not trained")
    if missing:
        return ExtraWorth(np.nan, Worth(None, None, None), False, np.nan, tuple(missing))
    copies = layout.sources.index(COPIES)
    if x is None:
        x = common_amount(layout, b, j, copies)
    draws = extra_draws(fit.draws, b, j, copies, x)[0]
    positive = float((draws > 0).mean())
    reasons = [] if max(positive, 1 - positive) >= SIGN else ["its sign is open"]
    return ExtraWorth(x, _worth(draws, level), not reasons, positive, tuple(reasons))


def common_amount(layout: Layout, b: int, j: int, copies: int) -> float:
    """The largest amount inside the measured range of both."""
    return float(min(layout.amount[layout.pure(b, k), k].max() for k in (j, copies)))


def extra_draws(curves: Curves, b: int, j: int, copies: int, x: float) -> Floats:
    """(T, D) E_j(x) - E_copies(x)."""
    at = np.array([x])
    ours, theirs = (np.minimum(worth(curves, b, k, at)[..., 0], _U[-1]) for k in (j, copies))
    return ours - theirs
