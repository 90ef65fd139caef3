"""What commands are given, a store, a spec in it and a question, and what they print."""

import json
import math
import sys
from typing import TYPE_CHECKING, Any

from equigrid.grid.errors import UserError, near
from equigrid.grid.planning.recorded import GRID_NAME, open_filled, planned, ran
from equigrid.grid.text import redacted

if TYPE_CHECKING:  # heavy: `--help` must answer at once
    from equigrid.analysis.answer.asking import Question

__all__ = ["GRID_NAME", "open_filled", "planned", "print_json", "question", "ran"]


def question(text: str) -> "Question":
    """`n_base=5000,n_real=2500,within=1.5`; `generator=`, `classifier=` where there are several.

    Raises UserError for anything else.
    """
    from equigrid.analysis.answer.asking import Question

    example = "write n_base=5000,n_real=2500,within=1.5"
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in _ASKED or not equals or not value:
            known = f"known: {', '.join(_ASKED)}{near(name, _ASKED)}"
            raise UserError(
                f"question {text!r}: {part.strip()!r} is no NAME=VALUE; {known}; {example}"
            )
        if name in given:
            raise UserError(f"question {text!r}: {name} is there twice")
        given[name] = _asked(text, name, value)
    for name in ("n_base", "n_real"):
        if name not in given:
            raise UserError(f"question {text!r}: {name} is missing; {example}")
    return Question(**given)


_ASKED = ("n_base", "n_real", "within", "generator", "classifier")


def _asked(text: str, name: str, value: str) -> int | float | str:
    if name in ("generator", "classifier"):
        return value
    number = _number(value)
    if name == "within":
        if not 1 < number < 1000:
            raise UserError(f"question {text!r}: within={value}: a factor above 1, such as 1.5")
        return number
    if not (number >= 1 and number == int(number) and number < 1e12):
        raise UserError(f"question {text!r}: {name}={value}: write a whole number of images")
    return int(number)


def _number(text: str) -> float:
    """NaN and infinities, and what is no number at all, are 0."""
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def print_json(content: Any, *, own_token: bool = False) -> None:
    """To standard output, in ASCII: whoever reads it need not guess an encoding. Without secrets,
    but for own_token: an address of this process whose token the reader is to have.
    """
    text = json.dumps(content, indent=1, default=str).replace("\x7f", "\\u007f")
    sys.stdout.write((text if own_token else redacted(text)) + "\n")
