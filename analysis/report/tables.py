"""The tables of the report, as plain rows of text."""

import json
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from equigrid.analysis.conclusions.amounts import (
    AT_LEAST,
    FEWER,
    MATCHED,
    NEVER,
    Amount,
    Worth,
    images,
)
from equigrid.analysis.conclusions.chosen import ChosenClasses, added_words
from equigrid.analysis.conclusions.comparisons import Compared, real_gains, recipe_gains
from equigrid.analysis.conclusions.equivalence import Analysis, CurveResult
from equigrid.analysis.conclusions.predictors import (
    COMPARED,
    LEAST_POOLS,
    Point,
    Predictor,
    pool_points,
    predictors,
)
from equigrid.analysis.conclusions.predictors import MEASURES as POOL_MEASURES
from equigrid.analysis.conclusions.ratio import ImprovementRatio, improvement_ratios
from equigrid.analysis.conclusions.rivals import Contender
from equigrid.analysis.conclusions.worth import BaseWorth
from equigrid.analysis.data.checks import CELL, FAMILY
from equigrid.analysis.data.estimates import Estimate
from equigrid.analysis.data.summary import cell_means
from equigrid.analysis.figures.zero_shot import MEASURES, zero_shot_means
from equigrid.analysis.fitting.surface import EQ11, rank
from equigrid.analysis.report.paper_reading import CRITERION
from equigrid.analysis.settings import METRICS, NAMES

_MAX_ROWS = 500  # of a table in the report; the whole one is in the store
_SURFACES = 3  # listed per base size
_SOURCES = 8  # listed per curve
RIVALS_TITLE = "Synthetic images against what is free"
_RIVALS_INTRO = (
    "Augmentations of the base alone beside copies and synthetic images whose trainings make as "
    "many optimizer steps. Gains in points, over the base alone and over each generator's images "
    "nearest to 1:1, paired by subset seed. Intervals are of one comparison each, while the first "
    "screen corrects for the number of augmentations. The luck of a generator is in them only "
    "where each subset has a generator of its own."
)
_ZERO_SHOT_INTRO = (
    "Accuracies on real images: of unseen classes, trained on synthetic images alone or not at "
    "all, and of seen ones. Means over trainings with their intervals."
)
_QUALITY_INTRO = (
    "Against the real training images. Feature distance and diversity are FID and diversity in the "
    "features of the grid's own classifier; neighbours are the nearest images of the generator's "
    "own training set, at a distance in grey levels (root mean square)."
)
_METRICS_INTRO = (
    "In the features of the network named, against the whole training set; in brackets 95% "
    "intervals for other images of the same generator and other real ones (delete-a-group "
    "jackknife for FD, disjoint subsets for KID, precision, recall, density and coverage). FD∞ is "
    "FD without the bias of the pool's size. Nearer than held-out images: the part of pairs in "
    "which a sample lies nearer to the training images than a held-out real image does, 0.5 "
    "without copying; C_T is its standard score, below -3 a sign of copies; near copies: samples "
    "nearer than all but the nearest 1% of held-out images. What these cannot tell: with few "
    "held-out images, with near duplicates among the real images, or in features that miss a "
    "difference, copies pass unseen and look-alikes pass for copies, and no score proves that "
    "nothing was copied."
)
_PREDICTOR_INTRO = (
    "Spearman's correlation of the pools' ranks in each measure with the ranks of their gains, "
    "the sign turned where lower is better: 1 says that the better pool brings more. The interval "
    f"is for other pools of the kind (Bonett & Wright 2000), and needs {LEAST_POOLS} of them. "
    "Pools of several base sizes differ in more than their quality."
)
_CHOSEN_INTRO = (
    "Gains over the base, and over copies of the same classes and amounts (equal steps), paired by "
    "repetition. Amounts by class are no points of the curves above, and no fit has them."
)
_CHOSEN_CLASSES_INTRO = (
    "Gains class by class, with an interval for each class alone; surely: the gain over the base "
    "is one, or a loss, also when all classes are looked at together (Bonferroni)."
)
_GENERATORS_INTRO = (
    "How each makes its images; what the presets say is written out, "
    "the rest is in the specification."
)
_TUPLES_INTRO = (
    "Synthetic images per base image that reach, on the surface, "
    "the accuracy of the added real ones."
)
_NARROWING_INTRO = (
    "What makes the intervals of c1 and c2 wide, and how much of their variance one more "
    "repetition would remove."
)
_COST_INTROS = {
    "sampling pools": "Seconds are medians over a pool's shards: "
    "the first of a process loads the models too."
}
_OF_REAL = {
    "n_images": "n_real",
    "diversity": "diversity_real",
    "feature_diversity": "feature_diversity_real",
}
_OF_POOL = ("dataset", "generator", "n_base")  # what the pool's name says already
_IN_METRICS = (
    "extractor", "copying_z", "n_held_out", "kid_se",
    *(f"{name}{end}" for name in COMPARED for end in ("", "_low", "_high")),
)  # fmt: skip
"""Columns that have a table of their own."""
_DOMAIN_INTRO = (
    "A classifier of real against synthetic images, as many of each; accuracies on images held out."
)


