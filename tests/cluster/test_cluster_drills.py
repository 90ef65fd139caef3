"""Machines that are lost, for real, on three test hosts: each drill ends in the table of an
undisturbed run.

No retries are allowed in the spec, so that a lost machine visibly uses up none. Each drill has a
cluster of its own and takes some minutes; the times it prints (`-rP`) stand in docs/cluster.md.
"""

import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from typing import NamedTuple

import hosts as test_hosts
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hosts import LAPTOP, wait_until
from launched import BIN, CHECKOUT, REPOSITORY, Cluster, cores, same_columns

from equigrid.grid.store import Store, lock, results

pytestmark = pytest.mark.slow

GRID = "digits-drills"
SPEC = {
    "name": GRID,
    "dataset": "digits",
    "recipe": {"extends": "digits", "steps": 1200},  # long enough to be met
    "classifiers": ["digits-cnn"],
    "generators": {
        "edm": {
            "kind": "edm",
            "preset": "digits",
            "training": {"total_nimg": 25_600},
            "sampler": {"steps": 4},
        }
    },
    "subset_seeds": [0, 1],
    "seeds": [0],
    "quality": "off",
    "blocks": [{"n_base": 100, "real": [1], "syn": {"edm": [1, 2]}, "copies": [1]}],
    # A slot as large as a host, so that each host gets one.
    "execution": {
        "gpus": 0,
        "cpus": cores(),
        "threads": 1,
        "retries": 0,
        "checkpoint_every_s": 3600,
    },
}
JOBS = {"generator": 2, "shard": 2, "trial": 10}
TRIALS = JOBS["trial"]
LOG_EVERY = 50  # steps of a generator
LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (\w+) (\S+): (.*)$", re.MULTILINE)
RAY = r"\bray|gcs_server"
TAKE_OVER = """
import os, sys, time
from equigrid.grid.store import Store, lock
began_s = time.monotonic()
lock.acquire(Store(sys.argv[1]), sys.argv[2], tell=lambda text: print(text, flush=True))
print(f"taken over after {time.monotonic() - began_s:.0f} s", flush=True)
os._exit(1)  # and dies of it
"""


class Said(NamedTuple):
    """A line in the log of a slot: a job begins (`text` names its cell) or has ended (`text` says
    how).
    """

    at_s: float
    host: str
    kind: str
    id: str
    text: str

    @property
    def begins(self) -> bool:
        return self.text.startswith(f"{GRID}:")


