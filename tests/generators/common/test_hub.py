"""Weights on a hub: huggingface_hub really talks to a small hub of our own on this machine."""

import pytest
import torch
from safetensors.torch import save_file

from equigrid.generators import registry
from equigrid.generators.common import hub as address
from equigrid.generators.dit import released

REPOSITORY = "lab/networks"  # the fixture's own


def edm(weights: str):
    return registry.config(
        {"kind": "edm", "preset": "digits", "setting": "open", "weights": weights}
    )


def test_an_edm_from_the_hub_is_the_one_from_the_file(hub, tmp_path):
    from equigrid.generators.edm.weights import network_for

    shapes = network_for(edm("unused"), shape=(8, 8, 1), classes=10).state_dict()
    drawn = torch.Generator().manual_seed(7)
    made = {name: torch.randn(v.shape, generator=drawn) for name, v in shapes.items()}
    path = hub.root / "digits/edm.safetensors"
    path.parent.mkdir()
    save_file(made, path)
    here, there = edm(str(path)), edm(f"hf://{REPOSITORY}/digits/edm.safetensors")
    there.check(8, 8, 1, 10, 0)
    assert there.training_payload() == here.training_payload(), "the same content, the same id"
    options = {"classes": 10, "class_names": tuple("0123456789"), "seed": 1, "device": "cpu"}
    empty = torch.empty(0, 8, 8, 1, dtype=torch.uint8).numpy(), torch.empty(0).long().numpy()
    first, second = (registry.train(*empty, one, **options) for one in (here, there))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    downloads = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert len(downloads) == 1, "once, and kept"
    assert edm(f"hf://{REPOSITORY}@v2/digits/edm.safetensors").training_payload() == (
        here.training_payload()
    )
    assert any("/resolve/v2/" in line for line in hub.asked)


def test_a_dit_from_the_hub_is_a_folder(hub):
    for name in ("transformer", "vae"):
        (hub.root / f"dit/{name}").mkdir(parents=True)
        save_file({"x": torch.ones(2)}, hub.root / f"dit/{name}/{released.WEIGHTS_NAME}")
    (hub.root / "dit/vae/config.json").write_text('{"scaling_factor": 0.5}')
    (hub.root / "other.safetensors").write_bytes(b"not asked for")
    place = f"hf://{REPOSITORY}/dit"
    assert released.latent_scale(place, None) == 0.5
    assert released.digests(place, None) == released.digests(str(hub.root / "dit"), None)
    assert not any("GET" in line and "other" in line for line in hub.asked)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hf://lab/networks/missing.safetensors", "cannot be had from the hub"),
        ("hf://lab/networks@v9/missing.safetensors", "cannot be had from the hub"),
        ("hf://networks.safetensors", "write hf://OWNER/NAME"),
    ],
)
def test_what_is_not_there_is_a_line(hub, place, message):
    with pytest.raises(ValueError, match=message) as told:
        edm(place).check(8, 8, 1, 10, 0)
    assert str(told.value).startswith("weights: hf://")
    assert "\n" not in str(told.value)


def test_a_path_is_itself(tmp_path):
    assert address.local(str(tmp_path)) == str(tmp_path)
