"""A proposal as the text of a spec, with a comment at each choice."""

import os
import textwrap
from pathlib import Path
from typing import Any

import yaml

from equigrid.grid.authoring.proposing import Proposal
from equigrid.grid.errors import UserError
from equigrid.grid.reporting.out_folder import check_no_address, replacing

WIDTH = 100


def text(proposal: Proposal) -> str:
    """YAML: what may be changed stands a line each, its reason above it."""
    lines = [line for about in proposal.about for line in _comment(about, "")]
    for key, value in proposal.spec.items():
        lines += _entry(key, value, proposal.why, "", key)
    return "\n".join(lines) + "\n"


def write(path: Path, text: str, *, force: bool, where: str, right: str) -> None:
    """Writes a spec's text; over a file that is there only by `force`. where, right: how the caller
    names the path, and what allows it. Raises UserError.
    """
    check_no_address(path, where)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{where}: {path}; a spec's name ends in .yaml")
    try:
        if not force:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            return
        with replacing(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise UserError(f"{where}: {path} is there; name another, or {right}") from error
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{where}: {os.fspath(path)} cannot be written: {why}") from error


def _entry(key: str, value: Any, why: dict[str, str], indent: str, path: str) -> list[str]:
    lines = _comment(why[path], indent) if path in why else []
    if isinstance(value, dict) and value and any(name.startswith(f"{path}.") for name in why):
        inner = [
            line
            for name, part in value.items()
            for line in _entry(name, part, why, indent + "  ", f"{path}.{name}")
        ]
        return [*lines, f"{indent}{_flow(key)}:", *inner]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        items = [_item(part, indent + "  ") for part in value]
        return [*lines, f"{indent}{_flow(key)}:", *items]
    if path == "generators":
        named = [f"{indent}  {_flow(name)}: {_flow(part)}" for name, part in value.items()]
        return [*lines, f"{indent}{key}:", *named]
    return [*lines, f"{indent}{_flow(key)}: {_flow(value)}"]


def _item(value: dict[str, Any], indent: str) -> str:
    parts = [f"{_flow(name)}: {_flow(part)}" for name, part in value.items()]
    return f"{indent}- " + f"\n{indent}  ".join(parts)


def _flow(value: Any) -> str:
    """A value on one line, read back as it is."""
    dumped = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return dumped.removesuffix("...\n").strip()


def _comment(text: str, indent: str) -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )
