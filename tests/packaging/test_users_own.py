"""A user's own `analysis.py`, `classifiers.py`, `grid/`, `generators/` are never taken for ours: in
the current folder, on PYTHONPATH, beside the spec, in Ray's working directory; nor is an installed
copy where the working directory is a checkout.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from environments import ROOMS, TINY, USERS_OWN, Recorder, copy_project, plant_users_own

from equigrid.grid.store import Store, results

# A Ray of its own with a dashboard, which takes jobs, until its input ends.
HEAD = """
import sys, ray
found = ray.init(address="local", include_dashboard=True, dashboard_port=0, num_cpus=2,
                 log_to_driver=False, _temp_dir=sys.argv[1])
print("http://" + found.dashboard_url, flush=True)
sys.stdin.read()
"""


def rows(store: Path) -> list[dict]:
    return results.read(Store(str(store))).to_pylist()


def test_the_traps_would_catch(users_own, installed):
    for name in USERS_OWN:
        module = name.split("/")[0].removesuffix(".py")
        with pytest.raises(AssertionError, match="the user's own"):
            installed.run("python", "-c", f"import {module}", cwd=users_own)


def test_planning_beside_a_users_own_modules(installed, users_own, tmp_path):
    elsewhere = plant_users_own(tmp_path / "elsewhere")
    for command in (["equigrid"], ["python", "-m", "equigrid.grid.cli"]):
        said = installed.run(
            *command, "plan", users_own / "tiny.yaml", "--json",
            cwd=elsewhere, PYTHONPATH=str(plant_users_own(tmp_path / "on-path")),
        )  # fmt: skip
        assert json.loads(said)["cells"] == 3


@pytest.mark.long
def test_running_beside_a_users_own_modules(installed, users_own, tmp_path):
    """On Ray's workers too, which are given the driver's search path."""
    elsewhere, on_path = (plant_users_own(tmp_path / name) for name in ("elsewhere", "on-path"))
    recorder = Recorder(tmp_path / "recorder")
    installed.run(
        "python", "-m", "equigrid.grid.cli", "run", users_own / "tiny.yaml", "--no-dashboard",
        "--store", tmp_path / "store", cwd=elsewhere,
        PYTHONPATH=os.pathsep.join([str(on_path), str(recorder.folder)]),
    )  # fmt: skip
    assert [row["status"] for row in rows(tmp_path / "store")] == ["ok"] * 3
    assert_from(recorder, installed.site)


def assert_from(recorder: Recorder, folder: Path) -> None:
    """Driver and slots executed modules of ours from `folder` alone, each under its full name."""
    processes = recorder.processes()
    assert any("equigrid.grid.running.driver" in found for found in processes.values())
    slots = [found for found in processes.values() if "equigrid.generators.edm.training" in found]
    assert any("equigrid.grid.running.driver" not in found for found in slots), "a worker's"
    for found in processes.values():
        assert {name.split(".")[0] for name in found} == {"equigrid"}
        assert all(path.is_relative_to(folder) for path in found.values()), found


@pytest.fixture(scope="module")
def ray_jobs(installed, tmp_path_factory):
    """Submits a working directory to a local Ray, whose workers have the wheel installed; returns
    the job's log.
    """
    # Sockets lie under it, whose names must be short.
    folder = Path(tmp_path_factory.mktemp("r"))
    with open(folder / "head.txt", "w") as log:
        head = subprocess.Popen(
            [installed.bin / "python", "-c", HEAD, folder / "t"], cwd=folder, stderr=log,
            env=installed.variables(RAY_USAGE_STATS_ENABLED="0"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    try:
        address = head.stdout.readline().strip()
        assert address, (folder / "head.txt").read_text()

        def submit(working_dir: Path, *entrypoint) -> str:
            return installed.run(
                "python", "-m", "ray.scripts.scripts", "job", "submit", "--address", address,
                "--working-dir", working_dir, "--", *entrypoint,
                cwd=working_dir, timeout_s=600,
            )  # fmt: skip

        yield submit
    finally:
        head.stdin.close()
        head.wait(60)


@pytest.mark.long
def test_a_job_whose_working_directory_has_a_users_own_modules(
    ray_jobs, installed, users_own, tmp_path
):
    recorder = Recorder(tmp_path / "recorder")
    shutil.copy(recorder.folder / "sitecustomize.py", users_own)
    run = ["equigrid", "run", "tiny.yaml", "--address", "auto", "--store", tmp_path / "store"]
    assert "succeeded" in ray_jobs(users_own, *run, "--out", tmp_path / "out")
    assert [row["status"] for row in rows(tmp_path / "store")] == ["ok"] * 3
    assert_from(recorder, installed.site)


@pytest.mark.long
def test_a_job_whose_working_directory_is_a_checkout_runs_that_checkout(ray_jobs, tmp_path):
    """Ray follows the links when it packs, and `.rayignore` leaves the four folders at the top
    behind: everything travels once.
    """
    checkout = copy_project(tmp_path / "clone")
    (checkout / "tiny.yaml").write_text(json.dumps(TINY))
    recorder = Recorder(tmp_path / "recorder")
    shutil.copy(recorder.folder / "sitecustomize.py", checkout)
    run = ["equigrid", "run", "tiny.yaml", "--address", "auto", "--store", tmp_path / "store"]
    assert "succeeded" in ray_jobs(checkout, *run, "--out", tmp_path / "out")
    assert [row["status"] for row in rows(tmp_path / "store")] == ["ok"] * 3
    (upload,) = {
        path.parents[1]
        for found in recorder.processes().values()
        for name, path in found.items()
        if name == "equigrid"
    }
    assert "working_dir_files" in upload.parts
    assert not {path.name for path in upload.iterdir()} & set(ROOMS)
    assert_from(recorder, upload)
