"""A search for a recipe: accuracy against what it cost, and what of the space mattered."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equigrid.analysis.figures.style import (
    BLACK,
    BLUE,
    GREY,
    STYLE,
    VERMILION,
    empty_figure,
    legend_below,
    tidy,
)

MINUTE = 60.0


def tuning_figure(
    table: pd.DataFrame,
    importance: Mapping[str, Mapping[str, float] | None],
    metric: str,
    *,
    lower: bool = False,
) -> Figure:
    """A row for each arm: on the left each candidate's value against the device-minutes spent until
    it ended, those stopped early hollow, with the best so far as a line and the grid's own recipe
    under fresh seeds as a dashed one; on the right the share of each key.

    table: of `arm`, `label`, `replicate`, `status`, `value` (percent), `seconds`. importance: by
    arm, shares by key, None where there were too few candidates to tell. metric: in words; lower:
    whether the least of it is the best, as of a distance, else it is in percent.
    """
    searched = table[table["replicate"] == 0]
    if searched.empty:
        return empty_figure("No candidate was looked at.")
    arms = list(dict.fromkeys(searched["arm"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 2.7 * len(arms) + 0.3), layout="constrained")
        axes = figure.subplots(len(arms), 2, squeeze=False, width_ratios=(3, 2))
        for row, arm in zip(axes, arms):
            of_arm = table[table["arm"] == arm]
            title = f"recipe of {arm}" if len(arms) > 1 else "the search"
            _costs(row[0], of_arm, metric, title, lower)
            _shares(row[1], importance.get(arm))
        handles = {
            label: handle
            for row in axes
            for handle, label in zip(*row[0].get_legend_handles_labels())
        }
        legend_below(figure, handles.values(), handles)
    return figure


def _costs(axes: Axes, table: pd.DataFrame, metric: str, title: str, lower: bool) -> None:
    searched = table[table["replicate"] == 0]
    spent = searched["seconds"].cumsum().to_numpy() / MINUTE
    value = searched["value"].to_numpy(dtype=float)
    whole = (searched["status"] == "finished").to_numpy()
    bound = _bound(value, whole, lower)
    beyond = int(np.sum(value > bound if lower else value < bound))
    axes.plot(spent[~whole], value[~whole], "o", mfc="none", color=GREY, label="stopped early")
    axes.plot(spent[whole], value[whole], "o", color=BLUE, label="trained to the end")
    if whole.any():
        among, none = (np.minimum, np.inf) if lower else (np.maximum, -np.inf)
        best = among.accumulate(np.where(whole, value, none))
        shown = np.isfinite(best)
        axes.step(spent[shown], best[shown], where="post", color=BLUE, label="best so far")
    again = table[table["replicate"] > 0]
    # Dashes in each other's gaps: two means that are alike are both seen.
    for label, colour, offset, words in (
        ("tuned", VERMILION, 0, "best recipe, fresh seeds"),
        ("own", BLACK, 5, "the grid's own, fresh seeds"),
    ):
        reached = again.loc[again["label"] == label, "value"]
        if len(reached):
            dashes = (offset, (5, 5))
            axes.axhline(reached.mean(), color=colour, linestyle=dashes, linewidth=1.2, label=words)
    if beyond:
        axes.set_ylim(top=bound) if lower else axes.set_ylim(bottom=bound)
        at, where = (0.98, "above") if lower else (0.02, "below")
        axes.text(
            0.98, at, f"{beyond} stopped early are {where} this", color=GREY, ha="right",
            va="top" if lower else "bottom", transform=axes.transAxes,
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_title(title)
    axes.set_xlabel("device-minutes of training so far")
    axes.set_ylabel(f"{metric}, validation" if lower else f"{metric}, validation (%)")
    tidy(axes)


def _bound(value: np.ndarray, whole: np.ndarray, lower: bool) -> float:
    """Where the axis ends on the side of the bad: candidates that learnt nothing must not press the
    good ones together. All that were trained to the end are within.
    """
    sign = 1 if lower else -1
    badness = sign * value[np.isfinite(value)]
    if not len(badness):
        return sign * np.inf
    best, middle = badness.min(), float(np.median(badness))
    kept = [best + 3 * (middle - best), *sign * value[whole & np.isfinite(value)]]
    return sign * (max(kept) + 0.2 * (max(kept) - best))  # room for what is said of those beyond


def _shares(axes: Axes, importance: Mapping[str, float] | None) -> None:
    axes.set_title("what mattered at the first look")
    if not importance:
        axes.axis("off")
        axes.text(0.5, 0.5, "too few candidates to tell", ha="center", transform=axes.transAxes)
        return
    names = sorted(importance, key=lambda name: importance[name])
    axes.barh(names, [100 * importance[name] for name in names], color=BLUE)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the variance (%)")
    tidy(axes)
