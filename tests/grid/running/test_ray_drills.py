"""Parts of Ray that die, are missing or full: a run ends within 30 s in one line and with code 4, or
goes on.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from equigrid.grid.errors import ClusterError, ExitCode
from equigrid.grid.running import watch
from equigrid.grid.running.watch import Watch
from equigrid.grid.store import Store, results

WITHIN_S = 30
SHELL = ("bash", "-c")


def parts(store: Store) -> list[str]:
    return list(store.list(results.PARTS))


def check_ended(command, began_s: float, said: str) -> None:
    """In one line, with its code, in time, and with nothing left behind."""
    assert command.finish(WITHIN_S + 30) == ExitCode.UNAVAILABLE, command.text
    assert time.monotonic() - began_s < WITHIN_S
    lines = command.err_path.read_text().strip().splitlines()
    assert lines[-1].startswith("equigrid: ")
    assert said in lines[-1]
    assert sum(line.startswith("equigrid: ") for line in lines) == 1
    assert "Traceback" not in command.text
    assert "interrupted" not in command.text


@pytest.fixture
def long_run(mini, one_slot, write_spec, start, tmp_path):
    """Starts a run that would last for minutes; waits until its trials have begun."""
    mini["seeds"], mini["recipe"]["steps"] = list(range(100)), 200
    store = Store(tmp_path / "store", create=True)

    def begin(*options):
        command = start("run", write_spec(mini), "--store", store.uri, *options)
        command.wait_until(lambda: len(parts(store)) >= 2)
        return command

    return begin


def named(command, name: str) -> list[int]:
    return [pid for pid, line in command.descendants().items() if name in line.split(" ")[0]]


def kill(command, name: str) -> None:
    found = named(command, name)
    assert found, command.descendants()
    for pid in found:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_local_part_is_killed(long_run, tmp_path, part, left_of):
    command = long_run("--no-dashboard")
    left = {pid: line for pid, line in command.descendants().items() if "ray::" not in line}
    began_s = time.monotonic()
    kill(command, part)
    check_ended(command, began_s, "Ray")
    store = Store(tmp_path / "store")
    rows = results.read(store).to_pylist()
    assert len(rows) >= 2
    assert all(row["status"] == "ok" for row in rows)
    assert not left_of(left)


@pytest.mark.long
def test_a_run_is_terminated_with_its_parts_while_ray_starts(
    mini, write_spec, start, tmp_path, left_of
):
    """As systems of jobs and services do: it is no death of Ray's GCS, which ends too."""
    command = start("run", write_spec(mini), "--store", tmp_path / "store", "--no-dashboard")
    command.wait_until(lambda: named(command, "gcs_server"))
    running = command.descendants()
    os.killpg(command.process.pid, signal.SIGTERM)
    assert command.finish(30) == ExitCode.INTERRUPTED, command.text
    assert command.err_path.read_text().splitlines()[-1].startswith("equigrid: interrupted")
    assert command.text.count("equigrid: ") == 1
    assert "Traceback" not in command.text
    assert not left_of(running)


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2, 3])
def test_a_raylet_is_killed_while_the_driver_registers(mini, write_spec, start, tmp_path, after_s):
    """Ray's library then ends the driver itself, at some of these moments."""
    command = start("run", write_spec(mini), "--store", tmp_path / "store", "--no-dashboard")
    command.wait_until(lambda: named(command, "raylet"))
    time.sleep(after_s)
    began_s = time.monotonic()
    kill(command, "raylet")
    check_ended(command, began_s, "Ray")


@pytest.mark.slow
def test_the_dashboard_is_killed_and_the_run_goes_on(
    finished_mini, mini, write_spec, start, tmp_path, outcomes
):
    store = Store(tmp_path / "store", create=True)
    command = start("run", write_spec(mini), "--store", store.uri)
    command.wait_until(lambda: len(parts(store)) >= 2)
    dashboards = [
        p for p, line in command.descendants().items() if "dashboard/dashboard.py" in line
    ]
    for pid in dashboards:
        os.kill(pid, signal.SIGKILL)
    assert dashboards
    assert command.finish() == 0, command.text
    assert outcomes(store) == outcomes(finished_mini[0])


