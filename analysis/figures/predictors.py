"""Each measure of the pools' quality against the gain of their synthetic images."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equigrid.analysis.conclusions.predictors import MEASURES, Point, Predictor
from equigrid.analysis.figures.style import STYLE, Handle, Look, legend_below, panels, tidy

_SYMBOLS = "osD^vPX"


def predictor_figure(
    points: list[Point], found: list[Predictor], looks: dict[str, Look]
) -> Figure | None:
    """A panel per measure: a point for the pools of each generator at each base size, bars for both
    intervals; the rank correlation above. None where no measure is of two
    points. points, found: of one family.
    """
    names = [name for name in MEASURES if sum(name in point.measures for point in points) > 1]
    if not names:
        return None
    style = _Style(points, looks)
    overall = {each.measure: each for each in found if each.base is None}
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(names))
        for axes, name in zip(grid, names):
            _panel(axes, [p for p in points if name in p.measures], name, style)
            axes.set_title(_title(overall.get(name)), fontsize=8)
        figure.supylabel(f"gain over the base at 1:{points[0].scale:g} (points)", fontsize=9)
        legend_below(figure, *style.legend())
    return figure


class _Style:
    """What points look like: generators in their colours, or in other ones where theirs repeat;
    base sizes by symbols, or generators where there is one size.
    """

    def __init__(self, points: list[Point], looks: dict[str, Look]):
        self.generators = sorted({point.generator for point in points})
        self.sizes = sorted({point.n_base for point in points})
        self.colours = {name: looks[name][0] for name in self.generators}
        if len(set(self.colours.values())) < len(self.generators):
            self.colours = {name: f"C{i % 10}" for i, name in enumerate(self.generators)}

    def of(self, point: Point) -> dict[str, Any]:
        return {"color": self.colours[point.generator], "marker": self._symbol(point)}

    def _symbol(self, point: Point) -> str:
        alone = len(self.sizes) == 1
        i = self.generators.index(point.generator) if alone else self.sizes.index(point.n_base)
        return _SYMBOLS[i % len(_SYMBOLS)]

    def legend(self) -> tuple[list[Handle], list[str]]:
        """Its keys and their names."""
        if len(self.sizes) == 1:
            symbols = [_SYMBOLS[i % len(_SYMBOLS)] for i in range(len(self.generators))]
            pairs = zip(self.generators, symbols)
            keys: list[Handle] = [_key(self.colours[g], symbol) for g, symbol in pairs]
            return keys, [f"{g}, base {self.sizes[0]:,.0f}" for g in self.generators]
        keys = [Line2D([], [], color=self.colours[g], linewidth=4) for g in self.generators]
        keys += [_key("#555555", _SYMBOLS[i % len(_SYMBOLS)]) for i in range(len(self.sizes))]
        return keys, [*self.generators, *(f"base {n:,.0f}" for n in self.sizes)]


def _key(colour: str, symbol: str) -> Line2D:
    return Line2D([], [], color=colour, marker=symbol, linestyle="none", markersize=5)


def _title(found: Predictor | None) -> str:
    if found is None or found.correlation is None:
        return "too few pools" if found is None else found.reading()
    return f"rank correlation {found.correlation.text(2)}"


def _panel(axes: Axes, points: list[Point], name: str, style: _Style) -> None:
    for point in points:
        measured = point.measures[name]
        across, along = ([[max(end, 0)] for end in e.bar] for e in (measured, point.gain))
        axes.errorbar(
            np.array([measured.value], float), np.array([point.gain.value], float),
            xerr=across, yerr=along,
            markersize=5, linestyle="none", elinewidth=0.8, capsize=0, **style.of(point),
        )  # fmt: skip
    better = {1: "\n(higher is better)", -1: "\n(lower is better)", 0: ""}[MEASURES[name].better]
    axes.set_xlabel(f"{MEASURES[name].words}{better}", fontsize=8)
    axes.axhline(0.0, color="#555555", linewidth=0.8, linestyle=":")
    axes.margins(x=0.15, y=0.1)
    tidy(axes)
