"""The recipe for images of which nothing is known but size and number, and recipes by arm."""

import pytest

from equigrid.classifiers import recipes


def steps(recipe, n_base, n_total):
    resolved = recipes.resolve(
        recipe, n_base=n_base, n_total=n_total, n_dataset=50_000, classifier="resnet20"
    )
    return resolved.steps


@pytest.mark.parametrize("side", [1, 8, 16, 17, 28, 32, 64, 96, 97, 256, 5000])
def test_it_suits_images_of_any_size(side):
    recipe = recipes.recipe("default", side)
    crop = recipe.augmentation.resized_crop
    assert bool(crop) == (side > 96)
    if crop:
        assert crop.size_px == min(side, 224)
    assert recipe.augmentation.crop_padding_px <= side // 8
    assert recipe.input_size(side, side)[0] <= 224


def test_all_arms_of_a_base_train_equally_long_and_larger_bases_longer():
    recipe = recipes.recipe("default")
    by_base = [steps(recipe, n, n) for n in (1, 50, 1_000, 1_500, 5_000, 20_000, 10**6)]
    assert by_base == sorted(by_base)
    assert by_base[0] < by_base[3] < by_base[-1]
    assert steps(recipe, 1_000, 1_000) == steps(recipe, 1_000, 9_000)
    assert steps(recipe, 0, 5_000) == steps(recipe, 5_000, 5_000)  # synthetic images alone


def test_it_can_be_extended():
    recipe = recipes.recipe({"extends": "default", "lr": 0.01, "name": "mine"}, 8)
    assert (recipe.lr, recipe.batch) == (0.01, recipes.default(8).batch)


def test_an_arm_may_do_otherwise_and_others_do_not():
    recipe = recipes.recipe(
        {"extends": "digits", "by_arm": {"syn": {"lr": 0.02, "epochs": 4}, "copies": {"batch": 8}}}
    )

    def of(arm):
        return recipes.resolve(
            recipe, n_base=60, n_total=120, n_dataset=600, classifier="digits-cnn", arm=arm
        )

    assert (of("syn").lr, of("syn").epochs, of("syn").steps) == (0.02, 4, None)
    assert (of("copies").batch, of("copies").steps) == (8, recipe.steps)
    assert of("base") == of("real") == of(None)
    assert of(None).lr == recipe.lr


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        ({"sin": {"lr": 1}}, "'sin' is no arm; there are base, real"),
        ({"syn": {"lr": -1}}, r"by_arm.syn.lr: .*greater than 0.*got -1"),
        ({"syn": {"rate": 1}}, "by_arm.syn.rate"),
        ({"syn": {"extends": "digits"}}, "by_arm.syn: extends has no place"),
        ({"syn": {"steps": 3, "epochs": 3}}, "exactly one of"),
    ],
)
def test_what_an_arm_cannot_do_is_told(arms, told):
    with pytest.raises(ValueError, match=told):
        recipes.recipe({"extends": "digits", "by_arm": arms})


def test_steps_by_base_must_rise():
    rungs = [{"from_base": 10, "steps": 1}, {"from_base": 5, "steps": 2}]
    with pytest.raises(ValueError, match="steps_by_base must rise"):
        recipes.Recipe(batch=8, lr=0.1, steps_by_base=rungs)
