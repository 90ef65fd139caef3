"""Pre-trained classifiers in a plan: ids by content, names, and what is refused."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from equigrid.grid.errors import UserError
from equigrid.grid.ids import canonical_json
from equigrid.grid.jobs import computing
from equigrid.grid.planning import recording
from equigrid.grid.planning.growth import start
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.remarks import remarks
from equigrid.grid.planning.resolve import record_of, resolve
from equigrid.grid.spec import load

ARGS = {"img_size": 8, "patch_size": 2, "depth": 1, "embed_dim": 24, "num_heads": 2}


def write(path, *, channels=1, **args):
    torch.manual_seed(0)
    of = {**ARGS, **args}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=4, in_chans=channels, **of)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), path)
    return path


@pytest.fixture
def weights(tmp_path):
    return write(tmp_path / "here/w.safetensors")


@pytest.fixture
def entry(weights):
    return {"timm": "vit_tiny_patch16_224", "pretrained": str(weights), "args": ARGS}


@pytest.fixture
def spec(mini):
    def make(*classifiers, **changes):
        block = {"n_base": [60], "real": [1], "syn": {"edm": [1]}}
        more = {"classifiers": list(classifiers), "blocks": [block]}
        return load({**mini, **more, "recipe": "finetune", **changes})

    return make


def trials(found) -> dict[str, dict]:
    return {job.id: job.payload for job in found.of_kind("trial")}


def planned(one):
    return plan(resolve(one, None))


def test_an_id_follows_the_weights_bytes_and_no_path(spec, entry, weights, tmp_path):
    first = planned(spec(entry))
    shutil.copytree(weights.parent, tmp_path / "there")
    moved = planned(spec({**entry, "pretrained": str(tmp_path / "there/w.safetensors")}))
    assert trials(moved).keys() == trials(first).keys()
    told = canonical_json([job.payload.identity() for job in first.of_kind("trial")])
    assert str(tmp_path) not in told
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    changed = planned(spec(entry))
    assert not trials(changed).keys() & trials(first).keys()
    names = [{cell.classifier for cell in one.cells} for one in (first, moved, changed)]
    assert names[0] == names[1] != names[2], "weights that differ share no name, and so no fit"


def test_a_name_in_rows_tells_how_it_was_trained(spec, entry):
    every = [
        {**entry, "train": "all"},
        {**entry, "train": "head"},
        {**entry, "train": "lora"},
        {**entry, "train": "lora", "rank": 4},
        {**entry, "train": "lora", "alpha": 4},
        {**entry, "train": "all", "recipe": {"lr": 1e-4}},
        {**entry, "normalisation": {"mean": [0.1], "std": [0.3]}},
        "timm/resnet10t",
    ]
    found = planned(spec(*every))
    names = list(dict.fromkeys(cell.classifier for cell in found.cells))
    assert len(names) == len(every)
    assert ["(pretrained " in name for name in names] == [True] * 7 + [False]
    assert "lora 8" in names[2]
    assert "lora 4" in names[3]
    assert "lr 0.0001" in names[5]
    assert {cell.pretrained is None for cell in found.cells if "resnet" in cell.classifier} == {
        True
    }
    (told,) = {cell.pretrained for cell in found.cells if cell.classifier == names[0]}
    assert told.startswith("sha256:")
    assert "w.safetensors" in told
    rates = {p.label: p.recipe.lr for p in trials(found).values()}
    assert rates[names[5]] == 1e-4
    assert rates[names[0]] == 3e-4
    assert sum("an open set in every arm" in line for line in remarks(found)) == 7


def test_normalisation_arguments_and_channels_are_those_beside_the_weights(spec, tmp_path):
    write(tmp_path / "saved/model.safetensors", channels=3)
    saved = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": ARGS,
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    }
    (tmp_path / "saved/config.json").write_text(json.dumps(saved))
    found = planned(
        spec(
            {"timm": "vit_tiny_patch16_224", "pretrained": str(tmp_path / "saved")},
            recipe={"extends": "finetune", "normalisation": {"mean": [0.9], "std": [0.9]}},
        )
    )
    (payload,) = {p.recipe.normalisation: p for p in trials(found).values()}.values()
    assert payload.recipe.normalisation.mean == (0.1, 0.2, 0.3), "the weights', not the recipe's"
    assert payload.recipe.normalisation.std == (0.4, 0.5, 0.6)
    assert payload.pretrained.how.channels == 3
    assert payload.pretrained.how.arguments == ARGS
    for wrong, message in [
        ({"model_args": 3}, "model_args is 3, no mapping"),
        ({"pretrained_cfg": {"mean": "grey"}}, "its mean is 'grey'; a list of numbers is right"),
        ({"pretrained_cfg": {"std": [0, 0, 0]}}, r"its std is \[0, 0, 0\]; a positive number each"),
        ([1], "config.json cannot be read: it is no mapping"),
    ]:
        content = {**saved, **wrong} if isinstance(wrong, dict) else wrong
        (tmp_path / "saved/config.json").write_text(json.dumps(content))
        of = {"timm": "vit_tiny_patch16_224", "pretrained": str(tmp_path / "saved"), "args": ARGS}
        with pytest.raises(UserError, match=message):
            planned(spec(of))
    saved["architecture"] = "vit_small_patch16_224.some_tag"
    (tmp_path / "saved/config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"of vit_small_patch16_224; write timm: vit_small"):
        planned(spec({"timm": "vit_tiny_patch16_224", "pretrained": str(tmp_path / "saved")}))


def test_what_brings_other_peoples_data_is_refused_where_none_may_come(spec, entry, mini):
    closed = spec("digits-cnn", closed_set=True)
    assert trials(planned(closed)).keys() == trials(planned(spec("digits-cnn"))).keys()
    with pytest.raises(UserError, match=r"closed_set: classifiers.1 \(vit_tiny\S* \(pretrained"):
        planned(spec("digits-cnn", entry, closed_set=True))
    outside = {"edm": {**mini["generators"]["edm"], "trained_on": "outside"}}
    with pytest.raises(UserError, match=r"closed_set: generators.edm is open-set; leave"):
        planned(spec("digits-cnn", closed_set=True, generators=outside, outside={"images": 300}))


def test_bad_entries_are_a_line_that_names_them(spec, entry, weights, tmp_path):
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"no weights")
    resnet = {"timm": "resnet10t", "pretrained": str(weights)}
    for wrong, message in [
        ({**entry, "timm": "vit_tinny"}, r"classifiers.0: timm has no architecture 'vit_tinny'"),
        (
            {**entry, "pretrained": str(junk)},
            r"junk.safetensors is not a file of weights in safetens",
        ),
        ({**entry, "pretrained": "gone.safetensors"}, r"there is no file '.*gone.safetensors'"),
        ({**entry, "pretrained": "a/folder"}, r"'a/folder' is no folder and no .safetensors file"),
        ({**entry, "pretrained": "a_tag"}, r"timm has no weights 'a_tag' of vit_tiny_patch16_224"),
        ({**entry, "args": {**ARGS, "depth": 2}}, r"missing: blocks.1.norm1.weight, .* more"),
        ({**entry, "args": {**ARGS, "img_size": 16}}, r"pos_embed is \[1, 17, 24\] for \[1, 65"),
        (resnet, r"these are not resnet10t's weights: missing: conv1.0.weight"),
        ({**entry, "train": "head", "rank": 3}, r"rank and alpha are of train: lora"),
        ({**entry, "pretrained": False}, r"names no weights; for a training from scratch write"),
        ({**entry, "trian": "head"}, r"classifiers.0.trian: unknown key.*did you mean 'train'"),
        ("timm/resnet10t.c3_in1k", r"or \{timm: resnet10t.c3_in1k, pretrained: true\}"),
    ]:
        with pytest.raises(UserError, match=message) as told:
            planned(spec(wrong))
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="is there twice"):
        spec(entry, entry)


def test_sizes_and_channels_that_cannot_be_are_refused(spec, tmp_path):
    path = str(write(tmp_path / "w.safetensors", img_size=16))
    small = {"timm": "vit_tiny_patch16_224", "pretrained": path, "args": {**ARGS, "img_size": 16}}
    with pytest.raises(UserError, match=r"classifiers.0: .*cannot take 8×8×1 .*resized_crop"):
        planned(spec(small))
    larger = {"extends": "finetune", "augmentation": {"resized_crop": {"size_px": 16}}}
    assert len(trials(planned(spec(small, recipe=larger)))) == 6
    four = str(write(tmp_path / "four.safetensors", channels=4))
    of_four = {"timm": "vit_tiny_patch16_224", "pretrained": four, "args": {**ARGS, "in_chans": 4}}
    (payload, *_) = trials(planned(spec(of_four))).values()
    assert payload.recipe.normalisation.mean == (0.5,) * 4
    torch.manual_seed(0)
    grey = timm.create_model("resnet10t", num_classes=4, in_chans=1).state_dict()
    save_file(grey, tmp_path / "grey.safetensors")
    resnet = {"timm": "resnet10t", "pretrained": str(tmp_path / "grey.safetensors")}
    with pytest.raises(UserError, match=r"take 1 channels, and mean is known of 3 .*write normal"):
        planned(spec(resnet))


def test_a_hubs_weights_are_the_files(spec, hub, weights, monkeypatch):
    content = weights.read_bytes()
    (hub.root / "model.safetensors").write_bytes(content)
    local = planned(
        spec({"timm": "vit_tiny_patch16_224", "pretrained": str(weights), "args": ARGS})
    )
    bare = {"timm": "vit_tiny_patch16_224", "pretrained": "hf-hub:lab/networks", "args": ARGS}
    assert trials(planned(spec(bare))).keys() == trials(local).keys(), "without a config.json"
    (hub.root / "config.json").write_text(json.dumps({"model_args": ARGS}))
    for place in ("hf-hub:lab/networks", "hf-hub:lab/networks@v2",
                  "hf://lab/networks/model.safetensors"):  # fmt: skip
        there = planned(spec({"timm": "vit_tiny_patch16_224", "pretrained": place}))
        assert trials(there).keys() == trials(local).keys(), "the same content, the same id"
    assert "hf://lab" in next(iter(there.cells)).pretrained
    monkeypatch.setattr(hub, "repository", "timm/vit_tiny_patch16_224.augreg_in21k")
    for name, wanted in [
        ("vit_tiny_patch16_224.augreg_in21k", True),
        ("vit_tiny_patch16_224", "augreg_in21k"),
    ]:
        tagged = planned(spec({"timm": name, "pretrained": wanted}))
        assert trials(tagged).keys() == trials(local).keys()
    with pytest.raises(
        UserError, match=r"hf://nobody/nothing\S* cannot be had from the hub"
    ) as told:
        planned(spec({"timm": "vit_tiny_patch16_224", "pretrained": "hf-hub:nobody/nothing"}))
    assert "\n" not in str(told.value)


def test_a_finished_grid_is_planned_again_when_its_weights_are_gone(spec, entry, weights, store):
    from equigrid.grid.datasets import ingest

    one = spec(entry)
    resolved = resolve(one, store)
    resolved = resolved.with_dataset(ingest.ingest(store, resolved.source))
    before = plan(resolved)
    recording.write(store, one.name, record_of(one, resolved))
    weights.unlink()
    after = plan(resolve(one, store, recording.read(store, one.name)))
    assert after.jobs.keys() == before.jobs.keys()
    assert after.cells == before.cells
    with pytest.raises(UserError, match="there is no file"):
        resolve(one, store)
    with pytest.raises(ValueError, match="there is no file"):
        next(iter(trials(after).values())).pretrained.start()
    write(weights, depth=2)
    with pytest.raises(ValueError, match=r"was planned with [0-9a-f]{12}…; plan and run anew"):
        next(iter(trials(after).values())).pretrained.start()


def test_what_learns_in_part_computes_less(spec, entry):
    every = [{**entry, "train": how} for how in ("all", "lora", "head")]
    found = planned(spec(*every))
    shape = found.resolved.shape
    by_how = {
        p.pretrained.how.train: computing.training(
            p.classifier, p.recipe, p.n_total, shape, evaluated=0, weights=p.pretrained
        ).flops
        for p in trials(found).values()
        if p.n_total == 60
    }
    assert by_how["all"] / by_how["head"] == pytest.approx(3, rel=0.05)
    assert by_how["all"] / by_how["lora"] == pytest.approx(1.5, rel=0.1)


def test_a_question_names_a_classifier_with_or_without_its_digits(spec, entry):
    one = spec({**entry, "train": "head"}, "digits-cnn")
    (full,) = {c.classifier for c in planned(one).cells if "(pretrained " in c.classifier}
    for name in (full, "vit_tiny_patch16_224 (pretrained: head)"):
        assert [c.train for c in start(one, name).classifiers] == ["head"]
    with pytest.raises(UserError, match=r"the grid has vit_tiny_patch16_224 \(pretrained: head\)"):
        start(one, "resnet20")


def test_a_relative_place_is_relative_to_the_spec(mini, weights, write_spec):
    (weights.parent / "folder").mkdir()
    places = {
        "here/w.safetensors": str(weights),
        "here/folder": str(weights.parent / "folder"),
        "gone.safetensors": str(weights.parents[1] / "gone.safetensors"),
        "hf-hub:lab/networks": "hf-hub:lab/networks",
        "hf://lab/networks/w.safetensors": "hf://lab/networks/w.safetensors",
        "$WEIGHTS/w.safetensors": "$WEIGHTS/w.safetensors",
        "a1_in1k": "a1_in1k",
    }
    mini["classifiers"] = [{"timm": "resnet10t", "pretrained": place} for place in places]
    found = load(write_spec(mini)).classifiers
    assert [one.pretrained for one in found] == list(places.values())


def test_the_command_lines_question_can_name_it(entry):
    from equigrid.classifiers.models.pretraining import PretrainedClassifier
    from equigrid.grid.cli.inputs import question

    for changes in ({}, {"train": "lora", "recipe": {"lr": 1e-4, "batch": 8}}):
        name = PretrainedClassifier.model_validate({**entry, **changes}).spelled
        asked = question(f"n_base=60,n_real=60,within=1.5,classifier={name}")
        assert asked.classifier == name


def test_the_example_makes_what_the_preset_needs(tmp_path, monkeypatch):
    place = Path(__file__).parents[3] / "examples/pretrained_digits.py"
    found = importlib.util.spec_from_file_location("pretrained_digits", place)
    example = importlib.util.module_from_spec(found)
    found.loader.exec_module(example)
    example.main(tmp_path, steps=2)
    monkeypatch.setenv("EQUIGRID_FINETUNE", str(tmp_path))
    the_plan = planned(load("digits-finetune"))
    how = {p.pretrained.how for p in trials(the_plan).values() if p.pretrained}
    assert {one.train for one in how} == {"all", "head", "lora"}
    assert {one.channels for one in how} == {1}
    assert {p.recipe.normalisation.mean for p in trials(the_plan).values() if p.pretrained} == {
        (0.5,)
    }
    parts = example.split()
    pixels = [{image.tobytes() for image in images} for images, _ in parts.values()]
    assert not pixels[0] & pixels[2], "no test image is among other people's"
