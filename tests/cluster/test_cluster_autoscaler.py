"""A cluster that starts without a worker, with a real autoscaler: it brings machines when a grid asks
for them, one whose work is done leaves while the grid goes on, and comes again when there is more.
"""

import os
import subprocess
import sys
import time

import pyarrow.compute as pc
import pytest
import yaml
from autoscaled import IDLE_S, Autoscaled
from hosts import wait_until
from launched import REPOSITORY, same_columns

from equigrid.grid.running.slots import RELEASE_AFTER_S
from equigrid.grid.store import Store, results

pytestmark = pytest.mark.slow

# A generator that learns for as long as the test likes.
MODULE = """
import time
from pathlib import Path

import numpy as np


def train(images, labels, folder, seed, until):
    while not Path(until).exists():
        time.sleep(0.1)
    (folder / "mean").write_text(str(images.mean()))


class Noise:
    def sample(self, label, seed):
        return np.random.default_rng(seed).integers(0, 255, (8, 8, 1)).astype(np.uint8)


def load(folder):
    return Noise()
"""
BEFORE, AFTER = 8, 8  # trials that need no generator, and those that wait for it


@pytest.fixture
def spec(tmp_path):
    """Real images first, in short trials; then synthetic ones, in longer ones. No slots are said:
    the autoscaler's file says how many there may be.
    """
    (tmp_path / "waits_for_a_file.py").write_text(MODULE)
    own = {"kind": "python", "module": "waits_for_a_file", "path": str(tmp_path)}
    own |= {"setting": "closed", "training": {"until": str(tmp_path / "learned")}}
    longer = {"extends": "digits", "steps": 1500}
    return {
        "name": "autoscaled", "dataset": "digits", "classifiers": ["digits-cnn"], "quality": "off",
        "recipe": {"extends": "digits", "steps": 15}, "generators": {"own": own},
        "seeds": list(range(4)), "execution": {"gpus": 0},
        "blocks": [
            {"n_base": 100, "real": 1},
            {"n_base": 100, "base": False, "syn": {"own": [1, 2]}, "recipe": longer},
        ],
    }  # fmt: skip


def test_an_idle_machine_leaves_in_mid_grid_and_another_comes_for_more_work(spec, tmp_path):
    place = tmp_path / "spec.yaml"
    place.write_text(yaml.safe_dump(spec))
    store = Store(tmp_path / "store", create=True)
    with Autoscaled(most=2) as cluster:
        began_s = time.monotonic()

        def tell(what: str) -> None:
            print(f"{time.monotonic() - began_s:5.0f} s: {what}")

        command = [sys.executable, "-m", "equigrid.grid.cli", "run", place, "--no-dashboard"]
        command += ["--address", cluster.address, "--store", store.uri]
        with open(tmp_path / "log", "w") as log:
            environment = cluster.environment | {"PYTHONPATH": str(REPOSITORY)}
            run = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)

        def rows() -> int:
            assert run.poll() is None, (tmp_path / "log").read_text()
            return len(list(store.list(results.PARTS)))

        def wait(condition, timeout_s: float, what: str) -> None:
            wait_until(lambda: rows() >= 0 and condition(), timeout_s, what)
            tell(what)

        try:
            wait(lambda: cluster.workers == 2, 180, "two machines, where there was none")
            wait(lambda: rows() == BEFORE, 180, "the work of one of them done")
            wait(lambda: cluster.workers == 1, RELEASE_AFTER_S + IDLE_S + 60, "one machine left")
            (tmp_path / "learned").touch()
            wait(lambda: rows() > BEFORE, 120, "the first result of what waited")
            wait(lambda: cluster.workers == 2, 120, "two machines again")
            assert run.wait(300) == 0, (tmp_path / "log").read_text()
            tell("end of the grid")
            wait_until(lambda: cluster.workers == 0, IDLE_S + 60, "the machines to leave")
            tell("no machine left")
        finally:
            run.kill()

    # The same rows as where all happens on one machine, and more than one machine made the last.
    local = Store(tmp_path / "local", create=True)
    command = [sys.executable, "-m", "equigrid.grid.cli", "run", place, "--no-dashboard"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    subprocess.run(
        [*command, "--store", local.uri], check=True, timeout=300, cwd=tmp_path, env=kept,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert same_columns(store).num_rows == BEFORE + AFTER
    assert same_columns(store).equals(same_columns(local))
    assert pc.all(pc.equal(results.read(store)["status"], "ok")).as_py()
    # Three machines had a slot, one after the other or beside each other: each loaded the test set.
    record = store.get_json(max(store.list("grids/autoscaled/runs")))
    print(record["shard_loads"], "shards loaded,", record["shard_hits"], "times there")
    assert record["shard_loads"] >= 3 * 2
