"""A candidate on real shards, without Ray: looks, their record, and what is never seen."""

from dataclasses import replace

import pytest

from equigrid.grid.jobs import candidate as candidates
from equigrid.grid.jobs import inputs, trial
from equigrid.grid.jobs.request import Images
from equigrid.grid.planning import planner
from equigrid.grid.spec.tuning import Tune
from equigrid.grid.store import documents
from equigrid.grid.tuning import study


class Stop(BaseException):
    """What a scheduler does to a candidate in a report, or a kill anywhere."""


@pytest.fixture
def made(mini, planned, request_of):
    """Makes a candidate on a base of 60 and one of 120, in a store of its own."""
    store, the_plan = planned(mini | {"validation": {"images": 200}})
    resolved = the_plan.resolved
    wish = Tune.model_validate({"looks": 3, "space": {"lr": [0.1, 0.2, 1e30]}})
    n = planner.facts(resolved).n_train
    (one,) = study.studies_of(resolved.spec, wish, the_plan, n)

    def make(values=None, replicate=0, **options):
        options = {"test": Images(), "row": None, "threads": 1, **options}
        requests = tuple(
            request_of(store, the_plan, training.job, **options) for training in one.trainings
        )
        return one.candidate(values or {"lr": 0.1}, requests, replicate)

    return store, make


def trained(store, candidate) -> list[dict]:
    told = []
    candidates.train(store, candidate, lambda look: told.append(dict(look)))
    return told


def test_each_base_is_looked_at_and_the_value_is_the_mean_of_the_bases_so_far(made):
    store, make = made
    one = make()
    told = trained(store, one)
    assert [look["progress"] for look in told] == [1, 2, 3, 4, 5, 6]
    assert [look["n_total"] for look in told] == [60] * 3 + [120] * 3
    assert told[-1]["value"] == pytest.approx((told[2]["top1"] + told[5]["top1"]) / 2)
    assert told[-1]["value"] > 30  # it learns: 10 classes, 15 steps
    record = documents.read(store, one.place, documents.CandidateRecord)
    assert (record.status, record.history) == (candidates.FINISHED, told)


def test_what_ended_is_told_again_and_not_trained_again(made, monkeypatch):
    store, make = made
    told = trained(store, make())
    monkeypatch.setattr(trial, "training_parts", lambda request: pytest.fail("trained again"))
    assert trained(store, make()) == told


def test_what_was_ended_in_the_middle_goes_on_and_comes_to_the_same(made):
    store, make = made
    whole = trained(store, make())
    store.delete(make().place)
    one = make(checkpoint_every_s=0)
    seen = []

    def stops(look):
        seen.append(dict(look))
        if len(seen) == 2:
            raise Stop

    with pytest.raises(Stop):
        candidates.train(store, one, stops)
    record = documents.read(store, one.place, documents.CandidateRecord)
    assert record.status == candidates.RUNNING  # nobody has said that it is not to go on
    again = trained(store, one)
    assert [look["value"] for look in again] == [look["value"] for look in whole]
    assert again[:2] == seen  # as they were, not measured anew


def test_the_images_of_the_test_split_are_refused(made):
    store, make = made
    one = make()
    assert all(request.test == Images() for request in one.requests)
    shard = replace(one.requests[0], test=one.requests[0].train)
    with pytest.raises(inputs.Leak, match="no test images"):
        trained(store, replace(one, requests=(shard, *one.requests[1:])))


def test_a_recipe_that_diverges_is_known_to_and_one_that_fails_is_tried_again(made, monkeypatch):
    store, make = made
    one = make({"lr": 1e30})
    told = trained(store, one)
    record = documents.read(store, one.place, documents.CandidateRecord)
    assert (record.status, told[-1]["value"]) == (candidates.DIVERGED, 0)
    assert "finite" in record.error
    assert trained(store, one) == told

    other = make({"lr": 0.2})
    monkeypatch.setattr(trial, "training_parts", lambda request: 1 / 0)
    assert trained(store, other)[-1]["value"] == 0
    record = documents.read(store, other.place, documents.CandidateRecord)
    assert (record.status, record.error) == (
        candidates.FAILED,
        "ZeroDivisionError: division by zero",
    )
    monkeypatch.undo()
    assert trained(store, other)[-1]["progress"] == 6


def test_fresh_seeds_give_other_trainings_of_the_same_recipe(made):
    store, make = made
    first, second = trained(store, make(replicate=1)), trained(store, make(replicate=2))
    assert [look["loss"] for look in first] != [look["loss"] for look in second]
