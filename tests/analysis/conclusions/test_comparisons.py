"""Gains over other references than the own base: Table 6's recipes, Table 20's fixed synthetic
amount.
"""

from dataclasses import replace

import pytest
from scipy import stats

from equigrid.analysis.conclusions.comparisons import real_gains, recipe_gains
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.paper import published
from equigrid.analysis.schema import to_frame

RECIPES = {("no", "no"): "plain", ("yes", "no"): "flip", ("no", "yes"): "crop"}


def row(recipe, accuracy, *, n_base=50_000, n_syn=0, seed=0, subset_seed=0):
    arm, generator = ("syn", "edm") if n_syn else ("base", None)
    return {
        "trial_id": f"{recipe} {n_base} {n_syn} {subset_seed} {seed}", "attempt": "a", "status": "ok", "grid": "g",
        "dataset": "cifar10", "fingerprint": "f", "arm": arm, "generator": generator, "classifier": "resnet110",
        "setting": generator and "closed", "recipe": recipe, "n_total": n_base + n_syn, "n_base": n_base,
        "n_nominal": n_base, "n_real_added": 0, "n_syn": n_syn, "n_copies": 0, "subset_seed": subset_seed,
        "generator_seed": 0 if n_syn else None, "seed": seed, "rev": 0, "top1": accuracy,
    }  # fmt: skip


def test_table_6_comes_out_as_printed():
    printed = published.read_table("traditional")
    rows = [
        row(RECIPES[line.flip, line.crop], line.top1, n_syn=line.n_syn)
        for line in printed.itertuples()
    ]
    found = {
        (line.recipe, line.n_syn): gain for line, gain in recipe_gains(to_frame(rows), "plain")
    }
    assert list(found)[0] == ("plain", 0) and found["plain", 0] is None
    printed = dict(
        zip(
            ((RECIPES[r.flip, r.crop], r.n_syn) for r in printed.itertuples()),
            printed["printed_gain_top1"],
        )
    )
    assert len(found) == 4
    for cell, gain in found.items():
        if gain is not None:
            assert gain.value == pytest.approx(float(printed[cell]), abs=1e-9)
            assert not gain.bounded  # a single mean has no interval


def test_one_recipe_is_no_comparison():
    assert (
        recipe_gains(to_frame([row("plain", 85.0), row("plain", 90.0, n_syn=50_000)]), "plain")
        == []
    )
    elsewhere = [row("plain", 85.0), row("flip", 89.0, n_base=500)]
    assert recipe_gains(to_frame(elsewhere), "plain") == []
    assert recipe_gains(to_frame([row("flip", 85.0), row("crop", 89.0)]), "plain") == []


def test_intervals_pool_the_spread_of_trials_of_one_subset():
    plain, flip = (85.0, 85.4, 84.6), (88.7, 89.9, 89.1, 88.1)
    rows = [row("plain", a, seed=s) for s, a in enumerate(plain)] + [
        row("flip", a, seed=s) for s, a in enumerate(flip)
    ]
    _, (_, gain) = recipe_gains(to_frame(rows), "plain", level=0.9)
    expected = stats.ttest_ind(flip, plain, equal_var=True).confidence_interval(0.9)
    assert (gain.low, gain.high) == pytest.approx(tuple(expected))
    assert gain.value == pytest.approx(3.95)


def test_intervals_are_paired_over_subset_seeds():
    plain = ((70.0, 71.0), (80.0, 81.0), (90.0, 91.0))
    flip = ((74.1, 74.9), (84.2, 85.4), (93.9, 95.1))
    rows = [
        row(recipe, accuracy, n_base=500, subset_seed=subset, seed=seed)
        for recipe, values in (("plain", plain), ("flip", flip))
        for subset, trials in enumerate(values)
        for seed, accuracy in enumerate(trials)
    ]
    _, (_, gain) = recipe_gains(to_frame(rows), "plain")
    expected = stats.ttest_1samp([4.0, 4.3, 4.0], 0).confidence_interval(0.95)
    # Subsets differ by 20 points, gains by 0.3.
    assert (gain.low, gain.high) == pytest.approx(tuple(expected))


def test_table_20_comes_out_as_printed():
    printed = published.read_table("accuracy").query("table == 20")
    found = real_gains(published.results())
    assert {line.generator for line, _ in found} == {"sd2", "sd3"}
    for line, gain in found:
        own = printed[
            (printed["generator"] == line.generator) & (printed["n_base"] == line.n_base)
        ].iloc[0]
        assert line["mean"] == own["top1"]
        assert (gain is None) == (line.n_base == 0)
        if gain is not None:
            assert gain.value == pytest.approx(float(own["printed_gain_top1"]), abs=1e-9)


def test_grids_without_fixed_synthetic_amounts_have_no_such_table():
    assert real_gains(replace(Planted(LIKE_CIFAR10), copies=(1.0,)).table(0)) == []
    assert real_gains(published.results().iloc[:0]) == []
