"""The analysis runs on a laptop from a table: no torch, no grid, and ray in the actor's file alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "analysis"
FORBIDDEN = {"torch", "torchvision", "grid", "generators", "classifiers"}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda p: p.name)
def test_import_rules(path):
    names = imported(path)
    assert not names & FORBIDDEN
    assert "ray" not in names or path.name == "actor.py"


def test_importing_everything_but_the_actor_loads_neither_torch_nor_ray():
    modules = [f"analysis.{p.stem}" for p in ROOM.glob("*.py") if p.stem not in ("actor", "__init__")]
    code = f"import {', '.join(modules)}; import sys; print({{'torch', 'ray', 'grid', 'plotly'}} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOM.parent)
    assert shown.stdout.strip() == "set()"
