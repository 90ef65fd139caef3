"""deploy/slurm.sh on a real Slurm of two nodes: told to leave, it queues again by itself; cancelled,
it stays so.

Only Ray and the grid are played, by commands that write down that they were called: the nodes begin
and end as Ray's do, and the grid ends when it is told to.
"""

from pathlib import Path

import hosts as test_hosts
import pytest
import slurm as test_slurm
from hosts import wait_until
from launched import REPOSITORY

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
    assert {"host1 stop", "host2 stop"} <= set(text.splitlines())
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
