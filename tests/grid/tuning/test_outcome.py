"""What is said of a search, from records that are written here."""

import math

import pytest
import yaml

from equigrid.classifiers import recipes
from equigrid.grid.planning import planner
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.spec.tuning import Tune
from equigrid.grid.store.documents import CandidateRecord
from equigrid.grid.tuning import phrasing, study, writing
from equigrid.grid.tuning.outcome import Outcome, Reached


def record(number, values, value, status="finished", replicate=0, label="tuned", first=10.0):
    looks = [{"progress": 1.0, "value": first}, {"progress": 8.0, "value": value}]
    return CandidateRecord(
        study="s", values=values, replicate=replicate, label=label, status=status, error=None,
        history=looks if status == "finished" else looks[:1], seconds=5.0, device="CPU",
        versions={}, started_at=f"2026-11-30T00:{number:02d}",
    )  # fmt: skip


@pytest.fixture
def studied(mini):
    """The plan of the mini grid with validation images, and its study over two keys."""
    grid = load(mini | {"validation": {"images": 200}})
    the_plan = planner.plan(resolve(grid, None))
    wish = Tune.model_validate({"space": {"lr": {"low": 0.01, "high": 0.3, "log": True}, "batch": [16, 32]}})  # fmt: skip
    n = planner.facts(the_plan.resolved).n_train
    return the_plan, study.studies_of(grid, wish, the_plan, n)[0]


BEST = {"lr": 0.05, "batch": 16}


@pytest.fixture
def outcome(studied) -> Outcome:
    own = {"lr": 0.1, "batch": 32}
    found = [
        record(0, own, 80.0),
        record(1, BEST, 90.0, first=30.0),
        record(2, {"lr": 0.2, "batch": 16}, 99.0, status="stopped", first=99.0),
        *(record(3 + i, BEST, 86.0 + i, replicate=i + 1) for i in range(3)),
        *(record(6 + i, {}, 80.0 + i, replicate=i + 1, label="own") for i in range(3)),
    ]
    return Outcome(studied[1], tuple(found))


def test_the_best_is_trained_to_its_end_and_its_worth_is_that_of_fresh_seeds(outcome):
    assert outcome.best.values == BEST
    assert outcome.reached(BEST).values == (86.0, 87.0, 88.0)
    assert outcome.gain.values == (6.0, 6.0, 6.0)
    told = "\n".join(phrasing.lines_of(outcome))
    assert "3 candidates, 2 to the end" in told
    assert "with fresh seeds 87.00 ± 2.48 (95%, 3 fresh seeds)" in told  # t of 2 df: 4.303
    assert "tuning brings 6.00 ± 0.00" in told


def test_one_seed_has_no_interval():
    assert math.isnan(Reached((90.0,)).half_width)
    assert str(Reached((90.0,))) == "90.00 (1 fresh seed)"
    assert Reached((90.0,)).to_json()["half_width_95"] is None


def test_of_a_few_candidates_no_importance_is_told_of_more_the_key_that_matters(outcome):
    assert outcome.importance() is None
    many = [
        record(i, {"lr": 0.01 * 1.3**i, "batch": (16, 32)[i % 2]}, 50.0, first=5.0 * i)
        for i in range(12)
    ]
    shares = Outcome(outcome.study, tuple(many)).importance()
    assert shares["lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_the_file_says_where_the_recipe_comes_from_and_is_a_recipe(outcome, studied, tmp_path):
    paths = writing.write(tmp_path, [outcome], studied[0], "mine.yaml")
    content = yaml.safe_load(paths["recipe"].read_text())
    found = recipes.recipe(content["recipe"])
    assert (found.lr, found.batch, found.steps) == (0.05, 16, 15)
    where_from = content["provenance"]
    assert where_from["made_by"] == "equigrid tune mine.yaml"
    assert where_from["fingerprint"] == studied[0].resolved.fingerprint
    (search,) = where_from["searches"]
    assert search["best_in_the_search"] == 90.0
    assert search["with_fresh_seeds"]["mean"] == 87.0
    assert "optimistic" in where_from["caution"]


def test_without_a_candidate_at_its_end_there_is_no_recipe(studied, tmp_path):
    stopped = Outcome(studied[1], (record(0, BEST, 0.0, status="stopped"),))
    assert "recipe" not in writing.write(tmp_path, [stopped], studied[0], "mine.yaml")
    assert "none was trained to its end" in phrasing.lines_of(stopped)[0]


def test_arms_that_differ_have_their_own_and_what_is_alike_stands_once(outcome, studied, mini):
    the_plan, _ = studied
    own = the_plan.resolved.recipes[the_plan.resolved.recipe_name]
    wish = outcome.study.wish.model_copy(update={"per_arm": True})
    spec = the_plan.resolved.spec
    arms = study.studies_of(spec, wish, the_plan, 1000)
    values = ({"lr": 0.05, "batch": 16}, {"lr": 0.05, "batch": 32}, BEST, BEST)
    found = [Outcome(one, (record(0, best, 90.0),)) for one, best in zip(arms, values)]
    recipe = writing.recipe_of(found, own)
    assert recipe["by_arm"] == {"real": {"batch": 32}}
    assert recipes.recipe(recipe).for_arm("real").batch == 32
