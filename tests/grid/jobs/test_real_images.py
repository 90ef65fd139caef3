"""The dataset's own images in a pool that somebody brings: counted, told, or refused."""

import numpy as np
import pytest
from PIL import Image

from equigrid.grid import jobs
from equigrid.grid.datasets import shards
from equigrid.grid.jobs import shard
from equigrid.grid.reporting.analysis_bridge import real_images
from equigrid.grid.store.layout import POOLS


@pytest.fixture
def made(tmp_path, planned, mini, images_of):
    """A pool of 12 images a class, of which some are the dataset's own; how it is then sampled."""

    def make(train: int = 0, test: int = 0, **options):
        store, the_plan = planned(mini, f"of {train} {test} {len(options)}")
        dataset = the_plan.resolved.dataset
        own = {}
        for split, n in (("train", train), ("test", test)):
            refs = getattr(dataset, split)
            labels = np.concatenate([shards.read(store, ref)[1] for ref in refs])
            own[split] = images_of(store, refs)[labels == 3][:n]
        folder = tmp_path / f"made {train} {test}"
        rng = np.random.default_rng(0)
        for digit in range(10):
            (folder / str(digit)).mkdir(parents=True, exist_ok=True)
            images = rng.integers(0, 256, (12, 8, 8), np.uint8)
            if digit == 3:
                found = np.concatenate([own["train"], own["test"]])[..., 0]
                images[: len(found)] = found
            for i, image in enumerate(images):
                Image.fromarray(image).save(folder / str(digit) / f"{i}.png")
        mini["generators"] = {"made": {"kind": "imported", "path": str(folder), **options}}
        mini["blocks"] = [{"n_base": 60, "syn": {"made": ["100 images"]}}]
        return planned(mini, f"store {train} {test} {len(options)}")

    return make


def sampled(store, the_plan, request_of):
    outcomes = []
    for kind in ("generator", "shard"):
        job = next(the_plan.of_kind(kind))
        dataset = the_plan.resolved.dataset
        assert shard.KIND.reads(job.payload) >= {"train", "val", "test"} or kind == "generator"
        outcomes.append(jobs.run(store, request_of(store, the_plan, job)))
        assert dataset is not None
    assert outcomes[0]["status"] == "ok", outcomes
    return job, outcomes[1]


def test_training_images_are_counted_and_told(made, request_of):
    store, the_plan = made(train=5)
    job, outcome = sampled(store, the_plan, request_of)
    assert outcome["status"] == "ok", outcome
    assert store.get_json(POOLS.manifest(job.id))["real"] == {"train": 5, "test": 0}
    (line,) = real_images(store, the_plan)
    assert line == "made: 5 of 120 images are train images of the dataset, pixel by pixel"


def test_test_images_stop_the_pool_and_are_named(made, request_of):
    _, outcome = sampled(*made(train=1, test=4), request_of)
    assert outcome["status"] == "failed"
    for part in ("4 of 120 images are test images of the dataset", "3/", ".png", "(class 3)",
                 "test_images: keep"):  # fmt: skip
        assert part in outcome["error"]


def test_they_may_be_kept_and_are_told_then(made, request_of):
    store, the_plan = made(test=4, test_images="keep")
    _, outcome = sampled(store, the_plan, request_of)
    assert outcome["status"] == "ok", outcome
    (line,) = real_images(store, the_plan)
    assert "4 of 120 images are test images" in line


def test_images_of_others_are_none(made, request_of):
    store, the_plan = made()
    job, outcome = sampled(store, the_plan, request_of)
    assert outcome["status"] == "ok", outcome
    assert set(store.get_json(POOLS.manifest(job.id))["real"].values()) == {0}
    assert real_images(store, the_plan) == []


def test_the_choice_is_no_part_of_an_id(made):
    ids = []
    for options in ({}, {"test_images": "keep"}):
        _, the_plan = made(**options)
        ids.append({job.id for job in the_plan.jobs.values()})
    assert ids[0] == ids[1]


def test_a_generator_that_makes_its_images_is_not_asked(mini, planned):
    _, the_plan = planned(mini)
    job = next(the_plan.of_kind("shard"))
    assert shard.KIND.reads(job.payload) == frozenset()
