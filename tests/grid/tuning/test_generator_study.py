"""The search for a generator's duration and guidance, without Ray: what it is of, and a candidate
on real images.
"""

from dataclasses import replace

import pytest

from equigrid.generators.registry import config as configured
from equigrid.grid import jobs
from equigrid.grid.errors import UserError
from equigrid.grid.jobs import candidate as candidates
from equigrid.grid.jobs.request import Images
from equigrid.grid.planning import planner
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.spec.tuning import Tune
from equigrid.grid.store import documents
from equigrid.grid.tuning.generator_study import default_space, generator_study


@pytest.fixture
def searched(mini) -> dict:
    return mini | {"validation": {"images": 200}, "blocks": [{"n_base": [120], "syn": {"edm": 1}}]}


def study_of(the_plan, name="edm", space=None, **wish):
    tune = Tune.model_validate({"looks": 2, **wish, **({"space": space} if space else {})})
    facts = planner.facts(the_plan.resolved)
    spec = the_plan.resolved.spec
    return generator_study(spec, tune, name, the_plan, facts, tune.space)


def plan_of(spec):
    return planner.plan(resolve(load(spec), None))


def test_the_default_space_is_duration_and_what_guides_the_sampler():
    edm, dit = (
        configured({"kind": "edm", "preset": "digits"}),
        configured({"kind": "dit", "preset": "digits"}),
    )
    assert set(default_space(edm)) == {"length", "sampler.S_churn"}
    assert set(default_space(dit)) == {"length", "sampler.guidance"}


def test_length_is_a_factor_on_the_images_that_a_generator_sees(searched):
    one = study_of(plan_of(searched))
    assert one.recipe_with({"length": 2}).training.total_nimg == 2 * 640
    assert one.own == {"length": 1.0, "sampler.S_churn": 0.0}
    assert [training.payload.n_images for training in one.trainings] == [120]


@pytest.mark.parametrize(
    ("name", "space", "told"),
    [
        ("edn", None, "'edn' is none of the grid's; generators has: edm; did you mean 'edm'"),
        ("edm", {"network.dropout": [0.1, 0.2]}, "--space.network.dropout: is no key"),
        ("edm", {"sampler.steps": [0, 4]}, "--space.sampler.steps: 0: sampler.steps: .*greater"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(searched, name, space, told):
    with pytest.raises(UserError, match=told):
        study_of(plan_of(searched), name, space)


def test_a_generator_that_no_block_uses_is_refused(searched):
    searched["blocks"] = [{"n_base": 120}]
    with pytest.raises(UserError, match="edm is not trained here, or by no block"):
        study_of(plan_of(searched))


@pytest.mark.long
def test_a_candidate_is_looked_at_while_it_is_trained_by_its_distance_from_held_out_images(
    searched, planned, request_of
):
    """A generator that is hardly trained is farther from the real images than one that is trained;
    the record says so, and the test split is given to nobody.
    """
    searched["generators"]["edm"]["training"] = {"total_nimg": 12_800}
    store, the_plan = planned(searched)
    one = study_of(the_plan)
    jobs.run(store, request_of(store, the_plan, one.reference, row=None))
    requests = tuple(
        request_of(store, the_plan, training.job, test=Images(), row=None)
        for training in one.trainings
    )
    told = []
    own = one.candidate({"length": 1.0, "sampler.S_churn": 0.0}, requests)
    candidates.train(store, own, lambda look: told.append(dict(look)), one.train_part)
    assert [look["progress"] for look in told] == [1, 2]
    assert told[0]["value"] < told[1]["value"] < 0
    assert told[1]["nimg"] == 12_800
    record = documents.read(store, own.place, documents.CandidateRecord)
    assert (record.status, record.history) == (candidates.FINISHED, told)

    short = one.candidate({"length": 0.05, "sampler.S_churn": 0.0}, requests)
    candidates.train(store, short, lambda look: told.append(dict(look)), one.train_part)
    assert told[-1]["value"] < told[1]["value"]

    seen = replace(own, requests=(replace(requests[0], test=requests[0].train),))
    with pytest.raises(ValueError, match="no test images"):
        candidates.train(store, seen, print, one.train_part)
