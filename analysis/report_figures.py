"""The figures of the report, still and interactive, with their captions."""

from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure

from analysis.classes import class_gains
from analysis.domain_figures import domain_accuracy_figure, tsne_figure
from analysis.equivalence import Analysis, CurveResult
from analysis.figures import (
    accuracy_curves,
    class_gain_figure,
    equivalence_contours,
    equivalence_curves,
    fit_residuals,
    improvement_ratio_figure,
)
from analysis.interactive import accuracy_panels, contour_panels, equivalence_panels
from analysis.ratio import improvement_ratios
from analysis.summary import families


def report_figures(table: pd.DataFrame, analysis: Analysis) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """(name, caption, still figure, interactive panels) in the order of the report."""
    metric, level = analysis.settings.metric, analysis.settings.level
    for i, family in enumerate(families(table)):
        caption = (
            f"Accuracy on {family[0]} with {family[1]} against the amount added, as a multiple of the base set. "
            f"Means with {level:.0%} intervals over seeds."
        )
        panels = accuracy_panels(table, family, metric=metric, level=level)
        yield f"accuracy-{i}", caption, accuracy_curves(table, family, metric=metric, level=level), panels
    for i, curve in enumerate(analysis.curves):
        if any(base.surface is not None for base in curve.bases):
            yield from _curve_figures(i, curve)
    ratios = improvement_ratios(analysis)
    if ratios:
        caption = "Improvement ratio (Eq. 7): the gain of closed-set over that of open-set images, at equal amounts."
        yield "improvement-ratio", caption, improvement_ratio_figure(ratios), []
    yield from _class_figures(table, level)


def _curve_figures(i: int, curve: CurveResult) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    caption = (
        f"Fitted accuracy for {curve.key}. Lines join mixes of equal accuracy; dots are measured cells, between the "
        "axes the surface interpolates."
    )
    yield f"contours-{i}", caption, equivalence_contours(curve), contour_panels(curve)
    caption = (
        f"How many synthetic images match added real ones, for {curve.key}: {curve.status}. Open symbols rest on "
        "amounts that were not measured."
    )
    yield f"equivalence-{i}", caption, equivalence_curves(curve), equivalence_panels(curve)
    caption = f"What the fitted surface leaves of the measured accuracies, for {curve.key}."
    yield f"residuals-{i}", caption, fit_residuals(curve), []


def _class_figures(table: pd.DataFrame, level: float) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """Class by class, per family at its largest base size and the largest scale with synthetic images there."""
    gains = class_gains(table, level=level)
    for i, (family, rows) in enumerate(gains.groupby(["dataset", "classifier", "recipe"], sort=True)):
        syn = rows[rows["arm"] == "syn"]
        if syn.empty:
            continue
        rows = rows[rows["n_nominal"] == syn["n_nominal"].max()]
        scale = syn.loc[syn["n_nominal"] == syn["n_nominal"].max(), "scale"].max()
        caption = f"Gains class by class on {family[0]} with {family[1]}; intervals are per class."
        yield f"classes-{i}", caption, class_gain_figure(rows[rows["scale"] == scale]), []


def measure_figures(domain: list[dict]) -> Iterable[tuple[str, str, Figure, list[dict]]]:
    """What was measured of pools: the domain classifiers, and the t-SNE where it was asked for."""
    if not domain:
        return
    caption = "How well a classifier tells real from synthetic images that it has not seen, with 95% intervals."
    yield "domain", caption, domain_accuracy_figure(domain), []
    for i, row in enumerate(row for row in domain if row.get("tsne")):
        n, perplexity = row["tsne"]["n"], row["tsne"]["perplexity"]
        caption = f"t-SNE of {n:,} real and {n:,} synthetic images of {row['pool']}, perplexity {perplexity:g}."
        yield f"tsne-{i}", caption, tsne_figure(row["tsne"]), []
