"""The figures of the report, still and interactive, with their captions."""

from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure

from equigrid.analysis.conclusions.classes import class_gains
from equigrid.analysis.conclusions.equivalence import Analysis, CurveResult
from equigrid.analysis.conclusions.predictors import COMPARED, pool_points, predictors
from equigrid.analysis.conclusions.ratio import improvement_ratios
from equigrid.analysis.data.summary import cell_means, families, fixed_synthetic
from equigrid.analysis.figures.accuracy import (
    accuracy_curves,
    class_gain_figure,
    equivalence_contours,
    equivalence_curves,
    fit_residuals,
    improvement_ratio_figure,
    quality_against_gain,
    sample_sheet,
)
from equigrid.analysis.figures.answer import answer_figure, together
from equigrid.analysis.figures.domain import domain_accuracy_figure, tsne_figure
from equigrid.analysis.figures.interactive import (
    accuracy_panels,
    answer_plots,
    contour_panels,
    equivalence_panels,
)
from equigrid.analysis.figures.predictors import predictor_figure
from equigrid.analysis.figures.rivals import rivals_figure
from equigrid.analysis.figures.style import generator_looks
from equigrid.analysis.figures.zero_shot import zero_shot_figures
from equigrid.analysis.schema import SETTING_WORDS
from equigrid.analysis.settings import NAMES


def report_figures(
    table: pd.DataFrame, analysis: Analysis, class_names: list[str] | None = None
) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """(name, caption, still figure, interactive panels) in the order of the report."""
    metric, level = analysis.settings.metric, analysis.settings.level
    means = cell_means(table, metric=metric, level=level, test_sizes=analysis.settings.test_sizes)
    for i, family in enumerate(families(table)):
        own = means[(means[["dataset", "classifier", "recipe"]] == list(family)).all(axis=1)]
        against = "the amount added, as a multiple of the base set"
        if fixed_synthetic(own):
            against = "the number of real images beside fixed synthetic ones"
        caption = (
            f"Accuracy on {family[0]} with {family[1]} (recipe {family[2]}) against {against}. "
            f"Means with {level:.0%} intervals over seeds and test images; what the test images "
            "bring cancels in gains, nearly."
        )
        panels = accuracy_panels(table, family, metric=metric, level=level)
        yield (
            f"accuracy-{i}",
            caption,
            accuracy_curves(table, family, metric=metric, level=level),
            panels,
        )
    for i, one in enumerate(analysis.rivals):
        caption = (
            f"What is free beside synthetic images, at equal steps: {one.dataset}, "
            f"{one.classifier}, recipe {one.recipe}, base {one.n_base:,}. Gains over the base "
            f"alone with their {level:.0%} intervals, paired by subset seed."
        )
        yield f"augmentations-{i}", caption, rivals_figure(one), []
    ratios = improvement_ratios(analysis)
    if any(ratio.ratio.value is not None for ratio in ratios):
        caption = (
            "Improvement ratio (Eq. 7): the gain of closed-set over that of open-set images, "
            "at equal amounts."
        )
        yield "improvement-ratio", caption, improvement_ratio_figure(ratios), []
    yield from _class_figures(table, level, class_names)


def answer_figures(analysis: Analysis) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """The one figure of the answer, for all generators of a fit."""
    y_name = f"{NAMES[analysis.settings.metric]} (%)"
    worths = [curve.worth for curve in analysis.curves if curve.worth is not None]
    keys = {id(curve.worth): curve.key for curve in analysis.curves}
    for i, group in enumerate(together(worths)):
        key = keys[id(group[0])]
        caption = (
            f"Accuracy against added images: {key.dataset}, {key.classifier}, recipe "
            f"{key.recipe}. Lines and bands: the fitted curves with their {group[0].level:.0%} "
            "intervals; symbols: measured means. An arrow leads from real images to as many "
            "synthetic ones as do the same; the bar under it is the interval of that amount, and "
            "an arrow to the right edge has no end. The axis is stretched at 0."
        )
        yield f"answer-{i}", caption, answer_figure(group, y_name), answer_plots(group, y_name)


def paper_figures(analysis: Analysis) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """Appendix A's: contours, equivalences and residuals of its surfaces."""
    for i, curve in enumerate(analysis.curves):
        if any(base.surface is not None for base in curve.bases):
            yield from _curve_figures(i, curve)


def _curve_figures(i: int, curve: CurveResult) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    caption = (
        f"Eq. 11's accuracy for {curve.key}. Lines join mixes of equal accuracy; dots are measured "
        "cells; where there are none the surface interpolates."
    )
    yield f"contours-{i}", caption, equivalence_contours(curve), contour_panels(curve)
    caption = (
        f"How many synthetic images match added real ones, for {curve.key}: "
        f"{curve.status}. Open symbols rest on amounts that were not measured."
    )
    yield f"equivalence-{i}", caption, equivalence_curves(curve), equivalence_panels(curve)
    caption = f"What the fitted surface leaves of the measured accuracies, for {curve.key}."
    yield f"residuals-{i}", caption, fit_residuals(curve), []


def _class_figures(
    table: pd.DataFrame, level: float, class_names: list[str] | None
) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """Class by class, per family at its largest base size and the largest scale with synthetic
    images there.
    """
    gains = class_gains(table, level=level)
    settings = dict(zip(table["generator"], table["setting"])) if "setting" in table else None
    for i, (family, rows) in enumerate(
        gains.groupby(["dataset", "classifier", "recipe"], sort=True)
    ):
        syn = rows[rows["arm"] == "syn"]
        if syn.empty:
            continue
        rows = rows[rows["n_nominal"] == syn["n_nominal"].max()]
        scale = syn.loc[syn["n_nominal"] == syn["n_nominal"].max(), "scale"].max()
        caption = f"Gains class by class on {family[0]} with {family[1]}; intervals are per class."
        yield (
            f"classes-{i}",
            caption,
            class_gain_figure(rows[rows["scale"] == scale], class_names, settings),
            [],
        )


