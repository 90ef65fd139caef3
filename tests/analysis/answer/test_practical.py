"""The practical answer: amounts, costs, mixes, and when there is none."""

import json
from dataclasses import replace

import numpy as np
import pytest

from equigrid.analysis.answer.practical import equiv
from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.paper import published

PLANTED = Planted(
    LIKE_CIFAR10, subset_seeds=3, seeds=3, trial_sd=0.1, generator_sd=0.1, generator_tilt_sd=0.02
)


@pytest.fixture(scope="module")
def analysis():
    return analyse(PLANTED.table(0), settings=PLANTED.settings(replicates=400))


def truth(n_base, n_real):
    """n_syn with which the planted surface reaches n_real's accuracy, by bisection on the surface
    itself.
    """
    low, high = 1.0, 1e8
    target = PLANTED._accuracy(n_base, n_real, 0)
    for _ in range(200):
        middle = np.sqrt(low * high)
        low, high = (
            (middle, high) if PLANTED._accuracy(n_base, 0, middle) < target else (low, middle)
        )
    return low


def test_amount_at_a_measured_base_matches_the_planted_surface(analysis):
    answer = equiv(analysis, 5_000, 10_000)
    (curve,) = answer.curves
    assert curve.method == "surface"
    assert not curve.n_syn.excludes(truth(5_000, 10_000))
    assert curve.n_syn.value == pytest.approx(truth(5_000, 10_000), rel=0.15)
    assert "10,000 more real images at a base of 5,000 are matched by" in answer.text
    assert (
        json.loads(json.dumps(answer.to_json(), allow_nan=False))["curves"][0]["reachable"] is True
    )


def test_amount_between_measured_bases_is_by_the_formula(analysis):
    (curve,) = equiv(analysis, 10_000, 10_000).curves
    assert curve.method == "formula"
    expected = analysis.curves[0].equivalent_ratio(10_000, 10_000).value * 10_000
    assert curve.n_syn.value == pytest.approx(expected)
    assert any("between measured base sizes" in w for w in curve.warnings)
    (outside,) = equiv(analysis, 45_000, 10_000).curves
    assert any("outside the measured 500 to 25,000" in w for w in outside.warnings)
    assert any("the dataset has 50,000" in w for w in outside.warnings)


def test_costs_and_break_even(analysis):
    (curve,) = equiv(analysis, 5_000, 10_000, cost_real=0.05, cost_syn=0.0004).curves
    assert curve.cost_real == pytest.approx(500)
    assert curve.cost_syn.value == pytest.approx(curve.n_syn.value * 0.0004)
    assert curve.break_even.value == pytest.approx(10_000 / curve.n_syn.value)
    assert "synthetic is cheaper" in curve.text
    dear = equiv(analysis, 5_000, 10_000, cost_real=0.05, cost_syn=0.05).curves[0]
    assert "real is cheaper" in dear.text


def brute_force(target, cost_real, cost_syn):
    """Cheapest (cost) on a fine grid of the fitted surface, independent of the module's search."""
    base = analyse(PLANTED.table(0), settings=PLANTED.settings(replicates=0)).curves[0].bases[1]
    real, syn = np.meshgrid(
        np.linspace(0, 45_000, 901), np.append(0, np.geomspace(5_000, 500_000, 1200)), indexing="ij"
    )
    accuracy = base.surface.accuracy(5_000 + real.ravel()[:, None], syn.ravel()[:, None])[:, 0]
    cost = real.ravel() * cost_real + syn.ravel() * cost_syn
    return cost[accuracy >= target].min()


@pytest.mark.parametrize("cost_syn", [0.0004, 0.02, 0.2])
def test_cheapest_mix_is_as_cheap_as_brute_force_finds(analysis, cost_syn):
    (curve,) = equiv(analysis, 5_000, 5_000, 0.05, cost_syn, target_accuracy=89.0).curves
    mix = curve.mix
    assert mix.reaches
    assert mix.accuracy.value >= 89.0
    best = brute_force(89.0, 0.05, cost_syn)
    assert mix.cost <= best * 1.001
    assert mix.cost >= best * 0.98


def test_budget_limits_the_mix(analysis):
    (curve,) = equiv(analysis, 5_000, 5_000, 0.05, 0.0004, budget=8.0).curves
    assert curve.mix.cost <= 8.0
    assert curve.mix.accuracy.value > 80
    (poor,) = equiv(analysis, 5_000, 5_000, 0.05, 0.0004, target_accuracy=96.0, budget=8.0).curves
    assert poor.mix.reaches is False
    assert "out of reach within 8.00" in poor.text
    (never,) = equiv(analysis, 500, 500, 0.05, 0.0004, target_accuracy=100.0).curves
    assert "note" in never.text


def test_no_amount_reaches_it():
    table = published.results()
    analysis = analyse(
        table[table["dataset"] == "imagenet100"], settings=published.settings(replicates=100)
    )
    answer = equiv(analysis, 6_500, 26_000, dataset="imagenet100", classifier="resnet50", generator="dit",
                   recipe="paper/imagenet")  # fmt: skip
    assert answer.curves[0].reachable is False
    assert answer.curves[0].n_syn.value is None
    assert "no amount of synthetic data reaches" in answer.text
    json.dumps(answer.to_json(), allow_nan=False)


def test_fewer_than_the_smallest_measured_amount_is_said():
    flat_start = replace(PLANTED, syn=(2.0, 3.0, 4.0, 5.0))
    (curve,) = equiv(flat_start.table(0), 5_000, 2_500).curves
    assert curve.below_measured == 10_000
    assert "fewer than 10,000 synthetic images, the smallest measured amount" in curve.text
    assert curve.break_even is None


def test_without_a_fit_nothing_is_invented():
    useless = {n: (b1 + b3, 0.0, 0.0, b4) for n, (b1, _, b3, b4) in LIKE_CIFAR10.items()}
    answer = equiv(replace(PLANTED, surfaces=useless).table(1), 10_000, 5_000)
    assert answer.curves[0].method == "none"
    assert answer.curves[0].n_syn.value is None
    assert "no answer" in answer.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_base": 0, "n_real": 5}, "n_base is 0"),
        ({"n_base": 5, "n_real": -1}, "n_real is -1"),
        ({"n_base": 5, "n_real": 1, "cost_real": 0.1}, "cost_syn is missing"),
        ({"n_base": 5, "n_real": 1, "cost_real": 0.1, "cost_syn": -1}, "cost_syn is -1"),
        ({"n_base": 5, "n_real": 1, "target_accuracy": 0.9}, "needs cost_real and cost_syn"),
        (
            {"n_base": 5, "n_real": 1, "cost_real": 1, "cost_syn": 1, "target_accuracy": 120},
            "target_accuracy is 120",
        ),
        ({"n_base": 5, "n_real": 1, "generator": "unheard of"}, "no curve has"),
        ({"n_base": 5, "n_real": 1, "colour": "red"}, "cannot select by"),
    ],
)
def test_bad_questions(analysis, arguments, words):
    with pytest.raises(ValueError, match=words):
        equiv(analysis, **arguments)
