"""What is measured of pools: quality in the grid's own features, and the domain gap, as jobs
without Ray.
"""

import math
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import equigrid.classifiers.domain_gap
from equigrid.classifiers.features import Features
from equigrid.generators.quality.config import QualityConfig
from equigrid.grid import jobs
from equigrid.grid.errors import DocumentError, UserError
from equigrid.grid.ids import new_attempt
from equigrid.grid.jobs import checkpoints, domain_gap, grid_facts, inputs, reference_classifier
from equigrid.grid.jobs import quality as quality_job
from equigrid.grid.jobs.job import Stream, Subset
from equigrid.grid.planning.pending import pending
from equigrid.grid.spec import load
from equigrid.grid.store import documents, layout

STEPS = 60
MEASURED = (
    "accuracy",
    "low",
    "high",
    "real",
    "synthetic",
    "per_class",
    "n_train",
    "n_test",
    "tsne",
)


class Killed(BaseException):
    """Stands for the process's end: nothing may catch it."""


@pytest.fixture
def spec(mini):
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "syn": {"edm": [1, 2]}}], [0]
    mini["quality"] = {"neighbours": 40}
    mini["domain_gap"] = {
        "images": 100,
        "patches": [4],
        "tsne": 30,
        "recipe": {"extends": "digits", "steps": STEPS},
    }
    return mini


def run_all(store, the_plan, request_of) -> None:
    for job in pending(store, the_plan)[0]:
        outcome = jobs.run(store, request_of(store, the_plan, job))
        assert outcome["status"] == "ok", outcome


def domain_requests(store, the_plan, request_of, **options) -> list[jobs.Request]:
    """Makes what the domain jobs read; their requests, of whole images and of patches."""
    for job in pending(store, the_plan)[0]:
        if job.kind in ("generator", "shard", "reference"):
            assert jobs.run(store, request_of(store, the_plan, job))["status"] == "ok"
    return [request_of(store, the_plan, job, **options) for job in the_plan.of_kind("domain")]


def measured(store, request) -> dict:
    """What a domain job finds, without what tells one run of it from another."""
    outcome = jobs.run(store, replace(request, attempt=new_attempt()))
    assert outcome["status"] == "ok", outcome
    row = store.get_json(layout.DOMAIN_GAPS.manifest(request.id))
    return {name: row[name] for name in MEASURED if name in row}


@pytest.mark.long
def test_pools_are_measured_and_nothing_is_left_to_do(planned, request_of, spec):
    store, the_plan = planned(spec)
    kinds = [job.kind for job in pending(store, the_plan)[0]]
    assert kinds == [
        "generator",
        "shard",
        "reference",
        "trial",
        "trial",
        "trial",
        "quality",
        "domain",
        "domain",
    ]
    run_all(store, the_plan, request_of)
    assert pending(store, the_plan)[0] == []

    (job,) = the_plan.of_kind("quality")
    row = store.get_json(layout.QUALITY.manifest(job.id))
    assert (row["n_images"], row["n_real"]) == (120, 1200)
    assert row["fid"] is None  # Inception knows nothing of 8×8 digits
    assert row["note"] == ""
    assert row["feature_distance"] > 1
    assert 0 < row["feature_diversity_real"] < math.inf
    assert 0 <= row["memorised"] <= 1

    whole, patches = (
        store.get_json(layout.DOMAIN_GAPS.manifest(job.id)) for job in the_plan.of_kind("domain")
    )
    assert (whole["patch_px"], patches["patch_px"]) == (None, 4)
    assert whole["n_train"] + whole["n_test"] == 200
    assert whole["low"] <= whole["accuracy"] <= whole["high"]
    assert whole["accuracy"] > 70  # ten training steps make no digits
    assert "tsne" not in patches
    assert whole["tsne"]["n"] == 20  # 30 are asked for, a fifth of 100 is held out
    for panel in ("domain", "ordinary"):
        assert len(whole["tsne"][panel]) == 40
        assert all(
            len(point) == 2 and all(map(math.isfinite, point)) for point in whole["tsne"][panel]
        )


