"""A search space over the keys of a recipe, whatever keys it has, and values put into one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from equigrid.classifiers.recipes import LENGTHS, Recipe
from equigrid.grid.errors import UserError, near
from equigrid.grid.spec.tuning import Range, Varied

LENGTH = "length"  # a factor on how long a recipe trains, in whatever way it says that
_NO_SINGLE_VALUE = ("by_arm", "by_classifier", "total_max", "epochs_by_base", "steps_by_total",
                    "steps_by_base")  # fmt: skip
Values = dict[str, Any]
"""By dotted name, one value each."""


class Dimension(NamedTuple):
    """One key of a space. whole: whether a range is of whole numbers."""

    name: str
    varied: Range | tuple[Any, ...]
    whole: bool = False

    def __str__(self) -> str:
        if isinstance(self.varied, tuple):
            return f"{self.name}: one of {', '.join(map(str, self.varied))}"
        log = ", log" if self.varied.log else ""
        return f"{self.name}: {self.varied.low:g} to {self.varied.high:g}{log}"

    def has(self, value: Any) -> bool:
        """Whether a value is one of the space's."""
        if isinstance(self.varied, tuple):
            return value in self.varied
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.varied.low <= value <= self.varied.high and self._on_step(value)

    def _on_step(self, value: float) -> bool:
        assert isinstance(self.varied, Range)
        if not self.varied.step:
            return True
        steps = (value - self.varied.low) / self.varied.step
        return math.isclose(steps, round(steps), abs_tol=1e-9)


