"""Ids survive growth: every configuration and recipe gains a field, and no job gets another id."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest

from equigrid.payloads import AsBefore, Frozen

ROOT = Path(__file__).parents[3]
FOLDERS = ("grid", "generators", "classifiers", "analysis")
LATER = "later_added: int = 2"


def test_a_later_field_stays_out_while_it_is_as_before():
    class Inner(Frozen):
        original: ClassVar = ("steps",)
        steps: int = 5
        order: int = 2

    class Outer(Frozen):
        original: ClassVar = ("inner", "many")
        inner: Inner = Inner()
        many: tuple[Inner, ...] = (Inner(), Inner(order=3))
        kind: Literal["outer"] = "outer"
        churn: Annotated[float, AsBefore(0.0)] = 0.5

    assert Outer(churn=0.0).identity() == {
        "inner": {"steps": 5},
        "many": [{"steps": 5}, {"steps": 5, "order": 3}],
        "kind": "outer",
    }
    assert Outer().identity(exclude=("many", "kind")) == {"inner": {"steps": 5}, "churn": 0.5}
    assert Outer(inner=Inner(order=1)).identity(exclude={"inner": {"steps"}, "many": True}) == {
        "inner": {"order": 1},
        "kind": "outer",
        "churn": 0.5,
    }
    assert Outer().added() == {"churn": 0.5}
    assert Outer(churn=0.0).added() == {}


def test_what_a_subclass_inherits_is_as_original_as_its_own():
    class Base(Frozen):
        original: ClassVar = ("lr",)
        lr: float = 0.1

    class Derived(Base):
        original: ClassVar = ("steps",)
        steps: int = 1

    assert Derived().identity() == {"lr": 0.1, "steps": 1}


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    """A copy of the code and these tests in which every class of configuration has a field more."""
    copy = tmp_path_factory.mktemp("grown")
    for folder in (*FOLDERS, "tests/grid/planning"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "equigrid", copy / "equigrid", symlinks=True)
    for name in ("tests/conftest.py", "tests/grid/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    grown = [name for path in sorted(copy.rglob("*.py")) for name in _grow(path)]
    assert {"Sampler", "Recipe", "EDMConfig", "VAE", "QualityConfig", "ZeroShotConfig"} <= {*grown}
    assert len(grown) > 30
    return copy


def _grow(path: Path) -> list[str]:
    """Gives the configurations in a file a field more, before their first one; their names."""
    lines, found = path.read_text().split("\n"), []
    if path.name.startswith("test_") or path.is_symlink():
        return []
    for node in ast.walk(ast.parse(path.read_text())):
        bases = {ast.unparse(base).split(".")[-1] for base in getattr(node, "bases", ())}
        if (
            bases & {"Frozen", "GeneratorConfig", "TrainedConfig", "Settings"}
            and node.name != "Settings"
        ):
            found.append((node.body[0].end_lineno, node.name))
    for line, _ in sorted(found, reverse=True):
        lines.insert(line, f"    {LATER}")
    path.write_text("\n".join(lines))
    return [name for _, name in found]


def _run(copy: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_id_of_any_preset_changes_when_every_configuration_gains_a_field(grown):
    done = _run(grown, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/grid/planning/test_golden.py")  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


IDS = """
import json, sys, equigrid.grid.spec
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
found = {}
for name, spec in json.load(sys.stdin).items():
    jobs = plan(resolve(equigrid.grid.spec.load(spec), None)).jobs.values()
    found[name] = {kind: sorted(j.id for j in jobs if j.kind == kind) for kind in {j.kind for j in jobs}}
print(json.dumps(found))
"""
# Where a new field is set to something else, and the kinds of job that must notice.
SET = {
    "generator": ({"generators": {"edm": {"later_added": 3}}}, {"generator", "shard"}),
    "network": ({"generators": {"edm": {"network": {"later_added": 3}}}}, {"generator", "shard"}),
    "training": ({"generators": {"edm": {"training": {"later_added": 3}}}}, {"generator", "shard"}),
    "sampler": ({"generators": {"edm": {"sampler": {"later_added": 3}}}}, {"shard"}),
    "compute": ({"generators": {"edm": {"compute": {"later_added": 3}}}}, set()),
    "recipe": ({"recipe": {"decay": {"kind": "cosine", "later_added": 3}}}, {"trial", "reference"}),
    "augmentation": ({"recipe": {"augmentation": {"later_added": 3}}}, {"trial", "reference"}),
    "quality": ({"quality": {"later_added": 3}}, {"quality"}),
    "domain gap": ({"domain_gap": {"later_added": 3}}, {"domain"}),
    "validation": ({"validation": {"later_added": 3}}, {"trial"}),
    "execution": ({"execution": {"later_added": 3}}, set()),
}


def _joined(one: dict, other: dict) -> dict:
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            both[key] = _joined(one[key], other[key])
    return both


def test_a_new_field_that_is_set_changes_what_it_determines(grown, mini):
    base = _joined(
        {**mini, "quality": {}},
        {
            "domain_gap": {"images": 30, "tsne": 5},
            "quality": {"images": 30},
            "validation": {"images": 20},
        },
    )
    specs = {"base": base, **{name: _joined(base, changes) for name, (changes, _) in SET.items()}}
    done = subprocess.run(
        [sys.executable, "-c", IDS],
        cwd=grown,
        env={**os.environ, "PYTHONPATH": str(grown)},
        input=json.dumps(specs),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for name, (_, changed) in SET.items():
        kinds = {kind for kind in found["base"] if found[name][kind] != found["base"][kind]}
        assert changed <= kinds, name
        assert changed or not kinds, name
        if name in ("quality", "domain gap", "validation"):
            assert kinds <= changed | {"reference"}, name
