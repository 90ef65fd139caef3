"""Figures of fitted curves: contours, equivalence, improvement ratio, residuals, quality against
gain.
"""

import matplotlib as mpl
import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from equigrid.analysis.conclusions.equivalence import Analysis, BaseFit, CurveResult
from equigrid.analysis.conclusions.ratio import ImprovementRatio
from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.estimates import Estimate
from equigrid.analysis.figures.style import (
    BLACK,
    REAL_LOOK,
    STYLE,
    Handle,
    Look,
    empty_figure,
    generator_look,
    generator_looks,
    legend_below,
    panels,
    thousands,
    tidy,
    with_bars,
)
from equigrid.analysis.fitting.curve import equivalent_ratio
from equigrid.analysis.fitting.surface import Surfaces
from equigrid.analysis.settings import NAMES

_BAND_POINTS = 60
_MEASURES = {
    "fid": "FID (lower is better)", "inception_score": "Inception Score (higher is better)",
    "feature_distance": "distance in the grid's features (lower is better)",
}  # fmt: skip
_NEAR = 0.12  # of a panel's width and height
_HATCH = "////"
_HALO: list[effects.AbstractPathEffect] = [effects.withStroke(linewidth=2.2, foreground="white")]


def equivalence_contours(curve: CurveResult) -> Figure:
    """Fitted accuracy over added real and added synthetic images, one panel per base size (Fig. 2).

    Each line joins mixes of equal fitted accuracy. Dots: measured cells. Hatched, and its lines
    dashed: the fitted model alone, since no cell near was measured.
    """
    fitted = [(base.data, base.surface) for base in curve.bases if base.surface is not None]
    if not fitted:
        return empty_figure(f"No accuracy surface for {curve.key}:\n" + "\n".join(curve.reasons))
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(fitted))
        for axes, (data, surface) in zip(grid, fitted):
            contour_panel(axes, data, surface)
        for axes in grid:
            axes.set_xlabel("added real / base images")
        figure.supylabel("added synthetic / base", fontsize=9)
        legend_below(figure, *contour_legend())
        metric = NAMES[curve.settings.metric]
        figure.suptitle(f"Mixes of equal {metric} (%): {_named(curve)}", fontsize=10.5)
    return figure


def _named(curve: CurveResult) -> str:
    return f"{curve.key.dataset}, {curve.key.classifier}, {curve.key.generator}"


def contour_legend() -> tuple[list[Handle], list[str]]:
    """Handles and their names, for figures of `contour_panel`s."""
    measured = Line2D(
        [], [], marker="o", color="white", markeredgecolor="black", linestyle="none", markersize=5
    )
    alone = Patch(facecolor="#BBBBBB", edgecolor="white", hatch=_HATCH, linewidth=0)
    return [measured, alone], ["measured", "the fitted model alone: nothing near was measured"]


def contour_panel(axes: Axes, data: BaseData, surface: Surfaces) -> None:
    """The contours of one base size, marked where they rest on the model alone."""
    real = np.linspace(0, (data.n_real - data.n_base).max(), 161)
    syn = np.linspace(0, data.n_syn.max(), 161)
    grid_real, grid_syn = np.meshgrid(real, syn)
    heights = surface_heights(data, surface, real, syn)
    levels = _levels(data.mean[data.in_surface], heights)
    x, y = grid_real / data.n_nominal, grid_syn / data.n_nominal
    filled = axes.contourf(x, y, heights, levels, cmap="viridis", extend="both")
    cells = data.in_surface
    at_real = (data.n_real[cells] - data.n_base) / data.n_nominal
    at_syn = data.n_syn[cells] / data.n_nominal
    near = _near_measured(x, y, at_real, at_syn)
    axes.contourf(x, y, near, [-0.5, 0.5], colors="none", hatches=[_HATCH])
    lines = axes.contour(x, y, heights, levels, colors="black", linewidths=0)
    for where, style in ((near, "solid"), (~near, "dashed")):
        if where.any():
            own = np.where(where, heights, np.nan)
            axes.contour(x, y, own, levels, colors="black", linewidths=0.7, linestyles=style)
    if places := _on_diagonal(heights, x, y, levels):
        labels = axes.clabel(lines, fmt="%g", fontsize=7.5, inline_spacing=2, manual=places)
        for label in labels:
            label.set_path_effects(_HALO)
    axes.scatter(
        at_real, at_syn,
        s=16, color="white", edgecolor="black", linewidth=0.8, zorder=5, clip_on=False,
    )  # fmt: skip
    axes.figure.colorbar(filled, ax=axes, format="%g", ticks=levels[::2])
    axes.set_title(f"base {data.n_nominal:,.0f} images")


