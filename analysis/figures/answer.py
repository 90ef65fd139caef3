"""The figure of the answer: accuracy against added images, of real, synthetic and copied ones on
one axis, with the model's bands, and the equivalent amount as an arrow between the curves.

One description (`answer_panels`) serves the still figure and the interactive one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equigrid.analysis.conclusions.amounts import AT_LEAST, FEWER, MATCHED, NEVER, Amount, images
from equigrid.analysis.conclusions.worth import SyntheticWorth
from equigrid.analysis.data.trials import COPIES, Floats
from equigrid.analysis.figures.style import (
    BLACK,
    COPIES_LOOK,
    MIX_LOOK,
    REAL_LOOK,
    STYLE,
    Handle,
    empty_figure,
    generator_looks,
    legend_below,
    panels,
    thousands,
    tidy,
)

_POINTS = 60
_TICKS = (0.25, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)  # multiples of the base
_MOST_GENERATORS = 4  # in one figure
_APART = 0.03  # of the accuracies' range: from one arrow to the next
_WIDEST = 4.0  # times the largest measured amount: the axis ends there


@dataclass(frozen=True, eq=False)
class Line:
    """One kind of added images. `x` (G,) images, `middle`, `low`, `high` (G,) percent: the model;
    `at` (K,) images and `mean` (K,) percent: measured. `scaled`: whether the axis has room for the
    whole of its curve. It has none for that of copies, few of which are trained as a rule: it may
    lead anywhere beyond them, and would press the others together.
    """

    name: str
    look: tuple[str, str, str]
    x: Floats
    middle: Floats
    low: Floats
    high: Floats
    at: Floats
    mean: Floats
    scaled: bool = True

    @property
    def heights(self) -> Floats:
        """What the axis must have room for, percent."""
        return np.concatenate([self.middle, self.mean]) if self.scaled else self.mean


@dataclass(frozen=True)
class Arrow:
    """From `start` real images to `end` synthetic ones (None: out of sight), at height `accuracy`;
    `low`, `high`: the interval of the end, high None where open. `text`: what it says.
    """

    start: float
    end: float | None
    low: float
    high: float | None
    accuracy: float
    text: str
    colour: str = BLACK


@dataclass(frozen=True, eq=False)
class AnswerPanel:
    """One base size. `arrows`: one per generator that has an amount. `right`: images at the right
    end of the axis.
    """

    n_base: float
    lines: tuple[Line, ...]
    arrows: tuple[Arrow, ...]
    right: float

    @property
    def heights(self) -> tuple[float, float]:
        """Ends of the accuracy axis, percent: by all means, arrows, and curves but that of copies;
        never by bands.
        """
        arrows = np.array([arrow.accuracy for arrow in self.arrows])
        found = np.concatenate([arrows, *(line.heights for line in self.lines)])
        low, high = float(found.min()), float(found.max())
        room = 0.12 * max(high - low, 0.5)
        return max(low - room, 0.0), min(high + room, 100.5)

    def inside(self, values: Floats) -> Floats:
        """Percent, cut off at the ends of the axis."""
        return np.clip(values, *self.heights)

    @property
    def title(self) -> str:
        """The base, and below it the amounts."""
        texts = [arrow.text for arrow in self.arrows] or ["undetermined"]
        return "\n".join([f"base {self.n_base:,.0f} images", *texts])


def together(worths: Iterable[SyntheticWorth]) -> list[list[SyntheticWorth]]:
    """The generators that one figure can show: of one fit, some few at most."""
    found: list[list[SyntheticWorth]] = []
    for worth in worths:
        if worth.fit is None or not worth.bases:
            continue
        last = found[-1] if found else []
        if last and last[0].fit is worth.fit and len(last) < _MOST_GENERATORS:
            last.append(worth)
        else:
            found.append([worth])
    return found


def answer_panels(worths: Sequence[SyntheticWorth]) -> list[AnswerPanel]:
    """One per base size that says something; empty where nothing could be fitted. worths: of one
    fit.
    """
    fitted = [worth for worth in worths if worth.fit is not None]
    sizes = sorted({base.n_base for worth in fitted for base in worth.bases})
    return [_panel(fitted, n) for n in sizes]


def _panel(worths: Sequence[SyntheticWorth], n: float) -> AnswerPanel:
    first = worths[0]
    fit, b = first.fit, first.base_index(n)
    assert fit is not None
    assert b is not None, "the base sizes are those of the fit"
    layout, cells = fit.layout, fit.layout.cells_of(b)
    measured = (layout.real[cells] + layout.amount[cells].sum(axis=1)).max()
    mains = [(worth, base.main) for worth in worths for base in worth.bases if base.n_base == n]
    ends = [measured]
    ends += [end / n for _, main in mains if main for end in (main.n_real, main.value or 0.0)]
    right = min(max(ends) * 1.25, measured * _WIDEST)
    x = np.expm1(np.linspace(0.0, np.log1p(max(right, 0.1)), _POINTS))
    looks = generator_looks({worth.generator: worth.setting for worth in worths})
    sources = [("real images", REAL_LOOK, -1)]
    sources += [(worth.generator, looks[worth.generator], worth.source) for worth in worths]
    if COPIES in layout.sources:
        sources.append(("copies of the base", COPIES_LOOK, layout.sources.index(COPIES)))
    lines = []
    for name, look, source in sources:
        own = layout.pure(b, source)
        if len(own) or source == -1:
            drawn = fit.draws.real(b, x) if source < 0 else fit.draws.source(b, source, x)
            amounts = layout.real[own] if source < 0 else layout.amount[own, source]
            line = _line(name, look, x * n, drawn[0], first.level, amounts * n,
                         fit.noise.mean[0, own])  # fmt: skip
            lines.append(replace(line, scaled=look is not COPIES_LOOK))
    lines += _base_and_mixes(worths, b)
    drawn_from = (
        _arrow(worth, b, main, right * n, looks[worth.generator][0]) for worth, main in mains
    )
    arrows = [arrow for arrow in drawn_from if arrow is not None]
    return AnswerPanel(n, tuple(lines), _apart(arrows, lines), right * n)


def _apart(arrows: list[Arrow], lines: list[Line]) -> tuple[Arrow, ...]:
    """Arrows begin at one point of the real curve: each a little below the one before, so that all
    can be seen.
    """
    step = _APART * float(np.ptp(np.concatenate([line.heights for line in lines])))
    return tuple(replace(one, accuracy=one.accuracy - k * step) for k, one in enumerate(arrows))


def _line(
    name: str, look: tuple[str, str, str], x: Floats, drawn: Floats, level: float, at: Floats,
    mean: Floats,
) -> Line:  # fmt: skip
    tail = (1 - level) / 2
    low, middle, high = np.clip(np.quantile(drawn, [tail, 0.5, 1 - tail], axis=0), 0, 100)
    return Line(name, look, x, middle, low, high, at, mean)


def _base_and_mixes(worths: Sequence[SyntheticWorth], b: int) -> list[Line]:
    """What has no curve of its own: the base alone, and real and synthetic images together."""
    fit = worths[0].fit
    assert fit is not None
    layout, mean, none = fit.layout, fit.noise.mean[0], np.zeros(0)
    n = layout.n_base[b]
    found = []
    if (at := layout.base_cell(b)) is not None:
        where, height = np.zeros(1), mean[[at]]
        found.append(Line("base alone", (BLACK, "o", ""), none, none, none, none, where, height))
    cells = layout.cells_of(b)
    for worth in worths:
        mixed = cells[(layout.real[cells] > 0) & (layout.amount[cells, worth.source] > 0)]
        if len(mixed):
            total = (layout.real[mixed] + layout.amount[mixed, worth.source]) * n
            name = f"real and {worth.generator} together"
            found.append(Line(name, MIX_LOOK, none, none, none, none, total, mean[mixed]))
    return found


def _arrow(
    worth: SyntheticWorth, b: int, main: Amount | None, right: float, colour: str
) -> Arrow | None:
    if main is None or main.kind not in (MATCHED, FEWER, AT_LEAST, NEVER):
        return None
    assert worth.fit is not None
    level = np.median(worth.fit.draws.real(b, np.array([main.n_real / main.n_base]))[0])
    seen = main.value if main.value is not None and main.value <= right else None
    end = {MATCHED: seen, FEWER: seen}.get(main.kind)
    low = main.low if main.kind != NEVER else right
    return Arrow(main.n_real, end, min(low, right), main.high, min(float(level), 100.0),
                 _arrow_text(main), colour)  # fmt: skip


def _arrow_text(main: Amount) -> str:
    real = f"{images(main.n_real)} real"
    if main.kind == NEVER:
        return f"{real} > any amount of {main.source}"
    if main.kind == AT_LEAST:
        return f"{real} ≥ {images(main.low)} of {main.source}"
    if main.kind == FEWER:
        return f"{real} < {images(main.high)} of {main.source}"
    return f"{real} ≈ {images(main.value)} of {main.source}"


# The still figure ---------------------------------------------------------------------------------


def answer_figure(worths: Sequence[SyntheticWorth], y_name: str = "accuracy (%)") -> Figure:
    """A panel per base size; axes grow with the logarithm of 1 + added / base. worths: of one fit,
    see `together`.
    """
    described = answer_panels(worths)
    if not described:
        reasons = [reason for worth in worths for reason in worth.reasons]
        return empty_figure("\n".join(["Nothing to draw:", *reasons]))
    with mpl.rc_context(STYLE):
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
            low, high = panel.inside(line.low), panel.inside(line.high)
            axes.fill_between(line.x, low, high, color=colour, alpha=0.15, linewidth=0)
            handles.setdefault(line.name, drawn)
        points = axes.scatter(line.at, line.mean, color=colour, marker=marker, s=18, zorder=4)
        handles.setdefault(line.name, points)
    axes.set_xscale("function", functions=(lambda v: np.log1p(v / n), lambda t: n * np.expm1(t)))
    ticks = answer_ticks(panel)
    axes.set_xticks(ticks, [thousands(tick) for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_xlim(-0.02 * n, panel.right)
    axes.set_ylim(*panel.heights)
    for arrow in panel.arrows:
        _draw_arrow(axes, arrow, panel.right)
    tidy(axes)


def answer_ticks(panel: AnswerPanel) -> list[float]:
    """In images: none, then multiples of the base; the first ones go where there are many."""
    found = [m * panel.n_base for m in _TICKS if m * panel.n_base <= panel.right * 1.001]
    every = -(-len(found) // 5)
    return [0.0, *found[::-1][::every][::-1]]


def _draw_arrow(axes: Axes, arrow: Arrow, right: float) -> None:
    y, high = arrow.accuracy, right if arrow.high is None else min(arrow.high, right)
    if arrow.low < high:
        axes.plot([arrow.low, high], [y, y], color=arrow.colour, linewidth=4, alpha=0.3,
                  solid_capstyle="butt", zorder=3)  # fmt: skip
    end = right if arrow.end is None else arrow.end
    look = {"arrowstyle": "-|>", "color": arrow.colour, "linewidth": 1.2}
    axes.annotate("", xy=(end, y), xytext=(arrow.start, y), zorder=6, arrowprops=look)
