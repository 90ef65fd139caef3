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
from equigrid.analysis.figures.style import (
    BLACK,
    STYLE,
    Look,
    generator_looks,
    legend_below,
    panels,
    tidy,
    with_bars,
)

MEASURES = {
    "among_unseen": "unseen classes, among themselves",  # the paper's, as we read it
    "among_all": "unseen classes, among all",
    "seen_among_all": "seen classes, among all",
}
_LINES = ("-", "--", ":")  # by the number of real images
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
            name: student_estimate(trials[name].to_numpy(dtype=float), level)
            for name in MEASURES
            if name in frame
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


def published_zero_shot_figure(rows: list[dict]) -> Figure:
    """Table 21 as Fig. 14 shows it: among the unseen classes, a panel per dataset.

    rows: as in `zero_shot_means`, with `dataset`, and `among_unseen` alone of the measures.
    """
    with mpl.rc_context(STYLE):
        datasets = sorted({row["dataset"] for row in rows})
        figure, grid = panels(len(datasets))
        for axes, dataset in zip(grid, datasets):
            means = zero_shot_means([row for row in rows if row["dataset"] == dataset])
            _measure_panel(axes, means, "among_unseen", _looks(rows), say_real=False)
            real = " or ".join(f"{n:,}" for n in sorted({line["n_base"] for line in means}))
            axes.set_title(f"{dataset}, {real} real images", fontsize=9)
        figure.supylabel("top-1 accuracy (%), unseen classes", fontsize=9)
        shown = dict(pair[::-1] for axes in grid for pair in zip(*axes.get_legend_handles_labels()))
        legend_below(figure, shown.values(), shown.keys())
    return figure


def _figure(means: list[dict]) -> Figure:
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(MEASURES))
        for axes, (measure, title) in zip(grid, MEASURES.items()):
            _measure_panel(axes, means, measure, _looks(means))
            axes.set_title(title, fontsize=9)
        figure.supylabel("top-1 accuracy (%)", fontsize=9)
        handles, labels = grid[0].get_legend_handles_labels()
        legend_below(figure, handles, labels)
    return figure


def _looks(means: list[dict]) -> dict[str, Look]:
    """Zero-shot generators know other images: open, unless a row says otherwise."""
    names = {line["generator"]: line.get("setting") or "open" for line in means}
    return generator_looks({name: setting for name, setting in names.items() if name})


def _measure_panel(
    axes: Axes, means: list[dict], measure: str, looks: dict[str, Look], *, say_real: bool = True
) -> None:
    """A line per number of real images and generator; without synthetic images, black."""
    sizes = sorted({line["n_base"] for line in means})
    here = [name for name in looks if any(line["generator"] == name for line in means)]
    for k, n_base in enumerate(sizes):
        for name in here or [""]:
            own = [m for m in means if m["n_base"] == n_base and m["generator"] in ("", name)]
            own.sort(key=lambda m: m["n_syn"])
            values: list[Estimate] = [m[measure] for m in own]
            accuracy = [np.nan if value.value is None else value.value for value in values]
            colour, marker, _ = looks.get(name, (BLACK, "o", "-"))
            with_bars(
                axes, [m["ratio"] for m in own], accuracy, np.array([v.bar for v in values]).T,
                (colour, marker, _LINES[k % len(_LINES)]),
                label=f"{n_base:,} real, " * say_real + (name or "none synthetic"),
            )  # fmt: skip
    _ratio_axis(axes, sorted({m["ratio"] for m in means}))
    tidy(axes)


def _ratio_axis(axes: Axes, ratios: list[float]) -> None:
    """From 0 to the smallest ratio linear, from there on logarithmic."""
    axes.set_xlabel("synthetic / real images")
    if positive := [ratio for ratio in ratios if ratio > 0]:
        axes.set_xscale("symlog", linthresh=positive[0])
    axes.set_xticks(ratios, [f"{ratio:.2g}" for ratio in ratios])
    axes.minorticks_off()
