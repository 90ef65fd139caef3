"""The reading of what another version wrote: keys that this one does not know are left out."""

from collections.abc import Collection, Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel


def without_unknown(
    models: Collection[type[BaseModel]], data: dict[str, Any], *, also: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """`data` without the keys that none of the models has, also within its parts; and these keys,
    with dots between the parts.

    also: further keys that are known.
    """
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for key, value in data.items():
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        if not fields and key not in also:
            left_out.append(str(key))
            continue
        kept[key], unknown = _within([field.annotation for field in fields], value)
        left_out += [f"{key}.{name}" for name in unknown]
    return kept, left_out


class _Form(NamedTuple):
    """What types say of a value: a model's, a mapping's whose keys are the user's own, a list's."""

    models: list[type[BaseModel]]
    of_values: list[object]
    of_items: list[object]


def _form(annotations: Iterable[object]) -> _Form:
    found = _Form([], [], [])
    for annotation in annotations:
        origin, inner = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            parts = _form(inner[:1])
        elif origin in (Union, UnionType):
            parts = _form(inner)
        elif origin is dict:
            parts = _Form([], [inner[1]], [])
        elif origin in (list, tuple):
            parts = _Form([], [], [one for one in inner if one is not ...])
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            parts = _Form([annotation], [], [])
        else:
            continue
        found.models.extend(parts.models)
        found.of_values.extend(parts.of_values)
        found.of_items.extend(parts.of_items)
    return found


def _within(annotations: Iterable[object], value: Any) -> tuple[Any, list[str]]:
    """A value of one of the types, without the keys of models in it that are not known."""
    form = _form(annotations)
    if isinstance(value, dict):
        if form.models and not form.of_values:
            return without_unknown(form.models, value)
        return _each(form.of_values, value) if form.of_values else (value, [])
    if isinstance(value, list) and form.of_items:
        kept, left_out = _each(form.of_items, dict(enumerate(value)))
        return list(kept.values()), left_out
    return value, []


def _each(annotations: list[object], values: dict[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """Values by the user's names, or by their places, each of one of the types."""
    kept, left_out = {}, []
    for name, value in values.items():
        kept[name], unknown = _within(annotations, value)
        left_out += [f"{name}.{key}" for key in unknown]
    return kept, left_out


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that a field's type is made of, from left to right."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)
