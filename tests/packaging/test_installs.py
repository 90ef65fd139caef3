"""One importable name, `equigrid`, from one tree, however it got there: a wheel, an sdist, an
editable install, a checkout on PYTHONPATH.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from environments import PROJECT, ROOMS, ROOT, Environment, copy_project, make_wheel

import equigrid

pytestmark = pytest.mark.long

PLAN = ("-m", "equigrid.grid.cli", "plan", "digits", "--json")


def sources() -> dict[str, bytes]:
    """What must be installed, by its name in the package."""
    found = {}
    for folder in ("equigrid", *ROOMS):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(ROOT)
                found[str(name if folder == "equigrid" else "equigrid" / name)] = path.read_bytes()
    return found


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_is_the_tree_under_one_name(wheel):
    made = content(wheel)
    about = {name for name in made if name.split("/")[0].endswith(".dist-info")}
    assert {name: data for name, data in made.items() if name not in about} == sources()
    assert {name.split("/")[0] for name in made} - {"equigrid"} == {
        name.split("/")[0] for name in about
    }
    assert {name.rsplit("/", 1)[-1] for name in about} >= {"LICENSE", "NOTICE"}
    (top,) = (made[name] for name in about if name.endswith("top_level.txt"))
    assert top.decode().split() == ["equigrid"]


def test_an_sdist_makes_the_same_wheel(build_environment, wheel, tmp_path):
    project = copy_project(tmp_path / "clone")
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    build_environment.run("python", "-c", code, tmp_path, cwd=project)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert content(make_wheel(build_environment, unpacked, tmp_path / "out")) == content(wheel)


def test_the_installed_command_finds_all_that_it_reads(installed, tmp_path):
    assert "How many synthetic images" in installed.run("equigrid", "--help", cwd=tmp_path)
    planned = json.loads(installed.run("equigrid", "plan", "digits", "--json", cwd=tmp_path))
    assert planned["cells"] > 100, "a preset"
    assert "cifar10" in installed.run("equigrid", "paper", cwd=tmp_path), "the published tables"
    origins = installed.origins(*PLAN, cwd=tmp_path)
    assert len(origins) > 30
    assert all(path.is_relative_to(installed.site / "equigrid") for path in origins.values())


def test_a_checkout_on_the_path_goes_before_what_is_installed(installed, tmp_path):
    checkout = copy_project(tmp_path / "clone")
    origins = installed.origins(*PLAN, cwd=tmp_path, PYTHONPATH=str(checkout))
    assert len(origins) > 30
    assert all(path.is_relative_to(checkout / "equigrid") for path in origins.values())


def test_a_checkout_on_the_path_needs_no_installation(build_environment, tmp_path):
    """Not for what a result says of its code either."""
    checkout = copy_project(tmp_path / "clone")
    code = "from equigrid.grid.jobs.provenance import code_version; print(code_version())"
    said = build_environment.run("python", "-c", code, cwd=tmp_path, PYTHONPATH=str(checkout))
    assert said == f"{equigrid.__version__}\n"


def test_an_editable_install_is_the_clone_even_beside_it(build_environment, tmp_path):
    """In the folder that holds the clone `equigrid/`, Python first comes upon that folder, which is
    no package.
    """
    clone = copy_project(tmp_path / "work")
    options = ("--no-deps", "--no-build-isolation", "--no-index")
    try:
        build_environment.pip("install", *options, "--editable", ".", cwd=clone)
        code = "import equigrid; print(equigrid.__version__, equigrid.__file__)"
        said = build_environment.run("python", "-c", code, cwd=clone.parent)
        assert said.split() == [equigrid.__version__, str(clone / "equigrid/__init__.py")]
        origins = build_environment.origins(*PLAN, cwd=clone.parent)
    finally:
        build_environment.pip("uninstall", "--yes", "equigrid", cwd=tmp_path)
    assert len(origins) > 30
    assert all(path.is_relative_to(clone / "equigrid") for path in origins.values())


def test_what_the_cluster_files_mount_is_enough_to_install(build_environment, tmp_path):
    """By `deploy/setup-node.sh`; tests/cluster holds the two cluster files to this list."""
    project = copy_project(tmp_path / "node")
    code = "import sys; from setuptools.build_meta import build_editable as b; b(sys.argv[1])"
    build_environment.run("python", "-W", "error::UserWarning", "-c", code, tmp_path, cwd=project)
    for name in ("cluster.yaml", "cluster-local.yaml"):
        mounts = yaml.safe_load((ROOT / name).read_text())["file_mounts"]
        assert {f"~/equigrid/{part}": part for part in PROJECT}.items() <= mounts.items()


@pytest.mark.slow
def test_what_an_index_has_runs_the_demonstration(wheel, tmp_path):
    """`equigrid demo`, installed by its name from a folder as an index has it, in a folder of its
    own: minutes on two cores.
    """
    environment = Environment(tmp_path / "venv")
    index = ("--no-index", "--find-links", wheel.parent)
    environment.pip("install", "--no-deps", *index, "equigrid", cwd=tmp_path)
    said = environment.run("equigrid", "demo", cwd=tmp_path, timeout_s=1_200)
    assert "undetermined" in said or "≃" in said, said
    out = tmp_path / "equigrid-out/digits"
    report = (out / "report.html").read_text()
    assert "<style" in report, "the stylesheet is in it"
    status = environment.run("equigrid", "status", "digits", "--json", cwd=tmp_path)
    assert json.loads(status)["failures"] == []


UV = shutil.which("uv")


@pytest.mark.skipif(UV is None, reason="needs uv")
def test_uvx_runs_the_command(wheel, tmp_path):
    """`uvx equigrid …` from a folder as an index has it. Its dependencies, as requirements.txt has
    them, come from uv's cache, which has them wherever `make` installed them; nothing is
    downloaded, and their files are linked.
    """
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own |= {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_OFFLINE": "1", "UV_LINK_MODE": "symlink"}
    uvx = [
        UV, "tool", "run", "--python", sys.executable, "--find-links", str(wheel.parent),
        "--constraints", str(ROOT / "requirements.txt"), "--from", "equigrid", "equigrid",
    ]  # fmt: skip

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*uvx, *arguments], cwd=tmp_path, env=own, capture_output=True, text=True, check=False
        )

    done = run("--version")
    if done.returncode and "network was disabled" in done.stderr:
        pytest.skip("uv's cache lacks some of the dependencies")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["equigrid", equigrid.__version__]
    done = run("plan", "digits", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"] > 100
