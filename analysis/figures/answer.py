"""The figure of the answer: accuracy against added images, of real, synthetic and copied ones on
one axis, with the model's bands, and the equivalent amount as an arrow between the curves.

One description (`answer_panels`) serves the still figure and the interactive one.
"""

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equigrid.analysis.conclusions.amounts import AT_LEAST, FEWER, MATCHED, NEVER, Amount, images
from equigrid.analysis.conclusions.worth import BaseWorth, SyntheticWorth
from equigrid.analysis.data.trials import COPIES, Floats
from equigrid.analysis.figures.style import (
    BLACK,
    COPIES_LOOK,
    FONT,
    MIX_LOOK,
    REAL_LOOK,
    Handle,
    empty_figure,
    generator_look,
    legend_below,
    panels,
    thousands,
    tidy,
)

_POINTS = 60
_TICKS = (0.25, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)  # multiples of the base
_WIDEST = 4.0  # times the largest measured amount: the axis ends there


@dataclass(frozen=True, eq=False)
class Line:
    """One kind of added images. `x` (G,) images, `middle`, `low`, `high` (G,) percent: the model;
    `at` (K,) images and `mean` (K,) percent: measured.
    """

    name: str
    look: tuple[str, str, str]
    x: Floats
    middle: Floats
    low: Floats
    high: Floats
    at: Floats
    mean: Floats


@dataclass(frozen=True)
class Arrow:
    """From `start` real images to `end` synthetic ones (None: out of sight), at `accuracy`; `low`,
    `high`: the interval of the end, high None where open.
    """

    start: float
    end: float | None
    low: float
    high: float | None
    accuracy: float
    text: str


@dataclass(frozen=True, eq=False)
class AnswerPanel:
    """One base size. `right`: images at the right end of the axis."""

    n_base: float
    lines: tuple[Line, ...]
    arrow: Arrow | None
    right: float

    @property
    def title(self) -> str:
        """The base, and below it the amount."""
        base = f"base {self.n_base:,.0f} images"
        return f"{base}\n{self.arrow.text}" if self.arrow else f"{base}\nundetermined"


def answer_panels(worth: SyntheticWorth) -> list[AnswerPanel]:
    """One per base size that says something; empty where nothing could be fitted."""
    if worth.fit is None:
        return []
    return [panel for base in worth.bases if (panel := _panel(worth, base)) is not None]


def _panel(worth: SyntheticWorth, base: BaseWorth) -> AnswerPanel | None:
    fit, b = worth.fit, worth.base_index(base.n_base)
    if fit is None or b is None:
        return None
    layout, n, j = fit.layout, base.n_base, worth.source
    cells = layout.cells_of(b)
    measured = (layout.real[cells] + layout.amount[cells].sum(axis=1)).max()
    main = base.main
    ends = [measured, main.n_real / n if main else 0.0, (main and main.value or 0.0) / n]
    right = min(max(ends) * 1.25, measured * _WIDEST)
    x = np.expm1(np.linspace(0.0, np.log1p(max(right, 0.1)), _POINTS))
    sources = [("real images", REAL_LOOK, -1), (worth.generator, generator_look(worth.setting), j)]
    if COPIES in layout.sources:
        sources.append(("copies of the base", COPIES_LOOK, layout.sources.index(COPIES)))
    lines = []
    for name, look, source in sources:
        own = layout.pure(b, source)
        if len(own) or source == -1:
            drawn = fit.draws.real(b, x) if source < 0 else fit.draws.source(b, source, x)
            amounts = layout.real[own] if source < 0 else layout.amount[own, source]
            lines.append(_line(name, look, x * n, drawn[0], worth.level, amounts * n,
                               fit.noise.mean[0, own]))  # fmt: skip
    lines += _base_and_mixes(worth, b)
    return AnswerPanel(n, tuple(lines), _arrow(worth, b, main, right * n), right * n)


def _line(
    name: str, look: tuple[str, str, str], x: Floats, drawn: Floats, level: float, at: Floats,
    mean: Floats,
) -> Line:  # fmt: skip
    tail = (1 - level) / 2
    low, middle, high = np.clip(np.quantile(drawn, [tail, 0.5, 1 - tail], axis=0), 0, 100)
    return Line(name, look, x, middle, low, high, at, mean)


