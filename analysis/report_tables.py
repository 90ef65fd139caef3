"""The tables of the report, as plain rows of text."""

import json
from collections.abc import Iterable

import pandas as pd

from analysis.equivalence import Analysis, CurveResult
from analysis.ratio import ImprovementRatio, improvement_ratios
from analysis.summary import cell_means
from analysis.surface import EQ11, rank

_MAX_ROWS = 500  # of a table in the report; the whole one is in the store
_SURFACES = 3  # listed per base size
_SOURCES = 8  # listed per curve
_ZERO_SHOT_INTRO = "On real images of classes that were trained on synthetic images alone, or not at all."
_DOMAIN_INTRO = "A classifier of real against synthetic images, as many of each; accuracies on images held out."


def report_tables(table: pd.DataFrame, analysis: Analysis, extras: dict) -> Iterable[dict]:
    yield _cells_table(table, analysis)
    yield _table("curves", "Equivalences", [_curve_row(c) for c in analysis.curves], "No curve yet.")
    intro = "Synthetic images per base image that reach, on the surface, the accuracy of the added real ones."
    yield _table("tuples", "Equivalent amounts", _tuple_rows(analysis), "No tuple could be solved.", intro)
    yield _table("gains", "Gains", _gain_rows(analysis), "No gains can be computed.")
    ratios = [_ratio_row(ratio) for ratio in improvement_ratios(analysis)]
    if ratios:
        yield _table("ratios", "Improvement ratio", ratios, "")
    intro = f"The best {_SURFACES} of the 31 by AICc at each base size, and Eq. 11."
    yield _table("surfaces", "Accuracy surfaces", _surface_rows(analysis), "No surface.", intro)
    intro = (
        "What makes the intervals of c1 and c2 wide, and how much of their variance one more repetition would remove."
    )
    yield _table("narrowing", "What would narrow the intervals", _narrowing_rows(analysis), "Nothing is fitted.", intro)
    missing = [{"curve": str(c.key), "what": text} for c in analysis.curves for text in c.missing]
    yield _table("missing", "Missing cells", missing, "No cell is known to be missing.")
    yield _table("failures", "Failures", list(extras.get("failures", [])), "Nothing failed.")
    if extras.get("quality"):
        yield _table("quality", "Quality of the pools", list(extras["quality"]), "")
    if extras.get("domain"):
        yield _table("domain-gap", "Domain gap", [_domain_row(row) for row in extras["domain"]], "", _DOMAIN_INTRO)
    if extras.get("zero_shot"):
        yield _table("zero-shot", "Zero-shot", list(extras["zero_shot"]), "", _ZERO_SHOT_INTRO)
    yield from _cost_tables(extras.get("costs", []))
    if extras.get("runs"):
        yield _table("runs", "Runs", list(extras["runs"]), "")


def _domain_row(row: dict) -> dict:
    return {
        "pool": row["pool"], "what": f"{row['patch_px']} px patches" if row["patch_px"] else "whole images",
        "accuracy %": f"{row['accuracy']:.2f}", "interval": f"{row['low']:.2f} to {row['high']:.2f}",
        "on real %": f"{row['real']:.2f}", "on synthetic %": f"{row['synthetic']:.2f}",
        "class by class %": ", ".join("–" if value is None else f"{value:.0f}" for value in row["per_class"]),
        "trained on": row["n_train"], "tested on": row["n_test"],
    }  # fmt: skip


def _cost_tables(costs) -> Iterable[dict]:
    if not isinstance(costs, dict):
        costs = {"Costs": list(costs)}
    for i, (kind, rows) in enumerate(costs.items()):
        yield _table(f"costs-{i}", kind if kind == "Costs" else f"Costs: {kind}", list(rows), "No costs recorded.")


def _table(name: str, title: str, rows: list[dict], empty: str, intro: str = "") -> dict:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    shown = [[_value(row.get(column)) for column in columns] for row in rows[:_MAX_ROWS]]
    if len(rows) > _MAX_ROWS:
        intro = f"{intro} The first {_MAX_ROWS} of {len(rows):,} rows.".strip()
    return {"id": name, "title": title, "columns": columns, "rows": shown, "empty": empty, "intro": intro}