def measure_figures(
    analysis: Analysis, extras: dict
) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """What was measured beside accuracies: quality of the pools, domain classifiers and their
    t-SNE, zero-shot.
    """
    yield from _quality_figures(analysis, pd.DataFrame(extras.get("quality", [])))
    yield from _domain_figures(extras.get("domain", []))
    caption = (
        "Zero-shot accuracy against synthetic images of the unseen classes per real image of the "
        "seen ones."
    )
    zero_shot = zero_shot_figures(extras.get("zero_shot", []), analysis.settings.level)
    for i, (classifier, figure) in enumerate(zero_shot):
        yield f"zero-shot-{i}", f"{caption} Image encoder {classifier}.", figure, []


def _quality_figures(
    analysis: Analysis, quality: pd.DataFrame
) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """Quality against gain, at the amount nearest to 1:1 that was trained on."""
    scales = [gain.scale for curve in analysis.curves for gain in curve.gains if gain.arm == "syn"]
    if quality.empty or not scales:
        return
    scale = min(scales, key=lambda scale: abs(scale - 1))
    for measure, words in (
        ("fid", "FID"),
        ("feature_distance", "FID in the features of the grid's own classifier"),
    ):
        if quality[measure].notna().any():
            caption = (
                f"Gain of synthetic images over the base alone at 1:{scale:g}, against {words}."
            )
            figure = quality_against_gain(analysis, quality, measure=measure, scale=scale)
            yield f"quality-{measure.replace('_', '-')}", caption, figure, []
    yield from _predictor_figures(analysis, extras_rows(quality))


def extras_rows(quality: pd.DataFrame) -> list[dict]:
    """As they came: None where nothing was measured."""
    return quality.astype(object).where(quality.notna(), None).to_dict("records")


def _predictor_figures(
    analysis: Analysis, quality: list[dict]
) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """Every measure against the gain, where `quality.metrics` were measured."""
    if not any(row.get(name) is not None for row in quality for name in COMPARED):
        return
    points = pool_points(analysis, quality)
    found = predictors(points)
    looks = generator_looks({curve.key.generator: curve.setting for curve in analysis.curves})
    for i, family in enumerate(sorted({point.family for point in points})):
        figure = predictor_figure(
            [point for point in points if point.family == family],
            [each for each in found if each.family == family],
            looks,
        )
        if figure is not None:
            caption = (
                f"Does a measure of the pools predict their gain? {family[0]}, {family[1]}, recipe "
                f"{family[2]}: gain over the base alone at 1:{points[0].scale:g} against each "
                "measure, with 95% intervals. Above each, Spearman's correlation of the ranks; 1 "
                "says that the better pool brings more. Pools of several base sizes differ in more "
                "than their quality."
            )
            yield f"predictors-{i}", caption, figure, []


def _domain_figures(domain: list[dict]) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    if not domain:
        return
    caption = (
        "How well a classifier tells real from synthetic images that it has not seen, "
        "with 95% intervals."
    )
    yield "domain", caption, domain_accuracy_figure(domain), []
    for i, row in enumerate(row for row in domain if row.get("tsne")):
        n, perplexity = row["tsne"]["n"], row["tsne"]["perplexity"]
        caption = (
            f"t-SNE of {n:,} real and {n:,} synthetic images of {row['pool']}, "
            f"perplexity {perplexity:g}: the same in both panels, and none of them trained the "
            "classifier of real against synthetic."
        )
        yield f"tsne-{i}", caption, tsne_figure(row["tsne"]), []


def sheet_figures(sheets: dict) -> Iterable[tuple[str, str, Figure, str | None]]:
    """(name, caption, figure, generator) of sample images, per generator: real ones beside its own
    at each base size.

    sheets: `classes`, names of the rows, and `sets`, mappings with generator, setting and base
    (None for real images; no base for open-set ones), images (n, H, W, 1 or 3) uint8 and labels
    (n,) into `classes`.
    """
    sets = sheets.get("sets", [])
    real = [one for one in sets if one["generator"] is None]
    generators = list(
        dict.fromkeys(one["generator"] for one in sets if one["generator"] is not None)
    )
    for i, generator in enumerate(generators or [None]):
        own = sorted(
            (one for one in sets if one["generator"] == generator), key=lambda one: one["base"] or 0
        )
        shown = [*real, *own] if generator else own
        if shown:
            panels = [(_set_title(one), one["images"], one["labels"]) for one in shown]
            figure = sample_sheet(panels, sheets["classes"])
            yield f"images-{i}", _sheet_caption(own), figure, generator


def _set_title(one: dict) -> str:
    if one["generator"] is None:
        return "real"
    return f"{one['generator']}, base {one['base']:,}" if one["base"] else one["generator"]


def _sheet_caption(own: list[dict]) -> str:
    words = (
        "A row per class, the first images of each; of many classes, some from all over the list."
    )
    generator, setting = own[0]["generator"], own[0]["setting"]
    if generator is None:
        return f"Real training images. {words}"
    bases = [f"{one['base']:,}" for one in own if one["base"]]
    trained = f", trained on {' and on '.join(bases)} of them" if bases else ""
    which = f"{SETTING_WORDS.get(setting, setting)}{trained}"
    return f"Real training images beside images of {generator} ({which}). {words}"