@pytest.mark.long
def test_both_panels_are_of_the_held_out_images_each_in_its_own_network(
    planned, request_of, images_of, spec, monkeypatch
):
    store, the_plan = planned(spec)
    request, _ = domain_requests(store, the_plan, request_of)
    found, original = [], equigrid.classifiers.domain_gap.domain_gap
    monkeypatch.setattr(
        equigrid.classifiers.domain_gap,
        "domain_gap",
        lambda *a, **k: found.append(original(*a, **k)) or found[0],
    )
    monkeypatch.setattr(domain_gap, "_embedded", lambda features, seed: features.tolist())
    panels = measured(store, request)["tsne"]

    tested = found[0].tested
    chosen = inputs.real_indices(request, request.payload.real)[tested]
    real = images_of(store, the_plan.resolved.dataset.train)[chosen]
    (pool,) = request.syn.handles
    assert panels["labels"] == [*request.labels[chosen], *pool["labels"][tested]]
    shown = np.concatenate([real, pool["images"][tested]])
    ordinary = reference_classifier.load(store, request.payload.reference, request, "cpu")
    expected = {"domain": found[0].module, "ordinary": ordinary}
    for name, module in expected.items():
        np.testing.assert_array_equal(
            np.float32(panels[name]), Features(module, "cpu")(shown), err_msg=name
        )
    assert panels["domain"] != panels["ordinary"]


@pytest.mark.long
def test_a_domain_job_streamed_with_every_shard_at_hand_is_the_resident_one(
    planned, request_of, spec
):
    spec["domain_gap"]["recipe"]["normalisation"] = {"mean": [0.3], "std": [0.4]}
    store, the_plan = planned(spec)
    for request in domain_requests(store, the_plan, request_of):
        assert len(request.train.handles) == 3
        resident = measured(store, request)
        at_hand, one = (
            replace(request, payload=replace(request.payload, stream=Stream(window=n)))
            for n in (4, 1)
        )
        assert measured(store, at_hand) == resident
        streamed = measured(store, one)
        assert streamed["n_train"] == resident["n_train"]
        if request.payload.tsne:
            # One shard at a time is another order.
            assert streamed["tsne"]["domain"] != resident["tsne"]["domain"]
            assert streamed["tsne"]["ordinary"] == resident["tsne"]["ordinary"]


