"""How figures look: one palette that colour-blind readers can tell apart, a marker and a line style
per series.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

Handle = Artist | tuple[Artist, ...]
"""What a legend can show."""
# Okabe and Ito (2008), "Color Universal Design".
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#7F7F7F",
)  # fmt: skip
GENERATOR_LOOKS = (
    (VERMILION, "s", "-"), (BLUE, "^", "-"), (PURPLE, "D", "-"), (SKY, "v", "-"),
    (ORANGE, "P", "-"),
)  # fmt: skip
REAL_LOOK = (GREEN, "o", "-")
COPIES_LOOK = (GREY, "x", "--")
MIX_LOOK = (BLACK, "*", "")
_EMPTY = "nothing to draw"
FONT: "dict[RcKeyType, Any]" = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "equigrid",  # element ids, so that equal figures are equal files
    "pdf.fonttype": 42,
}


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
