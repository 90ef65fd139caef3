"""Whether an equivalence is determined, and everything worth saying beside it, in plain
sentences.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from equigrid.analysis.conclusions.controls import harmful_steps
from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.estimates import Estimate
from equigrid.analysis.fitting.curve import equivalent_ratio
from equigrid.analysis.fitting.noise import CLUSTERED, NONE, RESIDUAL, TRIALS, BaseNoise
from equigrid.analysis.fitting.solve import NEVER, WHY
from equigrid.analysis.fitting.surface import Surfaces
from equigrid.analysis.fitting.tuples import EquivalenceTuple

_FAR_OFF = 2.0  # factor between Eq. 13 and a tuple from which it is mentioned
# scatter about the surface, in standard errors of the means, from which a lack of fit is mentioned
_NOISY = 3.0


Gains = Mapping[str, Estimate | None]


class Base(Protocol):
    """What is asked of a base size's part in a curve, `equivalence.BaseFit`."""

    @property
    def data(self) -> BaseData: ...
    @property
    def noise(self) -> BaseNoise: ...
    @property
    def surface(self) -> Surfaces | None: ...
    @property
    def residual_sd(self) -> float: ...
    @property
    def residual_df(self) -> int: ...
    @property
    def missing(self) -> str | None: ...


def reasons_against(
    *,
    generator: str,
    bases: Sequence[Base],
    used: Sequence[EquivalenceTuple],
    discarded: Sequence[EquivalenceTuple],
    verified: bool,
    c1: Estimate,
    c2: Estimate,
    gains: Gains,
) -> list[str]:
    """Why c1 and c2 may not be used; empty where they may."""
    reasons = [] if generator else ["there are no synthetic rows"]
    surfaces = sum(base.surface is not None for base in bases)
    if surfaces < 2:
        reasons.append(
            f"an accuracy surface exists at {_sizes(surfaces)} and c1 needs two" + _lacking(bases)
        )
    if any(base.noise.model == NONE for base in bases):
        reasons.append(
            "the noise cannot be estimated: nothing is repeated, "
            "and there are too few cells for a residual"
        )
    else:
        reasons += _gain_reasons(gains)
    if surfaces:
        reasons += _fit_reasons(used, discarded, verified, c1, c2)
    return reasons


def _sizes(count: int) -> str:
    return "one base size" if count == 1 else f"{count} base sizes" if count else "no base size"


def _lacking(bases: Sequence[Base]) -> str:
    """'(no synthetic rows at 500 and 5,000)': base sizes grouped by what they lack."""
    by_reason = defaultdict(list)
    for base in bases:
        if base.missing:
            by_reason[base.missing].append(f"{base.data.n_nominal:,.0f}")
    parts = [f"{reason} at {', '.join(sizes)}" for reason, sizes in by_reason.items()]
    return f" ({'; '.join(parts)})" if parts else ""


def _gain_reasons(gains: Gains) -> list[str]:
    reasons = []
    for name, words in (("gain_over_base", "synthetic"), ("real_gain", "real")):
        gain = gains[name]
        if gain is None:
            continue
        if gain.interval is None:
            reasons.append(f"the gain of {words} images has no bounded interval")
            continue
        low, high = gain.interval
        if low <= 0:
            what = "is negative" if high < 0 else "cannot be told from none"
            reasons.append(
                f"the gain of {words} images {what}: {gain.text(2)} points over the base"
            )
    return reasons


def _fit_reasons(
    used: Sequence[EquivalenceTuple],
    discarded: Sequence[EquivalenceTuple],
    verified: bool,
    c1: Estimate,
    c2: Estimate,
) -> list[str]:
    sizes = len({t.n_base for t in used})
    if discarded and not used and {t.why_not for t in discarded} == {WHY[NEVER]}:
        return [
            "the surface never reaches real data's accuracy, "
            "whatever the number of synthetic images"
        ]
    if sizes < 2:
        return [f"usable tuples exist at {_sizes(sizes)} and c1 needs two"]
    if len(used) < 3:
        return [f"{len(used)} usable tuples are too few for two parameters and a check"]
    if not verified:
        return ["the fit of c1 and c2 has no verified minimum"]
    open_ended = [name for name, estimate in (("c1", c1), ("c2", c2)) if not estimate.bounded]
    if open_ended:
        which = (
            "the intervals of c1 and c2 are"
            if len(open_ended) == 2
            else f"the interval of {open_ended[0]} is"
        )
        return [f"{which} not bounded: too many of the redrawn data sets give no fit"]
    return []


def notes_on(
    *,
    bases: Sequence[Base],
    draws: list[np.ndarray],
    tuples: Sequence[EquivalenceTuple],
    gains: Gains,
    c1: Estimate,
    c2: Estimate,
    tau: float,
    level: float,
) -> list[str]:
    """What a reader must know of the result, however it came out."""
    models = {base.noise.model for base in bases}
    notes = []
    if CLUSTERED in models:
        notes.append("intervals include the choice of the subset and the training of the generator")
    if TRIALS in models:
        notes.append("one subset seed: intervals are given this generator and this subset")
    if RESIDUAL in models:
        notes.append(
            "cells are not repeated: the scatter about the surface stands in for the noise"
        )
    copies = gains["gain_over_copies"]
    if copies is not None and (copies.interval is None or copies.interval[0] <= 0):
        notes.append(
            f"over as many copies of the base images the synthetic ones gain {copies.text(2)} "
            "points: what they bring cannot be told from more optimiser steps"
        )
    notes += harmful_steps([base.data for base in bases], draws, level)
    notes += _lack_of_fit(bases)
    notes += _misfit([t for t in tuples if t.used], c1, c2, tau)
    far = [t for t in tuples if t.used and t.extrapolated]
    if far:
        notes.append(f"{len(far)} of {sum(t.used for t in tuples)} tuples rest on extrapolation")
    if any(base.surface is not None for base in bases):
        lacking = _lacking(bases)
        notes += [f"some base sizes give no tuples{lacking}"] if lacking else []
    return notes


def _lack_of_fit(bases: Sequence[Base]) -> list[str]:
    """Where noise is known independently, a surface that misses the means by far more than their
    standard errors.
    """
    words = []
    for base in bases:
        if base.surface is None or base.noise.model == RESIDUAL or base.residual_df < 1:
            continue
        error = base.noise.sd / base.noise.count.mean() ** 0.5
        if base.residual_sd > _NOISY * error:
            words.append(
                f"base {base.data.n_nominal:,.0f}: the surface misses the cell means by "
                f"{base.residual_sd:.2f} points, their noise is {error:.2f}: "
                "the intervals do not contain that"
            )
    return words


def _misfit(used: Sequence[EquivalenceTuple], c1: Estimate, c2: Estimate, tau: float) -> list[str]:
    """The tuple that Eq. 13 misses most, where it misses by much: two parameters need not describe
    the tuples.
    """
    solved = [(t, value) for t in used if (value := t.syn_ratio.value) is not None]
    if c1.value is None or c2.value is None or not solved:
        return []
    fitted = [equivalent_ratio(c1.value, c2.value, tau * t.n_base, t.real_ratio) for t, _ in solved]
    factors = [max(f / value, value / f) for f, (_, value) in zip(fitted, solved)]
    worst = max(range(len(solved)), key=factors.__getitem__)
    if factors[worst] < _FAR_OFF:
        return []
    t, value = solved[worst]
    return [
        f"Eq. 13 is a poor description here: at base {t.n_base:,.0f} and {t.real_ratio:g} times as "
        f"many real images it gives {fitted[worst]:.2g} where the surface gives {value:.2g}"
    ]
