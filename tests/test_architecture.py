"""The rules of the rooms, and the README's word: what may import what, and that the commands named
there work.
"""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDERS = ("grid", "generators", "classifiers", "analysis")
# What a folder must not import: packages, and other folders of ours.
FORBIDDEN = {
    "generators": {"ray", "grid", "classifiers", "analysis"},
    "classifiers": {"ray", "grid", "generators", "analysis"},
    "analysis": {"ray", "grid", "torch", "torchvision", "generators", "classifiers"},
    "grid/spec": {"ray", "torch", "pyarrow"},
    "grid/planning": {"ray", "torch"},
    "grid/store": {"ray", "torch"},
    "grid/datasets": {"ray", "torch"},
    "grid/jobs": {"ray"},
    "grid/reporting": {"ray", "torch"},
    "grid/tuning": {"ray", "torch"},
    "grid/authoring": {"ray", "torch"},
    "grid/exporting": {"ray", "torch"},
    "grid/api": {"ray", "torch"},
    "grid/cli": {"ray", "torch"},
}
ALLOWED = {
    "analysis/actor.py": {"ray"},
    "grid/jobs/ray_train.py": {"ray"},
    "grid/jobs/inputs.py": {"ray"},  # fetches the shards of a streamed mix
    "grid/jobs/provenance.py": {"ray"},  # the device of one worker of a group
    "grid/jobs/failures.py": {"ray"},  # tells Ray's exceptions from a job's own
    "grid/reporting/analysis_bridge.py": {"ray"},  # makes the analyst's actor
    "grid/reporting/metrics.py": {"ray"},  # Ray's counters and gauges
    "grid/reporting/trackers.py": {"ray"},  # the trackers' actor
    "grid/tuning/search.py": {"ray"},  # the Tuner
    "grid/datasets/ingest.py": {"ray"},  # reads a source's units side by side
}
# From top to bottom: a room imports from lower floors alone, and not from its neighbours.
FLOORS = {
    "grid": """
        api cli
        authoring exporting gc
        tuning
        running
        reporting
        planning
        jobs
        datasets
        store
        spec
        ids errors units text
    """,
    "generators": """
        previews
        registry
        edm dit stable_diffusion imported python
        quality
        sheets
        trainer
        common
        building calls
        base_config
        balance naming
    """,
    "classifiers": """
        zero_shot domain_gap
        training
        evaluation features
        data flops
        models
        distributed compute
        recipes
        names hardware
    """,
    "analysis": """
        report actor
        answer figures paper
        conclusions
        fitting
        data
        schema settings
    """,
}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, inside functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def heads(path: Path) -> set[str]:
    """What a file imports by first names: other packages, and our folders."""
    return {name.removeprefix("equigrid.").split(".")[0] for name in imports(path)}


