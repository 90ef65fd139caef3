"""Interactive panels of the report, as plain plotly figures (data and layout), one per base size.

They are written as JSON and drawn by plotly's script inside the report; nothing here imports
plotly.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from equigrid.analysis.conclusions.equivalence import CurveResult
from equigrid.analysis.conclusions.worth import SyntheticWorth
from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.summary import cell_means, fixed_synthetic
from equigrid.analysis.figures.accuracy import sizes_drawn
from equigrid.analysis.figures.answer import AnswerPanel, Arrow, answer_panels, answer_ticks
from equigrid.analysis.figures.curves import equivalence_bases, surface_heights
from equigrid.analysis.figures.style import (
    COPIES_LOOK,
    MIX_LOOK,
    REAL_LOOK,
    Look,
    generator_look,
    looks_of,
    thousands,
)
from equigrid.analysis.fitting.curve import equivalent_ratio
from equigrid.analysis.fitting.surface import Surfaces
from equigrid.analysis.settings import NAMES

_SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down",
    "P": "cross", "x": "x", "X": "x", "*": "star", "H": "hexagon", "p": "pentagon",
    "d": "diamond-tall", "<": "triangle-left",
}  # fmt: skip
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
_GRID = 41
_MARGIN = {"l": 55, "r": 15, "t": 40, "b": 45}
_LAYOUT = {
    "template": "none", "height": 370, "margin": _MARGIN,
    "hovermode": "closest", "font": {"family": "system-ui, DejaVu Sans, sans-serif", "size": 12},
    "legend": {"orientation": "h", "y": -0.34, "yanchor": "top", "x": 0},
    "paper_bgcolor": "rgba(0,0,0,0)",
}  # fmt: skip


def accuracy_panels(
    table: pd.DataFrame, family: tuple[str, str, str], *, metric: str, level: float
) -> list[dict]:
    """The accuracy curves of one family: {'title', 'data', 'layout'} per base size."""
    means = cell_means(table, metric=metric, level=level)
    means = means[(means[["dataset", "classifier", "recipe"]] == list(family)).all(axis=1)]
    looks = looks_of(means)
    if fixed_synthetic(means):
        return []  # not a curve over multiples of a base set; the still figure shows it
    return [
        _panel(
            f"base {size:,.0f} images",
            _accuracy_traces(means[means["n_nominal"] == size], looks),
            x="added images / base images", y=f"{NAMES[metric]} (%)",
        )
        for size in sizes_drawn(means)
    ]  # fmt: skip


def _accuracy_traces(means: pd.DataFrame, looks: dict[str, Look]) -> list[dict]:
    base = means[means["arm"] == "base"]
    series = [("real", "real", "", REAL_LOOK), ("copies (control)", "copies", "", COPIES_LOOK)]
    series += [(f"synthetic: {name}", "syn", name, looks[name]) for name in looks]
    traces = []
    for label, arm, generator, (colour, marker, line) in series:
        rows = means[(means["arm"] == arm) & (means["generator"] == generator)]
        if len(rows):
            rows = pd.concat([base, rows]).sort_values("scale")
            dash = _DASHES.get(line, "solid")
            traces.append(_accuracy_trace(rows, rows["scale"], label, colour, marker, dash))
    for name in looks:
        rows = means[(means["arm"] == "mix") & (means["generator"] == name)]
        if len(rows):
            trace = _accuracy_trace(
                rows, rows["scale"], f"real and {name} together", *MIX_LOOK[:2], "solid"
            )
            trace["mode"] = "markers"
            traces.append(trace)
    if not traces and len(base):
        traces.append(_accuracy_trace(base, [0.0], "base", "#000000", "o", "solid"))
    return traces


def _accuracy_trace(
    rows: pd.DataFrame, x: ArrayLike, name: str, colour: str, marker: str, dash: str
) -> dict:
    y, low, high = rows["mean"], rows["low"], rows["high"]
    return _points(x, y, low, high, name, colour, marker, dash=dash, text=_hover(rows))


def _hover(rows: pd.DataFrame) -> list[str]:
    return [
        f"{int(t)} trainings, {int(c)} subset seeds"
        for t, c in zip(rows["trials"], rows["clusters"])
    ]


def _points(
    x: ArrayLike,
    y: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    name: str,
    colour: str,
    marker: str,
    *,
    dash: str | None = None,
    text: list[str] | None = None,
) -> dict:
    """x, y, and the ends of the intervals: (n,) each, NaN where there is none."""
    at, lowest, highest = (np.asarray(values, dtype=float) for values in (y, low, high))
    return {
        "type": "scatter", "mode": "lines+markers" if dash else "markers", "name": name,
        "x": _plain(x), "y": _plain(at), "text": text,
        "hovertemplate": "%{x:.4g}: %{y:.4g}<br>%{text}",
        "marker": {"color": colour, "symbol": _SYMBOLS[marker], "size": 8},
        "line": {"color": colour, "dash": dash or "solid"},
        "error_y": {
            "type": "data", "symmetric": False, "array": _plain(np.nan_to_num(highest - at)),
            "arrayminus": _plain(np.nan_to_num(at - lowest)), "thickness": 1.2, "width": 3,
        },
    }  # fmt: skip


def contour_panels(curve: CurveResult) -> list[dict]:
    """Fitted accuracy over added real and synthetic images, one panel per base size with a
    surface.
    """
    return [
        _contour_panel(base.data, base.surface) for base in curve.bases if base.surface is not None
    ]


def _contour_panel(data: BaseData, surface: Surfaces) -> dict:
    real = np.linspace(0, (data.n_real - data.n_base).max(), _GRID)
    syn = np.linspace(0, data.n_syn.max(), _GRID)
    height = surface_heights(data, surface, real, syn)
    cells = data.in_surface
    traces: list[dict] = [
        {"type": "contour", "x": _plain(real / data.n_nominal), "y": _plain(syn / data.n_nominal),
         "z": [_plain(row) for row in height], "colorscale": "Viridis", "ncontours": 14,
         "contours": {"showlabels": True, "labelfont": {"color": "white", "size": 11}},
         "line": {"width": 0.8}, "colorbar": {"thickness": 12, "title": {"text": "%"}},
         "name": "fitted",
         "hovertemplate": "real %{x:.3g}, synthetic %{y:.3g}: %{z:.2f} %<extra></extra>"},
        {"type": "scatter", "mode": "markers", "name": "measured",
         "x": _plain((data.n_real[cells] - data.n_base) / data.n_nominal),
         "y": _plain(data.n_syn[cells] / data.n_nominal),
         "text": [f"{m:.2f} %" for m in data.mean[cells]],
         "hovertemplate": "%{text}<extra>measured</extra>",
         "marker": {"color": "white", "size": 8, "line": {"color": "black", "width": 1.2}}},
    ]  # fmt: skip
    title = f"base {data.n_nominal:,.0f} images"
    panel = _panel(title, traces, x="added real / base", y="added synthetic / base")
    panel["layout"]["showlegend"] = False
    return panel


def equivalence_panels(curve: CurveResult) -> list[dict]:
    """Eq. 13 with its band and the tuples of Eq. 12, one panel per base size with a surface."""
    return [_equivalence_panel(curve, base.data.n_nominal) for base in equivalence_bases(curve)]


def _equivalence_panel(curve: CurveResult, n_base: float) -> dict:
    colour, marker, _ = generator_look(curve.setting)
    tuples = [t for t in curve.tuples if t.n_base == n_base]
    x = np.linspace(0, 1.05 * max((t.real_ratio for t in tuples), default=1.0), 41)
    traces: list[dict] = []
    top = [value for t in tuples if (value := t.syn_ratio.value) is not None]
    if curve.c1.value is not None and curve.c2.value is not None:
        y = equivalent_ratio(curve.c1.value, curve.c2.value, curve.tau * n_base, x)
        top.append(float(y[-1]))
        traces += _band(curve, n_base, x, colour) if curve.determined else []
        name = "Eq. 13" if curve.determined else "Eq. 13 (undetermined)"
        dash = "solid" if curve.determined else "dash"
        traces.append({**_line(x, y, {"color": colour, "dash": dash}), "name": name})
    near, far = [t for t in tuples if not t.extrapolated], [t for t in tuples if t.extrapolated]
    for name, chosen, symbol in (
        ("solved", near, "square"),
        ("solved, extrapolated", far, "square-open"),
    ):
        if chosen:
            values, low, high = (
                np.array([getattr(t.syn_ratio, part) for t in chosen], dtype=float)  # None: NaN
                for part in ("value", "low", "high")
            )
            ratios = [t.real_ratio for t in chosen]
            why = ["; ".join(t.extrapolated) for t in chosen]
            trace = _points(ratios, values, low, high, name, colour, marker, text=why)
            trace["marker"]["symbol"] = symbol
            traces.append(trace)
    same = _line(x, x, {"color": "#555555", "dash": "dot", "width": 1})
    traces.append({**same, "name": "one for one"})
    panel = _panel(
        f"base {n_base:,.0f} images", traces, x="added real / base", y="equivalent synthetic / base"
    )
    if top:
        panel["layout"]["yaxis"]["range"] = [0, 1.25 * max(top)]
    return panel


def _band(curve: CurveResult, n_base: float, x: np.ndarray, colour: str) -> list[dict]:
    """Two traces, the second filled down to the first."""
    estimates = [curve.equivalent_ratio(n_base, ratio * n_base) for ratio in x]
    quiet = {"hoverinfo": "skip", "showlegend": False}
    low, high = (
        {
            **_line(x, x, {"width": 0, "color": colour}),
            **quiet,
            "y": [getattr(e, end) for e in estimates],
        }
        for end in ("low", "high")
    )
    return [low, {**high, "fill": "tonexty", "fillcolor": "rgba(213,94,0,0.18)"}]


def _line(x: ArrayLike, y: ArrayLike, look: dict) -> dict:
    return {"type": "scatter", "mode": "lines", "x": _plain(x), "y": _plain(y), "line": look}


def _panel(title: str, data: list[dict], *, x: str, y: str) -> dict:
    layout = {
        **_LAYOUT,
        "title": {  # from the top down, so that one of several lines ends above the plot
            "text": title, "font": {"size": 14}, "y": 1, "yanchor": "top", "pad": {"t": 12},
        },
        "xaxis": {"title": {"text": x}, "gridcolor": "#DDDDDD", "zeroline": False},
        "yaxis": {"title": {"text": y}, "gridcolor": "#DDDDDD", "zeroline": False},
    }  # fmt: skip
    return {"title": title, "data": data, "layout": layout}


def _plain(values: ArrayLike) -> list[float | None]:
    """Five significant digits, None for NaN (JSON has none)."""
    numbers = np.asarray(values, dtype=float)
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in numbers]


def answer_plots(worths: Sequence[SyntheticWorth], y_name: str = "accuracy (%)") -> list[dict]:
    """The figure of the answer, one panel per base size."""
    return [_answer_panel(panel, y_name) for panel in answer_panels(worths)]


def _answer_panel(panel: AnswerPanel, y_name: str) -> dict:
    def place(added: ArrayLike) -> list[float | None]:  # the axis grows with log(1 + added / base)
        return _plain(np.log1p(np.asarray(added, dtype=float) / panel.n_base))

    traces: list[dict] = []
    for line in panel.lines:
        colour, marker, style = line.look
        if len(line.x):
            edge = {"type": "scatter", "mode": "lines", "x": place(line.x), "hoverinfo": "skip",
                    "line": {"width": 0, "color": colour}, "showlegend": False}  # fmt: skip
            low, high = _plain(panel.inside(line.low)), _plain(panel.inside(line.high))
            traces += [
                {**edge, "y": low},
                {**edge, "y": high, "fill": "tonexty", "fillcolor": _faint(colour)},
                {**edge, "y": _plain(line.middle), "line": {
                    "width": 2, "color": colour, "dash": _DASHES.get(style, "solid")}},
            ]  # fmt: skip
        traces.append({
            "type": "scatter", "mode": "markers", "name": line.name, "x": place(line.at),
            "y": _plain(line.mean), "text": [f"{at:,.0f} added" for at in line.at],
            "hovertemplate": "%{text}: %{y:.2f}",
            "marker": {"color": colour, "symbol": _SYMBOLS[marker], "size": 8},
        })  # fmt: skip
    title = panel.title.replace("<", "&lt;").replace("\n", "<br>")
    found = _panel(title, traces, x="added images", y=y_name)
    ticks = answer_ticks(panel)
    found["layout"]["xaxis"] |= {
        "tickvals": place(ticks), "ticktext": [thousands(tick) for tick in ticks], "tickangle": 0,
        "range": place([-0.02 * panel.n_base, panel.right]),
    }  # fmt: skip
    found["layout"]["yaxis"]["range"] = _plain(panel.heights)
    found["layout"]["margin"] = {**_MARGIN, "t": 42 + 19 * title.count("<br>")}
    found["layout"]["annotations"] = [
        _add_arrow(found, arrow, panel.right, place) for arrow in panel.arrows
    ]
    return found


def _add_arrow(
    found: dict, arrow: Arrow, right: float, place: Callable[[ArrayLike], list[float | None]]
) -> dict:
    """Adds the bar of its interval; the arrow itself is an annotation."""
    high = right if arrow.high is None else min(arrow.high, right)
    end = right if arrow.end is None else arrow.end
    low_at, high_at, start_at, end_at = place([arrow.low, high, arrow.start, end])
    if arrow.low < high:
        found["data"].append({
            "type": "scatter", "mode": "lines", "x": [low_at, high_at], "y": [arrow.accuracy] * 2,
            "line": {"width": 8, "color": _faint(arrow.colour, 0.3)}, "hoverinfo": "skip",
            "name": "interval of the amount", "showlegend": False,
        })  # fmt: skip
    return {
        "x": end_at, "y": arrow.accuracy, "ax": start_at, "ay": arrow.accuracy, "xref": "x",
        "yref": "y", "axref": "x", "ayref": "y", "showarrow": True, "arrowhead": 2,
        "arrowwidth": 1.8, "arrowcolor": arrow.colour, "text": "",
    }  # fmt: skip


def _faint(colour: str, alpha: float = 0.15) -> str:
    """'#RRGGBB', partly transparent."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"
