"""How long and how a classifier trains: recipes as data, the paper's among them.

A `Recipe` is what a spec says; `resolve` decides everything that depends on the trial's sizes and
on the classifier, and gives a `ResolvedRecipe`, whose `payload()` is what determines the training.
Nothing here imports torch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from equigrid.classifiers.names import canonical
from equigrid.classifiers.recipes.augmentation import POLICIES, Erasing, RandAugment
from equigrid.payloads import Frozen

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

LENGTHS = ("epochs", "steps", "epochs_by_base", "steps_by_total", "steps_by_base")
"""How a recipe may say how long it trains."""
ARMS = ("base", "real", "syn", "copies", "mix")
"""Arms of a grid that may have a recipe of their own."""


class ResizedCrop(Frozen):
    """A crop of random area and aspect, resized to a square. Ranges are torchvision's: the paper
    names none.
    """

    original: ClassVar = ("size_px", "scale", "ratio")

    size_px: int = Field(224, ge=1)
    """Side after it."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Part of the image's area that is cropped."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width to height of the crop."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be 0 < low <= high <= 1, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be 0 < low <= high, got {self.ratio}")
        return self


class Augmentation(Frozen):
    """What happens to a training image. Evaluation images are only resized, never augmented."""

    original: ClassVar = ("crop_padding_px", "flip", "resized_crop")

    crop_padding_px: int = Field(
        0, ge=0, description="black border, then a crop of the original size"
    )
    flip: bool = Field(False, description="mirror left-right with probability one half")
    resized_crop: ResizedCrop | None = None
    """A random crop, resized."""
    rand_augment: RandAugment | None = None
    """Some operations of one magnitude, drawn for each image."""
    trivial_augment: bool = False
    """One operation of a random magnitude for each image (Müller and Hutter 2021): torchvision's
    `TrivialAugmentWide`.
    """
    auto_augment: Literal["cifar10", "imagenet", "svhn"] | None = None
    """Pairs of operations as they were found for one of these datasets (Cubuk et al. 2019)."""
    erasing: Erasing | None = None
    """A rectangle of one grey level in some images."""
    mixup: Annotated[float, Field(gt=0.0, le=1000.0)] | None = None
    """Images and labels of each batch are mixed in pairs, by a part drawn from Beta(mixup, mixup)
    (Zhang et al. 2018). With cutmix too, each batch draws which of the two.
    """
    cutmix: Annotated[float, Field(gt=0.0, le=1000.0)] | None = None
    """A box of each image is that of another of the batch, of an area drawn from
    Beta(cutmix, cutmix), and labels are mixed by areas (Yun et al. 2019).
    """

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, data: Any) -> Any:
        """An unknown name is told with the nearest."""
        for name in data if isinstance(data, Mapping) else ():
            if name not in cls.model_fields:
                near = difflib.get_close_matches(str(name), cls.model_fields, n=3, cutoff=0.4)
                known = ", ".join(near or cls.model_fields)
                raise ValueError(f"unknown augmentation {name!r}; nearest: {known}")
        return data

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.crop_padding_px and self.resized_crop:
            raise ValueError("crop_padding_px and resized_crop exclude each other: choose one crop")
        chosen = [name for name in POLICIES if getattr(self, name)]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude each other: choose one policy")
        return self

    @property
    def mixes(self) -> bool:
        """Whether images of a batch, and their labels, are mixed."""
        return bool(self.mixup or self.cutmix)

    @property
    def policy(self) -> str | None:
        """The field that chooses operations for each image."""
        return next((name for name in POLICIES if getattr(self, name)), None)

    def check(self, height: int, width: int, channels: int) -> None:
        """Raises ValueError for images, as stored, that it cannot be applied to."""
        if self.policy and channels not in (1, 3):
            raise ValueError(
                f"{self.policy} is of grey or RGB images (1 or 3 channels), these have {channels}"
            )
        rows, columns = self.seen(height, width)
        if self.cutmix and min(rows, columns) < 2:
            raise ValueError(f"cutmix needs sides of at least 2 pixels, got {rows}×{columns}")

    def seen(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that the network sees for images stored at the given size."""
        crop = self.resized_crop
        return (crop.size_px, crop.size_px) if crop else (height, width)


class Constant(Frozen):
    """The rate stays as it is."""

    original: ClassVar = ("kind",)
    kind: Literal["constant"] = "constant"
    """Names it."""


class Multistep(Frozen):
    """Multiply the rate by `factor` at each fraction of the training given in `at`."""

    original: ClassVar = ("kind", "at", "factor")

    kind: Literal["multistep"] = "multistep"
    """The rate falls in steps."""
    at: tuple[Fraction, ...] = (0.5, 0.75)
    """Fractions of the training at which it does."""
    factor: float = Field(0.1, gt=0.0, le=1.0)
    """What it is multiplied by at each."""

    @field_validator("at")
    @classmethod
    def _rising(cls, at: tuple[float, ...]) -> tuple[float, ...]:
        if not at or any(b <= a for a, b in zip(at, at[1:])):
            raise ValueError(
                f"at must be rising fractions of the training, e.g. [0.5, 0.75], got {list(at)}"
            )
        return at


class Cosine(Frozen):
    """From the base rate, reached at the end of the warm-up, along half a cosine to zero."""

    original: ClassVar = ("kind",)

    kind: Literal["cosine"] = "cosine"
    """The rate falls along half a cosine."""


Decay = Annotated[Constant | Multistep | Cosine, Field(discriminator="kind")]


class Normalisation(Frozen):
    """Per-channel mean and deviation of pixels scaled to [0, 1]."""

    original: ClassVar = ("mean", "std")

    mean: tuple[float, ...]
    """Of each channel."""
    std: tuple[Annotated[float, Field(gt=0)], ...]
    """Of each channel."""

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(
                f"mean and std need one value per channel, got {len(self.mean)} and {len(self.std)}"
            )
        return self


class BaseRung(Frozen):
    """A named base size as a fraction of the dataset, and the epochs trained there."""

    base_fraction: Annotated[float, Field(gt=0.0, le=1.0)]
    """n_base / n_dataset."""
    epochs: Annotated[int, Field(ge=1)]
    """Trained there."""


class TotalRung(Frozen):
    """From this total amount of images (up to the next rung) train so many steps."""

    from_total: Annotated[int, Field(ge=1)]
    """Images of the mix, up to the next rung."""
    steps: Annotated[int, Field(ge=1)]
    """Trained there."""


class BaseSteps(Frozen):
    """From this base size (up to the next rung) train so many steps, in every arm."""

    from_base: Annotated[int, Field(ge=1)]
    """Images of the base, up to the next rung."""
    steps: Annotated[int, Field(ge=1)]
    """Trained there."""


class Override(Frozen):
    """What one classifier does otherwise than the recipe's other classifiers."""

    batch: Annotated[int, Field(ge=1)] | None = None
    """Images per step."""
    lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Of all weights."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """SGD's; AdamW's first beta."""
    warmup: Fraction | None = None
    """Fraction of the steps on which the rate rises."""
    decay: Decay | None = None
    """How the rate falls."""
    head_lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of the last layer, where it is another."""


class Settings(Frozen):
    """What a recipe and a resolved recipe share."""

    # fmt: off
    original: ClassVar[tuple[str, ...]] = (
        "batch", "lr", "decay", "warmup", "optimizer", "momentum", "nesterov", "weight_decay",
        "label_smoothing", "augmentation", "normalisation",
    )
    # fmt: on

    batch: int = Field(ge=1, description="images per step over all workers together")
    lr: float = Field(gt=0)
    """Base learning rate."""
    head_lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of the last layer, which rises and falls as lr does; null: lr. Above lr where
    the other layers were pre-trained.
    """
    decay: Decay = Multistep()
    """How the rate falls."""
    warmup: Fraction = Field(
        0.0, description="fraction of the steps on which the rate rises linearly"
    )
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="SGD's; AdamW's first beta")
    nesterov: bool = False
    """SGD with Nesterov's momentum."""
    weight_decay: float = Field(0.0, ge=0.0)
    """Of all weights."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    """Part of the target that is spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: an image counts the more in the loss the fewer the mix has of its class, so that
    all classes weigh the same; for uneven classes.
    """
    augmentation: Augmentation = Augmentation()
    normalisation: Normalisation | None = Field(
        None, description="none: measured on the training images"
    )

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that the network sees for images stored at the given size."""
        return self.augmentation.seen(height, width)


class Recipe(Settings):
    """A recipe as a spec gives it. Exactly one of the five lengths must be set.

    epochs, steps: fixed. epochs_by_base: the rung nearest, on a log scale, to n_base / n_dataset.
    steps_by_total: Table 4's bins, the last of which ends at `total_max` (inclusive).
    steps_by_base: by the base's size alone, so that all arms of a base train equally long.
    """

    epochs: int | None = Field(None, ge=1)
    """Passes over the mix."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps, whatever the mix."""
    epochs_by_base: tuple[BaseRung, ...] | None = Field(None, min_length=1)
    """The rung nearest, on a log scale, to n_base / n_dataset."""
    steps_by_total: tuple[TotalRung, ...] | None = Field(None, min_length=1)
    """Steps by the size of the mix."""
    total_max: int | None = Field(None, ge=1)
    """The largest mix that steps_by_total covers."""
    steps_by_base: tuple[BaseSteps, ...] | None = Field(None, min_length=1)
    """Steps by the size of the base, equal for all of its arms; the first rung covers smaller
    ones.
    """
    by_classifier: dict[str, Override] = {}
    """What one classifier does otherwise."""
    by_arm: dict[str, dict[str, Any]] = {}
    """What one arm (base, real, syn, copies, mix) does otherwise, such as `equigrid tune
    --per-arm` writes it: keys of a recipe.
    """

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(LENGTHS)}; got {', '.join(given) or 'none'}"
            )
        if self.steps_by_base:
            bases = [rung.from_base for rung in self.steps_by_base]
            if bases != sorted(set(bases)):
                raise ValueError(f"steps_by_base must rise in from_base, got {bases}")
        if self.steps_by_total:
            starts = [rung.from_total for rung in self.steps_by_total]
            if starts != sorted(set(starts)):
                raise ValueError(f"steps_by_total must rise in from_total, got {starts}")
            if self.total_max is not None and self.total_max < starts[-1]:
                raise ValueError(
                    f"total_max {self.total_max} is below the last rung's {starts[-1]}"
                )
        elif self.total_max is not None:
            raise ValueError("total_max belongs to steps_by_total")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs sgd with a momentum above 0")
        return self

    @model_validator(mode="after")
    def _arms_have_recipes(self) -> Self:
        for arm in self.by_arm:
            if arm not in ARMS:
                raise ValueError(f"by_arm: {arm!r} is no arm; there are {', '.join(ARMS)}")
            if inner := {"by_arm", "extends"} & self.by_arm[arm].keys():
                raise ValueError(f"by_arm.{arm}: {inner.pop()} has no place here")
            try:
                self.for_arm(arm)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                where = ".".join(str(part) for part in ("by_arm", arm, *first["loc"]))
                message = first["msg"].removeprefix("Value error, ")
                raise ValueError(f"{where}: {message} (got {first['input']!r})") from error
        return self

    def for_arm(self, arm: str | None) -> Recipe:
        """The recipe of an arm; itself where the arm does nothing otherwise. A length of the arm's
        own replaces the other.
        """
        own = self.by_arm.get(arm or "")
        if not own:
            return self
        inherited = self.model_dump(exclude={"by_arm"}, exclude_none=True)
        if any(length in own for length in LENGTHS):
            inherited = {
                key: value for key, value in inherited.items() if key not in (*LENGTHS, "total_max")
            }
        return Recipe.model_validate(inherited | own)

    @field_validator("by_classifier")
    @classmethod
    def _canonical_names(cls, overrides: dict[str, Override]) -> dict[str, Override]:
        return {canonical(name): override for name, override in overrides.items()}


