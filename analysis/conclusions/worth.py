"""What synthetic images are worth, generator by generator: the answer people came for.

One effective-sample-size model for all generators and base sizes of a dataset, classifier and
recipe (`equigrid.analysis.fitting.effective_samples`); per base size the equivalent amounts, the
exchange rate, and what synthetic images bring beyond as many copies of the base.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from equigrid.analysis.conclusions.amounts import (
    AT_LEAST,
    FEWER,
    MATCHED,
    NEVER,
    UNDETERMINED,
    Amount,
    Exchange,
    ExtraWorth,
    Worth,
    amount,
    exchange,
    extra_worth,
    first_worth,
)
from equigrid.analysis.data.trials import COPIES, Layout, Observed, arrange
from equigrid.analysis.fitting import effective_samples, variance
from equigrid.analysis.fitting.effective_samples import Fit

FEW_SEEDS = 3  # fewer repetitions of everything than this are said to be few
SMALL_TEST = 500  # images
SATURATED = 98.0  # percent at the base
SAME_BASE = 0.005  # relative: base sizes this close are one (11,959 and 12,000)
ANSWERED = (MATCHED, FEWER, AT_LEAST, NEVER)  # kinds of amount that say something
DETERMINED, NOT_DETERMINED = "determined", "undetermined"


@dataclass(frozen=True)
class BaseWorth:
    """What images of one generator are worth at one base size.

    n_base: nominal images. amounts: how many do what each measured amount of added real images
    does, and what doubling the base does. exchange: synthetic images that one real image is worth,
    over the first n_base real ones and over the next. first: real images that one synthetic image
    is worth, over the first n_base synthetic ones. extra: that beyond copies of the base.
    """

    n_base: float
    amounts: tuple[Amount, ...]
    exchange: Exchange
    first: Worth
    extra: ExtraWorth

    @property
    def main(self) -> Amount | None:
        """The amount that stands for the base size: nearest to as many real images as the base."""
        by_distance = sorted(self.amounts, key=lambda a: abs(np.log(a.n_real / a.n_base)))
        return by_distance[0] if by_distance else None

    def to_json(self) -> dict:
        """Plain values."""
        return {**plain(asdict(self)), "text": [one.text for one in self.amounts]}


@dataclass(frozen=True)
class SyntheticWorth:
    """What one generator's images are worth at each base size.

    status: "determined" where at some base size the synthetic images bring, or take, something
    beyond copies of the base, for certain, and an amount is known. reasons: why not. notes: what a
    reader must know besides. fit: the model, of all generators together; None where nothing could
    be fitted.
    """

    generator: str
    bases: tuple[BaseWorth, ...]
    status: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    fit: Fit | None = field(repr=False, default=None)
    seen: Observed | None = field(repr=False, default=None)
    setting: str | None = None  # of `SETTINGS`, as the rows say

    @property
    def determined(self) -> bool:
        return self.status == DETERMINED

    @property
    def source(self) -> int:
        """The generator's number among the fit's sources."""
        assert self.fit is not None, "asked for where there is a fit"
        return self.fit.layout.sources.index(self.generator)

    def base_index(self, n_base: float) -> int | None:
        """The number of a nominal base size in the fit, None where it was not measured."""
        if self.fit is None:
            return None
        near = np.flatnonzero(np.isclose(self.fit.layout.n_base, n_base, rtol=SAME_BASE))
        return int(near[0]) if len(near) else None

    def amount(self, n_base: float, n_real: float) -> Amount:
        """The equivalent of any n_real at a measured base size. Raises ValueError for others."""
        b = self.base_index(n_base)
        if self.fit is None or b is None:
            known = [] if self.fit is None else [f"{n:,.0f}" for n in self.fit.layout.n_base]
            raise ValueError(
                f"base {n_base:,.0f} was not measured; measured: {', '.join(known) or 'none'}"
            )
        return amount(self.fit, b, self.source, n_real, level=self.level)

    @property
    def level(self) -> float:
        return self.bases[0].amounts[0].level if self.bases and self.bases[0].amounts else 0.95

    def to_json(self) -> dict:
        """Plain values, without the fit."""
        return {
            "generator": self.generator,
            "status": self.status,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "bases": [base.to_json() for base in self.bases],
        }


def synthetic_worth(
    rows: pd.DataFrame,
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
    n_test: int | None = None,
) -> dict[str, SyntheticWorth]:
    """By generator, from the checked rows of one dataset, classifier and recipe.

    rows: `Checked.frame` of one family, `accuracy` in percent. n_test: images of the test set,
    where they are known. Never raises for lack of data: what is missing is a reason.
    """
    generators = sorted({str(name) for name in rows.loc[rows["n_syn"] > 0, "generator"]})
    seen = arrange(rows)
    layout = seen.layout
    if not len(layout.n_base) or not generators:
        return {}
    noise = variance.estimate(layout, seen.values, n_test=n_test)
    fit = effective_samples.fit(layout, noise, draws=max(draws, 1), seed=seed)
    notes = [*seen.notes, *(one.text for one in seen.outliers), *_noise_notes(fit)]
    warnings = _warnings(rows, fit, n_test)
    settings = rows.dropna(subset="setting").groupby("generator")["setting"].first()
    return {
        name: replace(
            _of_generator(name, fit, level, tuple(notes), tuple(warnings)),
            seen=seen,
            setting=settings.get(name),
        )
        for name in generators
    }


def _of_generator(
    name: str, fit: Fit, level: float, notes: tuple[str, ...], warnings: tuple[str, ...]
) -> SyntheticWorth:
    layout = fit.layout
    if name not in layout.sources:
        why = ("no training with its images can be used",)
        return SyntheticWorth(name, (), NOT_DETERMINED, why, notes, warnings, fit)
    j = layout.sources.index(name)
    bases = tuple(
        _of_base(fit, b, j, level)
        for b in range(len(layout.n_base))
        if len(layout.pure(b, j)) or len(layout.pure(b, -1))
    )
    reasons = _reasons(bases)
    status = NOT_DETERMINED if reasons else DETERMINED
    return SyntheticWorth(name, bases, status, tuple(reasons), notes, warnings, fit)


def _of_base(fit: Fit, b: int, j: int, level: float) -> BaseWorth:
    layout = fit.layout
    n = float(layout.n_base[b])
    wanted = sorted({*layout.real[layout.pure(b, -1)].tolist(), 1.0})
    return BaseWorth(
        n_base=n,
        amounts=tuple(amount(fit, b, j, r * n, level=level) for r in wanted),
        exchange=exchange(fit, b, j, level=level),
        first=first_worth(fit, b, j, level=level),
        extra=extra_worth(fit, b, j, level=level),
    )


def _reasons(bases: tuple[BaseWorth, ...]) -> list[str]:
    """Why nothing is determined; empty where at some base size an amount is known and the images'
    information, beyond that of copies, is too.
    """
    if not bases:
        return ["there are no trainings with its images"]
    lacking: dict[str, list[str]] = {}
    for base in bases:
        whys = []
        if not any(one.kind in ANSWERED for one in base.amounts):
            whys += [why for one in base.amounts[:1] for why in one.reasons]
        if not base.extra.determined:
            whys += list(base.extra.reasons)
        if not whys:
            return []
        for why in dict.fromkeys(whys):
            lacking.setdefault(why, []).append(f"{base.n_base:,.0f}")
    return [f"{why} (base {', '.join(sizes)})" for why, sizes in lacking.items()]


def _noise_notes(fit: Fit) -> list[str]:
    """What the prior supplies, since no repetition tells it."""
    if not fit.noise.unmeasured:
        return []
    what = ", ".join(fit.noise.unmeasured)
    return [f"nothing was repeated that tells the spread of: {what}; a prior stands in for it"]


def _warnings(rows: pd.DataFrame, fit: Fit, n_test: int | None) -> list[str]:
    """What limits any answer from this table, for the first screen."""
    found = []
    seeds = rows.groupby(["n_nominal", "arm", "generator", "n_real_added", "n_syn", "n_copies"])
    if (least := int(seeds["trial_id"].nunique().min())) < FEW_SEEDS:
        times = "once" if least == 1 else f"{least} times"
        found.append(f"some cells were trained {times} only: run at least {FEW_SEEDS} seeds")
    if rows["subset_seed"].nunique() == 1:
        found.append(
            "one subset seed: how much the answer depends on which images are the base, and on the "
            "generator's luck, is assumed, not measured"
        )
    if n_test is not None and n_test < SMALL_TEST:
        found.append(f"the test set has {n_test:,} images: small differences cannot be seen")
    layout = fit.layout
    for b, n in enumerate(layout.n_base):
        at = layout.base_cell(b)
        if at is not None and fit.noise.mean[0, at] >= SATURATED:
            found.append(
                f"the base of {n:,.0f} alone reaches {fit.noise.mean[0, at]:.1f}%: little is left "
                "to gain, so amounts are hard to tell"
            )
    return found


def plain(value: Any) -> Any:
    """The value with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def has_copies(layout: Layout) -> bool:
    """Whether copies of the base were trained anywhere."""
    return COPIES in layout.sources


__all__ = [
    "ANSWERED", "DETERMINED", "NOT_DETERMINED", "UNDETERMINED", "BaseWorth", "SyntheticWorth",
    "has_copies", "synthetic_worth",
]  # fmt: skip
