"""deploy/slurm.sh on a real Slurm of two nodes: told to leave, it queues again by itself; cancelled,
it stays so; and whatever was killed, the same line again ends in the table of a local run.

In the first test Ray and the grid are played, by commands that write down that they were called:
the nodes begin and end as Ray's do, and the grid ends when it is told to. In the other they are the
real ones.
"""

import re
import subprocess
import sys
from pathlib import Path

import hosts as test_hosts
import pytest
import slurm as test_slurm
import yaml
from hosts import wait_until
from launched import BIN, REPOSITORY, same_columns

from equigrid.grid.store import Store, lock, results

pytestmark = pytest.mark.long
RAY = """#!/bin/bash
case $1 in
get-auth-token) mkdir -p ~/.ray && echo a-token > ~/.ray/auth_token ;;
symmetric-run)
  echo "$(hostname) $*" >> {calls}
  if ip addr | grep -q "inet ${{3%%:*}}/"; then
    while [ "$1" != -- ]; do shift; done
    shift; "$@"
  else
    sleep 300
  fi ;;
stop) echo "$(hostname) stop" >> {calls}; pkill -f played-grid; pkill -f 'sleep 300'; true ;;
esac
"""
GRID = """#!/bin/bash
echo "$(hostname) grid $*" >> {calls}
[ "${{SLURM_RESTART_COUNT:-0}}" -ge 1 ] && exit 0
exec bash -c 'trap "exit 130" TERM; while :; do sleep 0.2; done' played-grid
"""


@pytest.fixture
def slurm(tmp_path):
    """Two nodes; skipped with the reason where Slurm is missing or hosts cannot be made."""
    if why := test_slurm.missing() or test_hosts.missing():
        pytest.skip(why)
    shared, private = tmp_path / "shared", tmp_path / "hosts"
    shared.mkdir()
    private.mkdir()
    folders = (*test_hosts.environment_folders(), shared)
    with test_hosts.Hosts(2, private, shared=folders) as hosts:
        made = test_slurm.Slurm(hosts, shared)
        made.up()
        yield made


def submit(slurm, calls: Path) -> tuple[str, Path]:
    """A job's number, and its log."""
    commands = slurm.folder / "home/bin"
    commands.mkdir(parents=True, exist_ok=True)
    for name, text in (("ray", RAY), ("equigrid", GRID)):
        (commands / name).write_text(text.format(calls=calls))
        (commands / name).chmod(0o755)
    environment = {
        "HOME": str(slurm.folder / "home"), "PATH": f"{commands}:{test_slurm.PATHS}",
        "EQUIGRID_SAVE_S": "5",
    }  # fmt: skip
    log = slurm.folder / f"{calls.name}.log"
    command = f"sbatch --parsable --nodes=2 --output={log} deploy/slurm.sh SPEC --store /x"
    printed = slurm.on("host1", command, env=environment, cwd=str(REPOSITORY))
    return printed.split()[-1], log


def processes(slurm) -> list[str]:
    return [line for name in slurm.names for line in slurm.hosts.processes(name).values()]


def test_told_to_leave_it_queues_again_and_cancelled_it_stays_so(slurm):
    calls = slurm.folder / "first"
    job, log = submit(slurm, calls)
    wait_until(lambda: calls.exists() and " grid run" in calls.read_text(), 60, "the grid to run")
    wait_until(lambda: "host2 symmetric-run" in calls.read_text(), 60, "the second node")
    began = calls.read_text()
    assert "--address 10.77.0.1:6379 --min-nodes 2" in began
    assert "host1 grid run --address auto SPEC --store /x" in began
    slurm.on("host1", f"scancel --batch --signal=USR1 {job}")  # as before its time is up
    wait_until(lambda: slurm.state(job) == "COMPLETED", 150, "the end of its second start")
    assert slurm.restarts(job) == 1
    text = calls.read_text()
    for name in slurm.names:  # told to leave, and as each job does before its Ray starts
        assert text.splitlines().count(f"{name} stop") == 1 + 2
    assert text.count("host1 grid run") == 2
    assert "ended with 0" in log.read_text()

    calls = slurm.folder / "second"
    job, log = submit(slurm, calls)
    wait_until(lambda: calls.exists() and " grid run" in calls.read_text(), 60, "the grid to run")
    slurm.on("host1", f"scancel {job}")
    wait_until(lambda: slurm.state(job) == "CANCELLED", 60, "the job to be gone")
    assert slurm.restarts(job) == 0
    assert "queues again" not in log.read_text()
    wait_until(lambda: "played-grid" not in " ".join(processes(slurm)), 20, "its end")


# With Ray and a grid ------------------------------------------------------------------------------

