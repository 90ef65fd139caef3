"""A classifier of a grid: a name that is trained from scratch, or pre-trained weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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


def started(weights: FromWeights | None) -> Start | None:
    """What a body's training starts from; None for one from scratch."""
    return None if weights is None else weights.start()
