"""Other readings of Appendix A that can be defended, and what each makes of a published equation.

Where the paper does not say how something was done, each way of doing it is tried on its own, never
tuned and never combined to reach a published number. `docs/analysis.md` has the resulting table.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from equigrid.analysis.conclusions.equivalence import CurveResult
from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.estimates import finite
from equigrid.analysis.fitting.procedure import Procedure, make_procedure
from equigrid.analysis.fitting.sensitivity import derivatives
from equigrid.analysis.paper import published

# What Appendix A leaves open, one change at a time: (reading, fields of Settings).
SETTINGS_READINGS: tuple[tuple[str, dict], ...] = (
    ("epsilon 1e-9", {"epsilon": 1e-9}),
    ("epsilon 1e-3", {"epsilon": 1e-3}),
    ("epsilon 1", {"epsilon": 1.0}),
    ("epsilon 100", {"epsilon": 100.0}),
    ("tuples above 10 discarded", {"ratio_limit": 10.0}),
    ("tuples above 30 discarded", {"ratio_limit": 30.0}),
    ("tuples above 1,000 discarded", {"ratio_limit": 1000.0}),
    ("least squares in the logarithm", {"form": "log"}),
    ("least squares in relative errors", {"form": "relative"}),
    ("Huber's loss", {"form": "robust"}),
    ("surface by AICc", {"surface": "aicc"}),
    ("surface by leave-one-out error", {"surface": "loo"}),
    ("surface by adjusted R2", {"surface": "adjusted_r2"}),
)


def readings(equation: int) -> list[dict]:
    """Every reading of one published equation: `reading`, `c1`, `c2` (None where nothing is
    fitted), `tuples`.

    ValueError for a number that is not among the seven.
    """
    baseline = published.curves(replicates=0)
    if equation not in baseline:
        raise ValueError(f"equation is {equation}, must be one of {sorted(baseline)}")
    curve = baseline[equation]
    procedure = _procedure(curve)
    rows = [_row("as described (epsilon 1e-6, Eq. 11)", procedure)]
    for reading, fields in SETTINGS_READINGS:
        rows.append(_row(reading, procedure.changed(**fields)))
    rows.append(
        _row("base row counted in both tables", replace(procedure, data=_base_twice(procedure)))
    )
    rows.append(
        _row("one surface over all base sizes", replace(procedure, data=_one_surface(procedure)))
    )
    rows.append(_row("only real ratios that were measured", _measured_ratios(procedure)))
    if curve.key.dataset == "cifar10":
        rows.append(
            _row(
                "Table 9 as printed",
                _procedure(published.curves(as_printed=True, replicates=0)[equation]),
            )
        )
    if curve.key.classifier == "resnet50":
        rows.append(
            _row(
                "top-5 accuracies",
                _procedure(published.curves(metric="top5", replicates=0)[equation]),
            )
        )
    return rows


def leave_one_out(equation: int) -> dict[str, list[dict]]:
    """The fit without each accuracy in turn (`cells`) and without each tuple in turn (`tuples`)."""
    curve = published.curves(replicates=0)[equation]
    procedure = _procedure(curve)
    cells = [
        _row(f"without {name}", replace(procedure, data=data))
        for name, data in _without_cells(procedure)
    ]
    means = [base.mean[None] for base in procedure.data]
    _, solved, _ = procedure.fit(means)
    rows = []
    for t in np.nonzero(np.isfinite(solved.usable[0]))[0]:
        usable = solved.usable.copy()
        usable[0, t] = np.nan
        fit = procedure.fit_tuples(replace(solved, usable=usable))
        base = procedure.data[solved.base_index[t]].n_nominal
        name = f"without {base:,.0f} at {solved.real_ratio[t]:g}"
        left = int(np.isfinite(usable).sum())
        rows.append(
            {"reading": name, "c1": finite(fit.c1[0]), "c2": finite(fit.c2[0]), "tuples": left}
        )
    return {"cells": cells, "tuples": rows}


def closest_subset(equation: int) -> dict:
    """Of all subsets of an equation's tuples, the one whose fit comes closest to the published
    pair.

    `tuples`: (n_base, real ratio) kept; `c1`, `c2`; `off`: the larger of their relative distances.
    A diagnosis of what the published fit may have left out, not a way to fit.
    """
    row = next(r for r in published.read_table("equations").itertuples() if r.equation == equation)
    procedure = _procedure(published.curves(replicates=0)[equation])
    _, solved, _ = procedure.fit([base.mean[None] for base in procedure.data])
    places = np.nonzero(np.isfinite(solved.usable[0]))[0]
    kept = ((np.arange(2 ** len(places))[:, None] >> np.arange(len(places))) & 1).astype(bool)
    usable = np.full((len(kept), solved.usable.shape[1]), np.nan)
    usable[:, places] = np.where(kept, solved.usable[0, places], np.nan)
    fits = procedure.fit_tuples(replace(solved, usable=usable))
    off = np.maximum(np.abs(fits.c1 / row.c1 - 1), np.abs(fits.c2 / row.c2 - 1))
    best = int(np.nanargmin(off))
    chosen = places[kept[best]]
    sizes = [procedure.data[i].n_nominal for i in solved.base_index[chosen]]
    tuples = list(zip(sizes, solved.real_ratio[chosen].tolist()))
    return {
        "tuples": tuples,
        "c1": float(fits.c1[best]),
        "c2": float(fits.c2[best]),
        "off": float(off[best]),
    }


def per_tenth_point(equation: int) -> dict[str, float]:
    """How much a change of one accuracy by 0.1 points can change the fitted pair: the largest
    relative change of c1 and of c2 over all cells, to first order. The published accuracies have
    two decimals and no spread.
    """
    curve = published.curves(replicates=0)[equation]
    slopes = derivatives(_procedure(curve), [base.noise for base in curve.bases])
    if slopes is None:
        raise ValueError(f"equation {equation} has no verified fit to differentiate")
    largest = np.abs(np.concatenate(slopes)).max(axis=0) * 0.1
    return {"c1": float(np.expm1(largest[0])), "c2": float(np.expm1(largest[1]))}


def _procedure(curve: CurveResult) -> Procedure:
    return make_procedure(
        [base.data for base in curve.bases], curve.key.dataset, curve.tau, curve.settings
    )


def _row(reading: str, procedure: Procedure) -> dict:
    _, solved, fit = procedure.fit([base.mean[None] for base in procedure.data])
    used = int(np.isfinite(solved.usable).sum())
    return {"reading": reading, "c1": finite(fit.c1[0]), "c2": finite(fit.c2[0]), "tuples": used}


def _take(base: BaseData, cells: np.ndarray) -> BaseData:
    fields = ("arm", "n_real", "n_syn", "n_copies", "mean", "trials", "table")
    keys = tuple(base.trial_keys[k] for k in cells)
    return replace(base, **{name: getattr(base, name)[cells] for name in fields}, trial_keys=keys)


def _base_twice(procedure: Procedure) -> tuple[BaseData, ...]:
    """The base row stands in the real and in the synthetic table; a regression over both would
    count it twice.
    """
    return tuple(_take(b, np.concatenate([np.nonzero(b.arm == "base")[0], np.arange(len(b.mean))]))
                 for b in procedure.data)  # fmt: skip


def _one_surface(procedure: Procedure) -> tuple[BaseData, ...]:
    """All rows of all base sizes in one regression, where Appendix A selects the rows of one base
    size.
    """
    fields = ("arm", "n_real", "n_syn", "n_copies", "mean", "trials")
    pooled: dict[str, Any] = {
        name: np.concatenate([getattr(base, name) for base in procedure.data]) for name in fields
    }
    pooled["table"] = pooled["mean"][:, None]
    pooled["trial_keys"] = tuple(key for base in procedure.data for key in base.trial_keys)
    return tuple(replace(base, **pooled) for base in procedure.data)


def _measured_ratios(procedure: Procedure) -> Procedure:
    ratios = tuple(
        base.real_ratios if wanted else ()
        for base, wanted in zip(procedure.data, procedure.real_ratios)
    )
    return replace(procedure, real_ratios=ratios)


def _without_cells(procedure: Procedure) -> Iterator[tuple[str, tuple[BaseData, ...]]]:
    for i, base in enumerate(procedure.data):
        if not procedure.real_ratios[i]:
            continue
        for k in np.nonzero(base.arm != "base")[0]:
            data = list(procedure.data)
            data[i] = _take(base, np.delete(np.arange(len(base.mean)), k))
            amount = base.n_real[k] - base.n_base if base.arm[k] == "real" else base.n_syn[k]
            yield f"{base.n_nominal:,.0f} + {amount:,.0f} {base.arm[k]}", tuple(data)
