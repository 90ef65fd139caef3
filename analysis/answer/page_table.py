"""What the report's page answers questions from: equivalent amounts over many numbers of real
images, as quantiles, with the rules and the sentences that `equigrid equiv` goes by.

The page interpolates between the rows and does nothing else of its own: it fits nothing.
"""

import numpy as np

from equigrid.analysis.answer.next_steps import NOTHING_FITTED
from equigrid.analysis.conclusions.amounts import (
    NO_RISE,
    SURE,
    WHY_OPEN,
    WIDEST,
    equivalent,
    missing_for,
    quantiles,
)
from equigrid.analysis.conclusions.equivalence import Analysis, CurveResult
from equigrid.analysis.conclusions.phrasing import PARTS, SENTENCES, case_by_copies, copies_open
from equigrid.analysis.conclusions.worth import SAME_BASE, BaseWorth, SyntheticWorth
from equigrid.analysis.data.trials import Floats

ROWS = 90  # from one image to the last, in equal ratios
FURTHEST = 4.0  # times the largest measured amount of real images, or the base: the table ends
RULES = {"sure": SURE, "widest": WIDEST, "no_rise": NO_RISE, "same_base": SAME_BASE}


def page_table(analysis: Analysis) -> dict:
    """Plain values: `curves`, by which the page answers; `rules`, `sentences`, `parts`, `why`."""
    return {
        "curves": [_curve(curve) for curve in analysis.curves],
        "rules": RULES, "sentences": SENTENCES, "parts": PARTS, "why": WHY_OPEN,
    }  # fmt: skip


def _curve(curve: CurveResult) -> dict:
    """A curve; of its `bases`, each with amounts of real images, and those that do the same."""
    worth = curve.worth
    found: dict = {"name": str(curve.key), "dataset_size": curve.n_total_dataset, "bases": []}
    if worth is None or worth.fit is None or not worth.bases:
        why = "; ".join(worth.reasons) if worth else "there are no synthetic images in it"
        return {**found, "nothing": f"No answer: {why}. {NOTHING_FITTED}"}
    return {**found, "generator": worth.generator, "bases": [_base(worth, b) for b in worth.bases]}


def _base(worth: SyntheticWorth, base: BaseWorth) -> dict:
    fit, b, n = worth.fit, worth.base_index(base.n_base), base.n_base
    assert fit is not None
    assert b is not None
    layout, j = fit.layout, worth.source
    own = {
        "n_base": n,
        "case": case_by_copies(base.extra),
        "copies": copies_open(base.extra),
        "reasons": "; ".join(missing_for(layout, b, j)),
    }
    if own["reasons"]:
        return own
    real, syn = layout.pure(b, -1), layout.amount[layout.pure(b, j), j]
    most_real = float(layout.real[real].max()) if len(real) else 0.0
    counts = _counts(n, [one.n_real for one in base.amounts], most_real)
    draws = np.moveaxis(equivalent(fit.draws, b, j, counts / n)[0], -1, 0)  # (R, D)
    low, middle, high = quantiles(draws, worth.level)
    return {
        **own,
        "measured": [float(syn.min()) * n, float(syn.max()) * n],
        "most_real": most_real * n,
        "n_real": _plain(counts),
        "low": _plain(low * n),
        "middle": _plain(middle * n),
        "high": _plain(high * n),
        "never": _plain((~np.isfinite(draws)).mean(axis=-1)),
        "no_rise": _plain(np.isnan(draws).mean(axis=-1)),
    }


def _counts(n: float, asked: list[float], most_real: float) -> Floats:
    """The rows' amounts of real images: those of the report among them."""
    last = FURTHEST * max(most_real, 1.0) * n
    return np.unique(np.concatenate([np.geomspace(1.0, last, ROWS), asked]))


def _plain(values: Floats) -> list[float | None]:
    """Six significant digits; None: no end."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values]
