"""From a spec's mapping to a validated configuration, with errors that name the right key."""

import difflib
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

Config = TypeVar("Config", bound=BaseModel)


def build(model: type[Config], presets: dict[str, dict], mapping: dict) -> Config:
    """`model` from `mapping`, starting from the preset it names; ValueError, one line, if it cannot
    be.
    """
    values = dict(mapping)
    name = values.pop("preset", None)
    if name is not None and (not isinstance(name, str) or name not in presets):
        raise ValueError(f"preset {name!r} is unknown: {_nearest(str(name), list(presets))}")
    merged = merge(presets[name], values) if name is not None else values
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise ValueError(_one_line(model, error)) from None


def merge(base: dict, over: dict) -> dict:
    """`base` with the values of `over` put in, mapping by mapping; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"]) or model.__name__
    if problem["type"] == "extra_forbidden":
        known = _names(model, problem["loc"][:-1])
        return f"unknown key {place!r}: {_nearest(str(problem['loc'][-1]), [*known, 'preset'])}"
    message = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(problem["input"], dict | BaseModel) else f" {problem['input']!r}"
    return f"{place}{shown}: {message[0].lower()}{message[1:]}"


def _names(model: type[BaseModel], parts: tuple) -> list[str]:
    fields: Any = model
    for part in parts:
        annotation = fields.model_fields[part].annotation
        of = get_args(annotation) or (annotation,)  # `Part | None` is a part
        fields = next(one for one in of if hasattr(one, "model_fields"))
    return list(fields.model_fields)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
