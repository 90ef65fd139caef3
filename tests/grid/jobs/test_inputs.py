"""Which images a job gets: never those held back, the same ones however they are read."""

from dataclasses import replace

import numpy as np
import pytest

from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.classifiers.zero_shot.config import ZeroShotConfig
from equigrid.generators.common import pools
from equigrid.grid import jobs
from equigrid.grid.datasets import catalogue, subsets
from equigrid.grid.errors import UserError
from equigrid.grid.ids import seed_of
from equigrid.grid.jobs import inputs
from equigrid.grid.jobs.job import Stream, Subset, Synthetic
from equigrid.grid.jobs.trial import TrialPayload, training_parts
from equigrid.grid.store import layout, results


@pytest.mark.parametrize("kind", ["generator", "trial"])
def test_the_test_split_is_refused_as_something_to_learn_from(planned, request_of, mini, kind):
    store, the_plan = planned(mini)
    request = request_of(store, the_plan, next(the_plan.of_kind(kind)))
    labels = np.concatenate([handle["labels"] for handle in request.test.handles])
    outcome = jobs.run(store, replace(request, train=request.test, labels=labels))
    assert outcome["status"] == "failed"
    assert "test-00000.json is held back for evaluation" in outcome["error"]
    assert not results.finished(store)
    assert not store.exists(layout.GENERATORS.manifest(request.id))


def test_a_pool_cannot_carry_test_images_into_a_training(planned, request_of, mini):
    store, the_plan = planned(mini)
    job = next(job for job in the_plan.of_kind("trial") if job.payload.syn)
    request = request_of(store, the_plan, job)
    outcome = jobs.run(store, replace(request, syn=request.test))
    assert "held back for evaluation" in outcome["error"]


def test_what_is_held_out_is_in_no_subset_and_in_no_generators_base(planned, request_of, mini):
    mini["validation"] = {"images": 200, "every_epochs": 1}
    store, the_plan = planned(mini)
    labels = catalogue.labels(store, the_plan.resolved.dataset, "train")
    held = set(subsets.held_out(labels, 200))
    assert len(held) == 200
    assert np.bincount(labels[list(held)], minlength=10).min() >= 19  # stratified
    for job in (*the_plan.of_kind("generator"), *the_plan.of_kind("trial")):
        request = request_of(store, the_plan, job)
        subset = job.payload.real if job.kind == "trial" else job.payload.subset
        chosen = inputs.real_indices(request, subset)
        assert not held & set(chosen)
        assert len(chosen) == subset.n
    for seed in range(3):  # subsets of what is left nest as ever
        small, large = (subsets.subset(labels, n, seed, held_out=200) for n in (300, 301))
        assert set(small) < set(large)


def test_a_trial_looks_at_the_held_out_images_and_says_so(planned, request_of, mini):
    mini["validation"] = {"images": 200, "every_epochs": 1}
    store, the_plan = planned(mini)
    job = next(the_plan.of_kind("trial"))
    assert jobs.run(store, request_of(store, the_plan, job))["status"] == "ok"
    (row,) = results.read(store).to_pylist()
    assert 0 < row["val_top1"] <= 100
    plain_store, plain = planned({**mini, "validation": None}, "plain")
    assert job.id not in plain.jobs  # other images: another trial


def test_validation_that_cannot_be_is_refused(planned, mini):
    with pytest.raises(UserError, match="digits has no validation split of its own"):
        planned({**mini, "validation": {"images": "own"}})
    with pytest.raises(UserError, match="1,200 of the 1,200 training images"):
        planned({**mini, "validation": {"images": 1200}})
    with pytest.raises(UserError, match="more than the 50 training images"):
        planned({**mini, "validation": {"images": 1150}})


def test_streamed_with_every_shard_at_hand_is_bitwise_the_resident_trial(planned, request_of, mini):
    mini["recipe"] = {
        "extends": "digits",
        "steps": 15,
        "normalisation": {"mean": [0.3], "std": [0.4]},
    }
    store, the_plan = planned(mini)
    job = next(job for job in the_plan.of_kind("trial") if job.payload.real.n == 240)
    request = request_of(store, the_plan, job)
    rows = []
    for stream in (None, Stream(window=9), Stream(window=1)):
        payload = replace(job.payload, stream=stream)
        outcome = jobs.run(store, replace(request, payload=payload))
        assert outcome["status"] == "ok", outcome
        rows.append({key: outcome["row"][key] for key in ("top1", "loss", "confusion", "steps")})
    assert rows[0] == rows[1]
    assert rows[2]["steps"] == rows[0]["steps"]
    assert rows[2]["loss"] != rows[0]["loss"]  # one shard at a time is another order


