"""Parts of an augmentation that have settings of their own. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from equigrid.payloads import Frozen

POLICIES = ("rand_augment", "trivial_augment", "auto_augment")
"""Fields that choose operations for each image: one of them at a time."""


class RandAugment(Frozen):
    """Operations drawn anew for each image, all at one magnitude (Cubuk et al. 2020), as
    torchvision's `RandAugment`.
    """

    num_ops: int = Field(2, ge=1, le=8)
    """Operations one after another."""
    magnitude: int = Field(9, ge=0)
    """Of all of them: a bin, from 0 up to num_magnitude_bins - 1."""
    num_magnitude_bins: int = Field(31, ge=2, le=1000)
    """Steps from no change to the strongest."""

    @model_validator(mode="after")
    def _magnitude_is_a_bin(self) -> Self:
        if self.magnitude >= self.num_magnitude_bins:
            raise ValueError(
                f"magnitude is a bin from 0 to {self.num_magnitude_bins - 1}, got {self.magnitude}"
            )
        return self


class Erasing(Frozen):
    """A rectangle of one grey level in an image (Zhong et al. 2020), as torchvision's
    `RandomErasing`; a number alone is `p`.
    """

    p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """How many of the images."""
    scale: tuple[float, float] = (0.02, 0.33)
    """Part of the image's area."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """Height to width."""
    value: int = Field(0, ge=0, le=255)
    """The grey level, of every channel."""

    @model_validator(mode="before")
    @classmethod
    def _number_is_p(cls, data: Any) -> Any:
        is_number = isinstance(data, int | float) and not isinstance(data, bool)
        return {"p": data} if is_number else data

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be 0 < low <= high <= 1, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be 0 < low <= high, got {self.ratio}")
        return self