def _near_measured(
    x: np.ndarray, y: np.ndarray, at_real: np.ndarray, at_syn: np.ndarray
) -> np.ndarray:
    """Which points (S, R) of a panel lie near a measured cell, or between two on one axis: within
    _NEAR of the panel's width and height.
    """
    width, height = float(x.max()) or 1.0, float(y.max()) or 1.0
    near = np.zeros(x.shape, bool)
    for real, syn in zip(at_real, at_syn):
        near |= np.hypot((x - real) / width, (y - syn) / height) <= _NEAR
    # Along an axis everything lies between two measured amounts.
    if (at_real > 0).any():
        near |= (y / height <= _NEAR) & (x <= at_real[at_syn == 0].max(initial=0.0))
    if (at_syn > 0).any():
        near |= (x / width <= _NEAR) & (y <= at_syn[at_real == 0].max(initial=0.0))
    return near


def surface_heights(
    data: BaseData, surface: Surfaces, real: np.ndarray, syn: np.ndarray
) -> np.ndarray:
    """(S, R) accuracy of Eq. 11 (or the surface in use) at added real (R,) and synthetic (S,)
    images.

    Between none and the smallest measured synthetic amount the surface is epsilon's, with a step at
    one image; there the heights are joined by a straight line.
    """
    measured = data.n_syn[data.n_syn > 0]
    least = float(measured.min()) if len(measured) else 0.0
    n_real = data.n_base + real

    def at(amounts: np.ndarray) -> np.ndarray:
        grid_real, grid_syn = np.meshgrid(n_real, amounts)
        return surface.accuracy(grid_real.ravel()[:, None], grid_syn.ravel()[:, None])[
            :, 0
        ].reshape(grid_real.shape)

    none, first = at(np.array([0.0, least]))
    share = np.clip(syn / least, 0.0, 1.0)[:, None] if least else np.zeros((len(syn), 1))
    joined = (1 - share) * none + share * first
    return np.where(syn[:, None] < least, joined, at(np.maximum(syn, least)))


