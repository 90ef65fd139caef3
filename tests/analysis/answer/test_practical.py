"""The practical answer: amounts, costs, plans, and when there is none."""

import json
from dataclasses import replace

import numpy as np
import pytest

from equigrid.analysis.answer.practical import equiv
from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.paper import published

PLANTED = Planted(
    LIKE_CIFAR10, subset_seeds=3, seeds=3, trial_sd=0.1, generator_sd=0.1, generator_tilt_sd=0.02,
    copies=(1.0, 3.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def analysis():
    return analyse(PLANTED.table(0), settings=PLANTED.settings(replicates=400))


@pytest.fixture(scope="module")
def paper():
    table = published.results()
    table = table[(table["dataset"] == "cifar10") & (table["recipe"] == "paper/cifar10")]
    return analyse(table, settings=published.settings(replicates=300))


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


def test_the_headline_stands_first_and_the_amount_is_the_planted_one(analysis):
    answer = equiv(analysis, 5_000, 10_000)
    (curve,) = answer.curves
    first = answer.text.splitlines()[1].strip()
    assert first.startswith("At a base of 5,000, one real image is worth ")
    assert "over the first 5,000 real ones added, and " in first
    assert curve.amount.low <= truth(5_000, 10_000) <= curve.amount.high
    assert curve.amount.value == pytest.approx(truth(5_000, 10_000), rel=0.15)
    assert curve.verdict == "generate"
    assert "images of planted do what 10,000 more real images do (known within ×" in answer.text
    assert "Beyond as many copies of the base" in answer.text
    content = json.loads(json.dumps(answer.to_json(), allow_nan=False))["curves"][0]
    assert content["amount"]["kind"] == "matched"
    assert content["paper"]["status"] == "determined"


def test_a_base_that_was_not_measured_gets_its_neighbours_and_no_answer(analysis):
    (curve,) = equiv(analysis, 10_000, 10_000).curves
    assert curve.amount is None
    assert curve.costs is None
    text = curve.text
    assert (
        "No answer at a base of 10,000: it was not measured (measured: 500, 5,000, 25,000)" in text
    )
    assert "5,000 more real images at a base of 5,000 are matched by" in text
    assert "25,000 more real images at a base of 25,000 " in text
    assert "Do this next: a block with n_base [10000]" in text
    # Appendix A's formula is for all base sizes: its word stands beside, as the paper's.
    assert "the paper's reading (Appendix A): Eq. 13 gives" in text


def test_costs_with_and_without_the_generator(analysis):
    (curve,) = equiv(analysis, 5_000, 10_000, cost_real=0.05, cost_syn=0.0004).curves
    costs = curve.costs
    assert costs.real == pytest.approx(500)
    assert costs.syn == pytest.approx(curve.amount.value * 0.0004)
    assert costs.break_even == pytest.approx(10_000 / curve.amount.value)
    assert "synthetic is cheaper" in curve.text
    assert "is taken as 0; if it has one, give it too" in curve.text
    (dear,) = equiv(analysis, 5_000, 10_000, 0.05, 0.0004, cost_generator=900).curves
    assert dear.costs.syn == pytest.approx(900 + costs.syn)
    assert "real is cheaper" in dear.text
    assert "taken as 0" not in dear.text
    (even,) = equiv(analysis, 5_000, 10_000, 0.05, 500 / curve.amount.value).curves
    assert "the interval does not exclude the other" in even.text


def draws_of(analysis, n_base, r, x):
    worth = analysis.curves[0].worth
    b = worth.base_index(n_base)
    return np.clip(worth.fit.draws.source(b, worth.source, np.array([x]), r)[0, :, 0], 0, 100)


@pytest.mark.parametrize("cost_syn", [0.0004, 0.02, 0.2])
def test_plans_reach_their_target_with_their_confidence_at_the_lowest_cost(analysis, cost_syn):
    (curve,) = equiv(analysis, 5_000, 5_000, 0.05, cost_syn, target_accuracy=89.0).curves
    half, sure = curve.planned.plans
    assert (half.asked, sure.asked) == (0.5, 0.9)
    for plan in (half, sure):
        assert plan.probability >= plan.asked
        assert plan.cost == pytest.approx(plan.n_real * 0.05 + plan.n_syn * cost_syn)
    assert sure.cost > half.cost
    # No pure plan is cheaper: on a grid of its own, for real and for synthetic images alone.
    for amounts, price in ((np.linspace(0, 3, 400), 0.05), (np.linspace(1, 20, 400), cost_syn)):
        reached = [
            (draws_of(analysis, 5_000, a if price == 0.05 else 0.0, 0.0 if price == 0.05 else a)
             >= 89.0).mean() >= 0.9
            for a in amounts
        ]  # fmt: skip
        if any(reached):
            assert sure.cost <= amounts[int(np.argmax(reached))] * 5_000 * price * 1.001


def test_plans_never_promise_what_is_out_of_reach(analysis, paper):
    (curve,) = equiv(analysis, 500, 500, 0.05, 0.0004, target_accuracy=100.0).curves
    assert curve.planned.plans == ()
    assert len(curve.planned.unreached) == 2
    assert (
        "100% at 90% confidence: no mix reaches it; the highest with that confidence is"
        in curve.text
    )
    for question in (analysis, paper):
        for asked in equiv(question, 5_000, 5_000, 0.05, 0.0004, target_accuracy=95.0).curves:
            for plan in asked.planned.plans:
                assert plan.accuracy.low <= plan.accuracy.value <= plan.accuracy.high <= 100.0


def test_budget_limits_the_plan(analysis):
    (curve,) = equiv(analysis, 5_000, 5_000, 0.05, 0.0004, budget=8.0).curves
    (best,) = curve.planned.plans
    assert best.cost <= 8.0
    assert best.accuracy.value > 80
    (poor,) = equiv(analysis, 5_000, 5_000, 0.05, 0.0004, target_accuracy=97.0, budget=8.0).curves
    assert poor.planned.plans == ()
    assert "no mix reaches it within 8.00" in poor.text
    (fixed,) = equiv(
        analysis, 5_000, 5_000, 0.05, 0.0004, budget=8.0, cost_generator=7.9
    ).curves  # nothing is left for synthetic images: real ones, then
    assert fixed.planned.plans[0].n_syn == 0
    assert fixed.planned.plans[0].n_real == 160


def test_the_papers_question_of_cifar10(paper):
    (curve,) = equiv(paper, 5_000, 1_000, 0.05, 0.0004, generator="edm").curves
    assert curve.amount.kind == "fewer than"
    # Measured from 5,000 on, and none of them matters for 1,000 real ones.
    assert 0 < curve.amount.high <= 6_000
    assert curve.costs.syn_high <= 6_000 * 0.0004
    assert "fewer than 5,000 images of edm do what 1,000 more real images do" in curve.text
    assert "no gain" not in curve.text
    assert "synthetic is cheaper" in curve.text
    assert "nothing was repeated that tells the spread of" in curve.text
    assert "copies of the base were not trained" in curve.next_step + curve.text
    assert "one subset seed" in curve.text


def test_no_amount_reaches_it():
    """Synthetic images bring a little at once and then nothing more."""
    weak = {n: (b1 + b3, 0.0, 0.0, b4) for n, (b1, _, b3, b4) in LIKE_CIFAR10.items()}
    table = replace(PLANTED, surfaces=weak).table(1)
    (curve,) = equiv(table, 5_000, 10_000, 0.05, 0.0004, settings=PLANTED.settings()).curves
    assert curve.verdict == "label more"
    assert curve.amount.kind == "no amount does"
    assert "Label more: at a base of 5,000, no amount of planted replaces 10,000 more" in curve.text
    assert curve.costs.cheaper == "which is cheaper is open" or "real" in curve.costs.cheaper
    json.dumps(curve.to_json(), allow_nan=False)


def test_a_table_without_synthetic_images_says_what_to_do():
    real_only = PLANTED.table(0)
    real_only = real_only[~real_only["arm"].isin(["syn"])]
    answer = equiv(real_only, 5_000, 5_000, settings=PLANTED.settings(replicates=50))
    assert "No answer: there are no synthetic images in it." in answer.text
    assert "Do this next" in answer.text
    assert "Do this next" in equiv(PLANTED.table(0).iloc[:0], 5, 5).text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_base": 0, "n_real": 5}, "n_base is 0"),
        ({"n_base": 5, "n_real": -1}, "n_real is -1"),
        ({"n_base": 5, "n_real": float("nan")}, "n_real is nan"),
        ({"n_base": 5, "n_real": 1, "cost_real": 0.1}, "cost_syn is missing"),
        ({"n_base": 5, "n_real": 1, "cost_real": 0.1, "cost_syn": -1}, "cost_syn is -1"),
        ({"n_base": 5, "n_real": 1, "target_accuracy": 90}, "needs cost_real and cost_syn"),
        ({"n_base": 5, "n_real": 1, "cost_generator": 9.0}, "needs cost_real and cost_syn"),
        (
            {"n_base": 5, "n_real": 1, "cost_real": 1, "cost_syn": 1, "target_accuracy": 120},
            "target_accuracy is 120",
        ),
        (
            {"n_base": 5, "n_real": 1, "cost_real": 1, "cost_syn": 1, "target_accuracy": 0.97},
            "is that a fraction. Write percent: 97",
        ),
        ({"n_base": 5, "n_real": 1, "generator": "unheard of"}, "no curve has"),
        ({"n_base": 5, "n_real": 1, "colour": "red"}, "cannot select by"),
    ],
)
def test_bad_questions(analysis, arguments, words):
    with pytest.raises(ValueError, match=words):
        equiv(analysis, **arguments)