SPEC = {
    "name": "on-slurm",
    "dataset": "digits",
    "recipe": {"extends": "digits", "steps": 300},
    "classifiers": ["digits-cnn"],
    "generators": {
        "edm": {
            "kind": "edm",
            "preset": "digits",
            "training": {"total_nimg": 3_200},
            "sampler": {"steps": 4},
        }
    },
    "seeds": [0, 1],
    "quality": "off",
    "blocks": [{"n_base": 100, "real": [1, 2], "syn": {"edm": [1, 2]}, "copies": [1]}],
    "execution": {"gpus": 0, "cpus": 2, "threads": 1},  # a slot as large as a node
}
TRIALS = 12
RAY_PROCESS = r"raylet/raylet|gcs_server|ray::|symmetric-run"


@pytest.fixture
def undisturbed(tmp_path) -> Store:
    """The same grid on this machine, where nothing happens."""
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    command = [sys.executable, "-m", "equigrid.grid.cli", "run", tmp_path / "spec.yaml"]
    command += ["--no-dashboard", "--json", "--store", tmp_path / "undisturbed"]
    subprocess.run(command, cwd=tmp_path, timeout=600, check=True, stdout=subprocess.DEVNULL)
    return Store(tmp_path / "undisturbed")


def submit_grid(slurm, store: Store, number: int) -> tuple[str, Path]:
    """The line as docs/slurm.md has it; a job's number, and its log."""
    home = slurm.folder / "home"
    home.mkdir(exist_ok=True)
    environment = {
        "HOME": str(home), "PATH": f"{BIN}:{test_slurm.PATHS}", "PYTHONPATH": str(REPOSITORY),
        "RAY_memory_monitor_refresh_ms": "0",  # the nodes are one machine with one memory
    }  # fmt: skip
    spec, log = slurm.folder / "spec.yaml", slurm.folder / f"grid{number}.log"
    spec.write_text(yaml.safe_dump(SPEC))
    line = f"deploy/slurm.sh {spec} --store {store.uri} --out {slurm.folder / 'out'}"
    command = f"sbatch --parsable --nodes=2 --output={log} {line}"
    printed = slurm.on("host1", command, env=environment, cwd=str(REPOSITORY))
    return printed.split()[-1], log


def of_ray(slurm) -> list[str]:
    return [line for line in processes(slurm) if re.search(RAY_PROCESS, line)]


def attempts(store: Store) -> dict[str, str]:
    return {row["trial_id"]: row["attempt"] for row in results.read(store).to_pylist()}


@pytest.mark.slow
def test_killed_in_mid_grid_the_same_line_ends_in_the_table_of_a_local_run(slurm, undisturbed):
    """With the real `ray symmetric-run` and the real grid: first cancelled, then a node's raylet
    gets kill -9, which the grid survives on the other node.
    """
    store = Store(slurm.folder / "store", create=True)

    def parts(log: Path, job: str, least: int) -> bool:
        assert slurm.state(job) in ("PENDING", "RUNNING", "CONFIGURING"), log.read_text()
        return len(list(store.list(results.PARTS))) >= least

    job, log = submit_grid(slurm, store, 1)
    wait_until(lambda: parts(log, job, 2), 300, "two results")
    assert any("raylet" in line for line in slurm.hosts.processes("host2").values())
    slurm.on("host1", f"scancel {job}")
    wait_until(lambda: slurm.state(job) == "CANCELLED", 60, "the job to be gone")
    wait_until(lambda: not of_ray(slurm), 90, "Ray to be gone from both nodes")
    assert "queues again" not in log.read_text()
    before = attempts(store)
    assert 2 <= len(before) < TRIALS

    job, log = submit_grid(slurm, store, 2)
    # The second node has a slot that works when its raylet is killed.
    wait_until(
        lambda: (
            parts(log, job, len(before) + 1)
            and any(
                re.match("ray::trial", line) for line in slurm.hosts.processes("host2").values()
            )
        ),
        300,
        "a trial on the second node",
    )
    assert slurm.hosts.kill("host2", r"raylet/raylet") == 1
    wait_until(lambda: slurm.state(job) not in ("PENDING", "RUNNING"), 600, "the end of the grid")
    assert slurm.state(job) in ("COMPLETED", "COMPLETING"), log.read_text()
    assert "ended with 0" in log.read_text()
    print(f"{len(before)} rows before, {slurm.restarts(job)} requeues after the kill")
    assert before.items() <= attempts(store).items()
    assert lock.holder(store, SPEC["name"]) is None
    tables = [same_columns(each) for each in (store, undisturbed)]
    assert tables[0].num_rows == len(set(tables[0]["trial_id"].to_pylist())) == TRIALS
    assert tables[0].equals(tables[1])
    wait_until(lambda: not of_ray(slurm), 90, "Ray to be gone from both nodes")
