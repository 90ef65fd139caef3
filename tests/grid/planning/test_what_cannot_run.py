"""What the spec and the set's description tell of a job that would fail: the plan refuses it, in a
line, before anything runs. Each of these ran once until it failed.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from equigrid.classifiers.names import check_head
from equigrid.generators.balance import first_pair, labels
from equigrid.grid.errors import UserError
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load

THREE_CHANNELS = {"mean": [0.5] * 3, "std": [0.5] * 3}
SMALL_CROP = {"resized_crop": {"size_px": 2}}


def refusal(spec: dict) -> str:
    with pytest.raises(UserError) as caught:
        plan(resolve(load(spec), None))
    line = str(caught.value)
    assert "\n" not in line
    return line


def recipe(**changes) -> dict:
    return {"extends": "digits", "steps": 15, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalisation": THREE_CHANNELS}, "normalisation: its mean and std are of 3 channels"),
        (
            {"by_arm": {"syn": {"normalisation": THREE_CHANNELS}}},
            "by_arm.syn: normalisation: its mean and std are of 3 channels",
        ),
        (
            {"by_arm": {"copies": {"augmentation": SMALL_CROP}}},
            "by_arm.copies: digits-cnn takes images of at least 4×4 pixels, got 2×2",
        ),
        (
            {"by_arm": {"real": {"augmentation": {"cutmix": 1.0, "resized_crop": {"size_px": 1}}}}},
            "by_arm.real: cutmix needs sides of at least 2 pixels, got 1×1",
        ),
    ],
)
def test_a_recipe_that_no_training_can_follow(mini, changes, words):
    mini["recipe"] = recipe(**changes)
    assert words in refusal(mini)


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        ({"patches": [4, 3]}, "domain_gap.patches: 3: digits-cnn takes images of at least 4×4"),
        ({"recipe": recipe(augmentation=SMALL_CROP)}, "domain_gap: digits-cnn takes images"),
        ({"recipe": recipe(normalisation=THREE_CHANNELS)}, "domain_gap: normalisation: its mean"),
        ({"classifier": "resnet50"}, "domain_gap: resnet50 takes images of at least 32×32"),
        ({"held_out": 0.999}, "held_out 0.999 of 120 images"),
    ],
)
def test_a_domain_gap_that_cannot_be_measured(mini, gap, words):
    mini["domain_gap"] = gap
    assert words in refusal(mini)


@pytest.mark.parametrize(("n", "fits"), [(2, False), (3, True)])
def test_a_domain_gap_needs_images_to_test_on(mini, n, fits):
    """A fifth of two is none, of three one."""
    mini["domain_gap"] = {}
    mini["blocks"] = [{"n_base": [60], "syn": {"edm": [f"{n} images"]}}]
    if fits:
        assert "domain" in {job.kind for job in plan(resolve(load(mini), None)).jobs.values()}
    else:
        assert "leaves none on one side" in refusal(mini)


@pytest.mark.parametrize(("n", "fits"), [(1, False), (10, False), (11, True)])
def test_diversity_needs_two_images_of_a_class(mini, n, fits):
    mini["quality"] = {}
    mini["blocks"] = [{"n_base": [60], "syn": {"edm": [f"{n} images"]}}]
    if fits:
        assert "quality" in {job.kind for job in plan(resolve(load(mini), None)).jobs.values()}
    else:
        assert f"has {n} images, and 11 are the fewest" in refusal(mini)


def test_distances_of_no_network_need_none_of_that(mini):
    """Nearest neighbours are looked for of a single image too."""
    mini["quality"] = {"features": False}
    mini["blocks"] = [{"n_base": [60], "syn": {"edm": ["1 images"]}}]
    plan(resolve(load(mini), None))


@pytest.mark.parametrize("shares", [(1, 1, 1), (5, 1, 0), (0, 0, 1), (2, 3, 4)])
def test_the_first_pair_of_a_class(shares):
    n = first_pair(shares)
    for images, pair in ((n - 1, False), (n, True)):
        counts = np.bincount(labels(shares, 0, images), minlength=3)
        assert bool((counts > 1).any()) is pair


@pytest.mark.parametrize(
    ("compute", "gpus", "refused"),
    [
        ({"training_precision": "fp16"}, 0, True),
        ({"sampling_precision": "fp16"}, 0, True),
        ({"sampling_precision": "bf16"}, 0, False),
        ({"sampling_precision": "fp16"}, "auto", False),
    ],
)
def test_half_precision_needs_a_gpu(mini, compute, gpus, refused):
    mini["execution"]["gpus"] = gpus
    mini["generators"]["edm"]["compute"] = compute
    if refused:
        assert f"generators.edm.compute.{next(iter(compute))}: fp16 needs a CUDA" in refusal(mini)
    else:
        plan(resolve(load(mini), None))


@pytest.mark.parametrize(
    ("generator", "key"),
    [
        ({"training": {"batch": 64}}, "training.batch"),
        (
            {"kind": "dit", "training": {"batch": 64}, "vae": {"training": {"batch": 63}}},
            "training.batch",
        ),
        (
            {"kind": "dit", "training": {"batch": 63}, "vae": {"training": {"batch": 64}}},
            "vae.training.batch",
        ),
    ],
)
def test_a_batch_is_divided_among_workers(mini, generator, key):
    mini["generators"]["edm"] = {"kind": "edm", "preset": "digits", **generator}
    plan(resolve(load(mini), None))
    mini["execution"]["workers"] = {"generator": 3}
    assert f"generators.edm.{key}: 64 cannot be divided by the 3 workers" in refusal(mini)


def test_noise_levels_need_an_even_width(mini):
    mini["generators"]["edm"]["network"] = {"model_channels": 5}
    assert "model_channels 5 must be even" in refusal(mini)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer"),
        (b"\xff" * 64, "header longer than the file"),
        (b"\x02\0\0\0\0\0\0\0[]", "no mapping"),
        (b"", "nothing"),
    ],
)
def test_weights_that_are_none(mini, tmp_path, content, why):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    mini["generators"]["edm"] = {
        "kind": "edm", "preset": "digits", "setting": "open", "weights": str(path),
    }  # fmt: skip
    assert "is not a safetensors file, or not all of it" in refusal(mini), why


def test_weights_that_were_cut_short_and_whole_ones(mini, tmp_path):
    from safetensors.numpy import save

    whole = save({"a": np.zeros(100, np.float32)})
    path = tmp_path / "weights.safetensors"
    mini["generators"]["edm"] = {
        "kind": "edm", "preset": "digits", "setting": "open", "weights": str(path),
    }  # fmt: skip
    path.write_bytes(whole)
    plan(resolve(load(mini), None))
    path.write_bytes(whole[:-1])
    assert "not all of it" in refusal(mini)


@pytest.mark.parametrize("key", ["inception", "vit", "extractor_weights"])
def test_files_of_quality_that_are_no_weights(mini, tmp_path, key):
    import torch

    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(100)}, path)
    mini["quality"] = {key: str(path), "metrics": "all", "extractor": "vit_tiny_patch16_224"}
    plan(resolve(load(mini), None))
    path.write_bytes(path.read_bytes()[:-100])
    assert f"quality: {key}: " in refusal(mini)
    path.unlink()
    assert f"quality: {key}: {str(path)!r} is no file of weights" in refusal(mini)


@pytest.mark.parametrize("key", ["inception", "vit", "extractor_weights"])
def test_results_outlive_the_files_that_they_were_measured_with(mini, planned, tmp_path, key):
    import torch

    from equigrid.grid.planning import recorded

    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(100)}, path)
    mini["quality"] = {key: str(path), "metrics": "all", "extractor": "vit_tiny_patch16_224"}
    store, the_plan = planned(mini)
    recorded.record_spec(load(mini), store)
    recorded.record(load(mini), store, the_plan)
    path.unlink()
    assert recorded.planned("mini", store).jobs.keys() == the_plan.jobs.keys()


def test_an_extractor_that_timm_has_not(mini):
    mini["quality"] = {"metrics": "all", "extractor": "vit_tiny_patch16_244"}
    line = refusal(mini)
    assert "quality: extractor: timm knows no network 'vit_tiny_patch16_244'; did you mean" in line


@pytest.mark.parametrize(
    ("name", "linear", "fits"),
    [
        ("timm/levit_128s", False, False),  # two heads
        ("timm/crossvit_9_240", False, False),  # one for each branch
        ("timm/resnetv2_18", False, True),  # a convolution
        ("timm/resnetv2_18", True, False),
        ("timm/test_vit", True, True),
        ("digits-cnn", True, True),
        ("timm/resnet50", True, True),
    ],
)
def test_features_and_joint_spaces_need_one_last_layer(name, linear, fits):
    if fits:
        check_head(name, linear=linear)
    else:
        with pytest.raises(ValueError, match="does not end in one"):
            check_head(name, linear=linear)


def test_a_classifier_without_features_cannot_measure_pools(mini):
    mini["classifiers"] = ["timm/levit_128s"]
    mini["recipe"] = recipe(augmentation={"resized_crop": {"size_px": 224}})
    plan(resolve(load(mini), None))
    mini["quality"] = {}
    assert "classifiers.0: timm/levit_128s does not end in one layer" in refusal(mini)


def test_what_only_the_images_tell_is_checked_once_they_are_read(mini, planned):
    """As after an ingest of a source that does not say its images' shape."""
    _, the_plan = planned(mini)
    resolved, dataset = the_plan.resolved, the_plan.resolved.dataset
    mini["classifiers"] = ["resnet50"]
    unknown = replace(
        resolve(load({**mini, "classifiers": ["digits-cnn"]}), None),
        shape=None,
        classifiers={"resnet50": type(next(iter(resolved.classifiers.values()))).named("resnet50")},
    )
    with pytest.raises(UserError, match="resnet50 takes images of at least 32×32"):
        unknown.with_dataset(dataset)


