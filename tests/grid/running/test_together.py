"""Trials of one mix that share a request, through the real driver: here on a CPU, where a spec must
ask for it.
"""

import os
import signal
import threading
import time

import pytest

from equigrid.grid.running import driver
from equigrid.grid.running.attempts import Attempts
from equigrid.grid.spec import load
from equigrid.grid.store import Store, results

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_here")]


@pytest.fixture
def requests(monkeypatch) -> list[list]:
    """The payloads of each request for trials that is sent."""
    sent, send = [], Attempts.send_to_slot

    def watch(self, alike, slot, *, gpus):
        if alike[0].kind == "trial":
            sent.append([job.payload for job in alike])
        send(self, alike, slot, gpus=gpus)

    monkeypatch.setattr(Attempts, "send_to_slot", watch)
    return sent


def seeds_of(requests: list[list]) -> list[list[int]]:
    return [[payload.seed for payload in request] for request in requests]


def test_killed_on_the_way_the_table_is_that_of_one_by_one(
    finished_mini, mini, store, quiet, slot_processes, outcomes, requests
):
    """kill -9 of all slots while a request of two trials runs: what was lost together goes on
    alone, from its checkpoint.
    """
    mini["execution"] |= {"together": 2, "checkpoint_every_s": 0}
    killed = []

    def killer():
        end = time.monotonic() + 120
        while time.monotonic() < end and not killed:
            running = {name.split("/")[1] for name in store.list("checkpoints")}
            if len(running) >= 2 and len(list(store.list(results.PARTS))) >= 2:
                for pid in slot_processes("trial"):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.005)

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    summary, _ = driver.run(load(mini), store, console=quiet)
    thread.join(130)
    assert killed
    assert not summary.failures
    assert summary.jobs["trial"] == 18
    assert outcomes(store) == outcomes(finished_mini[0])
    assert seeds_of(requests)[0] == [0, 1]
    assert [0] in seeds_of(requests)  # one that was lost with another
    found = results.read(store).to_pylist()
    assert len({row["attempt"] for row in found}) == len(found) == 18


def test_a_seed_that_fails_leaves_the_others_and_the_budget_counts_each(
    mini, store, quiet, plant, requests, outcomes, tmp_path
):
    mini["seeds"], mini["blocks"] = [0, 1, 2], [{"n_base": [60]}]
    mini["execution"]["slots"] = 1
    alone = Store(tmp_path / "alone", create=True)
    driver.run(load(mini), alone, console=quiet)
    assert seeds_of(requests) == [[0], [1], [2]]  # on a CPU, unless asked for
    requests.clear()
    failing = next(r["trial_id"] for r in results.read(alone).to_pylist() if r["seed"] == 1)
    plant(
        "from equigrid.grid.ids import seed_of\n"
        "from equigrid.classifiers.training import replica\n"
        f"doomed = seed_of({failing!r}, 'training')\n"
        "step = replica.Replica.step\n"
        "def spoilt(self, *given):\n"
        "    if self.seed == doomed:\n"
        "        next(self.module.parameters()).data.fill_(float('nan'))\n"
        "    return step(self, *given)\n"
        "replica.Replica.step = spoilt\n"
    )
    mini["execution"]["together"] = 3
    mini["expected_seconds"] = {"trial": 100}
    summary, _ = driver.run(load(mini), store, console=quiet, max_device_hours=250 / 3600)
    assert not summary.budget_reached
    assert seeds_of(requests) == [[0, 1], [2]]  # three would hold the slot for 300 s
    assert [failure.id for failure in summary.failures] == [failing]
    assert "NotFinite: the loss became nan in epoch 0, step 0" in summary.failures[0].error
    rows = {row["seed"]: row for row in results.read(store).to_pylist()}
    assert [rows[seed]["status"] for seed in (0, 1, 2)] == ["ok", "failed", "ok"]
    expected = outcomes(alone)
    found = outcomes(store)
    del expected[failing], found[failing]
    assert found == expected
    assert summary.retries == 0
