"""Augmentations of a base as an arm: which trainings, for how many steps, and what is refused."""

from collections import Counter

import pytest

from equigrid.grid.errors import UserError
from equigrid.grid.planning.growth import Place, with_places
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.remarks import remarks
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load


def planned(spec: dict):
    return plan(resolve(load(spec), None))


@pytest.fixture
def augmented(mini) -> dict:
    mini["recipe"] = {"extends": "digits", "epochs": 7, "augmentation": {"crop_padding_px": 1}}
    mini["blocks"][0]["augmentations"] = {
        "mixed": {"mixup": 0.2}, "own": {}, "bare": {"crop_padding_px": 0}, "trivial": "trivial-augment",
    }  # fmt: skip
    return mini


def payloads(the_plan, n_base: int, arm: str) -> dict:
    """By the augmentation's name, or what was added."""
    return {
        cell.augmentation or cell.n_syn + cell.n_copies: the_plan.jobs[cell.trial_id].payload
        for cell in the_plan.cells
        if cell.n_base == n_base and cell.arm == arm and cell.seed == 0
    }


def test_each_trains_the_base_for_the_steps_of_as_many_added_images(augmented):
    the_plan = planned(augmented)
    arms = Counter((cell.n_base, cell.arm) for cell in the_plan.cells)
    assert arms[60, "augmentation"] == arms[120, "augmentation"] == 4 * 2
    for n in (60, 120):
        found = payloads(the_plan, n, "augmentation")
        assert list(found) == ["mixed", "own", "bare", "trivial"]
        (base,) = payloads(the_plan, n, "base").values()
        copies, syn = payloads(the_plan, n, "copies")[n], payloads(the_plan, n, "syn")[n]
        steps = syn.recipe.total_steps(syn.n_total)
        assert steps == copies.recipe.total_steps(copies.n_total) == 7 * -(-2 * n // 32)
        assert steps > base.recipe.total_steps(n)
        for name, payload in found.items():
            assert payload.n_total == n
            assert (payload.real, payload.syn, payload.copies) == (base.real, None, None)
            assert payload.recipe.total_steps(n) == steps, name
            # The rate falls as it does there: the same schedule over the same steps.
            rates = [payload.recipe.lr_at(step, n) for step in range(0, steps, 3)]
            assert rates == [syn.recipe.lr_at(step, 2 * n) for step in range(0, steps, 3)]
        own = {name: payload.recipe.augmentation for name, payload in found.items()}
        assert own["own"] == base.recipe.augmentation
        assert (own["mixed"].mixup, own["mixed"].crop_padding_px) == (0.2, 1)
        assert own["bare"].crop_padding_px == 0
        assert own["trivial"].trivial_augment
    assert str(next(c for c in the_plan.cells if c.augmentation == "mixed")) == (
        "60 real with mixed, digits-cnn, subset 0, seed 0"
    )


def test_with_fixed_steps_the_recipes_own_is_the_base_itself(mini):
    mini["blocks"][0]["augmentations"] = {"own": {}}
    the_plan = planned(mini)
    own = {c.trial_id for c in the_plan.cells if c.arm == "augmentation"}
    assert own == {c.trial_id for c in the_plan.cells if c.arm == "base"}


def test_steps_are_of_the_amount_that_the_block_names(augmented):
    augmented["blocks"][0]["augmentation_steps_of"] = "300 images"
    the_plan = planned(augmented)
    for payload in payloads(the_plan, 60, "augmentation").values():
        assert payload.recipe.steps == 7 * -(-360 // 32)
    (line,) = [line for line in remarks(the_plan) if "augmentations" in line]
    assert line == (
        "warning: blocks.0.augmentations: nothing is added whose steps they make "
        "(augmentation_steps_of 300 images); add 300 images to copies or to one of syn"
    )


def test_nothing_else_of_a_grid_changes(augmented):
    with_them = planned(augmented)
    del augmented["blocks"][0]["augmentations"]
    without = planned(augmented)
    others = [cell for cell in with_them.cells if cell.arm != "augmentation"]
    assert others == without.cells
    assert set(without.jobs) <= set(with_them.jobs)


def test_a_list_names_presets(augmented):
    augmented["blocks"][0]["augmentations"] = ["mixup", "cutmix"]
    assert list(payloads(planned(augmented), 60, "augmentation")) == ["mixup", "cutmix"]


def test_a_grid_that_grows_by_a_question_grows_its_base_not_what_is_augmented(augmented):
    the_plan = planned(augmented)
    place = Place(60, 0, 0, 0, None, 0, None, 5)
    grown = with_places(the_plan.resolved.spec, the_plan.cells, [place])
    block = grown.blocks[-1]
    assert block.base
    assert not block.augmentations


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": {"mixupp": 1}}, r"augmentations.x: unknown augmentation 'mixupp'; nearest: mixup"),
        ({"x": "mixpu"}, r"augmentations.x: unknown augmentation 'mixpu'; nearest: mixup"),
        ({"x": {"mixup": -1}}, r"augmentations.x: mixup: .*greater than 0 \(got -1\)"),
        (
            {"x": {"rand_augment": {}, "trivial_augment": True}},
            r"augmentations.x: rand_augment and trivial_augment exclude each other",
        ),
        ({"x": {"resized_crop": {}}}, r"augmentations.x: .* exclude each other: choose one crop"),
        (
            {"x": {"crop_padding_px": 0, "resized_crop": {"size_px": 3}}},
            r"augmentations.x: digits-cnn takes images of at least 4×4 pixels, got 3×3",
        ),
        ({"x": {"crop_padding_px": 50}}, r"augmentations.x: crop_padding_px 50 is more than"),
        ({"x": 3}, r"augmentations.x"),
        (["mixup", "mixup"], r"mixup is there twice"),
    ],
)
def test_bad_ones_are_one_line_that_names_the_place(augmented, changes, said):
    augmented["blocks"][0]["augmentations"] = changes
    with pytest.raises(UserError, match=rf"blocks.0.*{said}") as caught:
        planned(augmented)
    assert "\n" not in str(caught.value)


