"""What training and asking a classifier computes, for the kinds of job that do."""

from equigrid.classifiers import flops
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.generators.base_config import TRAINING_PASSES
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.jobs.kind import Work


def training(
    classifier: str, recipe: ResolvedRecipe, n: int, shape: Shape, *, evaluated: int
) -> Work | None:
    """What training a classifier on n images of the dataset's size, and evaluating it on others,
    computes.
    """
    found = flops.forward(classifier, *recipe.input_size(shape.height, shape.width), shape.channels)
    if found is None:
        return None
    trained = recipe.total_steps(n) * min(recipe.batch, n)
    return Work((TRAINING_PASSES * trained + evaluated) * found.per_image, found.wide)