def report_tables(table: pd.DataFrame, analysis: Analysis, extras: dict) -> Iterable[dict]:
    intro = (
        "Synthetic images that do what added real ones do, by the effective-sample-size model; "
        "beside it monotone interpolation of the measured means, where it can tell."
    )
    yield _table(
        "amounts", "Equivalent amounts", _amount_rows(analysis), "No amount is known.", intro
    )
    intro = (
        "Synthetic images that one real image is worth, over the first n_base real ones and over "
        "the next; real images that one of the first n_base synthetic ones is worth; and what they "
        "bring beyond as many copies of the base, in real images."
    )
    yield _table("worth", "What an image is worth", _worth_rows(analysis), "Nothing known.", intro)
    yield _cells_table(table, analysis)
    yield _table("gains", "Gains", _gain_rows(analysis), "No gains can be computed.")
    if rows := rival_rows(analysis):
        yield _table("augmentations", RIVALS_TITLE, rows, "", _RIVALS_INTRO)
    yield from _comparison_tables(table, analysis, extras.get("recipe"))
    yield from _chosen_tables(analysis, extras.get("class_names"))
    ratios = [_ratio_row(ratio) for ratio in improvement_ratios(analysis)]
    if ratios:
        yield _table("ratios", "Improvement ratio", ratios, "")
    missing = [{"curve": str(c.key), "what": text} for c in analysis.curves for text in c.missing]
    yield _table("missing", "Missing cells", missing, "No cell is known to be missing.")
    yield _table("failures", "Failures", list(extras.get("failures", [])), "Nothing failed.")
    if extras.get("generators"):
        made = _without_empty(extras["generators"])
        yield _table("generators", "Generators", made, "", _GENERATORS_INTRO)
    if extras.get("quality"):
        pools = quality_rows(extras["quality"])
        yield _table("quality", "Quality of the pools", pools, "", _QUALITY_INTRO)
        yield from _metric_tables(analysis, extras["quality"])
    if extras.get("domain"):
        told = [_domain_row(row) for row in extras["domain"]]
        yield _table("domain-gap", "Domain gap", told, "", _DOMAIN_INTRO)
    if extras.get("zero_shot"):
        lines = zero_shot_means(extras["zero_shot"], analysis.settings.level)
        rows = [_zero_shot_row(line) for line in lines]
        yield _table("zero-shot", "Zero-shot", rows, "", _ZERO_SHOT_INTRO)
    yield from _cost_tables(extras.get("costs", []))
    if extras.get("runs"):
        yield _table("runs", "Runs", list(extras["runs"]), "")


def paper_tables(analysis: Analysis) -> Iterable[dict]:
    """Those of Appendix A."""
    yield _table(
        "curves", "c1 and c2 (Eq. 13)", [_curve_row(c) for c in analysis.curves], "No curve yet."
    )
    intro = (
        "Synthetic images per base image that reach, on Eq. 11's surface, the accuracy of the "
        "added real ones."
    )
    yield _table(
        "tuples", "Tuples (Eq. 12)", _tuple_rows(analysis), "No tuple could be solved.", intro
    )
    intro = (
        f"The best {_SURFACES} of the 31 by AICc at each base size, and Eq. 11; rank is by "
        "adjusted R², which the paper chose by."
    )
    yield _table("surfaces", "Accuracy surfaces", _surface_rows(analysis), "No surface.", intro)
    intro = (
        "What makes the intervals of c1 and c2 wide, and how much of their variance one more "
        "repetition would remove."
    )
    yield _table(
        "narrowing",
        "What would narrow c1 and c2",
        _narrowing_rows(analysis),
        "Nothing is fitted.",
        intro,
    )


