"""The amounts of a spec: how many images to add to a base."""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

MOST = 10**12  # images: beyond, it is a slip, and arithmetic would overflow
MOST_MULTIPLE = 1000  # of the base: the paper goes to 50; beyond, images were surely meant


@dataclass(frozen=True)
class Amount:
    """How much to add: a `multiple` of the base size, a fixed number of `images`, or, where neither
    is set, all the real images that are left.
    """

    multiple: float | None = None
    images: int | None = None

    @property
    def is_rest(self) -> bool:
        return self.multiple is None and self.images is None

    def count(self, n_base: int, left: int) -> int:
        """Images to add to a base of (nominally) `n_base`, of which `left` are left; multiples are
        rounded.
        """
        if self.images is not None:
            return self.images
        return left if self.multiple is None else round(self.multiple * n_base)

    def as_written(self) -> float | str:
        """The amount as a spec writes it."""
        if self.images is not None:
            return f"{self.images} images"
        return "all" if self.multiple is None else self.multiple

    def __str__(self) -> str:
        written = self.as_written()
        return f"{written:g}" if isinstance(written, float) else written


def parsed(value: object) -> Amount:
    if isinstance(value, Amount):
        return value
    if value == "all":
        return Amount()
    text = re.fullmatch(r"\s*([\d_,]+)\s*images?\s*", value) if isinstance(value, str) else None
    number: int | float
    if text:
        number = int(re.sub("[_,]", "", text[1]))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    else:
        raise ValueError(
            f"{value!r} is no amount; write a multiple of n_base (0.5, 2), '13000 images', or all"
        )
    if not 0 < number <= MOST:  # nan is neither
        shown = f"more than {MOST:,}" if number > MOST else f"{number:g}"
        right = "it must be above 0 (the base alone is always run)"
        raise ValueError(f"{shown} is no amount to add; {right}")
    if not text and number > MOST_MULTIPLE:
        raise ValueError(
            f"{number:,.15g} times the base? If images were meant, write '{number:,.15g} images'; "
            f"{MOST_MULTIPLE:,} times the base is the most"
        )
    return Amount(images=int(number)) if text else Amount(multiple=float(number))


def as_tuple(value: object) -> tuple:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def distinct(values: tuple) -> tuple:
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value} is there twice; name each once")
        seen.add(value)
    return values


OneAmount = Annotated[Amount, BeforeValidator(parsed), PlainSerializer(Amount.as_written)]
Amounts = Annotated[
    tuple[OneAmount, ...],
    BeforeValidator(lambda value: distinct(tuple(parsed(item) for item in as_tuple(value)))),
]