def _levels(measured: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """About ten round levels that span what was measured and what the surface reaches, up to 100
    %.
    """
    low = float(measured.min())
    high = min(float(max(measured.max(), np.percentile(surface, 99))), 100.0)
    if high - low < 1e-6:
        return low + np.linspace(-0.5, 0.5, 11)
    width = max(high - low, 1e-3) / 10
    steps = [s * 10.0**e for e in range(-4, 3) for s in (1, 2, 5)]
    step = max((s for s in steps if s <= 1.5 * width), default=steps[0])
    return np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step


def _on_diagonal(
    surface: np.ndarray, x: np.ndarray, y: np.ndarray, levels: np.ndarray
) -> list[tuple[float, float]]:
    """Where the level lines cross the panel's diagonal: labels there neither touch the axes nor
    each other.
    """
    heights = np.diagonal(surface)
    inside = slice(int(0.06 * len(heights)), int(0.95 * len(heights)))
    places, last = [], -1.0
    for level in levels:
        crossed = np.nonzero(np.diff(np.sign(heights[inside] - level)))[0]
        if len(crossed):
            k = crossed[0] + inside.start
            if k - last > 0.07 * len(heights):
                places.append((float(np.diagonal(x)[k]), float(np.diagonal(y)[k])))
                last = k
    return places


def equivalence_curves(curve: CurveResult) -> Figure:
    """n_syn / n_base against n_real / n_base by Eq. 13, one panel per base size, with the interval
    as a band, and the tuples of Eq. 12 with theirs; open symbols rest on extrapolation. The dotted
    line is one for one.
    """
    bases = equivalence_bases(curve)
    if not bases:
        return empty_figure(f"No equivalence for {curve.key}:\n" + "\n".join(curve.reasons))
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(bases))
        handles: dict[str, Handle] = {}
        for axes, base in zip(grid, bases):
            _equivalence_panel(axes, curve, base.data.n_nominal, handles)
            axes.set_title(f"base {base.data.n_nominal:,.0f} images")
        for axes in grid:
            axes.set_xlabel("added real / base images")
        figure.supylabel("equivalent synthetic / base", fontsize=9)
        figure.suptitle(f"{_named(curve)}: {curve.status}", fontsize=10.5)
        legend_below(figure, handles.values(), handles.keys())
    return figure


def equivalence_bases(curve: CurveResult) -> list[BaseFit]:
    """Those at which there is something to draw: a solved tuple, or Eq. 13 itself."""
    solved = {t.n_base for t in curve.tuples if t.syn_ratio.value is not None}
    return [
        base
        for base in curve.bases
        if base.surface is not None and (curve.determined or base.data.n_nominal in solved)
    ]


def _equivalence_panel(
    axes: Axes, curve: CurveResult, n_base: float, handles: dict[str, Handle]
) -> None:
    colour, marker, _ = generator_look(curve.setting)
    tuples = [t for t in curve.tuples if t.n_base == n_base]
    top = max((t.real_ratio for t in tuples), default=1.0)
    x = np.linspace(0, top * 1.08, _BAND_POINTS)
    heights = [value for t in tuples if (value := t.syn_ratio.value) is not None]
    if curve.c1.value is not None and curve.c2.value is not None:
        y = equivalent_ratio(curve.c1.value, curve.c2.value, curve.tau * n_base, x)
        heights.append(float(y[-1]))
        (line,) = axes.plot(x, y, color=colour, linestyle="-" if curve.determined else "--")
        handles.setdefault("Eq. 13" if curve.determined else "Eq. 13 (undetermined)", line)
        if curve.determined:
            estimates = [curve.equivalent_ratio(n_base, ratio * n_base) for ratio in x]
            low, high = ([getattr(e, end) for e in estimates] for end in ("low", "high"))
            band = axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            handles.setdefault(f"its {curve.c1.level:.0%} interval", band)
    for t in tuples:
        face = "white" if t.extrapolated else colour
        value = t.syn_ratio.value
        assert value is not None, "tuples that are used have a value"
        bars = [[value - (t.syn_ratio.low or 0.0)], [(t.syn_ratio.high or value) - value]]
        point = axes.errorbar(
            t.real_ratio, value, yerr=np.maximum(bars, 0), marker=marker, color=colour,
            markerfacecolor=face, markersize=5, capsize=2, linestyle="none", elinewidth=0.9,
        )  # fmt: skip
        how = "solved, extrapolated" if t.extrapolated else "solved on the surface"
        handles.setdefault(how, point)
    (same,) = axes.plot(x, x, color="#555555", linewidth=0.8, linestyle=":")
    handles.setdefault("one for one", same)
    if heights:
        axes.set_ylim(0, 1.25 * max(heights))
    tidy(axes)


