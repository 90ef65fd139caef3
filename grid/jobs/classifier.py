"""A classifier of a grid: a name that is trained from scratch, or pre-trained weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from equigrid.classifiers import names
from equigrid.classifiers.models.pretraining import Pretraining, Start
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.generators.common import hub
from equigrid.generators.common.digests import sha256
from equigrid.grid.jobs.job import HOW, Identified


@dataclass(frozen=True, kw_only=True)
class FromWeights(Identified):
    """What a training starts from. how: by content. place: where the file lies, a path or an
    address on a hub. label: the classifier's name in rows. told: the row's word on the weights.
    """

    how: Pretraining
    place: str = field(metadata=HOW)
    label: str = field(metadata=HOW)
    told: str = field(metadata=HOW)

    def start(self) -> Start:
        """For a training on this machine. Raises ValueError where the weights are not, or no longer
        what was planned with.
        """
        path = hub.local(self.place, "pretrained")
        if (found := sha256(path, "pretrained")) != self.how.weights:
            raise ValueError(
                f"pretrained: {self.place} has the SHA-256 {found[:12]}…, and the trial was planned"
                f" with {self.how.weights[:12]}…; plan and run anew"
            )
        return Start(self.how, path)


@dataclass(frozen=True)
class Classifier:
    """One entry of the spec's `classifiers`. name: in rows, fits and reports. model: as
    `equigrid.classifiers.models.build` takes it. settings: what it does otherwise than the recipe.
    """

    name: str
    model: str
    weights: FromWeights | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str) -> "Classifier":
        """One that is trained from scratch."""
        return cls(name, name)

    def settled(self, recipe: ResolvedRecipe) -> ResolvedRecipe:
        """The recipe with what this classifier does otherwise."""
        return ResolvedRecipe(**{**dict(recipe), **self.settings}) if self.settings else recipe

    def check(self, height: int, width: int, channels: int, classes: int) -> None:
        """Raises ValueError unless it takes such images, of the size that it sees."""
        if self.weights is None:
            names.check(self.model, height, width, channels, classes)
            return
        how = self.weights.how
        if channels not in (1, how.channels):
            what = f"the weights take {how.channels} channels, the images have {channels}"
            raise ValueError(what)
        try:
            names.check_timm(self.model, height, width, how.channels, how.args)
        except ValueError as error:
            right = "augmentation: {resized_crop: {size_px: …}}, or args: {img_size: …}"
            raise ValueError(f"{error}; give the recipe {right}") from error

    def check_recipe(
        self, recipe: ResolvedRecipe, height: int, width: int, channels: int, classes: int
    ) -> None:
        """Raises ValueError for a recipe by which it cannot be trained on such images, as they are
        stored.
        """
        recipe.augmentation.check(height, width, channels)
        self.check(*recipe.input_size(height, width), channels, classes)
        seen = self.weights.how.channels if self.weights else channels
        if recipe.normalisation and (given := len(recipe.normalisation.mean)) != seen:
            what = f"its mean and std are of {given} channels, and {self.name} sees {seen}"
            raise ValueError(f"normalisation: {what}; give {seen}, or leave it out")
        if recipe.head_lr is not None:
            names.check_head(self.model)


def started(weights: FromWeights | None) -> Start | None:
    """What a body's training starts from; None for one from scratch."""
    return None if weights is None else weights.start()
