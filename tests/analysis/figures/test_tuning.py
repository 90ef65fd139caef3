import pandas as pd
import pytest

from equigrid.analysis.figures.style import is_empty
from equigrid.analysis.figures.tuning import tuning_figure


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [  # arm, label, replicate, status, value, seconds
        ("base", "tuned", 0, "finished", 90.0, 60),
        ("base", "tuned", 0, "stopped", 95.0, 30),  # it was never trained to its end
        ("base", "tuned", 0, "finished", 93.0, 90),
        ("base", "tuned", 1, "finished", 92.0, 60),
        ("base", "own", 1, "finished", 91.0, 60),
    ]
    return pd.DataFrame(rows, columns=["arm", "label", "replicate", "status", "value", "seconds"])


def lines(axes) -> dict:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}  # fmt: skip


def test_the_best_so_far_is_of_those_trained_to_their_end_at_what_they_cost(table):
    figure = tuning_figure(table, {"base": {"lr": 0.7, "batch": 0.3}}, "top1")
    costs, shares = figure.axes
    drawn = lines(costs)
    assert drawn["best so far"] == ([1.0, 1.5, 3.0], [90.0, 90.0, 93.0])
    assert drawn["stopped early"] == ([1.5], [95.0])
    assert drawn["best recipe, fresh seeds"][1] == [92.0, 92.0]
    assert drawn["the grid's own, fresh seeds"][1] == [91.0, 91.0]
    assert [bar.get_width() for bar in shares.patches] == [30.0, 70.0]


def test_of_a_distance_the_least_is_the_best(table):
    figure = tuning_figure(table, {}, "FID", lower=True)
    assert lines(figure.axes[0])["best so far"][1] == [90.0, 90.0, 90.0]
    assert "%" not in figure.axes[0].get_ylabel()
    assert figure.axes[1].texts[0].get_text() == "too few candidates to tell"


@pytest.mark.parametrize("lower", [False, True])
def test_candidates_that_learnt_nothing_do_not_press_the_others_together(table, lower):
    bad = table.iloc[[1] * 2].assign(value=[10.0, 12.0])
    whole = pd.concat([table, bad], ignore_index=True)
    if lower:
        whole["value"] = 100 - whole["value"]
    axes = tuning_figure(whole, {}, "top1", lower=lower).axes[0]
    low, high = axes.get_ylim()
    kept = 100 - table["value"] if lower else table["value"]
    assert low < kept.min() and kept.max() < high
    assert high - low < 25
    assert [text.get_text() for text in axes.texts] == [
        f"2 stopped early are {'above' if lower else 'below'} this"
    ]
    assert not tuning_figure(table, {}, "top1").axes[0].texts


def test_each_arm_has_a_row_and_no_candidate_no_figure(table):
    two = pd.concat([table, table.assign(arm="syn")])
    assert len(tuning_figure(two, {}, "top1").axes) == 4
    assert is_empty(tuning_figure(table[table["replicate"] > 0], {}, "top1"))
