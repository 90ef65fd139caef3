"""Relative paths of a spec, numbers of seeds, and what plan says of defaults."""

import json

import pytest
import yaml

from equigrid.grid.errors import UserError
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.remarks import remarks
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load

SPEC = {
    "name": "t", "dataset": {"imagefolder": "flowers", "size": 8, "test": 0.2, "labels": "t.csv"},
    "recipe": "digits", "classifiers": ["digits-cnn"],
    "generators": {"made": {"kind": "imported", "path": "made"}, "edm": {"kind": "edm", "preset": "digits"}},
    "blocks": [{"n_base": [4]}],
}  # fmt: skip


def test_relative_paths_are_the_files_and_kept_absolute(tmp_path, monkeypatch):
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/t.csv").write_text("x")
    (tmp_path / "specs/edm").mkdir()
    path = tmp_path / "specs/spec.yaml"
    path.write_text(json.dumps(SPEC))
    monkeypatch.chdir(tmp_path)
    spec = load("specs/spec.yaml")
    folder = str(tmp_path / "specs")
    assert spec.dataset == {
        "imagefolder": f"{folder}/flowers",
        "size": 8,
        "test": 0.2,
        "labels": f"{folder}/t.csv",
    }
    assert spec.generators["made"]["path"] == f"{folder}/made"
    assert spec.generators["edm"] == SPEC["generators"]["edm"]  # a folder of that name is no path
    monkeypatch.chdir("/")
    assert load(path) == spec
    with pytest.raises(UserError, match=f"{folder}/flowers is no folder"):
        resolve(spec, None)


def test_a_mapping_is_of_the_present_folder_and_other_places_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(SPEC).dataset["imagefolder"] == str(tmp_path / "flowers")
    assert load(SPEC).dataset["labels"] == "t.csv"  # not here: it may lie in the folder
    for place in ("s3://bucket/x", "~/x", "$DATA/x", "/abs/x"):
        assert load(SPEC | {"dataset": {"parquet": place}}).dataset == {"parquet": place}
    assert load(SPEC | {"dataset": "digits"}).dataset == "digits"
    assert SPEC["dataset"]["imagefolder"] == "flowers"  # the caller's own is left as it is
    assert load(SPEC | {"dataset": {"cifar10": None}}).dataset == {"cifar10": None}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "seeds",
            3,
            r"seeds: 3: how many, or which\? Write \[0, 1, 2\] for 3 seeds, or \[3\] for the seed 3",
        ),
        ("seeds", 0, r"seeds: 0: how many, or which\? Write \[0\] for the seed 0"),
        ("subset_seeds", 5, "subset_seeds: 5: how many"),
    ],
)
def test_a_bare_number_of_seeds_is_refused(key, value, message):
    with pytest.raises(UserError, match=message):
        load(SPEC | {key: value})


def test_dataset_options_of_every_form_are_taken(tmp_path):
    options = {
        "range": [0, 4095],
        "test": 0.25,
        "class_names": {0: "a", "1": "b"},
        "duplicates": "drop",
    }
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC | {"dataset": {"parquet": "x", **options}}))
    spec = load(path)
    assert spec.dataset == {"parquet": str(tmp_path / "x"), **options}
    assert type(spec.dataset["range"][1]) is int
    again = type(spec).model_validate(json.loads(spec.model_dump_json()))
    assert again.dataset["class_names"] == {"0": "a", "1": "b"}  # as a store keeps it


def test_a_generator_without_a_preset_says_what_it_costs():
    spec = load(
        SPEC
        | {
            "dataset": "cifar10",
            "recipe": "paper/cifar10",
            "classifiers": ["resnet110"],
            "generators": {"edm": {"kind": "edm"}, "small": {"kind": "edm", "preset": "cifar10"}},
            "blocks": [{"n_base": 100, "syn": {"edm": 1, "small": 1}}],
        }
    )
    (line,) = [line for line in remarks(plan(resolve(spec, None))) if "generators." in line]
    assert line.startswith("generators.edm: no preset: by its defaults ")
    assert "million parameters are trained on 200.0 million images" in line
    assert "digits" in line.rpartition("presets: ")[2]


def test_a_module_lies_beside_its_spec_and_its_options_are_its_own(tmp_path):
    own = {"kind": "python", "module": "m", "setting": "open", "training": {"path": "x"}}
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(SPEC | {"generators": {"a": own, "b": own | {"path": "lab"}}}))
    found = load(path).generators
    assert found["a"] == {**own, "path": str(tmp_path)}
    assert found["b"] == {**own, "path": str(tmp_path / "lab")}
