"""Environments that see the dependencies and nothing of ours, what is installed there, and which
modules run there.
"""

import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Collection
from importlib.metadata import Distribution, distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("grid", "generators", "classifiers", "analysis")
PROJECT = ("equigrid", *ROOMS, "pyproject.toml", "README.md", "LICENSE", "NOTICE")
# What a user may have of the same names as ours. Each raises when it is imported.
USERS_OWN = ("analysis.py", "classifiers.py", "grid/__init__.py", "generators/__init__.py")
# Runs in every Python process that sees its folder, before anything else: each writes down which
# modules of these names it executes, and from which file.
RECORDER = f"""
import importlib.machinery, os
names = {{"equigrid", *{ROOMS!r}}}
execute = importlib.machinery.SourceFileLoader.exec_module
def record(self, module):
    if module.__name__.split(".")[0] in names:
        with open(os.path.join(FOLDER, f"{{os.getpid()}}.txt"), "a") as file:
            file.write(f"{{module.__name__}} {{module.__file__}}\\n")
    execute(self, module)
importlib.machinery.SourceFileLoader.exec_module = record
"""
TINY = {
    "name": "tiny",
    "dataset": "digits",
    "recipe": {"extends": "digits", "steps": 5},
    "classifiers": ["digits-cnn"],
    "generators": {
        "edm": {
            "kind": "edm",
            "preset": "digits",
            "training": {"total_nimg": 640},
            "sampler": {"steps": 4},
        }
    },
    "subset_seeds": [0],
    "seeds": [0],
    "execution": {"gpus": 0, "slots": 1},
    "quality": "off",
    "blocks": [{"n_base": [60], "real": [1], "syn": {"edm": [1]}}],
}


class Environment:
    """A virtual environment that also sees the packages of the one that runs the tests.

    By a `.pth` file: that of an editable install, which lies among those packages, is not followed,
    so this checkout is out of sight.
    """

    def __init__(self, folder: Path, only: Collection[str] | None = None):
        """only: distributions that it sees, by name, as they lie here; None for all."""
        venv.create(folder, with_pip=True, symlinks=True)
        self.bin = folder / "bin"
        variables = {"base": str(folder), "platbase": str(folder)}
        self.site = Path(sysconfig.get_path("purelib", "venv", variables))
        if only is None:
            (self.site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
            self._remove_setuptools(folder)
        for name in only or ():
            self._link(distribution(name))

    def _link(self, one: Distribution) -> None:
        """Makes a distribution's files importable, where they lie."""
        for top in {file.parts[0] for file in one.files or ()} - {".."}:
            source, place = Path(one.locate_file(top)), self.site / top
            if source.exists() and not place.exists():
                place.symlink_to(source)

    def _remove_setuptools(self, folder: Path) -> None:
        # Before 3.12 Python brings a setuptools of its own, too old for our pyproject.toml.
        self.pip("uninstall", "--yes", "--quiet", "setuptools", cwd=folder)

    def variables(self, **extra: str) -> dict[str, str]:
        left_out = ("PYTHONPATH", "VIRTUAL_ENV", "RAY_ADDRESS")
        own = {name: value for name, value in os.environ.items() if name not in left_out}
        return {**own, "PATH": f"{self.bin}:{os.environ['PATH']}", **extra}

    def run(self, *command, cwd: Path, timeout_s: float = 300, **variables: str) -> str:
        """Runs a program of the environment; returns what it printed. Raises AssertionError with
        all of its output if it fails.
        """
        done = subprocess.run(
            [self.bin / command[0], *map(str, command[1:])], cwd=cwd, timeout=timeout_s,
            env=self.variables(**variables), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def pip(self, *arguments, cwd: Path) -> str:
        return self.run("python", "-m", "pip", "--no-input", *arguments, cwd=cwd)

    def origins(self, *command, cwd: Path, **variables: str) -> dict[str, Path]:
        """Runs a command of `python`; the file of every module of ours that it executed, by name."""
        recorder = Recorder(cwd / "recorder")
        paths = [str(recorder.folder), variables.pop("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self.run("python", *command, cwd=cwd, **variables)
        (found,) = recorder.processes().values()
        return found


class Recorder:
    """A folder whose `sitecustomize` writes down what processes execute."""

    def __init__(self, folder: Path):
        self.folder, self.lists = folder, folder / "lists"
        self.lists.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(RECORDER.replace("FOLDER", repr(str(self.lists))))

    def processes(self) -> dict[str, dict[str, Path]]:
        """By process, the files of our modules by name."""
        found = {}
        for path in self.lists.glob("*.txt"):
            lines = [line.split(" ", 1) for line in path.read_text().splitlines()]
            found[path.stem] = {name: Path(file) for name, file in lines}
        return found


def copy_project(folder: Path) -> Path:
    """The files of the project, links as links, in a folder named as a clone's is."""
    copy = folder / "equigrid"
    copy.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in (*PROJECT, ".rayignore", ".gitignore"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, copy / name)
    return copy


def plant_users_own(folder: Path) -> Path:
    """Fills a folder with what a user may have of our folders' names."""
    for name in USERS_OWN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('the user's own {name} was imported')\n")
    return folder


def make_wheel(environment: Environment, project: Path, out: Path) -> Path:
    # Neither isolation nor an index: what builds it is here, and nothing is to be downloaded.
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out]
    environment.pip("wheel", *options, ".", cwd=project)
    (made,) = out.glob("*.whl")
    return made
