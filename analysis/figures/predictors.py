"""Each measure of the pools' quality against the gain of their synthetic images."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equigrid.analysis.conclusions.predictors import MEASURES, Point, Predictor
from equigrid.analysis.figures.style import FONT, Look, legend_below, panels, tidy

_SYMBOLS = "osD^vPX"


def predictor_figure(
    points: list[Point], found: list[Predictor], looks: dict[str, Look]
) -> Figure | None:
    """A panel per measure: a point for the pools of each generator (colour) at each base size
    (symbol), bars for both intervals; the rank correlation above. None where no measure is of two
    points. points, found: of one family.
    """
    names = [name for name in MEASURES if sum(name in point.measures for point in points) > 1]
    if not names:
        return None
    sizes = sorted({point.n_base for point in points})
    symbols = {n: _SYMBOLS[i % len(_SYMBOLS)] for i, n in enumerate(sizes)}
    overall = {each.measure: each for each in found if each.base is None}
    with mpl.rc_context(FONT):
        figure, grid = panels(len(names))
        for axes, name in zip(grid, names):
            _panel(axes, [p for p in points if name in p.measures], name, looks, symbols)
            axes.set_title(_title(overall.get(name)), fontsize=8)
        figure.supylabel(f"gain over the base at 1:{points[0].scale:g} (points)", fontsize=9)
        generators = sorted({point.generator for point in points})
        keys = [Line2D([], [], color=looks[name][0], linewidth=4) for name in generators]
        keys += [
            Line2D([], [], color="#555555", marker=symbols[n], linestyle="none") for n in sizes
        ]
        legend_below(figure, keys, [*generators, *(f"base {n:,.0f}" for n in sizes)])
    return figure


def _title(found: Predictor | None) -> str:
    if found is None or found.correlation is None:
        return "too few pools" if found is None else found.reading()
    return f"rank correlation {found.correlation.text(2)}"


def _panel(
    axes: Axes, points: list[Point], name: str, looks: dict[str, Look], symbols: dict[float, str]
) -> None:
    for point in points:
        measured = point.measures[name]
        across, along = ([[max(end, 0)] for end in e.bar] for e in (measured, point.gain))
        axes.errorbar(
            np.array([measured.value], float), np.array([point.gain.value], float),
            xerr=across, yerr=along,
            color=looks[point.generator][0], marker=symbols[point.n_base], markersize=5,
            linestyle="none", elinewidth=0.8, capsize=0,
        )  # fmt: skip
    better = {1: " (higher is better)", -1: " (lower is better)", 0: ""}[MEASURES[name].better]
    axes.set_xlabel(f"{MEASURES[name].words}{better}", fontsize=8)
    axes.axhline(0.0, color="#555555", linewidth=0.8, linestyle=":")
    axes.margins(x=0.15, y=0.1)
    tidy(axes)
