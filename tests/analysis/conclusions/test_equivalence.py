"""The analysis on planted tables: both answers where they are true, and a clear sentence where
neither is.
"""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.settings import Settings

PLANTED = Planted(LIKE_CIFAR10, copies=(1.0, 3.0), subset_seeds=3, seeds=2)
USELESS = {n: (b1 + b3, 0.0, 0.0, b4) for n, (b1, _, b3, b4) in LIKE_CIFAR10.items()}


def one(table, **changes):
    analysis = analyse(table, settings=PLANTED.settings(replicates=300, **changes))
    json.dumps(analysis.to_json(), allow_nan=False)
    assert len(analysis.curves) == 1
    return analysis.curves[0]


def test_determined_where_an_equivalence_was_planted():
    c1, c2 = PLANTED.truth()
    curve = one(PLANTED.table(0))
    assert curve.status == "determined"
    assert curve.reasons == ()
    assert not curve.c1.excludes(c1)
    assert not curve.c2.excludes(c2)
    assert curve.c2.high < 2 * curve.c2.low
    assert curve.gain_over_copies.low > 0
    assert curve.setting == "closed"
    assert curve.tau == 10 / 50_000
    amount = curve.equivalent_ratio(5_000, 5_000)
    assert not amount.excludes(c1 ** (5_000 * curve.tau) * (c2 - 1))
    assert len(curve.tuples) == 9
    assert "n_syn/n_base" in curve.paper_sentence
    assert curve.worth.determined
    assert "Generate: at a base of 5,000, " in curve.sentence


def test_undetermined_where_synthetic_images_were_planted_to_be_useless():
    curve = one(replace(PLANTED, surfaces=USELESS).table(1))
    assert curve.status == "undetermined"
    assert any("cannot be told from none" in reason for reason in curve.reasons)
    assert any("copies" in note for note in curve.notes)


@pytest.mark.long
def test_false_findings_are_rare_and_true_ones_common():
    useless = replace(PLANTED, surfaces=USELESS)
    found = [one(useless.table(seed), details=False).determined for seed in range(20)]
    assert sum(found) <= 1
    found = [one(PLANTED.table(seed), details=False).determined for seed in range(10)]
    assert sum(found) >= 9


def test_harm_is_said():
    harmful = {n: (b1 + b3 + 1.2, 0.0, -1.2, b4) for n, (b1, _, b3, b4) in LIKE_CIFAR10.items()}
    curve = one(replace(PLANTED, surfaces=harmful).table(0))
    assert curve.status == "undetermined"
    assert any("is negative" in reason for reason in curve.reasons)
    assert any("do harm" in note for note in curve.notes)


def test_unreachable_accuracy_is_said():
    # Synthetic images bring a little at once and then nothing more: log_syn's step.
    weak = {n: (b1 + b3, 0.05, 0.0, b4) for n, (b1, _, b3, b4) in LIKE_CIFAR10.items()}
    small = replace(
        PLANTED,
        surfaces=weak,
        trial_sd=0.01,
        subset_sd=0.0,
        generator_sd=0.0,
        generator_tilt_sd=0.0,
    )
    curve = one(small.table(0))
    assert curve.status == "undetermined"
    assert curve.gain_over_base.low > 0
    reached = [t for t in (*curve.tuples, *curve.discarded) if t.used]
    assert reached == []
    assert any(
        "never reaches" in r or "usable tuples exist at no base size" in r for r in curve.reasons
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"surfaces": {5_000: LIKE_CIFAR10[5_000]}}, "one base size"),
        ({"real": ()}, "no real-augmentation rows at 500, 5,000, 25,000"),
        ({"syn": ()}, "there are no synthetic rows"),
        ({"real": (1.0,), "syn": (1.0,), "copies": ()}, "do not determine"),
        (
            {"subset_seeds": 1, "seeds": 1, "real": (1.0,), "syn": (1.0, 2.0), "copies": ()},
            "noise cannot be estimated",
        ),
    ],
)
def test_what_is_missing_is_said_and_the_rest_computed(change, reason):
    planted = replace(PLANTED, **change)
    curve = one(planted.table(0), real_ratios={})
    assert curve.status == "undetermined"
    assert any(reason in r for r in curve.reasons), curve.reasons
    if planted.real and planted.seeds > 1:
        assert curve.real_gain.bounded
    if planted.syn and planted.seeds > 1:
        assert curve.gain_over_base.bounded


def test_bad_tables_are_asked_about_not_guessed():
    table = PLANTED.table(0)
    empty = analyse(table.iloc[:0])
    assert empty.curves == ()
    assert "no rows" in empty.problems[0]
    fractions = analyse(table.assign(top1=table["top1"] / 100))
    assert fractions.curves == ()
    assert "fractions" in fractions.problems[0]
    some = table.assign(top1=table["top1"].where(table.index % 50 != 0, table["top1"] / 100))
    mixed = analyse(some, settings=PLANTED.settings(replicates=50))
    assert any(
        p.startswith(f"{-(-len(table) // 50)} rows with a top1 of planted") for p in mixed.problems
    )
    assert mixed.curves[0].gain_over_base.value == pytest.approx(7, abs=1.5)
    high = analyse(table.assign(top1=table["top1"] + 30), settings=PLANTED.settings(replicates=50))
    assert "outside 0 to 100" in high.problems[0]
    twice = pd.concat([table, table.assign(trial_id=table["trial_id"] + "again", top1=1.5)])
    doubled = analyse(twice, settings=PLANTED.settings(replicates=50))
    assert f"{len(table)} cells occur more than once" in doubled.problems[0]
    assert doubled.curves[0].c1.value == pytest.approx(one(table).c1.value)
    with pytest.raises(ValueError, match="trial_id"):
        analyse(table.drop(columns="trial_id"))
    no_seed = table.astype({"seed": "Int64"})
    no_seed.loc[:3, "seed"] = None
    assert (
        "4 rows have no seed"
        in analyse(no_seed, settings=PLANTED.settings(replicates=20)).problems[0]
    )