def improvement_ratio_figure(ratios: list[ImprovementRatio]) -> Figure:
    """Gain of the closed set over gain of the open set at equal amounts, against the base size
    (Fig. 7); one panel per pair of generators and classifier.
    """
    drawable = [r for r in ratios if r.ratio.value is not None]
    if not drawable:
        return empty_figure(
            "No base size has a closed-set and an open-set generator at the same amount."
        )
    groups = sorted({(r.dataset, r.classifier, r.closed, r.open) for r in drawable})
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(groups))
        handles: dict[str, Handle] = {}
        for axes, group in zip(grid, groups):
            own = [r for r in drawable if (r.dataset, r.classifier, r.closed, r.open) == group]
            _ratio_panel(axes, sorted(own, key=lambda r: r.n_base), handles)
            axes.set_title(f"{group[0]}, {group[1]}\n{group[2]} / {group[3]}", fontsize=9)
        figure.supylabel(f"gain closed / gain open, at 1:{drawable[0].scale:g}", fontsize=9)
        if len(handles) > 1:
            legend_below(figure, handles.values(), handles.keys())
    return figure


def _ratio_panel(axes: Axes, ratios: list[ImprovementRatio], handles: dict[str, Handle]) -> None:
    colour, marker, line = BLACK, "o", "-"  # of a closed set and an open one: neither's colour
    known = [(r, r.ratio.value) for r in ratios if r.ratio.value is not None]
    sizes, values = [r.n_base for r, _ in known], [value for _, value in known]
    axes.plot(sizes, values, color=colour, linestyle=line, linewidth=1.3)
    for r, value in known:
        bars = np.array(r.ratio.bar)[:, None] if r.ratio.bounded else None
        face = colour if r.ratio.bounded else "white"
        look = (colour, marker, "none")
        point = with_bars(axes, [r.n_base], [value], bars, look, markerfacecolor=face)
        handles.setdefault("with interval" if r.ratio.bounded else "interval not bounded", point)
        label = axes.annotate(
            f"{value:.2f}", (r.n_base, value), textcoords="offset points", xytext=(-5, 6),
            ha="right", fontsize=8, zorder=6,
        )  # fmt: skip
        label.set_path_effects(_HALO)
    axes.axhline(1.0, color="#555555", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [thousands(size) for size in sizes], fontsize=8)
    axes.minorticks_off()
    axes.margins(x=0.18, y=0.12)
    axes.set_xlabel("base images")
    tidy(axes)


def fit_residuals(curve: CurveResult) -> Figure:
    """Measured less fitted accuracy of every cell, one panel per base size; the grey band is one
    standard error of a cell's mean.
    """
    fitted = [(base, base.surface) for base in curve.bases if base.surface is not None]
    if not fitted:
        return empty_figure(f"No accuracy surface for {curve.key}.")
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(fitted))
        handles: dict[str, Handle] = {}
        for axes, (base, surface) in zip(grid, fitted):
            _residual_panel(axes, base, surface, generator_look(curve.setting), handles)
        for axes in grid:
            axes.set_xlabel(f"fitted {NAMES[curve.settings.metric]} (%)")
        figure.supylabel("measured - fitted (points)", fontsize=9)
        figure.suptitle(f"Residuals: {_named(curve)}", fontsize=10.5)
        legend_below(figure, handles.values(), handles.keys())
    return figure


def _residual_panel(
    axes: Axes, base: BaseFit, surface: Surfaces, look: Look, handles: dict[str, Handle]
) -> None:
    data = base.data
    error = base.noise.sd / np.sqrt(base.noise.count.mean())
    if np.isfinite(error):
        band = axes.axhspan(-error, error, color="#DDDDDD", zorder=0)
        handles.setdefault("one standard error", band)
    axes.axhline(0.0, color="#555555", linewidth=0.8)
    looks = {"base": (BLACK, "o", ""), "real": REAL_LOOK, "syn": look}
    for arm, (colour, marker, _) in looks.items():
        cells = data.arm == arm
        fitted = surface.accuracy(data.n_real[cells, None], data.n_syn[cells, None])[:, 0]
        points = axes.scatter(
            fitted, data.mean[cells] - fitted, color=colour, marker=marker, s=22, zorder=3
        )
        handles.setdefault({"syn": "synthetic"}.get(arm, arm), points)
    axes.margins(0.12)
    axes.set_title(f"base {data.n_nominal:,.0f} images")
    tidy(axes)