def _base_and_mixes(worth: SyntheticWorth, b: int) -> list[Line]:
    """What has no curve of its own: the base alone, and real and synthetic images together."""
    assert worth.fit is not None
    layout, mean, none = worth.fit.layout, worth.fit.noise.mean[0], np.zeros(0)
    n = layout.n_base[b]
    found = []
    if (at := layout.base_cell(b)) is not None:
        where, height = np.zeros(1), mean[[at]]
        found.append(Line("base alone", (BLACK, "o", ""), none, none, none, none, where, height))
    cells = layout.cells_of(b)
    mixed = cells[(layout.real[cells] > 0) & (layout.amount[cells, worth.source] > 0)]
    if len(mixed):
        total = (layout.real[mixed] + layout.amount[mixed, worth.source]) * n
        name = f"real and {worth.generator} together"
        found.append(Line(name, MIX_LOOK, none, none, none, none, total, mean[mixed]))
    return found


def _arrow(worth: SyntheticWorth, b: int, main: Amount | None, right: float) -> Arrow | None:
    if main is None or main.kind not in (MATCHED, FEWER, AT_LEAST, NEVER):
        return None
    assert worth.fit is not None
    level = np.median(worth.fit.draws.real(b, np.array([main.n_real / main.n_base]))[0])
    seen = main.value if main.value is not None and main.value <= right else None
    end = {MATCHED: seen, FEWER: seen}.get(main.kind)
    low = main.low if main.kind != NEVER else right
    return Arrow(main.n_real, end, min(low, right), main.high, min(float(level), 100.0),
                 _arrow_text(main))  # fmt: skip


def _arrow_text(main: Amount) -> str:
    real = f"{images(main.n_real)} real"
    if main.kind == NEVER:
        return f"{real} ≈ no amount"
    if main.kind == AT_LEAST:
        return f"{real} ≥ {images(main.low)} synthetic"
    if main.kind == FEWER:
        return f"{real} < {images(main.high)} synthetic"
    return f"{real} ≈ {images(main.value)} synthetic"


# The still figure ---------------------------------------------------------------------------------


def answer_figure(worth: SyntheticWorth, y_name: str = "accuracy (%)") -> Figure:
    """A panel per base size; axes grow with the logarithm of 1 + added / base."""
    described = answer_panels(worth)
    if not described:
        return empty_figure(f"Nothing to draw for {worth.generator}:\n" + "\n".join(worth.reasons))
    with mpl.rc_context(FONT):
        figure, grid = panels(len(described))
        handles: dict[str, Handle] = {}
        for axes, panel in zip(grid, described):
            _draw(axes, panel, handles)
            axes.set_title(panel.title)
            axes.set_xlabel("added images")
        figure.supylabel(y_name, fontsize=9)
        legend_below(figure, handles.values(), handles.keys())
    return figure


def _draw(axes: Axes, panel: AnswerPanel, handles: dict[str, Handle]) -> None:
    n = panel.n_base
    for line in panel.lines:
        colour, marker, style = line.look
        if len(line.x):
            (drawn,) = axes.plot(line.x, line.middle, color=colour, linestyle=style or "-")
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
            handles.setdefault(line.name, drawn)
        points = axes.scatter(line.at, line.mean, color=colour, marker=marker, s=18, zorder=4)
        handles.setdefault(line.name, points)
    axes.set_xscale("function", functions=(lambda v: np.log1p(v / n), lambda t: n * np.expm1(t)))
    ticks = answer_ticks(panel)
    axes.set_xticks(ticks, [thousands(tick) for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_xlim(-0.02 * n, panel.right)
    if panel.arrow is not None:
        _draw_arrow(axes, panel.arrow, panel.right)
    tidy(axes)


def answer_ticks(panel: AnswerPanel) -> list[float]:
    """In images: none, then multiples of the base; the first ones go where there are many."""
    found = [m * panel.n_base for m in _TICKS if m * panel.n_base <= panel.right * 1.001]
    every = -(-len(found) // 5)
    return [0.0, *found[::-1][::every][::-1]]


def _draw_arrow(axes: Axes, arrow: Arrow, right: float) -> None:
    y, high = arrow.accuracy, right if arrow.high is None else min(arrow.high, right)
    if arrow.low < high:
        axes.plot([arrow.low, high], [y, y], color=BLACK, linewidth=4, alpha=0.25,
                  solid_capstyle="butt", zorder=3)  # fmt: skip
    end = right if arrow.end is None else arrow.end
    axes.annotate("", xy=(end, y), xytext=(arrow.start, y), zorder=6,
                  arrowprops={"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.2})  # fmt: skip