@pytest.mark.long
def test_equal_cells_shared_by_two_grids_count_once():
    table = PLANTED.table(0)
    again = pd.concat([table, table.assign(grid="second")])
    assert one(again).c1 == one(table).c1
    assert one(again).bases[0].data.trials.tolist() == one(table).bases[0].data.trials.tolist()


def test_failed_and_absent_cells_are_named():
    table = PLANTED.table(0)
    lost = (table["arm"] == "syn") & (table["n_syn"] == 10_000) & (table["seed"] == 1)
    failed = table.assign(status=np.where(lost, "failed", "ok"))
    curve = one(failed)
    words = " | ".join(curve.missing)
    assert "failed: base 5,000 + 10,000 synthetic (planted), subset 0, seed 1" in words
    assert (
        "base 5,000 + 10,000 synthetic (planted): no (subset, seed) (0, 1), (1, 1), (2, 1)" in words
    )
    assert curve.determined


def test_draws_depend_on_the_curve_and_the_seed_alone():
    table = PLANTED.table(0)
    other = table.assign(classifier="another", trial_id=table["trial_id"] + "b")
    settings = PLANTED.settings(replicates=200)
    alone = analyse(table, settings=settings).curves[0]
    both = analyse(pd.concat([other, table]), settings=settings).curves
    same = next(c for c in both if c.key == alone.key)
    assert (same.c1, same.c2) == (alone.c1, alone.c2)
    different = analyse(table, settings=PLANTED.settings(replicates=200, seed=1)).curves[0]
    assert different.c1 != alone.c1
    assert different.c1.value == alone.c1.value


def test_extrapolation_is_marked():
    curve = one(PLANTED.table(0))
    by_place = {(t.n_base, t.real_ratio): t.extrapolated for t in (*curve.tuples, *curve.discarded)}
    assert any("the dataset has 50,000" in words for words in by_place[25_000, 3.0])
    assert any("measured up to 2,500" in words for words in by_place[500, 3.0])
    assert by_place[500, 1.0] == ()


def test_nominal_sizes_serve_ratios_and_tau():
    table = PLANTED.table(0)
    largest = table["n_base"] == 25_000
    nominal = table.assign(n_base=table["n_base"].where(~largest, 24_900))
    curve = one(nominal)
    assert [b.data.n_nominal for b in curve.bases] == [500, 5_000, 25_000]
    assert curve.bases[2].data.n_base == 24_900
    assert curve.c2.value == pytest.approx(one(table).c2.value, rel=0.02)


def test_dataset_size_defaults_to_the_largest_real_amount_and_says_so():
    table = PLANTED.table(0)
    curve = analyse(table, settings=Settings(replicates=50)).curves[0]
    assert curve.n_total_dataset == 100_000
    assert "largest real amount" in curve.n_total_source


@pytest.mark.parametrize("rule", ["aicc", "loo", "adjusted_r2", ("log_real", "log_total")])
def test_other_surfaces_run_through_the_whole_procedure(rule):
    curve = one(PLANTED.table(1), surface=rule)
    assert curve.bases[1].surface is not None
    assert curve.status in ("determined", "undetermined")
    if isinstance(rule, tuple):
        assert curve.bases[0].terms == rule


def test_narrowing_finds_the_noisy_cell():
    """With all noise in one base size, that base size must lead the list."""
    planted = replace(PLANTED, noise_scale={500: 3.0, 5_000: 0.1, 25_000: 0.1})
    curve = one(planted.table(2))
    assert curve.narrowing[0].n_base == 500
    assert sum(n.share for n in curve.narrowing) == pytest.approx(1.0)
    assert curve.narrowing == tuple(sorted(curve.narrowing, key=lambda n: -n.saves))


def test_variants_are_reported_beside_the_papers_form():
    curve = one(PLANTED.table(0))
    assert {
        "paper",
        "log",
        "robust",
        "relative",
        "epsilon 1e-06",
        "epsilon 0.001",
        "epsilon 1",
    } == set(curve.variants)
    assert curve.variants["paper"] == (curve.c1.value, curve.c2.value)
    assert curve.variants["epsilon 1e-06"] == curve.variants["paper"]
    assert curve.variants["epsilon 1"] != curve.variants["paper"]


def test_settings_are_validated():
    with pytest.raises(ValueError, match="all positive"):
        Settings(real_ratios={"d": (0.0, 1.0)})
    with pytest.raises(ValueError, match="extra"):
        Settings(epsilom=1e-3)
    with pytest.raises(ValueError, match="greater than 0"):
        Settings(epsilon=0.0)
