"""Every kind keeps the whole contract, and none knows another."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from equigrid.generators import registry
from equigrid.generators.base_config import GeneratorConfig
from equigrid.generators.registry import KINDS, config

SAMPLED = {"sampling_batch", "sampler_steps", "evaluations_per_image"}
TRAINED = SAMPLED | {"parameters", "training_batch", "training_steps", "training_nimg"}
ROOM = Path(registry.__file__).parent
FOLDERS = sorted({backend.folder for backend in registry.BACKENDS.values()})


def parameters(module: str, name: str) -> list[str]:
    return list(
        inspect.signature(getattr(import_module(f"equigrid.generators.{module}"), name)).parameters
    )


@pytest.mark.parametrize("kind", KINDS)
class TestKinds:
    def test_its_configuration_has_every_method(self, kind):
        model, presets = KINDS[kind]
        assert issubclass(model, GeneratorConfig)
        assert not inspect.isabstract(model)
        for name in ("capacity", "check", "cost_facts", "training_payload", "sampling_payload"):
            assert inspect.signature(getattr(model, name)) == inspect.signature(
                getattr(GeneratorConfig, name)
            ), name
        assert kind in model.model_fields["kind"].annotation.__args__
        assert set(model.model_fields["setting"].annotation.__args__) <= {
            "open",
            "closed",
            "adapted",
        }

    def test_its_code_is_where_it_is_looked_for(self, kind):
        folder = registry.BACKENDS[kind].folder
        assert parameters(f"{folder}.training", "train") == ["images", "labels", "config", "call"]
        assert parameters(f"{folder}.sampling", "sample") == ["weights", "config", "call"]
        has = hasattr(import_module(f"equigrid.generators.{folder}.sampling"), "reconstructor")
        assert has == registry.reconstructs(kind)


MADE = [
    {"kind": kind, "preset": preset} for kind, (_, presets) in KINDS.items() for preset in presets
]
MADE += [{"kind": kind, "path": "somewhere"} for kind in ("imported", "cifake")]
MADE += [{"kind": "python", "module": "own_generator", "path": "examples", "setting": "closed"}]


@pytest.mark.parametrize("mapping", MADE, ids=lambda mapping: "-".join(mapping.values()))
def test_costs_are_numbers_by_the_names_that_reports_show(mapping):
    chosen = config(mapping)
    facts = chosen.cost_facts(64, 64, 3, 10, 500)
    assert set(facts) == {
        "edm": TRAINED, "dit": TRAINED | {f"autoencoder_{name}" for name in ("parameters", "batch", "steps", "nimg")},
        "stable-diffusion": SAMPLED, "imported": set(), "cifake": set(), "python": set(),
    }[mapping["kind"]]  # fmt: skip
    assert all(isinstance(value, int) and value > 0 for value in facts.values())
    of_training = {
        name for name in facts if name not in SAMPLED and not name.endswith("parameters")
    }
    assert chosen.cost_facts(64, 64, 3, 10, None) == {
        name: facts[name] for name in facts if name not in of_training
    }


@pytest.mark.parametrize("kind", ["edm", "dit"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 8, 8, 1), np.float32)}, "uint8"),
        ({"images": np.zeros((4, 10, 7, 1), np.uint8)}, "image size 10x7"),
        ({"images": np.zeros((4, 8, 8, 2), np.uint8)}, "1 or 3 channels, got 2"),
        (
            {"images": np.zeros((0, 8, 8, 1), np.uint8), "labels": np.zeros(0, np.int64)},
            "trained on no images",
        ),
        ({"labels": np.zeros(4, np.int32)}, "int64"),
        ({"labels": np.zeros(3, np.int64)}, r"labels are \(4,\) int64, got \(3,\)"),
        ({"labels": np.array([0, 1, 2, 5])}, "0..4"),
        ({"labels": np.array([0, 1, 2, -1])}, "0..4"),
    ],
)
def test_bad_data(kind, change, message):
    given = {"images": np.zeros((4, 8, 8, 1), np.uint8), "labels": np.zeros(4, np.int64)} | change
    with pytest.raises(ValueError, match=message):
        registry.train(
            given["images"],
            given["labels"],
            config({"kind": kind, "preset": "digits"}),
            classes=5,
            seed=0,
        )


def test_every_kind_has_a_configuration_and_code():
    assert set(KINDS) == set(registry.BACKENDS)
    assert not registry.reconstructs(None)


def test_a_kind_that_lacks_a_method_cannot_be_made():
    class Incomplete(GeneratorConfig):
        kind: str = "incomplete"
        setting: Literal["closed", "open"] = "closed"

        def check_own(self, *_) -> None: ...
        def training_payload(self) -> dict: ...
        def sampling_payload(self) -> dict: ...

    with pytest.raises(TypeError, match="cost_facts"):
        Incomplete.model_validate({})
