"""The rules of the rooms, and the README's word: what may import what, and that the commands named there work."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "generators": {"ray", "grid", "classifiers", "analysis"},
    "classifiers": {"ray", "grid", "generators", "analysis"},
    "analysis": {"ray", "grid", "torch", "torchvision", "generators", "classifiers"},
}
ALLOWED = {Path("analysis/actor.py"): {"ray"}}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_import_only_what_they_may(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        relative = path.relative_to(ROOT)
        wrong = imported(path) & FORBIDDEN[room] - ALLOWED.get(relative, set())
        assert not wrong, f"{relative} imports {', '.join(sorted(wrong))}"


def test_the_rule_would_catch_a_late_import(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from torch.nn import Linear\n    import ray.train as t\n")
    assert imported(path) == {"torch", "ray"}


@pytest.mark.parametrize(
    "package",
    ["equigrid.grid.planning.planner", "generators", "equigrid.classifiers.recipes", "analysis"],
)
def test_importing_does_nothing_heavy(package):
    code = f"import sys, {package}; print(*sorted({{'torch', 'ray', 'transformers', 'diffusers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def code_blocks(name: str) -> str:
    return "\n".join(re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL))


def test_the_readme_names_targets_that_exist_and_ci_runs_its_test_command():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", code_blocks("README.md"), flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}: \$\(READY\)$", makefile, flags=re.MULTILINE)
    assert re.search(r"^make test\b", (ROOT / ".ci/run").read_text(), flags=re.MULTILINE)
    assert "equigrid run digits" in makefile


def test_the_readme_names_files_that_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).is_file(), link


def test_the_readme_commands_work(tmp_path):
    """Each `equigrid` line of the README, short of the run itself, beside a store that holds the digits and their spec."""
    from equigrid.grid.datasets import ingest
    from equigrid.grid.planning.resolve import resolve
    from equigrid.grid.spec import load
    from equigrid.grid.store import Store

    store, spec = Store(tmp_path / "equigrid-store", create=True), load("digits")
    store.put_json("grids/digits/spec.json", spec.model_dump(mode="json"))
    ingest.ingest(store, resolve(spec, store).source)
    lines = re.findall(r"^equigrid ([^#\n]+)", code_blocks("README.md"), flags=re.MULTILINE)
    assert [line.split()[0] for line in lines] == [
        "plan",
        "run",
        "status",
        "fit",
        "report",
        "equiv",
        "gc",
        "paper",
        "equiv",
    ]
    for line in lines:
        if line.split()[0] != "run":
            command = [sys.executable, "-m", "equigrid.grid.cli", *line.split()]
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=tmp_path, check=False
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_readme_spec_is_a_spec(tmp_path):
    import numpy as np
    import yaml

    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve
    from equigrid.grid.spec import load
    from equigrid.grid.store import Store

    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    spec = yaml.safe_load(text)
    arrays = {}
    for split, n in (("train", 2400), ("test", 100)):
        arrays[f"{split}_images"] = np.zeros((n, 8, 8), np.uint8)
        arrays[f"{split}_labels"] = np.arange(n) % 8
    np.savez(tmp_path / "blood.npz", **arrays)
    spec["dataset"]["npz"] = str(tmp_path / spec["dataset"]["npz"])
    store = Store(tmp_path / "store", create=True)
    resolved = resolve(load(spec), store)
    assert resolved.dataset is None
    assert (
        len(plan(resolved).cells) == 2 * 9 * 9
    )  # two bases; base, 3 real, 3 synthetic, 2 copies; 3 subsets, 3 seeds


def test_pins_name_no_address():
    pins = (ROOT / "requirements.txt").read_text()
    assert "torch==" in pins
    assert "://" not in pins
    assert not re.search(r"index|find-links", pins)
