"""A spec with what a command or a call wishes of its search."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from equigrid.grid.errors import UserError, near
from equigrid.grid.spec import GridSpec
from equigrid.grid.spec.loading import mapping_in
from equigrid.grid.spec.tuning import Tune
from equigrid.grid.tuning.generator_study import Aim


def wished(
    spec: GridSpec,
    wish: Mapping[str, Any],
    space: str | Mapping[str, Any] | None,
    generator: str | None = None,
    *,
    slots: int | None = None,
    gpus: float | None = None,
) -> tuple[GridSpec, Aim | None]:
    """The spec with these in its `tune` and `execution`, and the generator that is searched in
    place of a recipe; what is None stays as it is. space: YAML, the path of a file of it (its
    `space`, or the whole), or a mapping; of the generator, where there is one. Raises UserError.
    """
    given = {name: value for name, value in wish.items() if value is not None}
    if space is not None:
        given["space"] = _space(space)
    own = spec.tune.model_dump(exclude_unset=True) if spec.tune else {}
    try:
        tune = Tune.model_validate({**own, **given})
    except ValidationError as error:
        raise UserError(_one_line(error)) from error
    chosen = {
        name: value for name, value in (("slots", slots), ("gpus", gpus)) if value is not None
    }
    execution = spec.execution.model_copy(update=chosen)
    found = spec.model_copy(update={"tune": tune, "execution": execution})
    if generator is None:
        return found, None
    return found, Aim(generator, tune.space if space is not None else None)


def _space(space: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(space, str):
        return space
    found = mapping_in(space, "--space")
    inner = found.get("space", found)
    if not isinstance(inner, dict):
        raise UserError("--space: space holds no mapping; write lr: [0.03, 0.1] below it")
    return inner


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    forms = ("tuple[any, ...]", "Range")
    where = ".".join(str(part) for part in first["loc"] if str(part) not in forms)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = (
            f"unknown key; known: {', '.join(Tune.model_fields)}{near(where, Tune.model_fields)}"
        )
    elif not first["msg"].startswith("Value error"):
        message = f"{first['input']!r}: {message[0].lower()}{message[1:]}"
    return f"tune.{where}: {message}"
