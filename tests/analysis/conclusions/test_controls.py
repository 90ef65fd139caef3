"""Controls: gains over base and copies, harm, the improvement ratio, class-wise gains."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from equigrid.analysis.conclusions.classes import COLUMNS, class_gains
from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.ratio import fieller, improvement_ratios
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted

PLANTED = Planted(LIKE_CIFAR10, copies=(1.0, 3.0), subset_seeds=3, seeds=2)


def one(planted, seed=0):
    return analyse(planted.table(seed), settings=planted.settings(replicates=300)).curves[0]


def test_gains_are_differences_of_cell_means():
    table = PLANTED.table(0)
    curve = one(PLANTED)
    means = table.groupby(["n_base", "arm", "n_real_added", "n_syn", "n_copies"])["top1"].mean()
    for gain in curve.gains:
        added = round(gain.scale * gain.n_base)
        amounts = {"real": (added, 0, 0), "syn": (0, added, 0), "copies": (0, 0, added)}
        over = (0, 0, added) if gain.over == "copies" else (0, 0, 0)
        expected = (
            means[(gain.n_base, gain.arm, *amounts[gain.arm])]
            - means[(gain.n_base, gain.over, *over)]
        )
        assert gain.gain.value == pytest.approx(expected)
        assert gain.gain.low < gain.gain.value < gain.gain.high
        assert gain.trials == 6
    over_copies = [(g.n_base, g.scale) for g in curve.gains if g.over == "copies"]
    assert over_copies == [(n, s) for n in LIKE_CIFAR10 for s in (1.0, 3.0)]


def test_a_gain_that_copies_give_too_is_not_a_gain_over_copies():
    """More steps help here, whatever the added images are: the control must show it."""
    table = PLANTED.table(0)
    steps = 4.0 * np.log(table["n_total"] / table["n_base"])
    useless = {n: (b1 + b3, 0.0, 0.0, b4) for n, (b1, _, b3, b4) in LIKE_CIFAR10.items()}
    table = replace(PLANTED, surfaces=useless).table(1)
    table["top1"] = table["top1"] + steps
    curve = analyse(table, settings=PLANTED.settings(replicates=300)).curves[0]
    assert curve.gain_over_base.low > 2
    assert curve.copies_over_base.low > 2
    assert not curve.gain_over_copies.excludes(0)
    assert any("cannot be told from more optimiser steps" in note for note in curve.notes)


def test_fieller_matches_its_definition_and_simulation():
    rng = np.random.default_rng(0)
    covariance = np.array([[0.04, 0.02], [0.02, 0.05]])
    truth = np.array([2.0, 1.5])
    inside = 0
    for _ in range(2000):
        sample = rng.multivariate_normal(truth, covariance * 4, size=4)
        estimate = fieller(sample.mean(axis=0), np.cov(sample.T) / 4, 3, 0.95)
        inside += not estimate.excludes(truth[0] / truth[1])
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)
    vague = fieller(np.array([2.0, 0.1]), covariance, 3, 0.95)
    assert vague.value == pytest.approx(20.0)
    assert not vague.bounded
    assert not fieller(np.array([2.0, 1.0]), np.full((2, 2), np.nan), 0, 0.95).bounded


def test_improvement_ratio_pairs_generators_by_setting_and_uses_clusters():
    table = PLANTED.table(0)
    syn = table["arm"] == "syn"
    opened = table[syn].assign(
        generator="open one",
        setting="open",
        trial_id=table["trial_id"] + "o",
        top1=table["top1"] - 0.5,
    )
    both = pd.concat([table, opened], ignore_index=True)
    analysis = analyse(both, settings=PLANTED.settings(replicates=100))
    ratios = improvement_ratios(analysis)
    assert [(r.closed, r.open, r.n_base) for r in ratios] == [
        ("planted", "open one", n) for n in LIKE_CIFAR10
    ]
    for ratio in ratios:
        assert ratio.gain_closed - ratio.gain_open == pytest.approx(0.5)
        assert ratio.ratio.value == pytest.approx(ratio.gain_closed / ratio.gain_open)
        # Paired: both gains share subset and trials up to a constant, so the ratio is known better
        # than each gain.
        assert ratio.ratio.bounded
    assert improvement_ratios(analysis, scale=7.0) == []


def test_class_gains_are_paired_by_subset_seed():
    table = PLANTED.table(0)
    per_class = [[50.0 + s, 60.0, 70.0] for s in table["subset_seed"]]
    gained = table["arm"] == "syn"
    table["per_class"] = [
        [row[0] + (3.0 if g else 0.0), row[1] - (1.0 if g else 0.0), row[2]]
        for row, g in zip(per_class, gained)
    ]
    gains = class_gains(table)
    assert list(gains.columns) == COLUMNS
    syn = gains[gains["arm"] == "syn"]
    assert syn.groupby("class")["gain"].mean().tolist() == pytest.approx([3.0, -1.0, 0.0])
    # The subsets differ by a point, but in both arms alike: paired, there is no spread at all, and
    # an interval of no width would claim certainty.
    assert syn[["low", "high"]].isna().all(axis=None)
    assert set(syn["pairs"]) == {3}
    assert class_gains(PLANTED.table(0)).empty


def test_intervals_of_class_gains_pool_the_spread_and_stay_possible():
    table = PLANTED.table(0)
    table = table[table["subset_seed"] < 2]  # two pairs a cell: on their own, 12.7 standard errors
    rng = np.random.default_rng(0)
    table["per_class"] = list(np.clip(50 + 5 * rng.standard_normal((len(table), 2)), 0, 100))
    gains = class_gains(table)
    half = ((gains["high"] - gains["low"]) / 2).groupby([gains["n_nominal"], gains["class"]])
    # Pairs of means of two trainings: sd 5, so about 2.1 * 5 / sqrt(2) with 10 cells' freedom.
    assert half.mean().between(3, 16).all()
    assert half.std().max() < 1e-9
    wild = table.assign(per_class=[[100.0 * (i % 2), 50.0] for i in range(len(table))])
    known = class_gains(wild).dropna(subset=["low", "high"])
    assert (known["low"] >= -100).all()
    assert (known["high"] <= 100).all()


@pytest.mark.long
def test_gains_with_one_subset_seed_allow_for_the_generators_luck():
    """81% was covered where the interval was that of the trials of one generator alone."""
    planted = replace(
        PLANTED, copies=(), subset_seeds=1, seeds=3, trial_sd=0.3, generator_sd=0.4,
        generator_tilt_sd=0.0, subset_sd=0.0,
    )  # fmt: skip
    expected = _expected_gain(planted)
    found = [one(planted, seed).gain_over_base for seed in range(12)]
    assert sum(gain.low <= expected <= gain.high for gain in found) >= 10


def _expected_gain(planted):
    means = []
    for n in planted.surfaces:
        base = planted._accuracy(n, 0, 0)
        means.append(np.mean([planted._accuracy(n, 0, s * n) - base for s in planted.syn]))
    return float(np.mean(means))