class Drill:
    """A grid on a cluster, and what its slots say."""

    def __init__(self, cluster: Cluster, store: Store):
        self.cluster, self.hosts, self.store = cluster, cluster.hosts, store
        self.struck_s = 0.0

    def submit(self, name: str, **execution) -> None:
        spec = {**SPEC, "execution": SPEC["execution"] | execution}
        path = self.hosts.path(LAPTOP, f"{CHECKOUT}/{GRID}.yaml")
        path.write_text(yaml.safe_dump(spec, sort_keys=False))
        run = ["equigrid", "run", path.name, "--address", "auto", "--store", self.store.uri]
        self.name = name
        self.cluster.submit(name, *run, "--out", f"{self.store.uri}-out", wait=False)

    def said(self) -> list[Said]:
        """All that slots have logged, on any host, in order of time."""
        found = []
        for host in self.hosts.addresses:
            for path in self.hosts.path(host, "/tmp").glob("ray/session_2*/logs/worker-*.err"):
                for at, kind, job_id, text in LINE.findall(path.read_text(errors="replace")):
                    at_s = datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp()
                    found.append(Said(at_s, host, kind, job_id, text))
        return sorted(found)

    def met(self, kind: str, *, after_s: float, nth: int = 1) -> Said:
        """Waits until a worker host is `after_s` into its `nth` (or a later) job of a kind; that
        job's beginning.
        """
        workers, found = list(self.hosts.addresses)[1:], []

        def meets() -> bool:
            assert self.running(), self.cluster.log(self.name)
            for host in workers:
                said = [line for line in self.said() if line.host == host]
                begun = [line for line in said if line.begins and line.kind == kind]
                if (
                    len(begun) >= nth
                    and said[-1] is begun[-1]
                    and time.time() - said[-1].at_s >= after_s
                ):
                    found.append(said[-1])
            return bool(found)

        wait_until(meets, 600, f"a {kind} on a worker host")
        return found[0]

    def running(self) -> bool:
        return self.cluster.status(self.name) in ("PENDING", "RUNNING")

    def strike(self) -> None:
        self.struck_s = time.time()

    def tell(self, what: str, at_s: float | None = None) -> None:
        print(f"{what}: {(at_s or time.time()) - self.struck_s:.0f} s")

    def wait_dead(self, host: str) -> None:
        address = self.hosts.addresses[host]
        wait_until(lambda: address not in self.cluster.nodes(), 120, f"{host} to be marked dead")
        self.tell(f"{host} marked dead")

    def wait_retry(self, job: Said) -> Said:
        """The second beginning of a job, after the blow."""

        def again() -> list[Said]:
            return [
                line
                for line in self.said()
                if line.begins and line.id == job.id and line.at_s > self.struck_s
            ]

        wait_until(again, 300, f"{job.kind} {job.id} to begin again")
        self.tell(f"{job.kind} begun again on {again()[0].host}", again()[0].at_s)
        return again()[0]

    def wait_end(self) -> dict:
        """The run's summary, once the job has succeeded without any failure."""
        wait_until(lambda: not self.running(), 900, "the end of the grid")
        self.tell("end of the grid")
        log = self.cluster.log(self.name)
        assert self.cluster.status(self.name) == "SUCCEEDED", log
        run = self.store.get_json(max(self.store.list(f"grids/{GRID}/runs")))
        assert run["failures"] == [] and not run["interrupted"], log
        assert lock.holder(self.store, GRID) is None
        return run

    def parts(self) -> list[str]:
        """Results, one for each attempt."""
        return list(self.store.list(results.PARTS))

    def attempts(self) -> dict[str, str]:
        """Which attempt at each trial stands in the table."""
        return {row["trial_id"]: row["attempt"] for row in results.read(self.store).to_pylist()}

    def finished(self) -> dict[str, set[str]]:
        """Ids of the jobs that have their output in the store, by kind."""
        generators = {
            name.split("/")[1]
            for name in self.store.list("generators")
            if name.endswith("/manifest.json")
        }
        pools = {name for name in self.store.list("pools") if name.endswith(".json")}
        return {"generator": generators, "shard": pools, "trial": results.finished(self.store)}

    def slots(self, host: str) -> set[int]:
        return {pid for pid, line in self.hosts.processes(host).items() if line.startswith("ray::")}

    def checkpoints(self, job: Said) -> dict[str, int]:
        """Those of a generator, and their steps."""
        names = self.store.list(f"generators/{job.id}/checkpoints")
        return {
            name: int(name.rsplit("/", 1)[1].split("-")[0])
            for name in names
            if name.endswith(".pt")
        }

    def first_step(self, job: Said) -> int:
        """The first step that a generator's last attempt logged."""
        names = sorted(name for name in self.store.list(f"generators/{job.id}") if "/log-" in name)
        return min(pq.read_table(pa.BufferReader(self.store.get(names[-1])))["step"].to_pylist())

    def check(self, undisturbed: Store) -> None:
        """No row lost, none doubled, and each the same, bit by bit."""
        tables = [same_columns(store) for store in (self.store, undisturbed)]
        assert tables[0].num_rows == len(set(tables[0]["trial_id"].to_pylist())) == TRIALS
        assert tables[0].equals(tables[1]), pa.concat_tables(tables).to_pandas().to_string()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Store:
    """The same grid on this machine, where nothing happens."""
    if why := test_hosts.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    command = [
        BIN / "python",
        "-m",
        "equigrid.grid.cli",
        "run",
        folder / "spec.yaml",
        "--no-dashboard",
        "--json",
    ]
    subprocess.run([*command, "--store", folder / "store"], cwd=REPOSITORY, timeout=900, check=True)
    return Store(folder / "store")


@pytest.fixture
def drill(undisturbed, shared, tmp_path, request) -> Drill:
    """A cluster of its own, torn down afterwards, on which every host that runs a trial holds that
    trial's shards.
    """
    folders = (*test_hosts.environment_folders(), shared)
    with test_hosts.Hosts(3, tmp_path / "hosts", shared=folders) as made:
        cluster = Cluster(made)
        cluster.prepare()
        # The digits' shards are so small that Ray would keep them in the driver.
        for host in made.addresses:
            with open(made.path(host, "/root/.bashrc"), "a") as file:
                file.write("export RAY_max_direct_call_object_size=1000\n")
        cluster.up()
        name = re.sub(r"\W+", "-", request.node.name).strip("-")
        yield Drill(cluster, Store(shared / name, create=True))


