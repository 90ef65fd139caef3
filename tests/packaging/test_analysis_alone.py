"""Planning and analysis with the packages of the group `analysis` alone: no PyTorch, no Ray."""

import json
import tomllib
from importlib.metadata import distribution

import pytest
from environments import ROOT, Environment
from packaging.requirements import Requirement

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUP = PROJECT["dependency-groups"]["analysis"]


def closure(names: list[str]) -> set[str]:
    """These distributions and all that they ask for on this machine."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        one = waiting.pop()
        if one.name.lower() in found:
            continue
        found.add(one.name.lower())
        for text in distribution(one.name).requires or ():
            needed = Requirement(text)
            extras = {"", *one.extras}
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return found


@pytest.fixture
def alone(wheel, tmp_path) -> Environment:
    """An environment with the group's packages, as they lie in this one, and equigrid's wheel."""
    environment = Environment(tmp_path / "venv", only=closure(GROUP))
    environment.pip("install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    return environment


def test_the_group_is_a_part_of_the_dependencies():
    assert set(GROUP) < set(PROJECT["project"]["dependencies"])


@pytest.mark.slow
def test_planning_and_analysis_need_neither_torch_nor_ray(alone, tmp_path):
    for name in ("torch", "ray", "diffusers", "timm"):
        assert not (alone.site / name).exists()
    planned = json.loads(alone.run("equigrid", "plan", "digits", "--json", cwd=tmp_path))
    assert planned["cells"] > 100
    assert json.loads(alone.run("equigrid", "plan", "bloodmnist", "--json", cwd=tmp_path))["cells"]
    assert "cifar10" in alone.run("equigrid", "paper", cwd=tmp_path)
    rows = ["n_base,n_real_added,n_syn,n_copies,seed,accuracy"]
    for seed in range(4):
        for real, syn, copies in [(0, 0, 0), (100, 0, 0), (200, 0, 0), (0, 100, 0), (0, 400, 0),
                                  (0, 0, 100), (0, 0, 400)]:  # fmt: skip
            accuracy = 70 + 3 * (real + 0.3 * syn) ** 0.2 + seed / 10
            rows.append(f"100,{real},{syn},{copies},{seed},{accuracy}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    assert "accuracy %" in alone.run("equigrid", "fit", "--table", "table.csv", cwd=tmp_path)
    asked = ("--n-base", "100", "--n-real", "100")
    assert "images" in alone.run("equigrid", "equiv", "--table", "table.csv", *asked, cwd=tmp_path)
