"""Classifiers that start from pre-trained weights: what a spec says of them, and what of that
determines a training. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from equigrid.classifiers.recipes import Normalisation, Override
from equigrid.payloads import Frozen

Trained = Literal["all", "head", "lora"]
DEFAULT_RANK = 8
_DIGITS = re.compile(r" \(pretrained [0-9a-f]{8}: ")
Argument = bool | int | float | str | list[bool | int | float | str]


class PretrainedClassifier(Frozen):
    """A network of timm's that starts from pre-trained weights, and so knows other people's
    data: `{timm: resnet18, pretrained: a1_in1k, train: head}`.
    """

    timm: str = Field(min_length=1)
    """The architecture, as timm names it; it may bring the tag of its weights
    (`resnet18.a1_in1k`).
    """
    pretrained: bool | str
    """Where the weights lie: true for timm's own of that name, a tag of timm's, `hf-hub:OWNER/NAME`
    (with `@REVISION` if need be), `hf://OWNER/NAME/PATH.safetensors`, or a local safetensors file
    or folder (`model.safetensors` and `config.json`, as timm saves them).
    """
    train: Trained = "all"
    """What learns: all weights; the new last layer alone (head); or low-rank additions to the
    linear layers, and the last layer (lora).
    """
    rank: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None
    """Of lora's additions; null: 8."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """Lora's additions are multiplied by alpha / rank; null: as large as the rank."""
    args: dict[str, Argument] = {}
    """What timm's create_model is given besides, over what the weights' config.json says:
    `{img_size: 64}`.
    """
    normalisation: Normalisation | None = None
    """Of the images, in place of what the weights' config.json, or timm for the architecture,
    says; never measured on the mix, and never the recipe's.
    """
    recipe: Override = Override()
    """What this classifier does otherwise than the grid's recipe."""

    @field_validator("pretrained")
    @classmethod
    def _some_weights(cls, value: bool | str) -> bool | str:
        if not value:
            raise ValueError(
                f"{value!r} names no weights; for a training from scratch write timm/NAME as the "
                "classifier"
            )
        return value

    @model_validator(mode="after")
    def _lora_alone(self) -> Self:
        if self.train != "lora" and (self.rank is not None or self.alpha is not None):
            raise ValueError(f"rank and alpha are of train: lora, and train is {self.train}")
        return self

    @property
    def architecture(self) -> str:
        """timm's name without a tag of weights."""
        return self.timm.removeprefix("timm/").partition(".")[0]

    @property
    def how(self) -> str:
        """What learns, in a word or two."""
        return f"lora {self.rank or DEFAULT_RANK}" if self.train == "lora" else self.train

    @property
    def spelled(self) -> str:
        """`label` without the digits."""
        changes = self.recipe.identity(exclude_none=True)
        told = [f"{k} {v}" for k, v in changes.items() if isinstance(v, int | float | str)]
        name = self.timm.removeprefix("timm/")
        # Without a comma, at which the command line's questions are cut.
        return f"{name} (pretrained: {'; '.join([self.how, *told])})"

    def label(self, pretraining: Pretraining, normalisation: Normalisation) -> str:
        """The classifier's name in rows, fits and reports: no two that train otherwise share one,
        and none a classifier's that starts from scratch.
        """
        what = [
            pretraining.identity(),
            normalisation.identity(),
            self.recipe.identity(exclude_none=True),
        ]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return self.spelled.replace(" (pretrained:", f" (pretrained {digest[:8]}:", 1)


def unhashed(label: str) -> str:
    """A label as a question may name it: without the digits that its weights give it."""
    return _DIGITS.sub(" (pretrained: ", label)


class Pretraining(Frozen):
    """What of pre-trained weights determines a training, besides the recipe."""

    weights: str
    """SHA-256 of the file, hexadecimal."""
    train: Trained
    channels: int
    """That the weights take; a grey image is repeated to fill three."""
    args: str = "{}"
    """Further arguments of timm's create_model, as canonical JSON."""
    rank: int | None = None
    alpha: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Of create_model."""
        return json.loads(self.args)


@dataclass(frozen=True)
class Start:
    """What a training starts from. path: the file of weights on this machine; None builds the
    network alone, for weights that come from elsewhere.
    """

    how: Pretraining
    path: str | None = None