class ResolvedRecipe(Settings):
    """Everything that determines a training besides its images, its classifier and its seed.

    Exactly one of `epochs` and `steps` is set. An epoch is one pass over all images in a fresh
    random order with its last, partial batch kept, so `steps` may end inside an epoch, and a batch
    larger than the data is all of the data.
    """

    original: ClassVar = ("epochs", "steps")

    epochs: int | None = None
    steps: int | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("a resolved recipe has either epochs or steps")
        return self

    def steps_per_epoch(self, n_total: int) -> int:
        """Steps of one pass over n_total images, the last one partial if n_total is no multiple of
        batch.
        """
        if n_total < 1:
            raise ValueError(f"a training needs at least one image, got n_total={n_total}")
        return -(-n_total // self.batch)

    def total_steps(self, n_total: int) -> int:
        """Optimizer steps of the whole training on n_total images."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None, "one of both is set"
        return self.epochs * self.steps_per_epoch(n_total)

    def warmup_steps(self, n_total: int) -> int:
        return _at_fraction(self.warmup, self.total_steps(n_total))

    def boundaries(self, n_total: int) -> tuple[int, ...]:
        """Zero-based steps from which a multistep decay applies its factor once more; else
        empty.
        """
        if self.decay.kind != "multistep":
            return ()
        total = self.total_steps(n_total)
        return tuple(_at_fraction(fraction, total) for fraction in self.decay.at)

    def lr_at(self, step: int, n_total: int) -> float:
        """Learning rate of the zero-based `step`.

        Warm-up of W steps: lr·(step + 1)/W, so the last warm-up step runs at lr. Cosine: after the
        warm-up lr·(1 + cos(π·(step − W)/(T − W)))/2 for T steps in all. Multistep: lr·factor^k
        after k boundaries.
        """
        total, warmup = self.total_steps(n_total), self.warmup_steps(n_total)
        if not 0 <= step < total:
            raise ValueError(f"step {step} is outside the training's 0..{total - 1}")
        if step < warmup:
            return self.lr * (step + 1) / warmup
        if self.decay.kind == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        if self.decay.kind == "multistep":
            return self.lr * self.decay.factor ** sum(step >= b for b in self.boundaries(n_total))
        return self.lr

    def payload(self) -> dict[str, Any]:
        """JSON-able mapping of all that determines the training; equal trainings have equal
        payloads.
        """
        return self.identity(exclude_none=True)


def _at_fraction(fraction: float, total: int) -> int:
    """The step at a fraction of the training, rounded up, without float noise (0.1·30,000 is
    3,000).
    """
    return math.ceil(round(fraction * total, 6))
