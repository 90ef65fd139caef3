"""The figure of the answer: what its axes have room for."""

from dataclasses import replace

import numpy as np
import pytest

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.figures import answer
from equigrid.analysis.figures.answer import AnswerPanel, Arrow, Line
from equigrid.analysis.figures.interactive import answer_plots
from equigrid.analysis.figures.style import COPIES_LOOK, REAL_LOOK

X = np.linspace(0.0, 400.0, 5)


def line(name: str, middle, spread: float, mean, look=REAL_LOOK, scaled: bool = True) -> Line:
    curve = np.asarray(middle, dtype=float)
    low, high = np.clip(curve - spread, 0, 100), np.clip(curve + spread, 0, 100)
    return Line(name, look, X, curve, low, high, X[:2], np.asarray(mean, dtype=float), scaled)


@pytest.fixture
def panel() -> AnswerPanel:
    """Real images from 80 to 90%, and copies whose curve and band lead anywhere beyond one
    amount.
    """
    real = line("real images", [80, 84, 87, 89, 90], 2, [80, 84])
    copies = line("copies of the base", [80, 79, 50, 20, 3], 45, [80, 79], COPIES_LOOK, False)
    return AnswerPanel(100, (real, copies), (Arrow(100, 300, 200, 400, 84, "as many"),), 400)


def test_the_axis_is_that_of_points_and_arms(panel):
    low, high = panel.heights
    assert 77 < low < 79, "the points of copies, not their curve"
    assert 90 < high < 92
    assert replace(panel, lines=(replace(panel.lines[0], low=X * 0), panel.lines[1])).heights == (
        low,
        high,
    ), "a band has no say"
    worse = replace(panel.lines[1], mean=np.array([80.0, 60.0]))
    assert replace(panel, lines=(panel.lines[0], worse)).heights[0] < 60, "what was measured has"
    below = replace(panel.arrows[0], accuracy=70.0)
    assert replace(panel, arrows=(below,)).heights[0] < 70, "an arrow is seen"


@pytest.fixture(scope="module")
def worths():
    """One amount of copies, so that little is known of more."""
    planted = replace(Planted(LIKE_CIFAR10), copies=(1.0,))
    analysis = analyse(planted.table(0), settings=planted.settings(replicates=100))
    return [curve.worth for curve in analysis.curves if curve.worth]


def test_bands_end_at_the_axis_in_both_forms(worths):
    (group,) = answer.together(worths)
    panels = answer.answer_panels(group)
    assert any(not own.scaled for panel in panels for own in panel.lines)
    figure = answer.answer_figure(group)
    for panel, axes, plot in zip(panels, figure.axes, answer_plots(group), strict=True):
        low, high = panel.heights
        assert axes.get_ylim() == pytest.approx((low, high))
        assert plot["layout"]["yaxis"]["range"] == pytest.approx([low, high], rel=1e-4)
        bands = [np.concatenate([p.vertices for p in one.get_paths()])[:, 1]
                 for one in axes.collections if one.get_label() != "points" and len(one.get_paths())
                 and one.get_alpha() == 0.15]  # fmt: skip
        assert len(bands) == sum(len(own.x) > 0 for own in panel.lines)
        assert all(low - 1e-6 <= band.min() and band.max() <= high + 1e-6 for band in bands)
        edges = [trace["y"] for trace in plot["data"] if trace.get("hoverinfo") == "skip"
                 and trace.get("line", {}).get("width") == 0]  # fmt: skip
        assert edges
        assert all(low - 1e-2 <= y <= high + 1e-2 for edge in edges for y in edge)
        arms = np.concatenate([own.middle for own in panel.lines if own.scaled])
        assert low <= arms.min() and arms.max() <= high
