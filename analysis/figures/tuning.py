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
    FONT,
    GREY,
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
    with mpl.rc_context(FONT):
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
    axes.plot(spent[~whole], value[~whole], "o", mfc="none", color=GREY, label="stopped early")
    axes.plot(spent[whole], value[whole], "o", color=BLUE, label="trained to the end")
    if whole.any():
        among, none = (np.minimum, np.inf) if lower else (np.maximum, -np.inf)
        best = among.accumulate(np.where(whole, value, none))
        shown = np.isfinite(best)
        axes.step(spent[shown], best[shown], where="post", color=BLUE, label="best so far")
    again = table[table["replicate"] > 0]
    for label, colour, words in (
        ("tuned", VERMILION, "best recipe, fresh seeds"),
        ("own", BLACK, "the grid's own, fresh seeds"),
    ):
        reached = again.loc[again["label"] == label, "value"]
        if len(reached):
            axes.axhline(reached.mean(), color=colour, linestyle="--", linewidth=1.2, label=words)
    if not lower:
        low = np.nanmin(np.append(value[value > 0], 100.0))
        axes.set_ylim(bottom=max(0.0, low - 3))
    axes.set_xlim(left=0)
    axes.set_title(title)
    axes.set_xlabel("device-minutes of training so far")
    axes.set_ylabel(f"{metric}, validation" if lower else f"{metric}, validation (%)")
    tidy(axes)


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