def _amount_rows(analysis: Analysis) -> list[dict]:
    return [
        {"curve": str(curve.key), "base": int(base.n_base), "real images": round(one.n_real),
         "synthetic images": amount_text(one), "interval": amount_interval(one),
         "known within": "" if one.factor is None or one.kind != MATCHED else f"×{one.factor:.2g}",
         "no amount does": f"{one.probability[NEVER]:.0%}" if one.probability else "",
         "interpolated": _reading(one),
         "beyond what was measured": "yes" if one.extrapolated else ""}
        for curve in analysis.curves if curve.worth for base in curve.worth.bases
        for one in base.amounts
    ]  # fmt: skip


def amount_text(one: Amount) -> str:
    """In a cell of a table."""
    if one.kind == MATCHED:
        return images(one.value)
    if one.kind == AT_LEAST:
        return f"at least {images(one.low)}"
    if one.kind == FEWER:
        return f"fewer than {images(one.high)}"
    return one.kind


def amount_interval(one: Amount) -> str:
    """Its ends, where they say something."""
    if one.kind not in (MATCHED, AT_LEAST):
        return ""
    return f"{images(one.low)} to {'no limit' if one.high is None else images(one.high)}"


def _reading(one: Amount) -> str:
    if one.interpolation is None:
        return ""
    low, middle, high = ("beyond" if end is None else images(end) for end in one.interpolation)
    return f"{middle} ({low} to {high})"


def _worth_rows(analysis: Analysis) -> list[dict]:
    return [
        {"curve": str(curve.key), "base": int(base.n_base),
         "one real, first": _worth_text(base.exchange.first),
         "one real, next": _worth_text(base.exchange.following),
         "one synthetic": _worth_text(base.first),
         "beyond copies, real images": _extra_text(base), "status": curve.worth.status}
        for curve in analysis.curves if curve.worth for base in curve.worth.bases
    ]  # fmt: skip


def _worth_text(worth: Worth, scale: float = 1.0) -> str:
    value, low, high = (
        "no limit"
        if end is None
        else f"{end * scale:,.2f}"
        if scale == 1
        else f"{end * scale:,.0f}"
        for end in (worth.value, worth.low, worth.high)
    )
    return f"{value} ({low} to {high})"


def _extra_text(base: BaseWorth) -> str:
    if base.extra.extra.value is None:
        return "not known"
    return _worth_text(base.extra.extra, base.n_base)


def _comparison_tables(
    table: pd.DataFrame, analysis: Analysis, recipe: str | None
) -> Iterable[dict]:
    metric, level = analysis.settings.metric, analysis.settings.level
    of_recipe = recipe_gains(table, recipe, metric=metric, level=level) if recipe else []
    if rows := _compared_rows(of_recipe, metric):
        intro = (
            "All that was trained from one base size, over that base alone with the recipe "
            f"{recipe}."
        )
        yield _table("recipes", "Recipes of one base", rows, "", intro)
    if rows := _compared_rows(real_gains(table, metric=metric, level=level), metric):
        intro = "Synthetic images fixed, real ones varied; gains over the fewest real images."
        yield _table("fixed-synthetic", "Real images beside fixed synthetic ones", rows, "", intro)


def _chosen_tables(analysis: Analysis, class_names: list[str] | None) -> Iterable[dict]:
    """What images added to chosen classes do: an arm each, and class by class."""
    if not analysis.chosen:
        return
    arms = [(one, _arm_words(one, class_names)) for one in analysis.chosen]
    rows = [
        {
            **words, "balanced accuracy, points": one.balanced.text(2),
            "over copies": one.balanced_over_copies.text(2) if one.balanced_over_copies else "",
            "top-1, points": one.top1.text(2), "pairs": one.pairs,
        }
        for one, words in arms
    ]  # fmt: skip
    yield _table("chosen", "Images of chosen classes", rows, "", _CHOSEN_INTRO)
    rows = [
        {
            **words,
            "class": class_names[change.label] if class_names else str(change.label),
            "added of it": change.added, "base, %": f"{change.base:.2f}",
            "gain, points": change.over_base.text(2),
            "over copies": change.over_copies.text(2) if change.over_copies else "",
            "surely": "yes" if change.surely else "",
        }
        for one, words in arms for change in one.classes
    ]  # fmt: skip
    yield _table("chosen-gains", "Which class gains from them", rows, "", _CHOSEN_CLASSES_INTRO)