def known_names(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every dotted name that a space may have, from the model itself."""
    if model is Recipe:
        yield LENGTH
    for name, field in model.model_fields.items():
        if name in _NO_SINGLE_VALUE:
            continue
        yield f"{prefix}{name}"
        inner = [part for part in _parts(field.annotation) if _is_model(part)]
        if len(inner) == 1:  # of a union, such as decay, the whole is one value
            yield from known_names(inner[0], f"{prefix}{name}.")


def space_of(
    wished: Mapping[str, Varied], base: BaseModel, where: str, names: Sequence[str] = ()
) -> tuple[Dimension, ...]:
    """A space around a recipe (or another configuration), each value of which it takes.

    where: what messages call it. names: that it may have; all of a recipe's if none are given.
    Raises UserError for other names, and for values that are not taken.
    """
    if not wished:
        raise UserError(f"{where}: is empty: name what is searched, such as lr: [0.03, 0.1, 0.3]")
    known = list(names or known_names(type(base)))
    found = []
    for name, varied in wished.items():
        if name not in known:
            some = ", ".join(one for one in known if names or "." not in one)
            raise UserError(f"{where}.{name}: is no key; known: {some}{near(name, known)}")
        whole = isinstance(varied, Range) and _is_whole(type(base), name)
        dimension = Dimension(name, varied, whole)
        _check_whole(dimension, f"{where}.{name}")
        ends = varied if isinstance(varied, tuple) else (varied.low, varied.high)
        for value in ends:
            try:
                applied(base, {name: value})
            except ValueError as error:
                raise UserError(f"{where}.{name}: {value!r}: {error}") from error
        found.append(dimension)
    lengths = [one.name for one in found if one.name in (LENGTH, "steps", "epochs")]
    if len(lengths) > 1:
        raise UserError(f"{where}: {' and '.join(lengths)} say the same twice; keep one")
    return tuple(found)


def _check_whole(dimension: Dimension, where: str) -> None:
    varied = dimension.varied
    if dimension.whole and isinstance(varied, Range):
        for end in (varied.low, varied.high, varied.step or 1):
            if end != int(end):
                raise UserError(f"{where}: {end}: is counted in whole numbers")


def applied(base: Any, values: Values) -> Any:
    """The recipe with these values in it. Raises ValueError, one line, for what it does not take.

    What a classifier alone did otherwise in these keys is dropped: the search is of all of them.
    """
    content = base.model_dump(mode="json", exclude_none=True)
    for name, value in values.items():
        if name == LENGTH:
            _scale(content, float(value))
            continue
        if name in ("steps", "epochs"):
            for length in (*LENGTHS, "total_max"):
                content.pop(length, None)
        _put(content, name.split("."), value)
        for override in content.get("by_classifier", {}).values():
            override.pop(name, None)
    try:
        return type(base).model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {message}" if place else message) from error


def present(base: BaseModel, dimensions: tuple[Dimension, ...]) -> Values | None:
    """The values that the recipe itself has; None where one of them is not in the space."""
    content = base.model_dump(mode="json")
    found: Values = {}
    for dimension in dimensions:
        value: Any = 1.0 if dimension.name == LENGTH else content
        for part in dimension.name.split(".") if dimension.name != LENGTH else ():
            value = value.get(part) if isinstance(value, dict) else None
        if not dimension.has(value):
            return None
        if isinstance(dimension.varied, tuple):  # as the space writes it: 1 for 1.0
            value = dimension.varied[dimension.varied.index(value)]
        found[dimension.name] = value
    return found


def default_space(recipe: Recipe, side: int, n_base: int) -> dict[str, Varied]:
    """What is searched where nobody says: around the recipe, by the images' larger side in pixels
    and the smallest base.
    """
    around = {recipe.batch // 2, recipe.batch, recipe.batch * 2}
    batches = sorted(n for n in around if 8 <= n <= max(8, n_base // 2))
    space: dict[str, Varied] = {
        "lr": Range(low=recipe.lr / 10, high=recipe.lr * 3, log=True),
        "weight_decay": Range(low=1e-5, high=3e-2, log=True),
        LENGTH: (0.5, 1.0, 2.0),
    }
    if len(batches) > 1:
        space["batch"] = tuple(batches)
    space["augmentation.flip"] = (False, True)
    if recipe.augmentation.resized_crop is None:
        most = max(1, side // 8)
        space["augmentation.crop_padding_px"] = tuple(sorted({0, max(1, most // 2), most}))
    return space


def as_json(dimension: Dimension) -> dict[str, Any]:
    """A key of a space as plain values, for an id."""
    varied = dimension.varied
    values = list(varied) if isinstance(varied, tuple) else varied.model_dump(mode="json")
    return {"name": dimension.name, "varied": values}


# Within models and mappings -----------------------------------------------------------------------


def _scale(content: dict[str, Any], factor: float) -> None:
    def scaled(n: int) -> int:
        return max(1, round(n * factor))

    for name in ("steps", "epochs"):
        if name in content:
            content[name] = scaled(content[name])
    if isinstance(training := content.get("training"), dict):  # of a generator
        for name in ("total_nimg", "least_nimg", "lr_rampup_nimg", "lr_decay_nimg"):
            if training.get(name):
                training[name] = scaled(training[name])
    for name, key in (
        ("epochs_by_base", "epochs"),
        ("steps_by_total", "steps"),
        ("steps_by_base", "steps"),
    ):
        for rung in content.get(name) or ():
            rung[key] = scaled(rung[key])


def _put(content: dict[str, Any], path: list[str], value: Any) -> None:
    *before, last = path
    for part in before:
        inner = content.get(part)
        content[part] = inner = dict(inner) if isinstance(inner, dict) else {}
        content = inner
    content[last] = value


def _is_whole(model: type[BaseModel], name: str) -> bool:
    """Whether a key takes whole numbers alone."""
    if name == LENGTH:
        return False
    parts: list[Any] = []
    for part in name.split("."):
        parts = list(_parts(model.model_fields[part].annotation))
        model = next((one for one in parts if _is_model(one)), model)
    return int in parts and float not in parts


def _parts(annotation: Any) -> Iterator[Any]:
    """The types in an annotation: of a union all, of what is annotated its type."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    elif hasattr(annotation, "__metadata__"):
        yield from _parts(get_args(annotation)[0])
    else:
        yield annotation


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
