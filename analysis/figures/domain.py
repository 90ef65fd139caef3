"""Figures of the domain gap: how well a classifier tells real from synthetic images, and how its
features lie.
"""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from equigrid.analysis.figures.style import GREEN, STYLE, VERMILION, tidy

REAL, SYNTHETIC = "real", "synthetic"


def domain_accuracy_figure(rows: list[dict]) -> Figure:
    """Held-out accuracy of each domain classifier, real against synthetic, with its interval (as
    the paper's Fig. 12).

    rows: mappings with pool (text), patch_px (int or None), accuracy, low, high, in percent.
    """
    names = [f"{row['pool']}, {_what(row['patch_px'])}" for row in rows]
    at = np.arange(len(rows))[::-1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 0.32 * len(rows) + 1.1), layout="constrained")
        axes = figure.add_subplot()
        accuracy = np.array([row["accuracy"] for row in rows], dtype=float)
        errors = np.abs(
            np.array([[row["low"], row["high"]] for row in rows], dtype=float).T - accuracy
        )
        axes.errorbar(
            accuracy, at, xerr=errors, fmt="o", color=VERMILION, markersize=5, capsize=2,
            elinewidth=1,
        )  # fmt: skip
        for x, y in zip(accuracy, at):
            axes.annotate(
                f"{x:.1f}", (x, y), xytext=(0, 4), textcoords="offset points", ha="center",
                fontsize=8,
            )  # fmt: skip
        axes.axvline(50.0, color="#555555", linewidth=0.8, linestyle=":")
        axes.set_yticks(at, names)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(min(45.0, float(min(row["low"] for row in rows)) - 2), 102.0)
        axes.set_xlabel("held-out accuracy (%); 50 is chance")
        tidy(axes)
    return figure


def tsne_figure(panels: dict) -> Figure:
    """t-SNE of real and synthetic images in two networks' features (as the paper's Fig. 1).

    panels: n (images on each side, held out from the domain classifier), labels (2n), and per
    network, `domain` and `ordinary`, 2n points [x, y] of the same images, the first n of real ones.
    """
    titles = {
        "domain": "features that tell real from synthetic",
        "ordinary": "features that tell the classes",
    }
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.2), layout="constrained")
        for axes, (name, title) in zip(figure.subplots(1, 2), titles.items()):
            _panel(axes, np.asarray(panels[name], dtype=float), panels, by_class=name == "ordinary")
            axes.set_title(title)
    return figure


def _panel(axes: Axes, points: np.ndarray, panels: dict, *, by_class: bool) -> None:
    """Sides by marker; colours are sides too, or classes where these are what the features tell."""
    n, labels = panels["n"], np.asarray(panels["labels"])
    classes = int(labels.max()) + 1
    hues = hsv_to_rgb(
        np.stack(
            [np.arange(classes) / classes, np.full(classes, 0.75), np.full(classes, 0.8)], axis=1
        )
    )
    sides = ((REAL, slice(0, n), "o", GREEN), (SYNTHETIC, slice(n, 2 * n), "x", VERMILION))
    for name, side, marker, colour in sides:
        colours = hues[labels[side]] if by_class else [colour] * n
        x, y = points[side].T
        axes.scatter(x, y, s=12, c=colours, marker=marker, linewidths=0.8, alpha=0.8, label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    legend = axes.legend(loc="best", framealpha=0.8)
    for handle in legend.legend_handles:
        if by_class and isinstance(handle, PathCollection):
            handle.set_color("#333333")


def _what(patch_px: int | None) -> str:
    return "whole images" if patch_px is None else f"{patch_px}×{patch_px} patches"
