"""A grid of fine-tuned classifiers through the driver: stopped, resumed, its marks, its report."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from equigrid.grid.reporting import analysis_bridge
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, results

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_here")]
ARGS = {"img_size": 8, "patch_size": 2, "depth": 1, "embed_dim": 24, "num_heads": 2}


@pytest.fixture
def spec(mini, tmp_path) -> dict:
    torch.manual_seed(0)
    of = {"num_classes": 4, "in_chans": 3, **ARGS}
    network = timm.create_model("vit_tiny_patch16_224", **of)
    (tmp_path / "weights").mkdir()
    save_file(network.state_dict(), tmp_path / "weights/model.safetensors")
    (tmp_path / "weights/config.json").write_text(json.dumps({"model_args": ARGS}))
    own = {"timm": "vit_tiny_patch16_224", "pretrained": str(tmp_path / "weights")}
    mini["classifiers"] = [{**own, "train": "lora"}, {**own, "train": "head"}, "digits-cnn"]
    mini["recipe"] = {"extends": "finetune", "steps": 8}
    mini["quality"] = {"inception": "off", "vit": "off"}
    mini["domain_gap"] = {"tsne": 10}
    mini["execution"] = {"gpus": 0, "slots": 1, "together": 2}
    mini["blocks"] = [{"n_base": [60], "real": [1], "syn": {"edm": [1]}}]
    return mini


def test_stopped_resumed_and_marked(spec, tmp_path, quiet, outcomes):
    whole, cut = (Store(tmp_path / name, create=True) for name in ("whole", "cut"))
    undisturbed, _ = driver.run(load(spec), whole, console=quiet)
    assert not undisturbed.failures
    first, _ = driver.run(load(spec), cut, console=quiet, max_trials=5)
    second, the_plan = driver.run(load(spec), cut, console=quiet)
    assert not second.failures
    assert 0 < first.jobs["trial"] < undisturbed.jobs["trial"] == 18
    assert outcomes(cut) == outcomes(whole)
    rows = results.read(cut).to_pylist()
    marked = {row["classifier"]: row["pretrained"] for row in rows}
    assert len(marked) == 3
    assert marked.pop("digits-cnn") is None
    assert all(told.startswith("sha256:") for told in marked.values())

    table, found = analysis_bridge.fit(cut, the_plan)
    assert {c.key.classifier: c.pretrained for c in found.curves} == {**marked, "digits-cnn": None}
    told = [line for line in found.problems if "pre-trained weights" in line]
    assert len(told) == 2
    page = analysis_bridge.write_report(cut, the_plan, table, found, tmp_path / "report")
    text = page.read_text()
    assert "closed-set generator, pre-trained classifier: open set" in text
    assert "start from pre-trained weights" in text
