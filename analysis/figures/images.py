"""Figures of images and of classes: sample sheets, class-wise gains."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from equigrid.analysis.figures.style import (
    COPIES_LOOK,
    REAL_LOOK,
    STYLE,
    empty_figure,
    generator_looks,
    legend_below,
    tidy,
)

_SHEET_PANELS = 3  # beside each other
_IMAGE_INCHES = 0.3


def sample_sheet(
    panels: list[tuple[str, np.ndarray, np.ndarray]], class_names: list[str], per_class: int = 8
) -> Figure:
    """Images of several sets beside each other, a row per class (Figs. 3, 4, 9, 11 and 15 to 19).

    panels: (title, images (N, H, W, 1 or 3) uint8, labels (N,) integers into class_names) of each
    set; the first `per_class` images of each class are shown. Raises ValueError for other shapes.
    """
    across, rows = min(len(panels), _SHEET_PANELS), len(class_names)
    down = -(-len(panels) // across)
    size = (_IMAGE_INCHES * per_class * across + 1.0, (_IMAGE_INCHES * rows + 0.35) * down)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for i, (axes, (title, images, labels)) in enumerate(zip(grid, panels)):
            axes.imshow(
                _mosaic(images, labels, rows, per_class),
                extent=(0, per_class, rows, 0),
                cmap="gray",
                vmax=255,
            )
            axes.set_title(title, fontsize=9)
            for row, name in enumerate(class_names if i % across == 0 else ()):
                axes.text(-0.15, row + 0.5, name, ha="right", va="center", fontsize=8)
    return figure


def _mosaic(images: np.ndarray, labels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The first images of each class, (rows * (H + 1), columns * (W + 1), 1 or 3) uint8 on
    white.
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
        raise ValueError(
            f"images are {images.shape} {images.dtype}, must be (N, H, W, 1 or 3) uint8"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels are {labels.shape} for {len(images)} images")
    _, height, width, channels = images.shape
    canvas = np.full((rows, height + 1, columns, width + 1, channels), 255, np.uint8)
    for row in range(rows):
        for column, image in enumerate(images[labels == row][:columns]):
            canvas[row, :height, column, :width] = image
    return canvas.reshape(rows * (height + 1), columns * (width + 1), channels)


def class_gain_figure(
    gains: pd.DataFrame,
    class_names: list[str] | None = None,
    settings: Mapping[str, str | None] | None = None,
) -> Figure:
    """Gain of each class with real and with synthetic images, from `classes.class_gains` limited to
    one base size and one scale; classes in the order of the synthetic gain. At most 30 classes,
    else the 15 lowest and highest. settings: of `SETTINGS`, by generator.
    """
    if gains.empty:
        return empty_figure("No class-wise accuracies.")
    syn = gains[gains["arm"] == "syn"].groupby("class")["gain"].mean()
    order = (syn if len(syn) else gains.groupby("class")["gain"].mean()).sort_values().index
    shown = list(order) if len(order) <= 30 else [*order[:15], *order[-15:]]
    names = class_names or [str(c) for c in range(int(gains["class"].max()) + 1)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 0.24 * len(shown) + 1.4), layout="constrained")
        axes = figure.add_subplot()
        series = sorted(set(zip(gains["arm"], gains["generator"])))
        looks = generator_looks({name: (settings or {}).get(name) for _, name in series})
        for i, (arm, generator) in enumerate(series):
            of_arm = {"real": REAL_LOOK, "copies": COPIES_LOOK}
            colour, marker, _ = of_arm.get(arm) or looks[generator]
            own = gains[(gains["arm"] == arm) & (gains["generator"] == generator)]
            own = own.set_index("class").loc[shown]
            at = np.arange(len(shown)) + 0.22 * (i - (len(series) - 1) / 2)
            bars = np.nan_to_num(np.stack([own["gain"] - own["low"], own["high"] - own["gain"]]))
            label = f"synthetic: {generator}" if arm == "syn" else arm
            axes.errorbar(
                own["gain"], at, xerr=bars, color=colour, marker=marker, markersize=4,
                linestyle="none", capsize=1.5, elinewidth=0.8, label=label,
            )  # fmt: skip
        axes.axvline(0.0, color="#555555", linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(shown)), [names[c] for c in shown])
        axes.set_xlabel("gain over the base (points)")
        axes.set_ylabel("class")
        first = gains.iloc[0]
        axes.set_title(
            f"base {first['n_nominal']:,.0f} images, added images {first['scale']:g} times the base"
        )
        legend_below(figure, *axes.get_legend_handles_labels())
        tidy(axes)
    return figure
