"""deploy/slurm.sh on a real Slurm of two nodes: killed, submitted again, told to leave, queued again
by itself; and in the end the table of a run that nothing happened to.
"""

import sys
import time
from pathlib import Path

import hosts as test_hosts
import pyarrow.compute as pc
import pytest
import slurm as test_slurm
from hosts import wait_until
from launched import REPOSITORY

from equigrid.grid.store import Store, results

pytestmark = pytest.mark.long
SPEC = Path(__file__).with_name("digits-cluster.yaml")
COLUMNS = ["trial_id", "status", "top1", "loss", "confusion", "steps", "shards"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory, shared):
    """Two nodes; skipped with the reason where Slurm is missing or hosts cannot be made."""
    if why := test_slurm.missing() or test_hosts.missing():
        pytest.skip(why)
    folders = (*test_hosts.environment_folders(), shared)
    with test_hosts.Hosts(2, tmp_path_factory.mktemp("hosts"), shared=folders) as hosts:
        folder = shared / "slurm"
        folder.mkdir()
        made = test_slurm.Slurm(hosts, folder)
        made.up()
        yield made


class Submitted:
    """The grid on Slurm: always the same command, as one types it in a checkout."""

    def __init__(self, slurm, shared: Path):
        self.slurm, self.folder = slurm, shared / "home"
        self.folder.mkdir()
        commands = self.folder / "bin"  # the environment that the job is submitted from
        commands.mkdir()
        (commands / "equigrid").write_text(
            f'#!/bin/sh\nexec {sys.executable} -m equigrid.grid.cli "$@"\n'
        )
        (commands / "equigrid").chmod(0o755)
        paths = [str(commands), str(Path(sys.executable).parent), test_slurm._PATHS]
        self.environment = {
            "HOME": str(self.folder), "PATH": ":".join(paths), "PYTHONPATH": str(REPOSITORY),
            "RAY_TMPDIR": "/tmp", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.store = shared / "store"

    def sbatch(self) -> str:
        """Submits it; the job's number."""
        command = (
            f"sbatch --parsable --nodes=2 --output={self.folder}/job-%j.log deploy/slurm.sh {SPEC}"
            f" --store {self.store} --no-dashboard --out {self.folder}/out"
        )
        printed = self.slurm.on("host1", command, env=self.environment, cwd=str(REPOSITORY))
        return printed.split()[-1]

    def log(self, job: str) -> str:
        path = self.folder / f"job-{job}.log"
        return path.read_text() if path.exists() else ""

    def done(self) -> int:
        """Trials with a result."""
        if not (self.store / "results").exists():
            return 0
        return len(results.finished(Store(self.store)))

    def wait(self, job: str, condition, timeout_s: float, what: str) -> None:
        try:
            wait_until(condition, timeout_s, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.log(job)}") from error


@pytest.fixture(scope="module")
def submitted(slurm, shared):
    return Submitted(slurm, shared)


def table(store: Path) -> list[dict]:
    """What a trial's training determines, in the order of their ids."""
    rows = results.read(Store(store), COLUMNS)
    return rows.take(pc.sort_indices(rows, [("trial_id", "ascending")])).to_pylist()


def ray_processes(slurm) -> list[str]:
    lines = [line for name in slurm.names for line in slurm.hosts.processes(name).values()]
    return [line for line in lines if "raylet" in line or "gcs_server" in line or "ray::" in line]


def test_killed_and_told_to_leave_it_ends_in_the_same_table(slurm, submitted, shared):
    first = submitted.sbatch()
    submitted.wait(first, lambda: submitted.done() >= 2, 240, "two trials")
    slurm.on("host1", f"scancel {first}")  # SIGTERM, and SIGKILL five seconds later
    submitted.wait(first, lambda: slurm.state(first) == "CANCELLED", 60, "the job to be gone")
    wait_until(lambda: not ray_processes(slurm), 60, "Ray to be gone with it")
    before = submitted.done()
    assert before < 12, "the grid was done before the job was killed"

    second = submitted.sbatch()
    submitted.wait(second, lambda: submitted.done() > before, 240, "a further trial")
    started = time.monotonic()
    slurm.on("host1", f"scancel --batch --signal=USR1 {second}")  # as at its time's end
    submitted.wait(second, lambda: slurm.restarts(second) == 1, 150, "the job to queue again")
    assert time.monotonic() - started < 120
    assert "told to leave" in submitted.log(second)

    finished = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
    submitted.wait(second, lambda: slurm.state(second) in finished, 300, "the end")
    assert slurm.state(second) == "COMPLETED", submitted.log(second)
    assert "equigrid: ended with 0" in submitted.log(second)
    wait_until(lambda: not ray_processes(slurm), 60, "Ray to be gone")

    nodes = {row["node"] for row in results.read(Store(submitted.store), ["node"]).to_pylist()}
    assert nodes == {"host1", "host2"}
    alone = shared / "alone"
    command = [
        sys.executable, "-m", "equigrid.grid.cli", "run", str(SPEC), "--store", str(alone),
        "--no-dashboard", "--out", str(shared / "out-alone"),
    ]  # fmt: skip
    slurm.hosts.run("host1", command, timeout_s=300, env=submitted.environment)
    assert table(submitted.store) == table(alone)
    assert len(table(alone)) == 10
