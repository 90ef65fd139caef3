"""What a plan says of images that are made and never trained on."""

from collections import Counter

import pytest

from equigrid.grid.planning.remarks import remarks
from equigrid.grid.reporting.console import took_text
from equigrid.grid.reporting.devices import DEVICES
from equigrid.grid.reporting.outline import outline


def said(the_plan) -> list[str]:
    return [line for line in remarks(the_plan) if "trained on:" in line]


@pytest.mark.parametrize("name", ["imagenet10", "imagenet100"])
def test_zero_shot_makes_what_it_trains_on(name, plan_of):
    """But for what its last shard has more: a shard at 256×256 is of 64 images."""
    the_plan = plan_of(f"{name}-zero-shot")
    assert said(the_plan) == []
    most = {"imagenet10": 65_000, "imagenet100": 130_000}[name]
    made = Counter()
    for job in the_plan.of_kind("shard"):
        made[job.payload.pool] += job.payload.size
    assert len(made) == {"imagenet10": 2, "imagenet100": 1}[name]
    assert all(most <= n < most + 64 for n in made.values())
    assert {job.kind for job in the_plan.jobs.values()} == {"ingest", "generator", "shard", "trial"}


def test_pools_of_unseen_classes_are_not_measured_and_that_is_said(plan_of):
    the_plan = plan_of("imagenet10-zero-shot", quality={})
    assert not [*the_plan.of_kind("quality")]
    (line,) = [line for line in remarks(the_plan) if line.startswith("quality:")]
    assert "pools of the unseen classes alone are not measured" in line
    assert not [line for line in remarks(plan_of("imagenet10")) if line.startswith("quality:")]


def test_zero_shot_with_pools_of_all_classes_makes_twice_what_it_trains_on(plan_of):
    the_plan = plan_of(
        "imagenet100-zero-shot", zero_shot={"text_encoder": "google-bert/bert-base-uncased"}
    )
    (line,) = said(the_plan)
    assert line == (
        "generators.sd3: 260,032 images are made and 130,000 trained on: 130,000 are of classes"
        " whose real images are seen (zero_shot: {pools: unseen} makes the others alone)"
    )


def test_most_of_imagenet10_is_made_for_its_fid(plan_of):
    lines = said(plan_of("imagenet10"))
    assert [line.partition(":")[0] for line in lines] == ["generators.sd2", "generators.sd3"]
    for line in lines:
        assert "130,048 images are made and 13,000 trained on" in line
        assert "117,048, 90% of the sampling, are only measured" in line
        assert "classes" not in line


@pytest.mark.parametrize("preset", ["digits", "cifar10", "imagenet100", "bloodmnist"])
def test_nothing_is_said_where_all_is_used(preset, plan_of):
    assert said(plan_of(preset)) == []


def test_an_outline_lists_the_cells_and_names_its_device(plan_of, store):
    the_plan = plan_of("bloodmnist")
    content, lines = outline(store, the_plan, DEVICES["H100"])
    assert content["cells"] == len(content["cell_list"]) == 69
    first = content["cell_list"][0]
    assert (first["arm"], first["n_base"], first["classifier"]) == ("base", 1_200, "resnet110")
    assert first["trial_id"] in the_plan.jobs
    assert content["device"] == "H100"
    assert content["wall_seconds"] is None  # not of this machine
    assert content["device_seconds_least"] < content["device_seconds"]
    text = took_text(content, lines)
    assert text.startswith("about ")
    assert " on one H100, between " in text
    assert "estimated by what the jobs compute" in text


def test_a_cpus_grid_is_estimated_for_a_core(planned, mini):
    mini["execution"] = {"gpus": 0}
    store, the_plan = planned(mini)
    content, lines = outline(store, the_plan)
    assert content["device"] == "CPU"
    assert "one core of a CPU" in took_text(content, lines)


def test_a_device_that_is_not_known_is_bad_input():
    from equigrid.grid.cli.grids import estimated_on
    from equigrid.grid.errors import UserError

    assert estimated_on("NVIDIA A100-SXM4-40GB", gpus=1).name == "A100"
    with pytest.raises(UserError, match="'TPU' is not in the table; there are T4, V100"):
        estimated_on("TPU", gpus=1)
