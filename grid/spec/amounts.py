"""The amounts of a spec: how many images to add to a base."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from equigrid.generators.naming import normal
from equigrid.grid.errors import near

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


TO_BALANCE, OTHERS = "to_balance", "others"
ClassAmount = Amount | str | None
"""Of one class: an amount, TO_BALANCE, or None for nothing."""


@dataclass(frozen=True)
class ByClass:
    """How much to add of each class: by name, and of all others; multiples are of that class's
    images in the base.
    """

    named: tuple[tuple[str, ClassAmount], ...]
    others: ClassAmount = None

    @property
    def every(self) -> tuple[ClassAmount, ...]:
        return (*(amount for _, amount in self.named), self.others)

    @property
    def balances(self) -> bool:
        """Whether a class is filled up to the largest one."""
        return TO_BALANCE in self.every

    @property
    def relative(self) -> bool:
        """Whether it takes a base to say how many images these are."""
        return self.balances or any(
            isinstance(amount, Amount) and amount.multiple is not None for amount in self.every
        )

    def counts(
        self, class_names: Sequence[str], base: Sequence[int], real: Sequence[int]
    ) -> tuple[int, ...]:
        """Images to add of each class. base, real: those of each class in the base, and beside what
        is added. Raises ValueError for classes that the dataset has not, and amounts that are no
        whole image.
        """
        if self.named and OTHERS in class_names:
            what = f"{OTHERS!r} means all classes that are not named, and is a class of the dataset"
            raise ValueError(f"{what}; give that another name (class_names)")
        for name, _ in self.named:
            if name not in class_names:
                some = ", ".join(class_names[:5]) + (", …" if len(class_names) > 5 else "")
                right = near(name, class_names) or f"; it has {some}"
                raise ValueError(f"{name!r} is no class of the dataset{right}")
        by_name, largest = dict(self.named), max(real, default=0)
        amounts = [by_name.get(name, self.others) for name in class_names]
        found = tuple(
            _of_class(amount, name, own, largest - beside)
            for amount, name, own, beside in zip(amounts, class_names, base, real, strict=True)
        )
        if not any(found):
            raise ValueError(
                f"{self} adds nothing: each class has the {largest:,} images of the largest"
            )
        return found

    def as_written(self) -> dict[str, Any] | str:
        """The amounts as a spec writes them."""
        if not self.named and self.others == TO_BALANCE:
            return TO_BALANCE
        return {name: _written(amount) for name, amount in (*self.named, (OTHERS, self.others))}

    def __str__(self) -> str:
        written = self.as_written()
        if isinstance(written, str):
            return written
        return ", ".join(
            f"{name}: {value:g}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in written.items()
        )


def _of_class(amount: ClassAmount, name: str, own: int, missing: int) -> int:
    """Images to add of a class that has `own` in the base, and `missing` fewer than the largest."""
    if not isinstance(amount, Amount):
        return missing if amount == TO_BALANCE else 0
    count = amount.count(own, 0)
    if count < 1:
        what = f"{amount} times the {own:,} images of class {name!r} is no whole image"
        raise ValueError(f"{what}; use a larger amount, or 0")
    return count


def _written(amount: ClassAmount) -> float | str:
    return 0 if amount is None else amount.as_written() if isinstance(amount, Amount) else amount


def parsed_by_class(value: object) -> "Amount | ByClass":
    """An amount, or several by class: `{rare: 5, others: 0}`, `to_balance`."""
    if isinstance(value, ByClass):
        return value
    if value == TO_BALANCE:
        return ByClass((), TO_BALANCE)
    if not isinstance(value, dict):
        return parsed(value)
    found: dict[str, ClassAmount] = {}
    for key, one in value.items():
        name = normal(str(key))
        if name in found:
            raise ValueError(f"class {name!r} is there twice; name each once")
        found[name] = _parsed_of_class(one, name)
    if not any(amount is not None for amount in found.values()):
        raise ValueError(f"{value!r} adds nothing; give a class an amount above 0")
    others = found.pop(OTHERS, None)
    return ByClass(tuple(found.items()), others)


def _parsed_of_class(value: object, name: str) -> ClassAmount:
    if value == TO_BALANCE:
        return TO_BALANCE
    if type(value) in (int, float) and value == 0:
        return None
    try:
        amount = parsed(value)
    except ValueError as error:
        raise ValueError(f"class {name}: {error}; {_OF_CLASSES}") from error
    if amount.is_rest:
        raise ValueError(f"class {name}: all means the real images that are left; {_OF_CLASSES}")
    return amount


_OF_CLASSES = "0 adds nothing of a class, to_balance fills it up to the largest"


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
OneAdded = Annotated[
    Amount | ByClass,
    BeforeValidator(parsed_by_class),
    PlainSerializer(lambda amount: amount.as_written()),
]
Added = Annotated[
    tuple[OneAdded, ...],
    BeforeValidator(lambda value: distinct(tuple(parsed_by_class(one) for one in as_tuple(value)))),
]
"""Of synthetic images and copies: by class too."""