def test_a_generators_images_may_lie_in_a_file(planned, request_of, mini, monkeypatch):
    store, the_plan = planned(mini)
    request = request_of(store, the_plan, next(the_plan.of_kind("generator")))
    wanted = inputs.parts(request.train, inputs.real_indices(request, request.payload.subset))
    in_memory, labels = inputs.gathered(request, wanted)
    monkeypatch.setattr(inputs, "RESIDENT_BYTES", 0)
    in_file, same_labels = inputs.gathered(request, wanted)
    assert isinstance(in_file, np.memmap)
    np.testing.assert_array_equal(in_file, in_memory)
    np.testing.assert_array_equal(labels, same_labels)


def test_only_shards_with_a_wanted_image_are_asked_for():
    images = jobs.Images(("a", "b", "c"), (4, 4, 2))
    found = inputs.parts(images, np.array([9, 0, 3, 3, 8]))
    assert [handle for handle, _ in found] == ["a", "c"]
    # The order within a shard stays.
    assert [rows.tolist() for _, rows in found] == [[0, 3, 3], [1, 0]]
    assert [rows.tolist() for _, rows in inputs.whole(images, 5)] == [[0, 1, 2, 3], [0]]
    with pytest.raises(ValueError, match="11 images wanted, the shards have 10"):
        inputs.whole(images, 11)


def test_zero_shot_takes_what_there_is_of_the_unseen_classes_and_no_less():
    """Twenty images of ten classes, two of each: eight are of four unseen classes."""
    payload = TrialPayload(
        dataset="data-1",
        real=Subset(n=0, subset_seed=None),
        syn=Synthetic(pool="pool-1", n=8),
        copies=None,
        classifier="digits-cnn",
        recipe=ResolvedRecipe(batch=8, lr=0.1, steps=1),
        seed=0,
        zero_shot={"unseen": [6, 7, 8, 9]},
        zero_shot_config=ZeroShotConfig(unseen=(6, 7, 8, 9)),
    )
    request = jobs.Request(
        "trial-1",
        "trial",
        payload,
        "a",
        tuple("abcdefghij"),
        (8, 8, 1),
        labels=np.arange(10),
        syn=jobs.Images(("s",), (20,)),
    )
    ((_, rows),) = training_parts(request)
    every = pools.labels(seed_of("pool-1", "pool"), 0, 20, 10)
    assert sorted(every[rows]) == [6, 6, 7, 7, 8, 8, 9, 9]
    short = replace(request, payload=replace(payload, syn=Synthetic(pool="pool-1", n=9)))
    with pytest.raises(
        ValueError, match="9 images of unseen classes wanted, the 20 of the shards have 8"
    ):
        training_parts(short)


def test_a_zero_shot_pool_of_the_unseen_classes_is_taken_whole():
    config = ZeroShotConfig(unseen=(6, 7, 8, 9), pools="unseen")
    shares = config.shares(tuple("abcdefghij"), 10)
    assert shares == (0, 0, 0, 0, 0, 0, 1, 1, 1, 1)
    payload = TrialPayload(
        dataset="data-1",
        real=Subset(n=0, subset_seed=None),
        syn=Synthetic(pool="pool-1", n=10),
        copies=None,
        classifier="digits-cnn",
        recipe=ResolvedRecipe(batch=8, lr=0.1, steps=1),
        seed=0,
        zero_shot={"unseen": [6, 7, 8, 9]},
        zero_shot_config=config,
    )
    request = jobs.Request(
        "trial-1", "trial", payload, "a", tuple("abcdefghij"), (8, 8, 1),
        labels=np.arange(10), syn=jobs.Images(("s",), (12,)),
    )  # fmt: skip
    ((_, rows),) = training_parts(request)
    assert rows.tolist() == list(range(10))
    short = replace(request, payload=replace(payload, syn=Synthetic(pool="pool-1", n=13)))
    with pytest.raises(ValueError, match="13 images of unseen classes wanted"):
        training_parts(short)
