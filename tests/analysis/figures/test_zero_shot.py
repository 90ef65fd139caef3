"""Zero-shot results: means over trials, and Fig. 14 from Table 21."""

import numpy as np
import pytest
from scipy import stats

from equigrid.analysis.figures.zero_shot import MEASURES, zero_shot_figures, zero_shot_means
from equigrid.analysis.paper import published


def trial(
    accuracies, *, n_syn=0, seed=0, generator=None, n_base=6_500, n_nominal=None, trial_id=None
):
    identity = {
        "classifier": "resnet50",
        "generator": generator,
        "n_base": n_base,
        "n_nominal": n_nominal or n_base,
        "n_syn": n_syn,
    }
    return {
        **identity,
        "trial_id": trial_id or f"{generator} {n_syn} {seed}",
        **dict(zip(MEASURES, accuracies)),
    }


def table_21(dataset):
    """The published accuracies as trials, one each; the paper gives one measure."""
    printed = published.read_table("accuracy").query("table == 21").query(f"dataset == '{dataset}'")
    printed = printed.drop_duplicates(["generator", "n_syn"])
    return [
        trial((line.top1, None, None), n_syn=line.n_syn, generator=line.generator if line.n_syn else None,
              n_base=line.n_base)
        for line in printed.itertuples()
    ]  # fmt: skip


def test_means_and_intervals_are_over_distinct_trials():
    rows = [trial((50.0, 40.0, None), n_syn=650, seed=0, generator="sd3"),
            trial((56.0, 44.0, None), n_syn=650, seed=1, generator="sd3"),
            trial((53.0, 42.0, None), n_syn=650, seed=2, generator="sd3"), trial((20.0, 1.0, 97.0))]  # fmt: skip
    lines = zero_shot_means([*rows, rows[0]])
    assert [(line["generator"], line["n_syn"], line["trials"]) for line in lines] == [
        ("", 0, 1),
        ("sd3", 650, 3),
    ]
    base, syn = lines
    assert (base["among_unseen"].value, base["seen_among_all"].value, base["among_unseen"].low) == (
        20.0,
        97.0,
        None,
    )
    low, high = stats.t.interval(0.95, 2, 53.0, 3.0 / np.sqrt(3))
    assert (syn["among_unseen"].low, syn["among_unseen"].high) == pytest.approx((low, high))
    assert syn["among_all"].value == 42.0
    assert syn["seen_among_all"].value is None
    assert zero_shot_means([]) == []


def test_figure_14_is_table_21():
    ((classifier, figure),) = zero_shot_figures(table_21("imagenet10"))
    assert classifier == "resnet50"
    first = figure.axes[0]
    assert first.get_title() == MEASURES["among_unseen"]
    drawn = {line.get_label(): list(zip(*line.get_data())) for line in first.lines}
    assert drawn["6,500 real, sd3"] == [
        (0, 45.73),
        (0.1, 62.27),
        (0.5, 67.47),
        (1, 68.13),
        (10, 76.80),
    ]
    assert drawn["6,500 real, sd2"] == [
        (0, 45.73),
        (0.1, 56.27),
        (0.5, 58.93),
        (1, 59.33),
        (10, 61.33),
    ]
    assert [t.get_text() for t in first.get_xticklabels()] == ["0", "0.1", "0.5", "1", "10"]


def test_ratios_are_to_the_real_images_that_there_are():
    """As printed for ImageNet-100: 130,000 real images, of which 50 classes have half."""
    rows = [trial((a, None, None), n_syn=n, generator="sd3", n_base=65_000, n_nominal=130_000)
            for n, a in ((13_000, 20.91), (65_000, 34.29), (130_000, 39.16))]  # fmt: skip
    assert [line["ratio"] for line in zero_shot_means(rows)] == [0.2, 1, 2]
    ((_, figure),) = zero_shot_figures(rows)
    assert list(figure.axes[0].lines[0].get_xdata()) == [0.2, 1, 2]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0.2", "1", "2"]


def test_without_real_images_there_is_no_ratio():
    rows = [trial((20.0, None, None), n_syn=10, generator="sd3", n_base=0, n_nominal=1)]
    assert [line["ratio"] for line in zero_shot_means(rows)] == [None]
    assert list(zero_shot_figures(rows)) == []


def test_intervals_are_drawn():
    rows = [trial((a, a - 5, 90.0), n_syn=n, seed=s, generator="sd3" if n else None)
            for n in (0, 650) for s, a in enumerate((50.0, 52.0, 54.0))]  # fmt: skip
    ((_, figure),) = zero_shot_figures(rows)
    ends = figure.axes[0].containers[0][2][0].get_segments()[0][:, 1]
    assert ends.tolist() == pytest.approx(stats.t.interval(0.95, 2, 52.0, 2.0 / np.sqrt(3)))


def test_trials_without_synthetic_images_alone_can_be_drawn():
    ((_, figure),) = zero_shot_figures([trial((20.0, 1.0, 97.0))])
    assert len(figure.axes[0].lines) == 1
