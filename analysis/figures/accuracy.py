"""Figures of a results table: accuracy curves, and the writing of any figure to files.

No figure touches pyplot's global state, so they work in threads, actors and tests alike. Figures of
a fitted curve are in `curve_figures`; both are re-exported here.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equigrid.analysis.data.summary import cell_means, families, fixed_synthetic
from equigrid.analysis.figures.curves import (
    equivalence_contours,
    equivalence_curves,
    fit_residuals,
    improvement_ratio_figure,
    quality_against_gain,
)
from equigrid.analysis.figures.images import class_gain_figure, sample_sheet
from equigrid.analysis.figures.style import (
    COPIES_LOOK,
    MIX_LOOK,
    REAL_LOOK,
    STYLE,
    Handle,
    Look,
    empty_figure,
    legend_below,
    looks_of,
    named,
    panels,
    thousands,
    tidy,
    with_bars,
)
from equigrid.analysis.settings import NAMES

__all__ = [
    "accuracy_curves",
    "class_gain_figure",
    "equivalence_contours",
    "equivalence_curves",
    "fit_residuals",
    "improvement_ratio_figure",
    "quality_against_gain",
    "sample_sheet",
    "save",
]

FORMATS = ("png", "svg", "pdf")


def axis_label(metric: str) -> str:
    """The metric's name, to stand at an axis."""
    name = NAMES[metric]
    return f"{name[0].upper()}{name[1:]} (%)"


def save(
    figure: Figure, directory: Path, name: str, formats: tuple[str, ...] = FORMATS
) -> list[Path]:
    """Write the figure once per format; the paths, in that order. PNG at 200 dots per inch."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(STYLE):
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, not once per format
        for kind in formats:
            path = directory / f"{name}.{kind}"
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
            aside = directory / f".{name}.{kind}"  # a full disk leaves the figure that is there
            try:
                figure.savefig(aside, dpi=200, format=kind, metadata=metadata)
                paths.append(aside.replace(path))
            except OSError as error:
                raise named(error, path) from error
            finally:
                aside.unlink(missing_ok=True)
    return paths


def accuracy_curves(
    table: pd.DataFrame,
    family: tuple[str, str, str] | None = None,
    *,
    metric: str = "top1",
    level: float = 0.95,
) -> Figure:
    """Accuracy against the augmentation scale (added images / n_base), one panel per base size
    (Figs. 5, 6, 8, 10).

    `family`: (dataset, classifier, recipe); the first of the table by default. Series: real, copies
    and each generator, mean with the interval of `summary.cell_means`. A family that fixes the
    synthetic amount and varies the real one (Table 20) is drawn against the number of real images
    (Fig. 13).
    """
    means = cell_means(table, metric=metric, level=level)
    if family is None:
        if means.empty:
            return empty_figure("No finished trials to draw.")
        family = families(means)[0]
    means = means[(means[["dataset", "classifier", "recipe"]] == list(family)).all(axis=1)]
    if means.empty:
        return empty_figure("No finished trials to draw.")
    if fixed_synthetic(means):
        return _real_added_to_synthetic(means, family, axis_label(metric))
    sizes = sizes_drawn(means)
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(sizes))
        handles: dict[str, Handle] = {}
        looks = looks_of(means)
        for axes, size in zip(grid, sizes):
            _accuracy_panel(axes, means[means["n_nominal"] == size], looks, handles)
            axes.set_title(f"base {size:,.0f} images")
        for axes in grid:
            axes.set_xlabel("added images / base images")
        figure.supylabel(axis_label(metric), fontsize=9)
        dataset, classifier, recipe = family
        figure.suptitle(f"{dataset}, {classifier} (recipe {recipe})", fontsize=10.5)
        legend_below(figure, handles.values(), handles.keys())
    return figure


def sizes_drawn(means: pd.DataFrame) -> list[float]:
    """Base sizes at which something was added; where there are none, all of them."""
    added = means.loc[means["arm"] != "base", "n_nominal"]
    return sorted((added if len(added) else means["n_nominal"]).unique())


def _real_added_to_synthetic(
    means: pd.DataFrame, family: tuple[str, str, str], metric_name: str
) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for name, look in looks_of(means).items():
            rows = means[means["generator"] == name].sort_values("n_base")
            label = f"with {rows['n_syn'].iloc[0]:,.0f} of {name}"
            with_bars(axes, rows["n_base"], rows["mean"], _error_bars(rows), look, label=label)
        smallest = means.loc[means["n_base"] > 0, "n_base"].min()
        axes.set_xscale("symlog", linthresh=smallest)
        sizes = sorted(means["n_base"].unique())
        axes.set_xticks(sizes, [thousands(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("real images")
        axes.set_ylabel(metric_name)
        axes.set_title(", ".join(family[:2]))
        axes.legend(frameon=False, loc="lower right")
        tidy(axes)
    return figure


def _accuracy_panel(
    axes: Axes, means: pd.DataFrame, looks: dict[str, Look], handles: dict[str, Handle]
) -> None:
    base = means[means["arm"] == "base"]
    series = [
        ("copies of the base (control)", "copies", "", COPIES_LOOK),
        ("real", "real", "", REAL_LOOK),
    ]
    series += [(f"synthetic: {name}", "syn", name, look) for name, look in looks.items()]
    for label, arm, generator, look in series:
        rows = means[(means["arm"] == arm) & (means["generator"] == generator)]
        if rows.empty:
            continue
        rows = pd.concat([base, rows]).sort_values("scale")
        drawn = with_bars(
            axes, rows["scale"], rows["mean"], _error_bars(rows), look, label=label,
            markersize=4.5, linewidth=1.3, elinewidth=0.9,
        )  # fmt: skip
        handles.setdefault(label, drawn)
    for name in looks:
        rows = means[(means["arm"] == "mix") & (means["generator"] == name)]
        if len(rows):
            bars = _error_bars(rows)
            drawn = with_bars(axes, rows["scale"], rows["mean"], bars, MIX_LOOK, markersize=6)
            handles.setdefault(f"real and {name} together", drawn)
    if len(base):
        axes.axhline(base["mean"].iloc[0], color="#555555", linewidth=0.8, linestyle=":")
        if len(base) == len(means):
            axes.plot([0], base["mean"].iloc[:1], marker="o", color="#000000")
    axes.margins(x=0.05)
    tidy(axes)


def _error_bars(rows: pd.DataFrame) -> np.ndarray:
    bars = np.stack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]]).astype(float)
    return np.where(np.isfinite(bars), bars, 0.0)
