import pytest

from equigrid.classifiers import recipes
from equigrid.grid.errors import UserError
from equigrid.grid.spec.tuning import Range, Tune
from equigrid.grid.tuning import study
from equigrid.grid.tuning.space import (
    Dimension,
    applied,
    default_space,
    known_names,
    present,
    space_of,
)

DIGITS = recipes.recipe("digits")


def space(**wished):
    named = {name.replace("__", "."): value for name, value in wished.items()}
    tune = Tune.model_validate({"space": named})
    return space_of(tune.space, DIGITS, "tune.space")


def test_names_come_from_the_models_so_that_new_keys_can_be_searched():
    names = set(known_names())
    assert {"lr", "batch", "steps", "epochs", "length", "augmentation.flip"} <= names
    assert {f"augmentation.{name}" for name in recipes.Augmentation.model_fields} <= names
    assert not {"by_arm", "by_classifier", "steps_by_base"} & names


@pytest.mark.parametrize(
    ("wished", "told"),
    [
        ({"lrr": [0.1, 0.2]}, "tune.space.lrr: is no key.*did you mean 'lr'"),
        ({"augmentation__flop": [True, False]}, "did you mean 'augmentation.flip'"),
        ({"lr": [0.1, -0.1]}, r"tune.space.lr: -0.1: lr: .*greater than 0"),
        ({"batch": {"low": 8, "high": 32.5}}, "tune.space.batch: 32.5: is counted in whole"),
        ({"steps": [10, 20], "length": [1, 2]}, "say the same twice"),
        ({"decay": ["linear", "cosine"]}, "tune.space.decay: 'linear'"),
    ],
)
def test_what_the_recipe_refuses_is_refused_by_name(wished, told):
    with pytest.raises(UserError, match=told):
        space(**wished)


def test_values_are_put_into_the_recipe_and_a_length_replaces_the_other():
    found = applied(DIGITS, {"lr": 0.5, "epochs": 3, "augmentation.flip": True})
    assert (found.lr, found.epochs, found.steps, found.augmentation.flip) == (0.5, 3, None, True)
    assert found.weight_decay == DIGITS.weight_decay


@pytest.mark.parametrize(
    ("own", "read"),
    [
        ("digits", lambda recipe: recipe.steps),
        ("smoke/cifar10", lambda recipe: recipe.epochs),
        ("paper/cifar10", lambda recipe: recipe.epochs_by_base[0].epochs),
        ("paper/imagenet", lambda recipe: recipe.steps_by_total[-1].steps),
        ("default", lambda recipe: recipe.steps_by_base[-1].steps),
    ],
)
def test_length_is_a_factor_on_whatever_length_a_recipe_has(own, read):
    recipe = recipes.recipe(own)
    assert read(applied(recipe, {"length": 0.5})) == read(recipe) / 2


def test_what_one_classifier_did_otherwise_gives_way_to_the_search():
    own = recipes.recipe("paper/imagenet")  # its ViT has a weight decay of its own
    found = applied(own, {"weight_decay": 0.01})
    resolved = recipes.resolve(
        found, n_base=1300, n_total=1300, n_dataset=1300, classifier="vit_base_patch32_224"
    )
    assert resolved.weight_decay == 0.01


def test_the_recipe_itself_is_a_point_of_the_space_where_it_lies_in_it():
    inside = space(lr={"low": 0.01, "high": 0.3, "log": True}, batch=[16, 32])
    assert present(DIGITS, inside) == {"lr": 0.1, "batch": 32}
    assert present(DIGITS, space(lr=[0.01, 0.02])) is None
    assert present(DIGITS, space(steps={"low": 100, "high": 400, "step": 150})) is None


def test_points_survive_the_way_to_the_searcher_and_back():
    dimensions = space(
        lr={"low": 0.01, "high": 0.3, "log": True}, augmentation__flip=[False, True],
        steps={"low": 100, "high": 400, "step": 100}, decay=[{"kind": "cosine"}, {"kind": "constant"}],
    )  # fmt: skip
    values = {"lr": 0.02, "augmentation.flip": True, "steps": 300, "decay": {"kind": "constant"}}
    drawn = study.encoded(dimensions, values)
    assert drawn["augmentation.flip"] == 1
    assert drawn["decay"] == 1
    assert study.decoded(dimensions, drawn) == values
    assert study.encoded(dimensions, values | {"lr": 0.5}) is None


def test_optuna_draws_only_what_is_in_the_space():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    dimensions = space(
        lr={"low": 0.01, "high": 0.3, "log": True}, batch=[16, 32], steps={"low": 100, "high": 400}
    )
    drawn = []

    def objective(trial):
        study.suggesting(dimensions)(trial)
        drawn.append(study.decoded(dimensions, trial.params))
        return 0.0

    optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).optimize(objective, n_trials=20)
    assert all(one.has(values[one.name]) for values in drawn for one in dimensions)
    assert all(type(values["steps"]) is int for values in drawn)
    assert {values["batch"] for values in drawn} == {16, 32}


@pytest.mark.parametrize("side", [8, 28, 64, 300])
def test_the_default_space_is_one_around_the_default_recipe(side):
    recipe = recipes.default(side)
    wished = default_space(recipe, side, 100)
    dimensions = space_of(wished, recipe, "tune.space")
    assert present(recipe, dimensions) is not None
    crops = "augmentation.crop_padding_px" in wished
    assert crops == (side <= 96)


def test_ranges_and_choices_are_told_from_each_other():
    assert Dimension("lr", Range(low=1, high=2)).has(1.5)
    for wrong in ({"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}, [1], [1, 1], 3, {}):
        with pytest.raises(ValueError, match="lr"):
            Tune.model_validate({"space": {"lr": wrong}})
    with pytest.raises(ValueError, match="is empty"):
        Tune.model_validate({"space": {}})
