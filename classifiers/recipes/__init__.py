"""How long and how a classifier trains: recipes as data, the paper's among them. Imports no
torch.
"""

from equigrid.classifiers.recipes.augmentation import Erasing, RandAugment
from equigrid.classifiers.recipes.model import (
    Augmentation,
    BaseRung,
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
    "AUGMENTATIONS",
    "RECIPES",
    "Augmentation",
    "BaseRung",
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
    "recipe",
    "resolve",
]