def test_a_grid_that_ran_is_still_read(mini, planned):
    """What an older release planned, and a job of which failed, has results all the same."""
    from equigrid.grid.planning.recorded import as_run, record

    store, the_plan = planned(mini)
    record(load(mini), store, the_plan)
    mini["domain_gap"] = {"patches": [3]}
    mini["recipe"] = recipe(by_arm={"syn": {"augmentation": SMALL_CROP}})
    assert "by_arm.syn" in refusal(mini)
    kinds = {job.kind for job in as_run(load(mini), store).jobs.values()}
    assert "domain" in kinds


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": recipe(label_smoothing=0.1)}, "label_smoothing: 0.1 would teach the base"),
        ({"classifiers": ["timm/resnetv2_18"]}, "does not end in one linear layer"),
    ],
)
def test_zero_shot_trials_that_cannot_be_made(mini, tmp_path, changes, words):
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text(json.dumps({"hidden_size": 768}))
    (encoder / "model.safetensors").write_bytes(b"")
    names = {str(i): name for i, name in enumerate("zero one two three four".split())}
    names |= {str(i): name for i, name in enumerate("five six seven eight nine".split(), start=5)}
    images = np.zeros((100, 8, 8, 3), np.uint8)
    arrays = {f"{part}_images": images for part in ("train", "test")}
    arrays |= {f"{part}_labels": np.arange(100) % 10 for part in ("train", "test")}
    np.savez(tmp_path / "set.npz", **arrays)
    mini |= {
        "dataset": {"npz": str(tmp_path / "set.npz"), "class_names": [*names.values()]},
        "zero_shot": {"text_encoder": str(encoder)},
        "generators": {"edm": {"kind": "edm", "preset": "digits", "trained_on": "outside"}},
        "blocks": [{"n_base": "all"}],
    }
    plan(resolve(load(mini), None))
    assert words in refusal(mini | changes)