def _arm_words(one: ChosenClasses, class_names: list[str] | None) -> dict:
    return {
        "dataset": one.dataset, "classifier": one.classifier, "recipe": one.recipe,
        "base": one.n_nominal, "arm": one.arm, "generator": one.generator,
        "added": added_words(one, class_names),
    }  # fmt: skip


def _compared_rows(compared: Compared, metric: str) -> list[dict]:
    return [
        {
            "dataset": row["dataset"], "classifier": row["classifier"], "recipe": row["recipe"],
            "real": int(row["n_base"] + row["n_real_added"]), "synthetic": int(row["n_syn"]),
            "copies": int(row["n_copies"]), "generator": row["generator"],
            _heading(metric): f"{row['mean']:.2f}", "interval": _interval(row["low"], row["high"]),
            "gain, points": "reference" if gain is None else gain.text(2),
            "trainings": int(row["trials"]),
        }
        for row, gain in compared
    ]  # fmt: skip


def rival_rows(analysis: Analysis) -> list[dict]:
    """A line for each contender at each base."""
    return [
        {
            "dataset": one.dataset, "classifier": one.classifier, "recipe": one.recipe,
            "base": one.n_base, "what": contender_text(line), "added": line.added,
            "steps": line.steps, _heading(analysis.settings.metric): f"{line.mean:.2f}",
            "interval": _interval(line.low, line.high), "over the base": _gain(line.over_base),
            **{f"over {name}": _gain(gain) for name, gain in line.over.items()},
            "trainings": line.trials,
        }
        for one in analysis.rivals for line in one.contenders
    ]  # fmt: skip


def contender_text(line: Contender) -> str:
    """What a line of that table is."""
    if line.arm == "syn":
        return f"images of {line.name}"
    return {"base": "the base alone", "copies": "copies of the base"}.get(line.arm, line.name)


def _gain(gain: Estimate | None) -> str:
    return "" if gain is None else gain.text(2)


def _interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{low:.2f} to {high:.2f}"


def quality_rows(quality: list[dict]) -> list[dict]:
    """A row of the real images and one per pool; what is None or empty everywhere has no column.

    quality: mappings with pool (its name), dataset, generator, setting, n_base (nominal; None for
    open-set generators), and the measures by name, of which some are those of the real images.
    """
    real = {
        "pool": "real images",
        **{name: quality[0][theirs] for name, theirs in _OF_REAL.items()},
    }
    rows = [real, *quality]
    names = [
        name
        for name in quality[0]
        if name not in (*_OF_REAL.values(), *_OF_POOL, "pool", "setting", *_IN_METRICS)
    ]
    shown = [{name: row.get(name) for name in ("pool", "setting", *names)} for row in rows]
    return [
        {name.replace("_", " "): value for name, value in row.items()}
        for row in _without_empty(shown)
    ]


def _metric_tables(analysis: Analysis, quality: list[dict]) -> Iterable[dict]:
    """What `quality.metrics` asked for, alone and beside the gain."""
    measured = [row for row in quality if any(row.get(name) is not None for name in COMPARED)]
    if not measured:
        return
    rows = _without_empty([_metric_row(row) for row in measured])
    yield _table("metrics", "Quality of the pools, metric by metric", rows, "", _METRICS_INTRO)
    points = pool_points(analysis, quality)
    if not points:
        return
    families = len({point.family for point in points})
    beside = _without_empty([_gain_row(point, families > 1) for point in points])
    title = f"Quality beside the gain at 1:{points[0].scale:g}"
    intro = "Of each generator and base size; where there are several pools, their mean."
    yield _table("metrics-gain", title, beside, "", intro)
    found = [_predictor_row(each) for each in predictors(points)]
    yield _table("predictors", "Does a measure predict the gain?", found, "", _PREDICTOR_INTRO)


def _metric_row(row: dict) -> dict:
    values = {POOL_MEASURES[name].words: _measured(row, name) for name in COMPARED}
    return {
        "pool": row["pool"], "network": row.get("extractor"), "images": row.get("n_images"),
        "real images": row.get("n_real"), **values, "C_T": row.get("copying_z"),
        "held-out images": row.get("n_held_out"),
    }  # fmt: skip


def _measured(row: dict, name: str) -> str | None:
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return None
    # An interval in one piece, in a line of its own where the column is narrow.
    if low is None or high is None:
        return _digits(value, 3)
    return f"{_digits(value, 3)} [{_digits(low, 2)},\N{NO-BREAK SPACE}{_digits(high, 2)}]"