@pytest.mark.long
@pytest.mark.parametrize("end", ["killed", "told to leave"])
def test_a_domain_job_goes_on_from_its_state(planned, request_of, spec, monkeypatch, end):
    store, the_plan = planned(spec)
    requests = domain_requests(store, the_plan, request_of, checkpoint_every_s=0)
    undisturbed = [
        measured(store, replace(request, checkpoint_every_s=1e9)) for request in requests
    ]
    for request in requests:
        store.delete(layout.DOMAIN_GAPS.manifest(request.id))
    save, saved, leaving = checkpoints.Saving.save, [], threading.Event()
    monkeypatch.setattr(checkpoints, "leaving", leaving)

    def save_and_end(self, step, states):
        if step == STEPS // 2 and end == "told to leave":
            leaving.set()
        save(self, step, states)
        if step == STEPS // 2:
            self.wait()
            raise Killed

    monkeypatch.setattr(checkpoints.Saving, "save", save_and_end)
    for request in requests:
        if end == "killed":
            with pytest.raises(Killed):
                jobs.run(store, request)
        else:
            outcome = jobs.run(store, request)
            leaving.clear()
            assert (outcome["status"], outcome["lost"]) == ("retry", True)
        # Where `equigrid gc` knows them by the job.
        assert any(store.list(f"checkpoints/{request.id}"))
    monkeypatch.setattr(checkpoints.Saving, "save", save)
    monkeypatch.setattr(
        checkpoints.Checkpoints, "save", lambda self, step, state: saved.append((self.prefix, step))
    )
    assert [measured(store, request) for request in requests] == undisturbed
    # Nothing is repeated, and neither job takes the other's state.
    rest = range(STEPS // 2 + 1, STEPS + 1)
    assert saved == [(f"checkpoints/{request.id}", step) for request in requests for step in rest]
    assert not list(store.list("checkpoints"))


def test_what_is_too_large_for_a_device_is_streamed_and_its_patches_are_not(
    planned, spec, monkeypatch
):
    monkeypatch.setattr(grid_facts, "RESIDENT_BYTES", 200 * 64 - 1)
    monkeypatch.setattr(grid_facts, "WINDOW_BYTES", 3 * 512 * 64)
    spec["blocks"] = [{"n_base": [60], "syn": {"edm": 1}}]
    spec["recipe"] = {**spec["recipe"], "normalisation": {"mean": [0.3], "std": [0.4]}}
    right = r"domain_gap.recipe: 200 images are streamed, and so are not measured; give the recipe a normalisation"
    with pytest.raises(UserError, match=right):
        planned(
            {**spec, "quality": "off", "domain_gap": {**spec["domain_gap"], "tsne": 0}}, "refused"
        )
    spec["domain_gap"]["recipe"]["normalisation"] = {"mean": [0.3], "std": [0.4]}
    _, the_plan = planned(spec)
    whole, patches = (job.payload for job in the_plan.of_kind("domain"))
    assert whole.stream == Stream(window=3)
    assert whole.identity()["stream"] == {"window": 3}
    assert "stream" not in patches.identity()


def test_zero_shot_leaves_no_domain_gap_to_measure(spec):
    with pytest.raises(
        UserError, match="domain_gap: zero_shot's real images are of the seen classes"
    ) as error:
        load({**spec, "zero_shot": {"text_width": 16}})
    assert "leave it out" in str(error.value) and "\n" not in str(error.value)


def test_a_perfect_pool_is_nearer_than_a_bad_one(planned, request_of, spec):
    """The same job on real images in the pool's place: the distance falls, and every sample is
    memorised.
    """
    spec["domain_gap"] = None
    store, the_plan = planned(spec)
    run_all(store, the_plan, request_of)
    (job,) = the_plan.of_kind("quality")
    bad = store.get_json(layout.QUALITY.manifest(job.id))
    request = request_of(store, the_plan, job)
    everything = replace(job.payload, subset=Subset(n=1200, subset_seed=None))
    assert (
        jobs.run(store, replace(request, payload=everything, syn=request.train))["status"] == "ok"
    )
    good = store.get_json(layout.QUALITY.manifest(job.id))
    assert good["feature_distance"] < bad["feature_distance"] / 5
    assert good["neighbour_distance"] == 0
    assert good["memorised"] > 0.9


@pytest.mark.long
def test_metrics_have_intervals_and_the_real_images_are_seen_once(planned, request_of, spec):
    spec["domain_gap"] = None
    spec["blocks"] = [{"n_base": [60, 120], "syn": {"edm": [1, 2]}}]
    spec["quality"] = {"features": False, "neighbours": 0, "metrics": "all", "images": 150}
    store, the_plan = planned(spec)
    run_all(store, the_plan, request_of)
    measured = [
        documents.read(store, layout.QUALITY.manifest(job.id), documents.QualityRecord)
        for job in the_plan.of_kind("quality")
    ]
    for row in measured:
        assert (row.n_images, row.extractor, row.feature_distance) == (150, "classifier", None)
        found = row.model_dump()
        for name in ("fd", "kid", "precision", "recall", "density", "coverage"):
            assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"], name
        assert 0 <= row.nearer_than_held_out <= 1
        assert found["near_copies_low"] <= row.near_copies
    # What the base has not is held out: 1,200 images train.
    assert {row.n_held_out for row in measured} <= {1140, 1080}
    assert len([name for name in store.list("statistics") if name.endswith(".npy")]) == 1

    (job, _) = the_plan.of_kind("quality")
    kept = store.get_json(layout.QUALITY.manifest(job.id))
    jobs.run(store, request_of(store, the_plan, job))
    again = store.get_json(layout.QUALITY.manifest(job.id))
    times = ("seconds", "energy_kwh", "co2_kg", "started_at", "finished_at")
    same = {name for name in kept if name not in times and kept[name] == again[name]}
    assert {name for name in kept if name.startswith(("fd", "kid", "near", "copying"))} <= same
    name = next(name for name in store.list("statistics") if name.endswith(".npy"))
    store.put(name, b"damaged")  # extracted anew
    jobs.run(store, request_of(store, the_plan, job))
    assert store.get_json(layout.QUALITY.manifest(job.id))["fd"] == kept["fd"]


def test_a_pool_that_is_its_base_is_a_copy(planned, request_of, spec):
    spec["domain_gap"] = None
    spec["blocks"] = [{"n_base": [120], "syn": {"edm": [1]}}]
    spec["quality"] = {"features": False, "neighbours": 0, "metrics": ["copying", "coverage"]}
    store, the_plan = planned(spec)
    run_all(store, the_plan, request_of)
    (job,) = the_plan.of_kind("quality")
    made = store.get_json(layout.QUALITY.manifest(job.id))
    request = request_of(store, the_plan, job)
    rows = inputs.real_indices(request, job.payload.subset)
    copied = [
        {**handle, "images": handle["images"][here], "labels": handle["labels"][here]}
        for handle, here in inputs.parts(request.train, rows)
    ]
    pool = jobs.Images(tuple(copied), tuple(len(part["labels"]) for part in copied))
    assert jobs.run(store, replace(request, syn=pool))["status"] == "ok"
    copies = store.get_json(layout.QUALITY.manifest(job.id))
    assert copies["nearer_than_held_out"] == 1 and copies["copying_z"] < -4
    assert copies["near_copies"] == 1
    assert copies["coverage"] > made["coverage"]


def test_an_old_row_still_reads(store):
    """As it was written before there were `metrics`."""
    old = {"pool": "p", "seconds": 1.5, "device": "cpu", "n_images": 10, "n_real": 20, "fid": 3.0,
           "memorised": 0.0, "note": ""}  # fmt: skip
    store.put_json(layout.QUALITY.manifest("a"), old)
    row = documents.read(store, layout.QUALITY.manifest("a"), documents.QualityRecord)
    assert (row.fid, row.fd, row.extractor) == (3.0, None, None)
    store.put_json(layout.QUALITY.manifest("b"), {**old, "fd": 1.0, "fd_low": "no"})
    with pytest.raises(DocumentError, match="fd_low is 'no', no number"):
        documents.read(store, layout.QUALITY.manifest("b"), documents.QualityRecord)


def test_metrics_of_too_few_images_are_refused_before_anything_runs(planned, spec):
    spec["blocks"] = [{"n_base": [60], "syn": {"edm": [0.25]}}]
    with pytest.raises(
        UserError, match="quality.metrics: the pool digits:n60 has 15 images, and 20"
    ) as error:
        planned({**spec, "quality": {"metrics": ["recall"]}}, "few")
    assert "\n" not in str(error.value) and "raise quality.images" in str(error.value)
    planned({**spec, "quality": {"metrics": ["recall"], "images": 20}}, "enough")


def test_metrics_of_fewer_images_than_classes_are_refused():
    shape = SimpleNamespace(classes=range(100), n_train=5000)
    grid, pool = SimpleNamespace(shape=shape), SimpleNamespace(where="d:n50")
    asked = QualityConfig(metrics=("fd",)).payload(32, 32, 3)
    right = r"the pool d:n50 has 50 images, and 100 are the fewest \(an image of each of the 100 classes\)"
    with pytest.raises(UserError, match=right):
        quality_job._check_enough(asked, grid, pool, 50)
    quality_job._check_enough(asked, grid, pool, 100)
    quality_job._check_enough(QualityConfig().payload(32, 32, 3), grid, pool, 50)  # not asked for


def test_what_metrics_cost_is_counted(planned, spec):
    spec["domain_gap"] = None

    spec["blocks"] = [{"n_base": [60], "syn": {"edm": [2]}}]

    def flops(name: str, **quality) -> float | None:
        _, the_plan = planned({**spec, "quality": quality}, name)
        (job,) = the_plan.of_kind("quality")
        work = quality_job.KIND.cost.flops(job.payload, the_plan.resolved.shape)
        return None if work is None else work.flops

    assert flops("none") == 0
    own = flops("own", metrics="all")
    assert own == 2 * 64 * (120**2 + 1200**2 + 120 * 1200)
    seen = (120 + 1200) * quality_job.DINOV2_FLOPS
    assert flops("dino", metrics="all", extractor="dinov2") == pytest.approx(seen, rel=0.01)
    assert flops("other", metrics="all", extractor="resnet18.a1_in1k") is None


def test_measures_that_cannot_be_are_refused(planned, spec):
    with pytest.raises(UserError, match="9 px squares do not fit into images of 8×8"):
        planned({**spec, "domain_gap": {"patches": [9]}})
    with pytest.raises(UserError, match="inception: 'x.pth' is no file of weights"):
        planned({**spec, "quality": {"inception": "x.pth"}})
    with pytest.raises(UserError, match="unknown key; known: images, inception"):
        planned({**spec, "quality": {"fid": True}})


def test_the_grids_own_classifier_may_be_trained_on_fewer_images(planned, spec):
    _, all_of_them = planned(spec, "a")
    _, few = planned({**spec, "reference_images": 300}, "b")
    (whole,), (small,) = (each.of_kind("reference") for each in (all_of_them, few))
    assert (whole.payload.real.n, small.payload.real.n) == (1200, 300)
    assert whole.id != small.id
    assert {job.payload.reference for job in few.of_kind("quality")} == {small.id}
    with pytest.raises(
        UserError,
        match="reference_images: 1,201 is more than there are training images; use at most 1,200",
    ):
        planned({**spec, "reference_images": 1201}, "c")
