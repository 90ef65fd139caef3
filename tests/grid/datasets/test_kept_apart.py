"""Images kept apart as other people's data, where a set has exact duplicates or groups."""

from dataclasses import replace

import numpy as np
import pytest

from equigrid.grid import jobs
from equigrid.grid.datasets import shards
from equigrid.grid.errors import UserError
from equigrid.grid.jobs import inputs
from equigrid.grid.store import layout


@pytest.fixture
def arrays(tmp_path, painted):
    """Writes an .npz of 60 training images, some twice; `shared`: how many of test and of val are
    in train too.
    """

    def write(shared: int) -> dict:
        images = np.stack([painted(i) for i in range(60)])
        images[50:] = images[:10]  # ten are there twice
        own = {"test": np.stack([painted(200 + i) for i in range(12)])}
        own["val"] = np.stack([painted(300 + i) for i in range(12)])
        for split in own.values():
            split[:shared] = images[20 : 20 + shared]
        content = {"train_images": images, "train_labels": np.arange(60) % 2}
        for split, pixels in own.items():
            content |= {f"{split}_images": pixels, f"{split}_labels": np.arange(12) % 2}
        np.savez(tmp_path / "set.npz", **content)
        return {"npz": str(tmp_path / "set.npz")}

    return write


def small(dataset: dict, **more) -> dict:
    return {
        "name": "t", "dataset": dataset, "recipe": {"extends": "digits", "steps": 2},
        "classifiers": ["digits-cnn"], "seeds": [0], "quality": "off", "execution": {"gpus": 0},
        "generators": {"open": {
            "kind": "edm", "preset": "digits", "trained_on": "outside",
            "training": {"total_nimg": 64}, "sampler": {"steps": 2},
        }},
        "outside": {"images": 20}, "blocks": [{"n_base": [10], "real": [1], "syn": {"open": [1]}}],
    } | more  # fmt: skip


def test_copies_are_on_one_side(arrays, planned, request_of):
    store, the_plan = planned(small(arrays(0), blocks=[{"n_base": "all", "syn": {"open": [1]}}]))
    dataset = the_plan.resolved.dataset
    pixels = np.concatenate([shards.read(store, ref)[0] for ref in dataset.train])
    (job,) = the_plan.of_kind("generator")
    request = request_of(store, the_plan, job)
    kept = inputs.outside_indices(request, job.payload.outside)
    trial = next(the_plan.of_kind("trial"))
    base = inputs.real_indices(request, trial.payload.real)
    assert (len(kept), len(base)) == (20, 30)  # of 50 that differ; all: those that are left
    hashes = [{image.tobytes() for image in pixels[rows]} for rows in (kept, base)]
    assert not hashes[0] & hashes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "3 test images of set are in train too, pixel by pixel, .*set duplicates: drop"),
        ({"outside": {"images": "own"}}, "3 val images of set are in train too"),
    ],
)
def test_images_that_two_splits_have_are_no_other_peoples_data(arrays, planned, changes, message):
    place = arrays(3)
    with pytest.raises(UserError, match=message):
        planned(small(place, **changes))
    assert planned(small(place | {"duplicates": "drop"}, **changes), "dropped")[1].cells


def test_a_validation_split_that_nobody_looks_at_may_have_copies(tmp_path, arrays, planned):
    place = arrays(3)
    with np.load(place["npz"]) as content:
        changed = dict(content)
    changed["test_images"] = changed["test_images"][3:]
    changed["test_labels"] = changed["test_labels"][3:]
    np.savez(place["npz"], **changed)
    assert planned(small(place), "unseen")[1].cells
    with pytest.raises(UserError, match="3 val images of set are in train too"):
        planned(small(place, validation={"images": "own"}), "seen")


def test_groups_are_kept_apart_whole_by_a_split_of_their_own(
    tmp_path, write_tree, planned, request_of
):
    """`outside: {images: own}`: its patients are in no base, and the generator learns from all of
    their images and from no other.
    """
    names = [f"{'ab'[p % 2]}/patient{p:02d}_{i}.png" for p in range(30) for i in range(4)]
    place = {
        "imagefolder": str(write_tree(tmp_path / "set", names)), "size": 16,
        "test": 0.2, "val": 0.3, "group": r"(patient\d+)",
    }  # fmt: skip
    with pytest.raises(UserError, match="20 images would tear groups of set apart; .*images: own"):
        planned(small(place), "refused")
    own = {"outside": {"images": "own"}}
    with pytest.raises(UserError, match="own is what validation.images: own looks at"):
        planned(small(place, **own, validation={"images": "own"}), "both")
    store, the_plan = planned(small(place, **own))
    dataset = the_plan.resolved.dataset
    (job,) = the_plan.of_kind("generator")
    request = request_of(store, the_plan, job)
    assert job.payload.n_images == dataset.shape.n_val > 20
    assert jobs.run(store, request)["status"] == "ok"
    manifest = store.get_json(layout.GENERATORS.manifest(job.id))
    assert manifest["n_images"] == dataset.shape.n_val
    # The split serves this generator alone: a trial that is given it is refused, as ever.
    trial = next(the_plan.of_kind("trial"))
    asked = request_of(store, the_plan, trial)
    outcome = jobs.run(store, replace(asked, train=asked.val, labels=np.zeros(asked.val.n, int)))
    assert outcome["status"] == "failed"
