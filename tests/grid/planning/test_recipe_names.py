"""What a recipe of one's own is called in rows, figures and the report."""

import pytest

from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import recipe_name, resolve
from equigrid.grid.spec import load


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("digits", "digits"),
        ({"extends": "digits", "steps": 15}, "digits with steps 15"),
        ({"extends": "digits", "steps": 15, "lr": 0.1}, "digits with steps 15, lr 0.1"),
        ({"extends": "digits"}, "digits"),
        ({"epochs": 3, "batch": 32}, "own: epochs 3, batch 32"),
    ],
)
def test_a_recipe_is_called_by_what_it_says(recipe, name):
    assert recipe_name(recipe) == name


def test_what_a_name_leaves_out_still_tells_recipes_apart():
    one = {"extends": "digits", "steps": 15, "augmentation": {"flip": True}}
    other = {**one, "augmentation": {"flip": False}}
    names = {recipe_name(one), recipe_name(other)}
    assert len(names) == 2
    assert all(name.startswith("digits with steps 15, and more (") for name in names)
    many = {"extends": "digits", "steps": 1, "lr": 1, "batch": 1, "warmup": 0, "momentum": 0.9}
    assert recipe_name(many) != recipe_name(many | {"momentum": 0.8})


def test_blocks_with_equal_mappings_share_a_recipe_and_others_do_not(mini, store):
    own = {"extends": "digits", "steps": 7}
    mini["blocks"] = [
        {"n_base": [60], "recipe": own},
        {"n_base": [120], "recipe": dict(own)},
        {"n_base": [60], "recipe": {**own, "steps": 8}},
    ]
    cells = plan(resolve(load(mini), store)).cells
    assert {(cell.n_base, cell.recipe) for cell in cells} == {
        (60, "digits with steps 7"), (120, "digits with steps 7"), (60, "digits with steps 8")}  # fmt: skip
