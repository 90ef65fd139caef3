"""Zero-shot results (Table 21, Fig. 14): means over trials, and accuracy against the ratio of
synthetic images.
"""

from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equigrid.analysis.data.estimates import Estimate, student_estimate
from equigrid.analysis.figures.style import FONT, GENERATOR_LOOKS, legend_below, panels, tidy

MEASURES = {
    "among_unseen": "unseen classes, among themselves",  # the paper's, as we read it
    "among_all": "unseen classes, among all",
    "seen_among_all": "seen classes, among all",
}
_CELL = ["classifier", "generator", "n_base", "n_nominal", "n_syn"]


def zero_shot_means(rows: list[dict], level: float = 0.95) -> list[dict]:
    """A line per cell, each measure an Estimate over its trials; `trials`: their number; `ratio`:
    synthetic images for each real one that there is (n_base, which a publication's n_nominal may be
    twice of), None without real ones.

    rows: per trial classifier, generator (None without synthetic images), n_base, n_nominal, n_syn,
    trial_id, and the MEASURES in percent. A trial that is there twice counts once.
    """
    if not rows:
        return []
    frame = pd.DataFrame(rows).drop_duplicates([*_CELL, "trial_id"]).fillna({"generator": ""})
    lines = []
    for cell, trials in frame.groupby(_CELL, sort=True):
        found = {
            name: student_estimate(trials[name].to_numpy(dtype=float), level) for name in MEASURES
        }
        line: dict[str, Any] = dict(zip(_CELL, cell))
        ratio = line["n_syn"] / line["n_base"] if line["n_base"] else None
        lines.append({**line, **found, "ratio": ratio, "trials": len(trials)})
    return lines


def zero_shot_figures(rows: list[dict], level: float = 0.95) -> Iterable[tuple[str, Figure]]:
    """(classifier, figure) of accuracy against synthetic images per real image, a panel per
    measure.
    """
    means = [line for line in zero_shot_means(rows, level) if line["ratio"] is not None]
    for classifier in sorted({line["classifier"] for line in means}):
        yield classifier, _figure([line for line in means if line["classifier"] == classifier])


def _figure(means: list[dict]) -> Figure:
    generators = sorted({line["generator"] for line in means} - {""})
    series = [
        (n, g) for n in sorted({line["n_base"] for line in means}) for g in generators or [""]
    ]
    with mpl.rc_context(FONT):
        figure, grid = panels(len(MEASURES))
        for axes, (measure, title) in zip(grid, MEASURES.items()):
            looks = zip(series, GENERATOR_LOOKS * len(series))
            for (n_base, generator), (colour, marker, line) in looks:
                own = [m for m in means if m["n_base"] == n_base]
                own = [m for m in own if m["generator"] in ("", generator)]
                own.sort(key=lambda m: m["n_syn"])
                values: list[Estimate] = [m[measure] for m in own]
                accuracy = [np.nan if value.value is None else value.value for value in values]
                axes.errorbar(
                    [m["ratio"] for m in own], accuracy, yerr=np.array([v.bar for v in values]).T,
                    color=colour, marker=marker, linestyle=line, capsize=2,
                    label=f"{n_base:,} real, {generator or 'none synthetic'}",
                )  # fmt: skip
            axes.set_title(title, fontsize=9)
            _ratio_axis(axes, sorted({m["ratio"] for m in means}))
            tidy(axes)
        figure.supylabel("top-1 accuracy (%)", fontsize=9)
        handles, labels = grid[0].get_legend_handles_labels()
        legend_below(figure, handles, labels)
    return figure


def _ratio_axis(axes: Axes, ratios: list[float]) -> None:
    """From 0 to the smallest ratio linear, from there on logarithmic."""
    axes.set_xlabel("synthetic / real images")
    if positive := [ratio for ratio in ratios if ratio > 0]:
        axes.set_xscale("symlog", linthresh=positive[0])
    axes.set_xticks(ratios, [f"{ratio:.2g}" for ratio in ratios])
    axes.minorticks_off()
