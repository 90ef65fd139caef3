"""Figures of images and of classes: sample sheets, class-wise gains."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.style import COPIES_LOOK, FONT, GENERATOR_LOOKS, REAL_LOOK, empty_figure, tidy


def sample_sheet(
    images: np.ndarray, labels: np.ndarray, class_names: list[str], *, title: str, per_class: int = 10
) -> Figure:
    """The first `per_class` images of each class, a row per class (as Figs. 15 to 19).

    images: (N, H, W, 1 or 3) uint8; labels: (N,) integers into class_names. Raises ValueError for other shapes.
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
        raise ValueError(f"images are {images.shape} {images.dtype}, must be (N, H, W, 1 or 3) uint8")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels are {labels.shape} for {len(images)} images")
    rows = len(class_names)
    with mpl.rc_context(FONT):
        figure = Figure(figsize=(0.55 * per_class + 0.6, 0.55 * rows + 0.45), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
        grid = figure.subplots(rows, per_class, squeeze=False)
        for row, name in enumerate(class_names):
            chosen = images[labels == row][:per_class]
            for column, axes in enumerate(grid[row]):
                axes.axis("off")
                if column < len(chosen):
                    axes.imshow(chosen[column].squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            grid[row, 0].text(-0.15, 0.5, name, ha="right", va="center", transform=grid[row, 0].transAxes, fontsize=8)
        figure.suptitle(title, fontsize=10)
    return figure


def class_gain_figure(gains: pd.DataFrame, class_names: list[str] | None = None) -> Figure:
    """Gain of each class with real and with synthetic images, from `classes.class_gains` limited to one base size and
    one scale; classes in the order of the synthetic gain. At most 30 classes, else the 15 lowest and highest."""
    if gains.empty:
        return empty_figure("No class-wise accuracies.")
    syn = gains[gains["arm"] == "syn"].groupby("class")["gain"].mean()
    order = (syn if len(syn) else gains.groupby("class")["gain"].mean()).sort_values().index
    shown = list(order) if len(order) <= 30 else [*order[:15], *order[-15:]]
    names = class_names or [str(c) for c in range(int(gains["class"].max()) + 1)]
    with mpl.rc_context(FONT):
        figure = Figure(figsize=(5.2, 0.24 * len(shown) + 1.4), layout="constrained")
        axes = figure.add_subplot()
        series = sorted(set(zip(gains["arm"], gains["generator"])))
        looks = iter(GENERATOR_LOOKS * len(series))
        for i, (arm, generator) in enumerate(series):
            colour, marker, _ = {"real": REAL_LOOK, "copies": COPIES_LOOK}.get(arm) or next(looks)
            own = gains[(gains["arm"] == arm) & (gains["generator"] == generator)].set_index("class").loc[shown]
            at = np.arange(len(shown)) + 0.22 * (i - (len(series) - 1) / 2)
            bars = np.nan_to_num(np.stack([own["gain"] - own["low"], own["high"] - own["gain"]]))
            label = f"synthetic: {generator}" if arm == "syn" else arm
            axes.errorbar(own["gain"], at, xerr=bars, color=colour, marker=marker, markersize=4, linestyle="none",
                          capsize=1.5, elinewidth=0.8, label=label)  # fmt: skip
        axes.axvline(0.0, color="#555555", linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(shown)), [names[c] for c in shown])
        axes.set_xlabel("gain over the base (points)")
        axes.set_ylabel("class")
        first = gains.iloc[0]
        axes.set_title(f"base {first['n_nominal']:,.0f} images, added images {first['scale']:g} times the base")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        tidy(axes)
    return figure