def quality_against_gain(
    analysis: Analysis, quality: pd.DataFrame, *, measure: str = "fid", scale: float = 1.0
) -> Figure:
    """Gain of synthetic images over the base at `scale` against a measure of their quality, one
    panel per dataset, classifier and recipe; colours are generators, symbols base sizes.

    quality: columns dataset, generator, and `measure` (as in Tables 2 and 3; the mean of several
    pools), and optionally n_base (nominal; NaN for what holds at all base sizes).
    """
    points = _quality_points(analysis, quality, measure, scale)
    if not points:
        return empty_figure(
            f"No generator has both a {measure} and a measured gain at 1:{scale:g}."
        )
    families = sorted({point["family"] for point in points})
    looks = generator_looks({curve.key.generator: curve.setting for curve in analysis.curves})
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(families))
        for axes, family in zip(grid, families):
            _quality_panel(axes, [p for p in points if p["family"] == family], looks)
            axes.set_title(f"{family[0]}, {family[1]}\n{family[2]}", fontsize=9)
            axes.set_xlabel(_MEASURES.get(measure, measure))
        figure.supylabel(f"gain over the base at 1:{scale:g} (points)", fontsize=9)
    return figure


def _quality_points(
    analysis: Analysis, quality: pd.DataFrame, measure: str, scale: float
) -> list[dict]:
    points = []
    for curve in analysis.curves:
        key = curve.key
        own_set = (quality["dataset"] == key.dataset) & (quality["generator"] == key.generator)
        rows = quality[own_set]
        for gain in curve.gains:
            over_base = gain.arm == "syn" and gain.over == "base"
            if not over_base or not np.isclose(gain.scale, scale, rtol=0.005):
                continue
            own = rows
            if "n_base" in rows:
                same_base = np.isclose(rows["n_base"].astype(float), gain.n_base)
                own = rows[rows["n_base"].isna() | same_base]
            if len(own):
                points.append(
                    {
                        "family": (key.dataset, key.classifier, key.recipe),
                        "generator": key.generator,
                        "measure": float(own[measure].mean()),
                        "gain": gain.gain,
                        "n_base": gain.n_base,
                    }
                )
    return points


def _quality_panel(axes: Axes, points: list[dict], looks: dict[str, Look]) -> None:
    generators, sizes = (sorted({p[name] for p in points}) for name in ("generator", "n_base"))
    colours = {g: looks[g][0] for g in generators}
    markers = {n: "osD^vPX"[i % 7] for i, n in enumerate(sizes)}
    for p in points:
        gain: Estimate = p["gain"]
        bars = np.array(gain.bar)[:, None] if gain.bounded else None
        # Points of one generator share one measured quality: spread by base size, so that intervals
        # stay apart.
        shift = 1 + 0.02 * (sizes.index(p["n_base"]) - (len(sizes) - 1) / 2)
        look = (colours[p["generator"]], markers[p["n_base"]], "none")
        value = np.nan if gain.value is None else gain.value
        with_bars(axes, [p["measure"] * shift], [value], bars, look, markersize=5)
    keys = [Line2D([], [], color=colours[g], linewidth=4) for g in generators]
    keys += [
        Line2D([], [], color="#555555", marker=markers[n], linestyle="none", markersize=5)
        for n in sizes
    ]
    names = [*generators, *(f"base {n:,.0f}" for n in sizes)]
    axes.legend(keys, names, frameon=False, fontsize=7, loc="best", handlelength=1.2)
    axes.axhline(0.0, color="#555555", linewidth=0.8, linestyle=":")
    axes.margins(x=0.2)
    tidy(axes)
