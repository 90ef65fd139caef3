"""Gains of augmentations beside those of synthetic images and copies, at equal steps."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from equigrid.analysis.conclusions.rivals import Contender, Rivals
from equigrid.analysis.data.checks import RIVAL
from equigrid.analysis.figures.style import (
    BLACK,
    COPIES_LOOK,
    STYLE,
    empty_figure,
    generator_look,
    tidy,
)


def rivals_figure(one: Rivals) -> Figure:
    """A line for each contender with its gain over the base alone and the interval of that, the
    largest first. Colours go by role, as in all figures; augmentations are black.
    """
    known = [
        (line, gain, gain.value)
        for line in one.contenders
        if (gain := line.over_base) and gain.value is not None
    ]
    if not known:
        return empty_figure("the base alone was not trained")
    known.sort(key=lambda each: each[2])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 0.26 * len(known) + 1.0), layout="constrained")
        axes = figure.add_subplot()
        for at, (line, gain, value) in enumerate(known):
            axes.errorbar(
                value, at, xerr=np.array(gain.bar)[:, None], fmt="o", markersize=5,
                capsize=2, elinewidth=1, color=_colour(line),
            )  # fmt: skip
        axes.axvline(0.0, color="#555555", linewidth=0.8, linestyle=":")
        axes.set_yticks(np.arange(len(known)), [_name(line) for line, *_ in known])
        axes.set_ylim(-0.6, len(known) - 0.4)
        axes.set_xlabel(f"gain over the base of {one.n_base:,} alone (points)")
        tidy(axes)
    return figure


def _colour(line: Contender) -> str:
    if line.arm == RIVAL:
        return BLACK
    look = COPIES_LOOK if line.arm == "copies" else generator_look(line.setting)
    return look[0]


def _name(line: Contender) -> str:
    if line.arm == "syn":
        return f"{line.added:,} images of {line.name}"
    return f"{line.added:,} copies" if line.arm == "copies" else line.name
