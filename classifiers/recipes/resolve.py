"""From a recipe and a trial's sizes to everything that determines the training."""

from __future__ import annotations

import math

from equigrid.classifiers.names import canonical
from equigrid.classifiers.recipes.model import BaseRung, Override, Recipe, ResolvedRecipe, Settings


def resolve(
    recipe: Recipe,
    *,
    n_base: int,
    n_total: int,
    n_dataset: int,
    classifier: str,
    arm: str | None = None,
) -> ResolvedRecipe:
    """Decide the length and the classifier's own settings.

    n_base, n_total, n_dataset: images in the base subset, in the whole mix, in the dataset's
    training set (nominal sizes where the paper rounds). classifier: a model's name; it selects the
    override only. arm: what the mix is in a grid, for recipes that differ by arm. Raises
    ValueError for sizes out of order and for totals that the recipe's bins do not cover.
    """
    # n_base may be a rounded name for a whole set of fewer images, so it is not held against the
    # other two.
    if n_total < 1 or n_dataset < 1 or n_base < 0:
        raise ValueError(
            f"sizes must satisfy n_total >= 1, n_dataset >= 1 and n_base >= 0, "
            f"got n_base={n_base}, n_total={n_total}, n_dataset={n_dataset}"
        )
    recipe = recipe.for_arm(arm)
    override = recipe.by_classifier.get(canonical(classifier), Override())
    changed = {name: value for name, value in override if value is not None}
    shared = {name: getattr(recipe, name) for name in Settings.model_fields}
    return ResolvedRecipe(**(shared | changed | _length(recipe, n_base, n_total, n_dataset)))


def _length(recipe: Recipe, n_base: int, n_total: int, n_dataset: int) -> dict[str, int]:
    if recipe.epochs:
        return {"epochs": recipe.epochs}
    if recipe.steps:
        return {"steps": recipe.steps}
    if recipe.steps_by_base:
        n = n_base or n_total  # without a base, what there is
        first, *others = recipe.steps_by_base
        return {"steps": [first, *(rung for rung in others if rung.from_base <= n)][-1].steps}
    if recipe.epochs_by_base:
        if n_base < 1:
            raise ValueError(
                "epochs_by_base needs a base set: n_base is 0; give the recipe epochs or steps"
            )
        return {"epochs": _nearest_rung(recipe.epochs_by_base, n_base / n_dataset).epochs}
    return {"steps": _bin(recipe, n_total)}


def _nearest_rung(rungs: tuple[BaseRung, ...], fraction: float) -> BaseRung:
    """The paper names sizes, not ranges: between two of them the nearer one by ratio counts."""
    return min(rungs, key=lambda rung: abs(math.log(fraction / rung.base_fraction)))


def _bin(recipe: Recipe, n_total: int) -> int:
    rungs, last = recipe.steps_by_total, recipe.total_max
    assert rungs is not None, "a recipe has one of the four lengths"
    covered = [rung for rung in rungs if rung.from_total <= n_total]
    if not covered or (last is not None and n_total > last):
        raise ValueError(
            f"steps_by_total covers {rungs[0].from_total:,} to {f'{last:,}' if last else 'any'} "
            f"images, got {n_total:,} in all; give a recipe with fixed steps for this size"
        )
    return covered[-1].steps
