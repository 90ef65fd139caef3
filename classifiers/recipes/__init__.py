"""How long and how a classifier trains: recipes as data, the paper's among them. Imports no
torch.
"""

from equigrid.classifiers.recipes.augmentation import Erasing, RandAugment
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
from equigrid.classifiers.recipes.rivals import AUGMENTATIONS, augmented

__all__ = [
    "ARMS",
    "AUGMENTATIONS",
    "DEFAULT",
    "LENGTHS",
    "RECIPES",
    "Augmentation",
    "BaseRung",
    "BaseSteps",
    "Constant",
    "Cosine",
    "Decay",
    "Erasing",
    "Multistep",
    "Normalisation",
    "Override",
    "RandAugment",
    "Recipe",
    "ResizedCrop",
    "ResolvedRecipe",
    "TotalRung",
    "augmented",
    "default",
    "recipe",
    "resolve",
]
