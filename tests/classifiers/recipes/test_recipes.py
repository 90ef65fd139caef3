"""Recipes: the paper's numbers, curves at their boundaries, and what a bad one says."""

import json
import subprocess
import sys

import pytest

from equigrid.classifiers.models import check
from equigrid.classifiers.recipes import RECIPES, Recipe, recipe, resolve

CIFAR = {"n_dataset": 50_000, "classifier": "resnet110"}
BLOOD = {"n_dataset": 11_959, "classifier": "resnet110"}


def test_importing_recipes_and_names_imports_no_torch():
    code = "import sys, equigrid.classifiers.recipes, equigrid.classifiers.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("n_base", "epochs", "drops"),
    [
        (500, 480, (240, 360)),
        (5_000, 320, (160, 240)),
        (25_000, 160, (80, 120)),
        (50_000, 160, (80, 120)),
    ],
)
def test_cifar10_epochs_follow_the_base_size(n_base, epochs, drops):
    resolved = resolve(recipe("paper/cifar10"), n_base=n_base, n_total=n_base, **CIFAR)
    per_epoch = {500: 4, 5_000: 40, 25_000: 196, 50_000: 391}[n_base]  # ceil(n / 128), by hand
    assert resolved.epochs == epochs
    assert resolved.total_steps(n_base) == epochs * per_epoch
    assert resolved.boundaries(n_base) == (drops[0] * per_epoch, drops[1] * per_epoch)


@pytest.mark.parametrize(
    ("n_base", "epochs"), [(1_200, 320), (1_196, 320), (6_000, 160), (11_959, 160), (12_000, 160)]
)
def test_bloodmnist_epochs_and_rate(n_base, epochs):
    resolved = resolve(recipe("paper/bloodmnist"), n_base=n_base, n_total=n_base, **BLOOD)
    assert (resolved.epochs, resolved.lr, resolved.batch, resolved.weight_decay) == (
        epochs,
        0.01,
        128,
        1e-4,
    )


def test_multistep_rates_on_both_sides_of_each_drop():
    resolved = resolve(recipe("paper/cifar10"), n_base=25_000, n_total=25_000, **CIFAR)
    # 196 steps per epoch: drops at 80·196 = 15,680 and 120·196 = 23,520; 31,360 steps.
    expected = {0: 0.1, 15_679: 0.1, 15_680: 0.01, 23_519: 0.01, 23_520: 0.001, 31_359: 0.001}
    for step, lr in expected.items():
        assert resolved.lr_at(step, 25_000) == pytest.approx(lr, rel=1e-12), step
    for outside in (-1, 31_360):
        with pytest.raises(ValueError, match="outside"):
            resolved.lr_at(outside, 25_000)


def test_drops_follow_the_total_amount_not_the_base():
    resolved = resolve(recipe("paper/cifar10"), n_base=500, n_total=1_000, **CIFAR)
    # 1,000 images are 8 steps; the base's 480 epochs stay.
    assert resolved.total_steps(1_000) == 3_840
    assert [resolved.lr_at(s, 1_000) for s in (1_919, 1_920, 2_879, 2_880)] == pytest.approx(
        [0.1, 0.01, 0.01, 1e-3]
    )


def test_cosine_with_ten_percent_warm_up_by_hand():
    resolved = resolve(
        recipe("paper/imagenet"), n_base=650, n_total=650, n_dataset=13_000, classifier="resnet50"
    )
    assert resolved.total_steps(650) == 10_000
    # Warm-up 1,000 steps: 0.1·(s+1)/1000. Then 0.05·(1 + cos(π·(s − 1000)/9000)).
    expected = {
        0: 1e-4,
        499: 0.05,
        999: 0.1,
        1_000: 0.1,
        3_250: 0.05 * (1 + 2**-0.5),  # a quarter of the way
        5_500: 0.05,
        7_000: 0.025,  # two thirds: cos 120° = -1/2
        9_999: 0.1 * 3.0461741e-08,  # sin²(π/2 · 1/9000)
    }
    for step, lr in expected.items():
        assert resolved.lr_at(step, 650) == pytest.approx(lr, rel=1e-6), step


@pytest.mark.parametrize(
    ("n_total", "steps"),
    [
        (650, 10_000),
        (1_299, 10_000),
        (1_300, 30_000),
        (2_599, 30_000),
        (2_600, 60_000),
        (12_999, 60_000),
        (13_000, 120_000),
        (260_000, 120_000),
    ],
)
def test_table_4_bins_at_their_edges(n_total, steps):
    resolved = resolve(
        recipe("paper/imagenet"), n_base=0, n_total=n_total, n_dataset=130_000, classifier="vit-b32"
    )
    assert (resolved.steps, resolved.total_steps(n_total)) == (steps, steps)


@pytest.mark.parametrize("n_total", [1, 649, 260_001])
def test_outside_table_4_is_refused(n_total):
    with pytest.raises(ValueError, match="650 to 260,000"):
        resolve(
            recipe("paper/imagenet"),
            n_base=0,
            n_total=n_total,
            n_dataset=130_000,
            classifier="resnet50",
        )