def test_network_cut_while_a_trial_runs_on_cached_shards(drill, undisturbed):
    drill.submit("drill-1")
    trial = drill.met("trial", after_s=1, nth=2)  # the test set's shards are there since the first
    zombies = drill.slots(trial.host)
    drill.strike()
    drill.hosts.cut(trial.host)
    drill.wait_dead(trial.host)
    drill.wait_retry(trial)
    drill.hosts.heal(trial.host)
    drill.tell("healed")
    assert drill.wait_end()["retries"] >= 1
    wait_until(lambda: not zombies & drill.slots(trial.host), 180, "what was cut off to end")
    drill.tell(f"the old processes of {trial.host} gone")
    print(f"{len(drill.parts())} results written for {TRIALS} trials")
    drill.check(undisturbed)


def test_head_lost_in_mid_grid_and_resumed_under_a_new_id(drill, undisturbed):
    drill.submit("drill-1", checkpoint_every_s=5)
    wait_until(lambda: len(drill.parts()) >= 2 or not drill.running(), 600, "two results")
    assert drill.running(), drill.cluster.log("drill-1")
    drill.strike()
    assert drill.hosts.kill("host1", rf"{RAY}|equigrid run") > 5
    log = drill.hosts.path("host3", "/tmp/take-over.log")
    command = [sys.executable, "-c", TAKE_OVER, drill.store.uri, GRID]
    taking = drill.hosts.start("host3", command, log, cwd=REPOSITORY)
    drill.cluster.up()
    drill.tell("`ray up` done, all hosts there")
    taking.wait(120)
    print(f"another host: {log.read_text().strip()}")
    assert int(re.search(r"taken over after (\d+) s", log.read_text())[1]) <= lock.STALE_S + 15

    before = drill.attempts()
    done = {kind: len(ids) for kind, ids in drill.finished().items()}
    assert 2 <= done["trial"] < TRIALS
    drill.submit("drill-2")
    run = drill.wait_end()
    assert run["cached"] == done
    assert run["jobs"] == {kind: JOBS[kind] - n for kind, n in done.items() if n < JOBS[kind]}, (
        "what was missing runs"
    )
    assert before.items() <= drill.attempts().items()
    drill.check(undisturbed)


@pytest.mark.parametrize("how", ["kill -9 of the raylet", "SIGTERM to all", "ray stop"])
def test_host_gone_while_a_generator_trains(drill, undisturbed, how):
    """Ray kills its workers at once, however its raylet ends: the training goes on from its last
    checkpoint.
    """
    drill.submit("drill-1", checkpoint_every_s=2)
    training = drill.met("generator", after_s=1)
    # After the first row of the log, which a training from the start would repeat.
    wait_until(
        lambda: max(drill.checkpoints(training).values(), default=0) > LOG_EVERY,
        120,
        "a checkpoint",
    )
    drill.strike()
    if how == "ray stop":
        drill.hosts.run(training.host, [BIN / "ray", "stop"], check=False)
    elif how == "SIGTERM to all":
        drill.hosts.kill(training.host, RAY, signal.SIGTERM)
    else:
        assert drill.hosts.kill(training.host, r"raylet/raylet") == 1
    wait_until(lambda: not drill.slots(training.host), 60, "the workers to end")
    drill.tell("workers gone")
    saved = max(drill.checkpoints(training).values())
    drill.wait_dead(training.host)
    drill.wait_retry(training)
    assert drill.wait_end()["retries"] >= 1
    print(f"saved after step {saved}, first logged step of the retry {drill.first_step(training)}")
    assert LOG_EVERY < saved < drill.first_step(training) <= saved + LOG_EVERY
    drill.check(undisturbed)


def test_told_to_leave_a_host_saves_its_training_and_goes(drill, undisturbed):
    """As a spot notice or a preStop hook would. No checkpoint is due for an hour: only the notice
    makes one.
    """
    drill.submit("drill-1")
    training = drill.met("generator", after_s=6)
    assert not drill.checkpoints(training)
    drill.strike()
    told = drill.hosts.run(training.host, ". ~/.bashrc && bash ~/equigrid/deploy/leave-node.sh")
    drill.tell("leave-node.sh done")
    assert not drill.slots(training.host), told.stdout
    (left,) = (
        line.text
        for line in drill.said()
        if line.id == training.id and "told to leave" in line.text
    )
    saved = int(re.search(r"saved after step ([\d,]+)", left)[1].replace(",", ""))
    drill.wait_dead(training.host)
    drill.wait_retry(training)
    drill.wait_end()
    print(f"saved after step {saved}, first logged step of the retry {drill.first_step(training)}")
    assert 0 < saved < drill.first_step(training) <= saved + LOG_EVERY
    drill.check(undisturbed)
