"""A user's own `analysis.py`, `classifiers.py`, `grid/`, `generators/` are never taken for ours: in
the current folder, on PYTHONPATH, beside the spec, in Ray's working directory; nor is an installed
copy where the working directory is a checkout.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from environments import ROOMS, TINY, USERS_OWN, Recorder, copy_project, plant_users_own

from equigrid.grid.store import Store, results

pytestmark = pytest.mark.long

NOT_YET = ("No available agent", "Connection refused")  # what Ray says while its head comes up


def rows(store: Path) -> list[dict]:
    return results.read(Store(str(store))).to_pylist()


def test_the_traps_would_catch(users_own, installed):
    for name in USERS_OWN:
        module = name.split("/")[0].removesuffix(".py")
        with pytest.raises(AssertionError, match="the user's own"):
            installed.run("python", "-c", f"import {module}", cwd=users_own)


def test_planning_beside_a_users_own_modules(installed, users_own, tmp_path):
    elsewhere = plant_users_own(tmp_path / "elsewhere")
    for command in (
        ["equigrid"],
        ["python", "-m", "equigrid"],
        ["python", "-m", "equigrid.grid.cli"],
    ):
        said = installed.run(
            *command, "plan", users_own / "tiny.yaml", "--json",
            cwd=elsewhere, PYTHONPATH=str(plant_users_own(tmp_path / "on-path")),
        )  # fmt: skip
        assert json.loads(said)["cells"] == 3


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


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def ray_jobs(installed, tmp_path_factory):
    """Submits a working directory to a local Ray, whose workers have the wheel installed; returns
    the job's log.
    """
    ray = ["python", "-m", "ray.scripts.scripts"]
    # Beside any other Ray of this machine, whose ports are taken; sockets need a short path.
    ports = dict(
        zip(
            ("dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port"),
            free_ports(3),
        )
    )
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    log = tmp_path_factory.mktemp("head") / "log.txt"
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    start = [
        *ray, "start", "--head", "--block", "--port=0", "--num-cpus=2", "--disable-usage-stats",
        f"--temp-dir={folder}", *(f"--{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with open(log, "w") as out:
        head = subprocess.Popen(
            [installed.bin / start[0], *start[1:]], cwd=folder, stdout=out, stderr=out,
            env=installed.variables(**environment), start_new_session=True,
        )  # fmt: skip

    def submit(working_dir: Path, *entrypoint) -> str:
        command = [
            *ray,
            "job",
            "submit",
            "--address",
            f"http://127.0.0.1:{ports['dashboard-port']}",
        ]
        end = time.monotonic() + 120
        while True:
            try:
                return installed.run(
                    *command, "--working-dir", working_dir, "--", *entrypoint,
                    cwd=working_dir, timeout_s=600, **environment,
                )  # fmt: skip
            except AssertionError as error:
                not_yet = any(text in str(error) for text in NOT_YET)
                assert head.poll() is None, log.read_text()
                if not not_yet or time.monotonic() > end:
                    raise
                time.sleep(1)

    yield submit
    head.terminate()
    head.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_job_whose_working_directory_has_a_users_own_modules(
    ray_jobs, installed, users_own, tmp_path
):
    recorder = Recorder(tmp_path / "recorder")
    shutil.copy(recorder.folder / "sitecustomize.py", users_own)
    run = ["equigrid", "run", "tiny.yaml", "--address", "auto", "--store", tmp_path / "store"]
    assert "succeeded" in ray_jobs(users_own, *run, "--out", tmp_path / "out")
    assert [row["status"] for row in rows(tmp_path / "store")] == ["ok"] * 3
    assert_from(recorder, installed.site)


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
