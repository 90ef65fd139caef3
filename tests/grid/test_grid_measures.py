"""What is measured of pools: quality in the grid's own features, and the domain gap, as jobs without Ray."""

import math

import pytest

from grid import tasks
from grid.spec import SpecError
from grid.state import pending
from grid.tasks import domain, quality


@pytest.fixture
def spec(mini):
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "syn": {"edm": [1, 2]}}], [0]
    mini["quality"] = {"neighbours": 40}
    mini["domain_gap"] = {"images": 100, "patches": [4], "tsne": 30, "recipe": {"extends": "digits", "steps": 60}}
    return mini


def run_all(store, the_plan, request_of) -> None:
    for job in pending(store, the_plan)[0]:
        outcome = tasks.run(store, request_of(store, the_plan, job))
        assert outcome["status"] == "ok", outcome


def test_pools_are_measured_and_nothing_is_left_to_do(planned, request_of, spec):
    store, the_plan = planned(spec)
    kinds = [job.kind for job in pending(store, the_plan)[0]]
    assert kinds == ["generator", "shard", "reference", "trial", "trial", "trial", "quality", "domain", "domain"]
    run_all(store, the_plan, request_of)
    assert pending(store, the_plan)[0] == []

    (job,) = the_plan.of_kind("quality")
    row = store.get_json(quality.manifest_name(job.id))
    assert (row["n_images"], row["n_real"]) == (120, 1200)
    assert row["fid"] is None  # Inception knows nothing of 8×8 digits
    assert row["note"] == ""
    assert row["feature_distance"] > 1
    assert 0 < row["feature_diversity_real"] < math.inf
    assert 0 <= row["memorised"] <= 1

    whole, patches = (store.get_json(domain.manifest_name(job.id)) for job in the_plan.of_kind("domain"))
    assert (whole["patch_px"], patches["patch_px"]) == (None, 4)
    assert whole["n_train"] + whole["n_test"] == 200
    assert whole["low"] <= whole["accuracy"] <= whole["high"]
    assert whole["accuracy"] > 70  # ten training steps make no digits
    assert "tsne" not in patches
    for panel in ("domain", "ordinary"):
        assert len(whole["tsne"][panel]) == 60
        assert all(len(point) == 2 and all(map(math.isfinite, point)) for point in whole["tsne"][panel])


def test_a_perfect_pool_is_nearer_than_a_bad_one(planned, request_of, spec):
    """The same job on real images in the pool's place: the distance falls, and every sample is memorised."""
    from dataclasses import replace

    spec["domain_gap"] = None
    store, the_plan = planned(spec)
    run_all(store, the_plan, request_of)
    (job,) = the_plan.of_kind("quality")
    bad = store.get_json(quality.manifest_name(job.id))
    request = request_of(store, the_plan, job)
    everything = {**job.payload, "subset": {"n": 1200, "subset_seed": None}}
    assert tasks.run(store, replace(request, payload=everything, syn=request.train))["status"] == "ok"
    good = store.get_json(quality.manifest_name(job.id))
    assert good["feature_distance"] < bad["feature_distance"] / 5
    assert good["neighbour_distance"] == 0
    assert good["memorised"] > 0.9


def test_measures_that_cannot_be_are_refused(planned, spec):
    with pytest.raises(SpecError, match="9 px squares do not fit into images of 8×8"):
        planned({**spec, "domain_gap": {"patches": [9]}})
    with pytest.raises(SpecError, match="inception: 'x.pth' is no file of weights"):
        planned({**spec, "quality": {"inception": "x.pth"}})
    with pytest.raises(SpecError, match="unknown key; known: images, inception"):
        planned({**spec, "quality": {"fid": True}})


def test_the_grids_own_classifier_may_be_trained_on_fewer_images(planned, spec):
    _, all_of_them = planned(spec, "a")
    _, few = planned({**spec, "reference_images": 300}, "b")
    (whole,), (small,) = (each.of_kind("reference") for each in (all_of_them, few))
    assert (whole.payload["real"]["n"], small.payload["real"]["n"]) == (1200, 300)
    assert whole.id != small.id
    assert {job.payload["reference"] for job in few.of_kind("quality")} == {small.id}
    with pytest.raises(SpecError, match="reference_images: 1,201 is more than there are training images; use at most 1,200"):
        planned({**spec, "reference_images": 1201}, "c")
