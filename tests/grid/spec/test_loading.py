"""Bad input: one line that says what, where, and what would be right."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from equigrid.grid.errors import UserError
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load, presets

BLOCK = "blocks: [{n_base: [60], real: [1], syn: {edm: [1]}}]\n"
HEAD = "name: t\ndataset: digits\nrecipe: digits\nclassifiers: [digits-cnn]\ngenerators: {edm: {kind: edm, preset: digits}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + BLOCK + "sedes: [1]\n", "spec.yaml:7: sedes: unknown key; known: .*did you mean 'seeds'"),
        (HEAD + "blocks:\n  - n_base: [60]\n    rael: [1]\n", "spec.yaml:8: blocks.0.rael: unknown key.*'real'"),
        (HEAD + "blocks:\n  - n_base: [60]\n    real: [1, -2]\n", "spec.yaml:8: blocks.0.real: -2 is no amount.*above 0"),
        (HEAD + "blocks: [{n_base: [-5]}]\n", "spec.yaml:6: blocks.0.n_base.0: -5 is no base size"),
        (HEAD + "blocks: [{n_base: [al]}]\n", "'al' is no base size; write a number of images from 0 up, or all"),
        (HEAD + "blocks: [{n_base: [60, 60]}]\n", "blocks.0.n_base: 60 is there twice"),
        (HEAD + "blocks: [{n_base: [60], real: [1, 1.0]}]\n", "blocks.0.real: 1 is there twice"),
        (HEAD + BLOCK + "seeds: [3, 3]\n", "spec.yaml:7: seeds: 3 is there twice"),
        (HEAD + BLOCK + "name: u\n", "spec.yaml:7: not YAML: the key 'name' is there twice"),
        (HEAD + "blocks: [{n_base: [60], syn: {edn: [1]}}]\n", "no such generator; generators has: edm; did you mean 'edm'"),
        (HEAD + "blocks: [{n_base: [60]\n", "spec.yaml:7: not YAML"),
        (HEAD + "blocks: [{n_base: [1300]}]\n", "blocks.0.n_base: 1,300 is more than the 1,200 training images of digits"),
        (HEAD + "blocks: [{n_base: [400], real: [3]}]\n", "blocks.0.real: 3 × 400 = 1,200 real .* digits has 800 more"),
        (HEAD + "blocks: [{n_base: [400], real: [900 images]}]\n", "900 real images to add to 400; digits has 800 more"),
        (HEAD + "blocks: [{n_base: [9]}]\n", "leaves class '8' of digits without an image.*every class is 10"),
        (HEAD + "blocks: [{n_base: [60], copies: [0.001]}]\n", "0.001 of the base is no whole image"),
        (HEAD.replace("digits-cnn", "digit-cnn") + BLOCK, "classifiers.0: unknown classifier 'digit-cnn'; nearest: digits-cnn"),
        (HEAD.replace("recipe: digits", "recipe: digit") + BLOCK, "recipe: unknown recipe 'digit'; nearest: digits"),
        (HEAD.replace("dataset: digits", "dataset: digit") + BLOCK, "dataset: 'digit' is not known.*'digits'"),
        (HEAD.replace("kind: edm", "kind: emd") + BLOCK, "generators.edm: .*'emd'.*'edm'"),
        (HEAD.replace("dataset: digits", "dataset: {npz: no/such.npz}") + BLOCK, "npz: '/.*/no/such.npz' is no file"),
        ("", "a spec is a mapping with name"),
        ("- 1\n", "a spec is a mapping with name"),
        (HEAD, "blocks: is missing; it is required"),
    ],
)  # fmt: skip
def test_one_line_says_what_where_and_what_would_be_right(tmp_path, text, message):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        plan(resolve(load(path), None))
    assert "\n" not in str(caught.value)


def test_unknown_presets_and_unreadable_files(tmp_path):
    with pytest.raises(
        UserError,
        match="digist: no such preset, and no .yaml file; presets: .*; did you mean 'digits'",
    ):
        load("digist")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "binary.yaml")


def test_every_preset_loads_and_plans(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "PNG")
    column = pa.array([{"bytes": buffer.getvalue(), "path": None}] * 2000)
    for split in ("train", "test"):
        pq.write_table(
            pa.table({"img": column, "label": [i % 10 for i in range(2000)]}),
            tmp_path / f"{split}-0.parquet",
        )
    monkeypatch.setenv("EQUIGRID_CIFAR10", str(tmp_path))
    for name in ("digits", "cifar10-smoke"):  # the paper's are counted in test_grid_presets
        assert name in presets()
        assert len(plan(resolve(load(name), None)).cells) > 1


def test_a_spec_survives_its_record_in_the_store():
    spec = load(MAPPING := {
        "name": "t", "dataset": "digits", "recipe": {"extends": "digits", "steps": 5}, "classifiers": ["digits-cnn"],
        "generators": {"edm": {"kind": "edm", "preset": "digits", "seeds": [0, 1]}},
        "blocks": [{"n_base": [60, "all"], "real": [0.5], "syn": {"edm": [1, "500 images"]}, "copies": 2}],
    })  # fmt: skip
    recorded = spec.model_dump(mode="json")
    assert load(recorded) == spec == load(MAPPING)
    assert recorded["blocks"][0]["syn"] == {"edm": [1.0, "500 images"]}


def test_on_and_off_are_words_as_the_documents_write_them(tmp_path):
    text = (
        HEAD.replace("preset: digits}", "preset: digits, compute: {compile: on}}")
        + BLOCK
        + "quality: off\n"
    )
    (tmp_path / "spec.yaml").write_text(text.replace("{n_base", "{base: no, n_base"))
    spec = load(tmp_path / "spec.yaml")
    assert spec.quality is None
    assert spec.generators["edm"]["compute"] == {"compile": "on"}
    assert spec.blocks[0].base is False