def _digits(value: float, digits: int) -> str:
    """So many that count, and never an exponent for a large number."""
    whole = abs(value) >= 10**digits - 0.5
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def _gain_row(point: Point, several: bool) -> dict:
    """several: whether there are other families, so that it is told whose point this is."""
    measures = {
        POOL_MEASURES[name].words: _measured(
            {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}, name
        )
        for name, one in point.measures.items()
    }
    family = dict(zip(("dataset", "classifier", "recipe"), point.family)) if several else {}
    return {
        **family, "generator": point.generator, "base": f"{point.n_base:,.0f}",
        "gain, points": point.gain.text(2), **measures,
    }  # fmt: skip


def _predictor_row(found: Predictor) -> dict:
    known = found.correlation
    return {
        "classifier": found.family[1], "recipe": found.family[2],
        "measure": POOL_MEASURES[found.measure].words,
        "base": "all" if found.base is None else f"{found.base:,.0f}", "pools": found.pools,
        "rank correlation": None if known is None else known.text(2), "says": found.reading(),
    }  # fmt: skip


def _without_empty(rows: list[dict]) -> list[dict]:
    """The rows without the columns that are None or empty in all of them."""
    kept = {name for row in rows for name, value in row.items() if value not in (None, "")}
    return [{name: value for name, value in row.items() if name in kept} for row in rows]


def _zero_shot_row(line: dict) -> dict:
    measures = {f"{words}, %": line[name].text(2) for name, words in MEASURES.items()}
    return {
        "classifier": line["classifier"], "real": line["n_base"], "generator": line["generator"],
        "synthetic": line["n_syn"], "synthetic / real": line["ratio"], **measures,
        "trainings": line["trials"],
    }  # fmt: skip


def _domain_row(row: dict) -> dict:
    return {
        "pool": row["pool"],
        "what": f"{row['patch_px']} px patches" if row["patch_px"] else "whole images",
        "accuracy %": f"{row['accuracy']:.2f}",
        "interval": _interval(row["low"], row["high"]),
        "on real %": f"{row['real']:.2f}",
        "on synthetic %": f"{row['synthetic']:.2f}",
        "class by class %": ", ".join(
            "–" if value is None else f"{value:.0f}" for value in row["per_class"]
        ),
        "trained on": row["n_train"],
        "tested on": row["n_test"],
    }


def _cost_tables(costs: dict[str, list[dict]] | list[dict]) -> Iterable[dict]:
    by_kind = costs if isinstance(costs, dict) else {"Costs": costs}
    for i, (kind, rows) in enumerate(by_kind.items()):
        title = kind if kind == "Costs" else f"Costs: {kind}"
        yield _table(
            f"costs-{i}", title, list(rows), "No costs recorded.", _COST_INTROS.get(kind, "")
        )


def _table(name: str, title: str, rows: list[dict], empty: str, intro: str = "") -> dict:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    shown = [[_value(row.get(column)) for column in columns] for row in rows[:_MAX_ROWS]]
    if len(rows) > _MAX_ROWS:
        intro = f"{intro} The first {_MAX_ROWS} of {len(rows):,} rows.".strip()
    return {
        "id": name,
        "title": title,
        "columns": columns,
        "rows": shown,
        "empty": empty,
        "intro": intro,
        "count": f"{len(rows):,} row{'s' if len(rows) != 1 else ''}" if rows else "none",
    }


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
    shown = analysis.settings.metric
    means = cell_means(
        table, metric=shown, level=analysis.settings.level, test_sizes=analysis.settings.test_sizes
    )
    others = _other_metrics(table, means, shown)
    rows = [
        {
            "dataset": r["dataset"], "classifier": r["classifier"], "base": int(r["n_nominal"]),
            "arm": r["arm"], "generator": r["generator"], "added": added_text(r),
            "scale": float(r["scale"]), _heading(shown): f"{r['mean']:.2f}",
            "interval": _interval(r["low"], r["high"]), **others[i],
            "trainings": int(r["trials"]), "subset seeds": int(r["clusters"]),
        }
        for i, r in enumerate(means.to_dict("records"))
    ]  # fmt: skip
    intro = (
        "Intervals hold the repetitions' spread and the choice of the test images, which is common "
        "to all: most of it cancels in gains."
    )
    return _table("cells", "Accuracies", rows, "No finished trials.", intro)


