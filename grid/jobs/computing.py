"""What training and asking a classifier computes, for the kinds of job that do."""

from equigrid.classifiers import flops
from equigrid.classifiers.models.pretraining import Start
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.generators.base_config import TRAINING_PASSES
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.jobs.classifier import FromWeights
from equigrid.grid.jobs.kind import Work

# A step of what learns only in part: with frozen layers no gradient of their weights, and where
# the last layer alone learns none of their activations either.
PASSES = {"all": TRAINING_PASSES, "lora": 2, "head": 1}


def training(
    classifier: str,
    recipe: ResolvedRecipe,
    n: int,
    shape: Shape,
    *,
    evaluated: int,
    weights: FromWeights | None = None,
) -> Work | None:
    """What training a classifier on n images of the dataset's size, and evaluating it on others,
    computes.
    """
    size = recipe.input_size(shape.height, shape.width)
    start = Start(weights.how) if weights else None
    found = flops.forward(classifier, *size, shape.channels, start)
    if found is None:
        return None
    trained = recipe.total_steps(n) * min(recipe.batch, n)
    passes = PASSES[weights.how.train] if weights else TRAINING_PASSES
    return Work((passes * trained + evaluated) * found.per_image, found.wide)