@pytest.mark.slow
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_part_of_a_cluster_is_killed(long_run, tmp_path, part):
    """The raylet beside the driver, or the head's GCS."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    try:
        command = long_run("--address", cluster.address)
        began_s = time.monotonic()
        process = cluster.head_node.all_processes[part][0].process
        os.kill(process.pid, signal.SIGKILL)
        check_ended(command, began_s, "Ray")
    finally:
        cluster.shutdown()


@pytest.mark.long
def test_too_few_files_are_said_at_once(mini, write_spec, start, tmp_path):
    began_s = time.monotonic()
    under = (*SHELL, 'ulimit -n 64; exec "$0" "$@"')
    command = start("run", write_spec(mini), "--store", tmp_path / "store", under=under)
    check_ended(command, began_s, "may open 64 files here, and Ray needs 1,024: ulimit -n 1024")


@pytest.mark.slow
@pytest.mark.parametrize("shm", ["umount -l /dev/shm; rmdir /dev/shm", "none", "full"])
def test_no_shared_memory(finished_mini, mini, write_spec, start, tmp_path, outcomes, shm):
    """/dev/shm missing, of one megabyte, or full: Ray keeps its objects elsewhere."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("only root has mounts of its own")
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no mounts of its own here")
    made = {
        "none": "mount -t tmpfs -o size=1m none /dev/shm",
        "full": "mount -t tmpfs -o size=64m none /dev/shm; head -c 64M /dev/zero > /dev/shm/x",
    }
    under = ("unshare", "-m", *SHELL, f'({made.get(shm, shm)}) 2>/dev/null; exec "$0" "$@"')
    store = Store(tmp_path / "store", create=True)
    command = start("run", write_spec(mini), "--store", store.uri, "--no-dashboard", under=under)
    assert command.finish(240) == 0, command.text
    assert outcomes(store) == outcomes(finished_mini[0])


# The watch itself ---------------------------------------------------------------------------------


def wait(seconds: float, over: Callable[[], bool] = lambda: False) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s and not over():
        time.sleep(0.05)


def test_what_waits_is_interrupted_and_told_why(monkeypatch):
    monkeypatch.setattr("equigrid.grid.running.watch.LOOK_EVERY_S", 0.05)
    lives = {"raylet": True, "head": True}
    began_s = time.monotonic()
    with pytest.raises(ClusterError, match="Ray's raylet died"), Watch(lambda: dict(lives)):  # noqa: PT012
        lives["raylet"] = False
        time.sleep(20)
    assert time.monotonic() - began_s < 10


def test_a_death_is_known_at_once(monkeypatch):
    """Not when it is looked for next: Ray may end this process without a word before."""
    monkeypatch.setattr("equigrid.grid.running.watch.LOOK_EVERY_S", 60)
    part = subprocess.Popen(["sleep", "60"])
    alive = Watch(lambda: {"raylet": part.poll() is None}, processes=lambda: [part.pid])
    with pytest.raises(ClusterError, match="Ray's raylet died"), alive:  # noqa: PT012
        wait(0.5)
        began_s = time.monotonic()
        part.kill()
        wait(20)
    assert time.monotonic() - began_s < 5


def test_who_listens_on_a_socket_is_known(tmp_path):
    path = tmp_path / "raylet"
    serve = "import socket, sys, time\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\n"
    serve += "s.listen()\nprint(flush=True)\ntime.sleep(60)"
    assert watch._listening(str(path)) == []
    served = subprocess.Popen([sys.executable, "-c", serve, path], stdout=subprocess.PIPE)
    assert served.stdout is not None
    served.stdout.readline()
    assert watch._listening(str(path)) == [served.pid]
    served.kill()
    served.wait()
    assert watch._listening(str(path)) == []


def test_a_part_may_be_slow_to_answer_but_not_for_long(monkeypatch):
    monkeypatch.setattr("equigrid.grid.running.watch.LOOK_EVERY_S", 0.05)
    answers = iter([True, None, None, None, True] * 3)
    with Watch(lambda: {"head": next(answers, True)}):
        wait(1.5)
    with pytest.raises(ClusterError, match="Ray's head died"), Watch(lambda: {"head": None}):
        time.sleep(20)


def test_an_error_of_a_lost_part_is_the_lost_part(monkeypatch):
    monkeypatch.setattr("equigrid.grid.running.watch.LOOK_EVERY_S", 0.05)
    watched = Watch(lambda: {"raylet": True})
    with pytest.raises(ClusterError, match="lost") as caught, watched:  # noqa: PT012
        watched.lost = "lost"
        raise ValueError("what Ray said")
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ValueError, match="a fault"), Watch(lambda: {"raylet": True}):
        raise ValueError("a fault")


def test_what_does_not_leave_is_ended(monkeypatch):
    monkeypatch.setattr("equigrid.grid.running.watch.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("equigrid.grid.running.watch.LEAVE_WITHIN_S", 0.3)
    said: list[str] = []
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Ray's C++ may
    try:
        with pytest.raises(ClusterError), Watch(lambda: {"raylet": False}, said.append):
            wait(20, lambda: bool(said))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(said) == 1
    assert "Ray's raylet died" in said[0]