def _value(value: object) -> dict:
    if value is None or value is pd.NA or (isinstance(value, float) and pd.isna(value)):
        return {"text": "", "number": False}
    if isinstance(value, bool | str):
        return {"text": str(value), "number": False}
    if isinstance(value, int):
        return {"text": f"{value:,}", "number": True}
    if isinstance(value, float):
        return {"text": f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}", "number": True}
    return {"text": json.dumps(value, default=str), "number": False}


def _cells_table(table: pd.DataFrame, analysis: Analysis) -> dict:
    means = cell_means(table, metric=analysis.settings.metric, level=analysis.settings.level)
    rows = [
        {"dataset": r.dataset, "classifier": r.classifier, "base": int(r.n_nominal), "arm": r.arm,
         "generator": r.generator, "added": int(r.n_real_added + r.n_syn + r.n_copies), "scale": float(r.scale),
         "accuracy %": f"{r.mean:.2f}", "interval": "" if pd.isna(r.low) else f"{r.low:.2f} to {r.high:.2f}",
         "trainings": int(r.trials), "subset seeds": int(r.clusters)}
        for r in means.itertuples()
    ]  # fmt: skip
    return _table("cells", "Accuracies", rows, "No finished trials.")


def _curve_row(curve: CurveResult) -> dict:
    return {
        "dataset": curve.key.dataset, "classifier": curve.key.classifier, "recipe": curve.key.recipe,
        "generator": curve.key.generator, "status": curve.status, "c1": curve.c1.text(3), "c2": curve.c2.text(3),
        "1 / tau": round(1 / curve.tau), "tuples used": len(curve.tuples), "discarded": len(curve.discarded),
        **{f"c1, c2 ({name})": _pair(pair) for name, pair in curve.variants.items()},
    }  # fmt: skip


def _pair(pair: tuple) -> str:
    return "none" if pair[0] is None else f"{pair[0]:.3f}, {pair[1]:.3f}"


def _tuple_rows(analysis: Analysis) -> list[dict]:
    return [
        {"curve": str(curve.key), "base": int(t.n_base), "real ratio": t.real_ratio,
         "synthetic ratio": t.syn_ratio.text(2), "used": "yes" if t.used else f"no: {t.why_not}",
         "beyond what was measured": "; ".join(t.extrapolated)}
        for curve in analysis.curves for t in (*curve.tuples, *curve.discarded)
    ]  # fmt: skip


def _gain_rows(analysis: Analysis) -> list[dict]:
    return [
        {"curve": str(curve.key), "base": int(g.n_base), "arm": g.arm, "scale": g.scale, "over": g.over,
         "gain, points": g.gain.text(2), "trainings": g.trials}
        for curve in analysis.curves for g in curve.gains
    ]  # fmt: skip


def _ratio_row(ratio: ImprovementRatio) -> dict:
    return {
        "dataset": ratio.dataset, "classifier": ratio.classifier, "closed": ratio.closed, "open": ratio.open,
        "base": int(ratio.n_base), "scale": ratio.scale, "ratio": ratio.ratio.text(2),
    }  # fmt: skip


def _surface_rows(analysis: Analysis) -> list[dict]:
    rows = []
    for curve in analysis.curves:
        for base in curve.bases:
            if base.surface is None:
                continue
            ranked = rank(base.candidates(analysis.settings.epsilon), "aicc")
            shown = ranked[:_SURFACES]
            shown += [c for c in ranked if c.terms == EQ11 and c not in shown]
            rows += [
                {"curve": str(curve.key), "base": int(base.data.n_nominal), "terms": " + ".join(c.terms),
                 "adjusted R2": c.adjusted_r2, "AICc": c.aicc, "leave-one-out, points": c.loo,
                 "residual sd, points": c.residual_sd, "used": "yes" if c.terms == base.terms else ""}
                for c in shown
            ]  # fmt: skip
    return rows


def _narrowing_rows(analysis: Analysis) -> list[dict]:
    return [
        {"curve": str(curve.key), "base": int(n.n_base), "source": n.source, "share of variance": f"{n.share:.1%}",
         "one more removes": f"{n.saves:.1%}"}
        for curve in analysis.curves for n in curve.narrowing[:_SOURCES]
    ]  # fmt: skip
