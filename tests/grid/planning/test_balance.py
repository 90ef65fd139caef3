"""Shares of the classes in pools and copies: which jobs they change, and which they leave alone."""

import numpy as np
import pytest
from PIL import Image

from equigrid.grid import jobs
from equigrid.grid.datasets import catalogue, shards
from equigrid.grid.errors import UserError
from equigrid.grid.jobs import grid_facts, inputs
from equigrid.grid.jobs.trial import training_parts
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import documents
from equigrid.grid.store.layout import POOLS

FOURTH = {str(digit): 4 if digit == 3 else 1 for digit in range(10)}


def planned_without_store(spec: dict):
    return plan(resolve(load(spec), None))


def ids(the_plan, kind: str) -> set[str]:
    return {job.id for job in the_plan.of_kind(kind)}


def arm_ids(the_plan, arm: str) -> set[str]:
    return {cell.trial_id for cell in the_plan.cells if cell.arm == arm}


def test_a_balance_gives_pools_and_copies_other_ids_and_nothing_else(mini):
    before = planned_without_store(mini)
    mini["generators"]["edm"]["balance"] = FOURTH
    after = planned_without_store(mini)
    for kind in ("ingest", "generator"):
        assert ids(before, kind) == ids(after, kind)
    for arm in ("base", "real"):
        assert arm_ids(before, arm) == arm_ids(after, arm)
    for arm in ("syn", "copies"):
        assert not arm_ids(before, arm) & arm_ids(after, arm)
    assert not ids(before, "shard") & ids(after, "shard")


def test_equal_shares_are_equal_however_they_are_written(mini):
    before = planned_without_store(mini)
    mini["generators"]["edm"]["balance"] = dict.fromkeys(FOURTH, 0.5)
    assert set(planned_without_store(mini).jobs) == set(before.jobs)


def test_as_data_is_the_proportions_of_the_training_set(mini):
    mini["generators"]["edm"]["balance"] = "as_data"
    the_plan = planned_without_store(mini)
    (weights,) = {job.payload.shares for job in the_plan.of_kind("shard")}
    counts = np.array(the_plan.resolved.shape.train_counts)
    assert len(set(counts)) > 1
    assert np.allclose(np.array(weights) / sum(weights), counts / counts.sum(), atol=1e-12)
    copies = {j.payload.copies.shares for j in the_plan.of_kind("trial") if j.payload.copies}
    assert copies == {weights}


def test_copies_come_in_these_shares(planned, request_of, mini):
    """What is trained on, not what a plan says of it."""
    mini["generators"]["edm"]["balance"] = FOURTH
    store, the_plan = planned(mini)
    train = catalogue.labels(store, the_plan.resolved.dataset, "train")
    job = next(
        j for j in the_plan.of_kind("trial") if j.payload.copies and j.payload.copies.n == 60
    )
    request = request_of(store, the_plan, job)
    rows = [handle["labels"][row] for handle, row in training_parts(request)]
    real = np.bincount(train[inputs.real_indices(request, job.payload.real)], minlength=10)
    added = np.bincount(np.concatenate(rows), minlength=10) - real
    assert added[3] == 18 and sorted(np.delete(added, 3)) == [4] * 3 + [5] * 6  # 4 of 13 of 60


def test_two_balances_in_one_grid_have_no_one_control(mini):
    mini["generators"]["other"] = mini["generators"]["edm"] | {"balance": "as_data"}
    mini["blocks"].append({"n_base": 60, "syn": {"other": 1}})
    with pytest.raises(UserError, match="generators.other.balance: copies follow .* edm and other"):
        planned_without_store(mini)
    for block in mini["blocks"]:
        block.pop("copies", None)
    planned_without_store(mini)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("as data", "generators.edm: balance.*write equal, as_data"),
        ({"0": 1}, "generators.edm: balance: class '1' has no share"),
        ({**FOURTH, "ten": 1}, "generators.edm: balance: 'ten' is no class of the dataset"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(mini, chosen, message):
    mini["generators"]["edm"]["balance"] = chosen
    with pytest.raises(UserError, match=message) as caught:
        planned_without_store(mini)
    assert "\n" not in str(caught.value)


@pytest.fixture
def uneven_folder(tmp_path):
    """Imported images of the ten digits: 40 of 3, 10 of each other, as a folder."""
    for digit in range(10):
        folder = tmp_path / "made" / str(digit)
        folder.mkdir(parents=True)
        for i in range(40 if digit == 3 else 10):
            Image.fromarray(np.full((8, 8), 10 * digit + i % 7, np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "made"


def test_an_imported_set_gives_what_its_rarest_class_allows(mini, uneven_folder):
    mini["generators"] = {"made": {"kind": "imported", "path": str(uneven_folder)}}
    mini["blocks"] = [{"n_base": 60, "syn": {"made": ["130 images"]}}]
    with pytest.raises(UserError, match="130 images; made has 100 that are balanced"):
        planned_without_store(mini)
    mini["generators"]["made"]["balance"] = FOURTH
    assert planned_without_store(mini).cells
    mini["blocks"] = [{"n_base": 60, "syn": {"made": ["140 images"]}}]
    with pytest.raises(UserError, match=r"140 images; made has 13\d in the classes' shares"):
        planned_without_store(mini)


def test_an_imported_pool_is_sampled_in_these_shares(planned, request_of, mini, uneven_folder):
    """By the bodies of its jobs: labels in their shares, each image of its class and once."""
    mini["generators"] = {
        "made": {"kind": "imported", "path": str(uneven_folder), "balance": FOURTH}
    }
    mini["blocks"] = [{"n_base": 60, "syn": {"made": ["120 images"]}}]
    store, the_plan = planned(mini)
    for kind in ("generator", "shard"):
        job = next(the_plan.of_kind(kind))
        outcome = jobs.run(store, request_of(store, the_plan, job))
        assert outcome["status"] == "ok", outcome
    name = POOLS.manifest(job.id)
    content = documents.read(store, name, documents.ShardRecord)
    assert content
    ref = shards.ref(name, content)
    images, labels = shards.read(store, ref)
    counts = np.bincount(labels[:130], minlength=10)
    assert counts[3] == 40 and set(np.delete(counts, 3)) <= {9, 10}
    assert (images[:, 0, 0, 0] // 10 == labels).all() or (
        images[:, 0, 0, 0] - 10 * labels < 7
    ).all()


def test_zero_shot_has_shares_of_its_own(mini, uneven_folder):
    mini["generators"] = {
        "made": {"kind": "imported", "path": str(uneven_folder), "balance": FOURTH}
    }
    mini["blocks"] = [{"n_base": 60, "syn": {"made": ["20 images"]}}]
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    mini["dataset"] = {"digits": None, "class_names": words}
    mini["generators"]["made"]["rename"] = dict(zip(FOURTH, words))
    mini["generators"]["made"]["balance"] = dict(zip(words, FOURTH.values()))
    mini["zero_shot"] = {"unseen": ["one", "two"], "text_encoder": "anywhere"}
    with pytest.raises(
        UserError, match="made.balance: zero-shot trials take .*; leave balance out"
    ):
        planned_without_store(mini)


def test_class_weights_of_streamed_images_are_refused_in_the_plan(mini, monkeypatch):
    """By the largest mix, before anything runs; smaller ones are counted on the device."""
    mini["recipe"] = mini["recipe"] | {"class_weights": "balanced"}
    assert planned_without_store(mini).cells
    monkeypatch.setattr(grid_facts, "RESIDENT_BYTES", 200 * 64)
    with pytest.raises(UserError, match="class_weights: 240 images of this size are streamed"):
        planned_without_store(mini)
