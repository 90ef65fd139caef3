"""docs/spec.md holds every key of a spec, as the models have it."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from equigrid.classifiers.recipes import Recipe
from equigrid.generators import registry
from equigrid.grid.authoring import keys
from equigrid.grid.cli import drafts
from equigrid.grid.datasets import catalogue
from equigrid.grid.errors import UserError
from equigrid.grid.spec import GridSpec

PAGE = Path(__file__).parents[3] / "docs" / "spec.md"


def models_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Found here in another way than the page does: by what pydantic itself says of the schema."""
    yield model
    for field in model.model_fields.values():
        stack = [field.annotation]
        while stack:
            one = stack.pop()
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from models_below(one)
            stack += get_args(one)


ROOTS = [GridSpec, Recipe, *dict.fromkeys(model for model, _ in registry.KINDS.values())]
MODELS = list(dict.fromkeys(model for root in ROOTS for model in models_below(root)))


def test_the_page_is_current():
    right = "python -m equigrid.grid.authoring.keys > docs/spec.md"
    assert PAGE.read_text(encoding="utf-8") == keys.page(), f"make it again: {right}"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__module__ + model.__name__)
def test_every_field_of_every_model_is_there(model):
    found = [section for section in keys.sections() if section.model is model]
    assert found
    for section in found:
        assert [key.path for key in section.keys] == list(model.model_fields)
        for key in section.keys:
            field = model.model_fields[key.path]
            assert (key.default is None) == field.is_required(), key.path
            assert len(key.meaning) > 3, f"{model.__name__}.{key.path} has no docstring below it"
        assert section.text.strip(), f"{model.__name__} has no docstring"


@pytest.mark.parametrize("kind", catalogue.SOURCES)
def test_every_option_of_every_set_is_there(kind):
    (section,) = (section for section in keys.sections() if section.title == "`dataset`")
    there = {key.path for key in section.keys}
    for name in inspect.signature(catalogue.SOURCES[kind]).parameters:
        assert name == "place" or name in there
    assert not set(keys.OF_DATASETS) - there - {"place"}, "a meaning of no option"


def test_types_and_defaults_are_the_models():
    found = {
        (section.title, key.path): (key.type, key.default)
        for section in keys.sections()
        for key in section.keys
    }
    assert found["The grid: `execution`", "cpus"] == ("number above 0 up to 10,000", "1")
    assert found["The grid: `execution`", "gpus"] == ("number from 0, `auto`", "auto")
    assert found["The grid: `domain_gap`", "held_out"] == ("number above 0 below 1", "0.2")
    assert found["The grid: `blocks`", "real"] == ("list of amount", "[]")
    assert found["The grid", "name"] == ("text", None)
    assert found["Generators of kind edm: `training`", "betas"][0] == "[number, number]"
    assert found["Generators of kind edm: `training`", "optimizer"][0] == "`adam` or `adamw`"
    assert found["A recipe: `by_classifier`", "momentum"][0] == "number from 0 below 1; or null"


def test_the_command_finds_a_key(capsys):
    drafts.keys("held_out", as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert found["section"] == "The grid: domain_gap"
    assert found["meaning"] == "The part of each side that is tested on."
    with pytest.raises(UserError, match="did you mean 'held_out'"):
        drafts.keys("heldout")