def graph() -> dict[str, set[str]]:
    """Which of our modules imports which; names without the leading `equigrid.`."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    named = {module_name(path.relative_to(ROOT)): path for path in files}

    def target(name: str) -> str:
        name = name.removeprefix("equigrid.")
        while name and name not in named:
            name = name.rpartition(".")[0]
        return name

    return {
        module: {target(name) for name in imports(path) if name.startswith("equigrid.")}
        - {module, ""}
        for module, path in named.items()
    }


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("place", FORBIDDEN)
def test_folders_import_only_what_they_may(place):
    for path in sorted((ROOT / place).rglob("*.py")) or [ROOT / place]:
        relative = str(path.relative_to(ROOT))
        wrong = heads(path) & FORBIDDEN[place] - ALLOWED.get(relative, set())
        assert not wrong, f"{relative} imports {', '.join(sorted(wrong))}"


def test_nobody_imports_the_folders_by_their_bare_names():
    """They are parts of `equigrid`: `import analysis` would find whatever the user has of that
    name.
    """
    for folder in (*FOLDERS, "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            bare = {name.split(".")[0] for name in imports(path)} & set(FOLDERS)
            assert not bare, f"{path.relative_to(ROOT)} imports {', '.join(bare)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_down_the_floors(folder):
    floors = [rooms.split() for rooms in FLOORS[folder].split("\n") if rooms.split()]
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    own = {module: found for module, found in graph().items() if module.startswith(f"{folder}.")}
    assert {module.split(".")[1] for module in own} == set(floor), "a room is not in FLOORS"
    for module, found in own.items():
        room = module.split(".")[1]
        for name in found:
            if name.startswith(f"{folder}.") and (other := name.split(".")[1]) != room:
                assert floor[other] > floor[room], f"{module} imports {name}"


@pytest.mark.parametrize("folder", FLOORS)
def test_contributing_shows_these_floors(folder):
    floors = [", ".join(rooms.split()) for rooms in FLOORS[folder].split("\n") if rooms.split()]
    row = f"| `{folder}/` | {' · '.join(floors)} |"
    assert row in (ROOT / "CONTRIBUTING.md").read_text(), f"CONTRIBUTING.md should say: {row}"


def test_no_modules_import_each_other():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
    TopologicalSorter(graph()).prepare()


def test_the_rules_would_catch_a_late_import(tmp_path):
    path = tmp_path / "x.py"
    late = [
        "from torch.nn import Linear",
        "import ray.train as t",
        "from equigrid.grid import store",
    ]
    path.write_text("def f():\n" + "".join(f"    {line}\n" for line in late))
    assert heads(path) == {"torch", "ray", "grid"}


@pytest.mark.parametrize(
    "package",
    [
        "equigrid",
        "equigrid.grid.api.verbs",
        "equigrid.grid.planning.planner",
        "equigrid.grid.cli",
        "equigrid.generators.registry",
        "equigrid.classifiers.recipes",
        "equigrid.analysis.report.html",
    ],
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
    assert "equigrid demo" in makefile


def test_the_readme_names_files_that_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).is_file(), link


@pytest.mark.long
def test_the_readme_commands_work(tmp_path):
    """Each `equigrid` line of the README, short of the run itself, beside a store that holds the
    digits and their spec, and a folder of photos.
    """
    from equigrid.grid.datasets import ingest
    from equigrid.grid.planning.resolve import resolve
    from equigrid.grid.spec import load
    from equigrid.grid.store import Store

    store, spec = Store(tmp_path / "equigrid-store", create=True), load("digits")
    store.put_json("grids/digits/spec.json", spec.model_dump(mode="json"))
    ingest.ingest(store, resolve(spec, store).source)
    for i in range(40):
        photo = tmp_path / "photos" / f"{i % 2}" / f"{i}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), i).save(photo)
    lines = re.findall(r"^equigrid ([^#\n]+)", code_blocks("README.md"), flags=re.MULTILINE)
    assert [line.split()[0] for line in lines] == [
        "init",
        "plan",
        "run",
        "status",
        "watch",
        "fit",
        "report",
        "equiv",
        "grids",
        "pool",
        "gc",
        "paper",
        "equiv",
    ]
    for line in lines:
        # There is no pool without a run; what watches ends when it is told to.
        if line.split()[0] not in ("run", "pool", "watch"):
            command = [sys.executable, "-m", "equigrid.grid.cli", *line.split()]
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=tmp_path, check=False
            )
            # Nothing has run: who asks for results is told so.
            asks = line.split()[0] in ("fit", "report", "equiv") and "--paper" not in line
            assert done.returncode == (2 if asks else 0), f"{line}: {done.stderr}"
            assert not asks or "no result of its" in done.stderr


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
    # Two bases; base, 3 real, 3 synthetic, 2 copies; 3 subsets, 3 seeds.
    assert len(plan(resolved).cells) == 2 * 9 * 9


def test_pins_name_no_address():
    pins = (ROOT / "requirements.txt").read_text()
    assert "torch==" in pins
    assert "://" not in pins
    assert not re.search(r"index|find-links", pins)


def test_text_files_are_utf_8_whatever_the_locale():
    """Under LC_ALL=POSIX the report's own template could not be read."""
    found = []
    for folder in (*FOLDERS, "equigrid"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _opens_text(node):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found, "say encoding="


def _opens_text(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
    given = {keyword.arg for keyword in call.keywords}
    if "encoding" in given:
        return False
    if name == "read_text":
        return not call.args
    if name == "write_text":
        return len(call.args) < 2
    if name != "open":
        return False
    if isinstance(call.func, ast.Attribute):
        owner = getattr(call.func.value, "id", None) or getattr(call.func.value, "attr", "")
        if owner in (
            "os",
            "Image",
            "tarfile",
            "gzip",
            "webbrowser",
            "zipfile",
            "archive",
            "_files",
        ):
            return False
    modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    modes += [k.value.value for k in call.keywords if k.arg == "mode"]
    binary = any(isinstance(mode, str) and "b" in mode and len(mode) < 4 for mode in modes)
    return not binary
