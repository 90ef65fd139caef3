"""How long and how a classifier trains: recipes as data, the paper's among them. Imports no
torch.
"""

from equigrid.classifiers.recipes.default import DEFAULT, default
from equigrid.classifiers.recipes.model import (
    ARMS,
    LENGTHS,
    Augmentation,
    BaseRung,
    BaseSteps,
    Constant,
    Cosine,
    Decay,
    Multistep,
    Normalisation,
    Override,
    Recipe,
    ResizedCrop,
    ResolvedRecipe,
    TotalRung,
)
from equigrid.classifiers.recipes.paper import RECIPES, recipe
from equigrid.classifiers.recipes.resolve import resolve

__all__ = [
    "ARMS",
    "DEFAULT",
    "LENGTHS",
    "RECIPES",
    "Augmentation",
    "BaseRung",
    "BaseSteps",
    "Constant",
    "Cosine",
    "Decay",
    "Multistep",
    "Normalisation",
    "Override",
    "Recipe",
    "ResizedCrop",
    "ResolvedRecipe",
    "TotalRung",
    "default",
    "recipe",
    "resolve",
]