def test_one_name_is_one_augmentation_of_a_base(augmented):
    again = {"n_base": 60, "augmentations": {"mixed": {"mixup": 0.3}}}
    augmented["blocks"].append(again)
    with pytest.raises(UserError, match="augmentations.mixed is two things at a base of 60"):
        planned(augmented)
    again["augmentations"] = {"mixed": {"mixup": 0.2}}
    assert planned(augmented)


def test_without_a_base_there_is_nothing_to_augment(mini):
    mini["blocks"] = [{"n_base": 0, "syn": {"edm": "60 images"}, "augmentations": ["mixup"]}]
    with pytest.raises(UserError, match="n_base 0 has no images to augment"):
        planned(mini)
    mini["blocks"] = [{"n_base": 60, "augmentations": ["mixup"], "augmentation_steps_of": "all"}]
    with pytest.raises(UserError, match="augmentation_steps_of: all means the real images"):
        planned(mini)


def test_zero_shot_takes_neither_rivals_nor_mixed_images(plan_of):
    spec = plan_of("imagenet10-zero-shot").resolved.spec.model_dump(mode="json", exclude_none=True)
    spec["recipe"] = {"extends": "paper/imagenet", "augmentation": {"mixup": 0.2}}
    with pytest.raises(UserError, match="a mixed image has none; leave out mixup and cutmix"):
        planned(spec)
    spec["recipe"] = "paper/imagenet"
    spec["blocks"][0]["augmentations"] = ["mixup"]
    with pytest.raises(UserError, match="leave out real, copies, mixes, augmentations"):
        planned(spec)


def test_the_presets_compare_at_equal_steps(plan_of):
    for name, n_augmentations in (("digits-augmentations", 8), ("cifar10-augmentations", 7)):
        the_plan = plan_of(name)
        steps: dict[tuple, set] = {}
        for cell in the_plan.cells:
            payload = the_plan.jobs[cell.trial_id].payload
            if cell.arm in ("syn", "copies", "augmentation"):
                place = cell.n_base, cell.recipe
                steps.setdefault(place, set()).add(payload.recipe.total_steps(payload.n_total))
        assert all(len(found) == 1 for found in steps.values()), name
        names = {c.augmentation for c in the_plan.cells if c.recipe != "paper/cifar10-plain"}
        assert len(names - {None}) == n_augmentations