def added_text(row: Mapping) -> int | str:
    """Images added; of a mixed arm both parts."""
    if row["arm"] == "mix":
        return f"{row['n_real_added']:,} real + {row['n_syn']:,} synthetic"
    return int(row["n_real_added"] + row["n_syn"] + row["n_copies"])


def _heading(metric: str) -> str:
    return f"{NAMES[metric]} %"


def _other_metrics(table: pd.DataFrame, means: pd.DataFrame, shown: str) -> list[dict]:
    """By row of `means`, the other metrics that the table has, in words. One that is the same as
    the one shown in every cell, as balanced accuracy is on balanced test sets, says nothing.
    """
    found: list[dict] = [{} for _ in range(len(means))]
    keys = [*FAMILY, *CELL]
    for metric in METRICS:
        if metric == shown:
            continue
        try:
            other = cell_means(table, metric=metric)
        except ValueError:  # the table has no such column
            continue
        values = means[keys].merge(other, how="left", on=keys)["mean"].to_numpy()
        same = np.isclose(values, means["mean"].to_numpy(), atol=0.005)
        if not np.isfinite(values).any() or same.all():
            continue
        for row, value in zip(found, values):
            row[_heading(metric)] = f"{value:.2f}" if np.isfinite(value) else ""
    return found


def _curve_row(curve: CurveResult) -> dict:
    return {
        "dataset": curve.key.dataset, "classifier": curve.key.classifier,
        "recipe": curve.key.recipe, "generator": curve.key.generator,
        "c1 and c2 are": curve.status, "c1": curve.c1.text(3), "c2": curve.c2.text(3),
        "1 / tau": round(1 / curve.tau),
        "tuples used": len(curve.tuples), "discarded": len(curve.discarded),
        **{f"c1, c2 ({name})": _pair(pair) for name, pair in curve.variants.items()},
    }  # fmt: skip


def _pair(pair: tuple) -> str:
    return "none" if pair[0] is None else f"{pair[0]:.3f}, {pair[1]:.3f}"


def _tuple_rows(analysis: Analysis) -> list[dict]:
    return [
        {
            "curve": str(curve.key),
            "base": int(t.n_base),
            "real ratio": t.real_ratio,
            "synthetic ratio": t.syn_ratio.text(2),
            "used": "yes" if t.used else f"no: {t.why_not}",
            "beyond what was measured": "; ".join(t.extrapolated),
        }
        for curve in analysis.curves
        for t in (*curve.tuples, *curve.discarded)
    ]


def _gain_rows(analysis: Analysis) -> list[dict]:
    return [
        {
            "curve": str(curve.key),
            "base": int(g.n_base),
            "arm": g.arm,
            "scale": g.scale,
            "over": g.over,
            "gain, points": g.gain.text(2),
            "trainings": g.trials,
        }
        for curve in analysis.curves
        for g in curve.gains
    ]


def _ratio_row(ratio: ImprovementRatio) -> dict:
    return {
        "dataset": ratio.dataset, "classifier": ratio.classifier, "closed": ratio.closed,
        "open": ratio.open, "base": int(ratio.n_base), "scale": ratio.scale,
        "ratio": ratio.ratio.text(2),
    }  # fmt: skip


def _surface_rows(analysis: Analysis) -> list[dict]:
    rows = []
    for curve in analysis.curves:
        for base in curve.bases:
            if base.surface is None:
                continue
            found = base.candidates(analysis.settings.epsilon)
            ranked = rank(found, "aicc")
            places = {c.terms: number for number, c in enumerate(rank(found, CRITERION), start=1)}
            shown = ranked[:_SURFACES]
            shown += [c for c in ranked if c.terms == EQ11 and c not in shown]
            rows += [
                {
                    "curve": str(curve.key),
                    "base": int(base.data.n_nominal),
                    "terms": " + ".join(c.terms),
                    "rank of 31": places[c.terms],
                    "adjusted R2": c.adjusted_r2,
                    "AICc": c.aicc,
                    "leave-one-out, points": c.loo,
                    "residual sd, points": c.residual_sd,
                    "used": "yes" if c.terms == base.terms else "",
                }
                for c in shown
            ]
    return rows


def _narrowing_rows(analysis: Analysis) -> list[dict]:
    return [
        {
            "curve": str(curve.key),
            "base": int(n.n_base),
            "source": n.source,
            "share of variance": f"{n.share:.1%}",
            "one more removes": f"{n.saves:.1%}",
        }
        for curve in analysis.curves
        for n in curve.narrowing[:_SOURCES]
    ]
