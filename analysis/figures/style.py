"""How figures look: one palette that colour-blind readers can tell apart, a marker and a line style
per series. Colours go by role, the same in all figures: closed-set generators are warm (the first
vermilion), open-set ones cool (the first blue), adapted ones, between the two, purple, real images
green, copies grey, mixes black.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

Handle = Artist | tuple[Artist, ...]
"""What a legend can show."""
# Okabe and Ito (2008), "Color Universal Design".
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#7F7F7F",
)  # fmt: skip
Look = tuple[str, str, str]
"""Colour, marker and line style of a series."""
CLOSED_LOOKS: tuple[Look, ...] = (
    (VERMILION, "s", "-"), (ORANGE, "P", "-"), (VERMILION, "H", "--"),
)  # fmt: skip
OPEN_LOOKS: tuple[Look, ...] = ((BLUE, "^", "-"), (SKY, "v", "-"), (BLUE, "X", "--"))
ADAPTED_LOOKS: tuple[Look, ...] = (
    (PURPLE, "D", "-"), (PURPLE, "p", "--"), (PURPLE, "d", ":"), (PURPLE, "<", "-."),
)  # fmt: skip
REAL_LOOK: Look = (GREEN, "o", "-")
COPIES_LOOK: Look = (GREY, "x", "--")
MIX_LOOK: Look = (BLACK, "*", "")
_NO_STYLE = ("backend", "backend_fallback", "interactive")
_EMPTY = "nothing to draw"
# Matplotlib's own defaults below ours: a matplotlibrc of the user's (text.usetex, say) changes no
# figure, and fails none.
STYLE: "dict[RcKeyType, Any]" = {
    **{key: value for key, value in mpl.rcParamsDefault.items() if key not in _NO_STYLE},
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "hatch.color": "#FFFFFF",
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "equigrid",  # element ids, so that equal figures are equal files
    "pdf.fonttype": 42,
}


def named(error: OSError, path: Path) -> OSError:
    """The error with the file that could not be written: of a full disk a library says no more than
    that it is.
    """
    return error if error.filename else OSError(error.errno, error.strerror, str(path))


def generator_looks(settings: Mapping[str, str | None]) -> dict[str, Look]:
    """The look of each generator by its setting, of `SETTINGS`; one that does not say counts as
    closed. In the order of their names, so that a look does not depend on the rows' order.
    """
    rows: dict[str, Iterator[Look]] = {
        "closed": _again(CLOSED_LOOKS), "open": _again(OPEN_LOOKS),
        "adapted": _again(ADAPTED_LOOKS),
    }  # fmt: skip
    return {
        name: next(rows.get(settings[name] or "closed", rows["closed"]))
        for name in sorted(settings)
    }


def looks_of(means: pd.DataFrame) -> dict[str, Look]:
    """The look of each generator of `cell_means`."""
    named = means[means["generator"] != ""]
    return generator_looks(dict(zip(named["generator"], named["setting"])))


def generator_look(setting: str | None) -> Look:
    """Of a generator that stands alone in a figure."""
    return generator_looks({"": setting})[""]


def _again(looks: tuple[Look, ...]) -> Iterator[Look]:
    while True:
        yield from looks


def with_bars(
    axes: Axes, x: ArrayLike, y: ArrayLike, bars: ArrayLike | None, look: Look, **options: Any
) -> Handle:
    """A series of points at (x, y); its handle for a legend. bars: (2, N) below and above each
    point, NaN or 0 where there is none; a series without any shows none in the legend either.
    """
    colour, marker, line = look
    options = {"color": colour, "marker": marker, "linestyle": line or "none", **options}
    known = None if bars is None else np.nan_to_num(np.asarray(bars, dtype=float))
    if known is None or not known.any():
        for of_bars in ("capsize", "elinewidth"):
            options.pop(of_bars, None)
        return axes.plot(x, y, **options)[0]
    return axes.errorbar(x, y, yerr=known, **{"capsize": 2, **options})


def tidy(axes: Axes) -> None:
    """Light grid behind the data, no box."""
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """`count` panels, four to a row at most."""
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(2.6 * columns, 4.4), 2.5 * rows + 0.75), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.axis("off")
    return figure, list(grid[:count])


def legend_below(figure: Figure, handles: Iterable[Handle], labels: Iterable[str]) -> None:
    """One legend under the panels, in as many columns as its figure is wide enough for, four at
    most.
    """
    renderer, shown, named = FigureCanvasAgg(figure).get_renderer(), list(handles), list(labels)
    for columns in (4, 3, 2, 1):
        legend = figure.legend(  # type: ignore[call-overload]  # it takes error bars' tuples too
            shown, named, loc="outside lower center", ncols=columns, frameon=False
        )
        if columns == 1 or legend.get_window_extent(renderer).width <= figure.bbox.width:
            return
        legend.remove()


def empty_figure(message: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(figsize=(5.0, 2.0), layout="constrained")
    axes = figure.add_subplot()
    axes.axis("off")
    axes.text(0.5, 0.5, message, ha="center", va="center", wrap=True, transform=axes.transAxes)
    figure.set_label(_EMPTY)
    return figure


def is_empty(figure: Figure) -> bool:
    """Whether the figure only says why there is nothing to draw."""
    return figure.get_label() == _EMPTY


def thousands(count: float) -> str:
    """Short tick labels: '500', '6.5k', '130k'."""
    return f"{count / 1000:g}k" if count >= 1000 else f"{count:g}"