def test_table_5_differs_by_classifier_only_in_weight_decay():
    sizes = {"n_base": 6_500, "n_total": 13_000, "n_dataset": 130_000}
    resnet, vit, alias = (
        resolve(recipe("paper/imagenet"), classifier=name, **sizes).payload()
        for name in ("resnet50", "vit_base_patch32_224", "vit-b32")
    )
    assert (resnet.pop("weight_decay"), vit.pop("weight_decay"), alias.pop("weight_decay")) == (
        1e-4,
        0.0,
        0.0,
    )
    assert resnet == vit == alias
    assert (resnet["batch"], resnet["lr"], resnet["momentum"], resnet["warmup"]) == (
        192,
        0.1,
        0.9,
        0.1,
    )
    assert resnet["decay"] == {"kind": "cosine"}
    assert resnet["augmentation"]["resized_crop"]["size_px"] == 224
    assert resnet["augmentation"]["flip"] is True


def test_table_6_settings_switch_crop_and_flip_separately():
    def switches(name):
        augmentation = RECIPES[name].augmentation
        return augmentation.crop_padding_px, augmentation.flip

    for name in ("paper/cifar10", "smoke/cifar10"):
        assert switches(name) == (4, True)
        assert switches(f"{name}-plain") == (0, False)
        assert switches(f"{name}-flip") == (0, True)
        assert switches(f"{name}-crop") == (4, False)
        plain = RECIPES[f"{name}-plain"]
        assert (
            plain.model_copy(update={"augmentation": RECIPES[name].augmentation}) == RECIPES[name]
        )


def test_equal_trainings_have_equal_payloads_and_others_do_not():
    def payload(n_base, n_total):
        resolved = resolve(recipe("paper/cifar10"), n_base=n_base, n_total=n_total, **CIFAR)
        return json.dumps(resolved.payload(), sort_keys=True)

    assert payload(25_000, 50_000) == payload(50_000, 50_000)
    assert payload(5_000, 25_000) != payload(25_000, 25_000)  # 320 against 160 epochs
    mapping = {"extends": "paper/cifar10", "epochs": 160}
    mine = resolve(recipe(mapping), n_base=10, n_total=50_000, **CIFAR)
    assert json.dumps(mine.payload(), sort_keys=True) == payload(50_000, 50_000)


def test_extends_replaces_only_what_is_given():
    mine = recipe({"extends": "paper/cifar10", "steps": 1_000, "augmentation": {"flip": True}})
    assert (mine.steps, mine.epochs_by_base, mine.batch) == (1_000, None, 128)
    assert (mine.augmentation.flip, mine.augmentation.crop_padding_px) == (True, 0)
    by_alias = recipe({"extends": "digits", "by_classifier": {"vit-b32": {"lr": 0.5}}})
    sizes = {"n_base": 1, "n_total": 1, "n_dataset": 1}
    assert resolve(by_alias, classifier="vit_base_patch32_224", **sizes).lr == 0.5


def test_steps_and_partial_epochs():
    resolved = resolve(
        recipe("digits"), n_base=100, n_total=100, n_dataset=1_797, classifier="digits-cnn"
    )
    assert (resolved.total_steps(100), resolved.steps_per_epoch(100)) == (300, 4)
    assert resolved.steps_per_epoch(20) == 1  # a batch larger than the data is all of the data


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("paper/cifar", "paper/cifar10"),
        (7, "a name or a mapping"),
        ({"batch": 32, "lr": 0.1}, "exactly one of epochs, steps"),
        ({"batch": 32, "lr": 0.1, "steps": 5, "epochs": 5}, "exactly one of epochs, steps"),
        ({"batch": 0, "lr": 0.1, "steps": 5}, "batch: .*greater than or equal to 1"),
        ({"batch": 1, "lr": float("nan"), "steps": 5}, "lr: "),
        ({"batch": 1, "lr": 0.1, "steps": 5, "learning": 1}, "learning: Extra inputs"),
        (
            {"batch": 1, "lr": 0.1, "steps": 5, "decay": {"kind": "multistep", "at": [0.7, 0.5]}},
            "rising fractions",
        ),
        (
            {
                "extends": "paper/cifar10",
                "augmentation": {"crop_padding_px": 4, "resized_crop": {}},
            },
            "choose one crop",
        ),
        (
            {"extends": "paper/imagenet", "steps_by_total": [{"from_total": 9, "steps": 1}] * 2},
            "must rise",
        ),
        ({"batch": 1, "lr": 0.1, "steps": 5, "momentum": 0, "nesterov": True}, "nesterov needs"),
    ],
)
def test_bad_recipes_are_one_line_that_says_what_is_right(bad, said):
    with pytest.raises(ValueError, match=said) as raised:
        recipe(bad)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("sizes", [(0, 0, 10), (-1, 5, 10), (1, 20, 0)])
def test_impossible_sizes_are_refused(sizes):
    n_base, n_total, n_dataset = sizes
    with pytest.raises(ValueError, match="n_base"):
        resolve(
            recipe("digits"),
            n_base=n_base,
            n_total=n_total,
            n_dataset=n_dataset,
            classifier="digits-cnn",
        )


def test_all_named_recipes_validate_again_from_their_data():
    for name, value in RECIPES.items():
        assert Recipe.model_validate(value.model_dump(exclude_none=True)) == value, name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resnet11", 32, 32, 3, 10), "resnet110"),
        (("timm/resnet5", 224, 224, 3, 10), "timm/resnet50"),
        (("resnet110", 4, 32, 3, 10), "at least 8×8"),
        (("resnet50", 28, 28, 3, 10), "at least 32×32"),
        (("vit-b32", 200, 224, 3, 10), "multiples of 32"),
        (("digits-cnn", 8, 8, 1, 1), "at least 2 classes"),
        (("digits-cnn", 8, 8, 0, 10), "positive"),
    ],
)
def test_classifiers_that_do_not_fit_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        check(*arguments)
