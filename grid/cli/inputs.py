"""What commands are given: a store, a spec in it, and the folder for what they write."""

import errno
import json
import math
import os
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equigrid.grid.errors import UserError, near

if TYPE_CHECKING:  # heavy: `--help` must answer at once
    from equigrid.analysis.answer.asking import Question
    from equigrid.grid.planning.graph import Plan
    from equigrid.grid.spec import GridSpec
    from equigrid.grid.store import Store

GRID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as `GridSpec.name` has it


def open_filled(uri: str) -> "Store":
    """The store at `uri`, in which a grid has run. Raises UserError, StoreError."""
    from equigrid.grid.store import Store, layout

    opened = Store(uri)
    if not any(True for _ in opened.list(layout.GRIDS)):
        right = "run one first, or name another with --store"
        raise UserError(f"store {uri}: holds no grid yet; {right}")
    return opened


def ran(spec: str, store: "Store") -> "GridSpec":
    """A spec as it was last run in `store`, by its grid's name; else as a preset or file says.

    Raises UserError, StoreError.
    """
    from pydantic import ValidationError

    from equigrid.grid.spec import GridSpec, load
    from equigrid.grid.store import layout

    recorded = None
    if GRID_NAME.fullmatch(spec) and not spec.endswith((".yaml", ".yml")):
        recorded = store.get_json(layout.spec(spec))
    if recorded is None:
        return load(spec)
    try:
        return GridSpec.model_validate(recorded)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        why = f"{layout.spec(spec)} is no spec of this version: {where}: {first['msg']}"
        raise UserError(f"store {store.uri}: {why}; name its YAML file instead") from error


def planned(spec: str, store: "Store") -> "Plan":
    """The plan of a spec that `ran` finds. Raises UserError, StoreError."""
    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve

    return plan(resolve(ran(spec, store), store))


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


def out_folder(out: Path | None, grid: str) -> Path:
    """The folder for figures and report, made and tried: what cannot be written is said before the
    work, not after it. Raises UserError; OSError where the disk is full.
    """
    folder = out if out is not None else Path("equigrid-out") / grid
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        tried = folder / f".tried-{secrets.token_hex(4)}"
        try:
            tried.write_bytes(b"equigrid")
        finally:
            tried.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user's home
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"--out: {os.fspath(folder)} cannot be written: {why}; name a folder that can"
        ) from error
    return folder


def print_json(content: Any) -> None:
    """To standard output, in ASCII: whoever reads it need not guess an encoding."""
    sys.stdout.write(json.dumps(content, indent=1, default=str) + "\n")
