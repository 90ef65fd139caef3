"""The reading of what another version wrote: keys that this one does not know are left out."""

from collections.abc import Collection, Iterator
from typing import Any, get_args

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
        inner = [model for field in fields for model in models_in(field.annotation)]
        kept[key], unknown = _within(inner, value)
        left_out += [f"{key}.{name}" for name in unknown]
    return kept, left_out


def _within(models: list[type[BaseModel]], value: Any) -> tuple[Any, list[str]]:
    """A value that one of the models describes, or a list of such."""
    if models and isinstance(value, dict):
        return without_unknown(models, value)
    if models and isinstance(value, list):
        found = [_within(models, item) for item in value]
        return [item for item, _ in found], [
            f"{i}.{name}" for i, (_, unknown) in enumerate(found) for name in unknown
        ]
    return value, []


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that a field's type is made of, from left to right."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)
