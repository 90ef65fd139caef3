"""What `equigrid tune` searches: the `tune` block of a spec. It is never part of an id of a grid's
jobs.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from equigrid.payloads import Frozen

TuneMetric = Literal["top1", "balanced_accuracy", "macro_f1", "auc", "sensitivity", "specificity"]
MOST_TRIALS = 10_000
Number = int | float


class Range(Frozen):
    """Numbers between two ends."""

    low: Number
    """The smallest."""
    high: Number
    """The largest."""
    log: bool = False
    """Whether factors count, not differences: for rates."""
    step: Number | None = None
    """Only every so many from `low` on."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must lie below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, got {self.low}")
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            raise ValueError(
                f"step {self.step} must lie between 0 and high - low, and goes without log"
            )
        return self


def _varied(value: object) -> object:
    if isinstance(value, list | tuple):
        if len(value) < 2:
            raise ValueError(f"{list(value)}: a choice has at least two values")
        if len({repr(one) for one in value}) < len(value):
            raise ValueError(f"{list(value)} has a value twice; name each once")
        return tuple(value)
    if isinstance(value, Range):
        return value
    if isinstance(value, dict):
        try:
            return Range.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"{where}: {message}" if where else message) from error
    raise ValueError(
        f"{value!r}: write a list of values, such as [32, 64], or {{low: 0.01, high: 0.3, log: "
        "true}"
    )


Varied = Annotated[Range | tuple[Any, ...], BeforeValidator(_varied)]
"""A list of values to choose from, or a range."""


def _some(space: object) -> object:
    if space == {}:
        raise ValueError("is empty: name what is searched, such as lr: [0.03, 0.1, 0.3]")
    return space


Space = Annotated[dict[str, Varied], BeforeValidator(_some)]
"""By the dotted name of a recipe's (or generator's) key: what it may be."""


class Tune(Frozen):
    """The search of a recipe (or of a generator's duration and guidance) by `equigrid tune`."""

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS, strict=True)] = 16
    """Recipes that are tried, for each arm where `per_arm` says so; those that fall behind are
    stopped early.
    """
    metric: TuneMetric = "top1"
    """What is made large, on the validation images."""
    space: Space | None = None
    """By dotted key of a recipe, such as `lr` or `augmentation.flip`, a list of values or a range
    `{low, high, log, step}`; `length` is a factor on how long the recipe trains. Null: what
    docs/tuning.md lists.
    """
    per_arm: bool = False
    """Whether each arm (base, real, syn, copies, mix) has a search of its own, of equally many
    trials.
    """
    confirm: Annotated[int, Field(ge=0, le=1_000, strict=True)] = 3
    """Fresh seeds with which the best recipe, and the grid's own, are trained again: what they
    reach is no longer chosen for being high.
    """
    looks: Annotated[int, Field(ge=1, le=1_000, strict=True)] = 4
    """At the validation images in each training; after each, the search may stop it."""
    reduction: Annotated[int, Field(ge=2, le=16, strict=True)] = 2
    """One in so many goes on at each rung (ASHA's reduction factor)."""
    classifier: str | None = None
    """That is trained; null: the grid's first."""
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0
    """Of the search's draws."""
