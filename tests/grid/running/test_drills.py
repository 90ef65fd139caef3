"""Things that die: each drill ends in the same table as a run that nothing disturbed."""

import os
import signal
import threading
import time

import pytest

from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, layout, lock, results

pytestmark = pytest.mark.long


def parts(store) -> list[str]:
    return list(store.list(results.PARTS))


def last_run(store, name: str = "mini") -> dict:
    return store.get_json(max(store.list(f"grids/{name}/runs")))


@pytest.fixture
def two_nodes():
    """A cluster of two nodes of one CPU each, apart from this process's own Ray. Yields it and its
    second node.
    """
    from ray.cluster_utils import Cluster

    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    head = {"num_cpus": 1, "_system_config": quick, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(num_cpus=1)
    yield cluster, node
    cluster.shutdown()


def test_a_lost_node_costs_its_jobs_no_tries(
    two_nodes, finished_mini, mini, write_spec, start, tmp_path, outcomes
):
    """kill -9 of a raylet whose node runs a trial; with no retries allowed at all. (A node that
    holds the only copy of a shard is lost in the drills of tests/cluster: these shards are so small
    that Ray sends them with the request.)
    """
    cluster, node = two_nodes
    mini["execution"]["retries"] = 0
    store = Store(tmp_path / "store", create=True)
    command = start("run", write_spec(mini), "--store", store.uri, "--address", cluster.address)
    command.wait_until(lambda: len(parts(store)) >= 3)
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    assert command.finish() == 0, command.text
    assert outcomes(store) == outcomes(finished_mini[0])
    run = last_run(store)
    assert run["failures"] == []
    assert run["retries"] >= 1


def test_a_slot_told_to_leave_saves_its_state_and_goes(
    finished_mini, mini, tmp_path, quiet, slot_processes, outcomes
):
    """SIGTERM, as on a spot instance's notice: the checkpoint is written at once, long before it is
    due.
    """
    mini["execution"] |= {"retries": 0, "slots": 1, "checkpoint_every_s": 3600}
    mini["recipe"]["steps"] = 1500  # long enough to be met in mid-training
    mini["blocks"], mini["seeds"] = [{"n_base": [60]}], [0]
    undisturbed = Store(tmp_path / "undisturbed", create=True)
    driver.run(load(mini), undisturbed, console=quiet)

    store, saved = Store(tmp_path / "store", create=True), []

    def leave():
        end = time.monotonic() + 300
        while time.monotonic() < end and not saved:
            for pid in slot_processes("trial"):
                time.sleep(0.5)  # into the training
                os.kill(pid, signal.SIGTERM)
                while time.monotonic() < end and not saved:
                    saved.extend(name for name in store.list("checkpoints") if name.endswith(".pt"))
                    time.sleep(0.01)
            time.sleep(0.02)

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    summary, _ = driver.run(load(mini), store, console=quiet)
    thread.join(10)
    assert saved
    assert summary.retries == 1
    assert not summary.failures
    assert outcomes(store) == outcomes(undisturbed)
    (row,) = results.read(store).to_pylist()
    step = int(saved[0].rsplit("/", 1)[1].split("-")[0])
    assert 0 < step < 1500


@pytest.mark.slow
def test_two_drivers_the_second_is_refused_by_name_and_may_take_over(
    finished_mini, mini, write_spec, start, tmp_path, outcomes
):
    store = Store(tmp_path / "store", create=True)
    spec = write_spec(mini)
    first = start("run", spec, "--store", store.uri)
    # Not later: it may be done before the second looks.
    first.wait_until(lambda: store.exists(layout.lock("mini")))
    second = start("run", spec, "--store", store.uri)
    assert second.finish() == 4
    assert f"process {first.driver} of " in second.text
    assert "--takeover" in second.text
    assert "Traceback" not in second.text
    third = start("run", spec, "--store", store.uri, "--takeover")
    owner = third.driver
    assert third.finish() == 0, third.text
    code = first.finish()  # it leaves, unless it was done before its next heartbeat
    assert code in (0, 130), first.text
    assert code == 0 or f"process {owner} of " in first.text
    assert "Traceback" not in first.text
    assert outcomes(store) == outcomes(finished_mini[0])
    assert lock.holder(store, "mini") is None
    assert len(results.read(store)) == len(outcomes(store))  # no row doubled, whoever wrote it


def test_a_transient_out_of_memory_is_tried_again_and_a_lasting_one_becomes_a_row(
    ray_here, mini, tmp_path, quiet, plant
):
    mini["blocks"], mini["seeds"] = [{"n_base": [60]}], [0, 1]
    mini["execution"] |= {"slots": 1, "retries": 2}
    store = Store(tmp_path / "store", create=True)
    plant(
        "import pathlib\n"
        "from dataclasses import replace\n"
        "from equigrid.grid.jobs.kinds import KINDS\n"
        "real = KINDS['trial'].body\n"
        "def body(store, request):\n"
        f"    flag = pathlib.Path({str(tmp_path / 'once')!r})\n"
        "    if request.payload.seed == 1 or not flag.exists():\n"
        "        flag.touch()\n"
        "        raise MemoryError('planted')\n"
        "    return real(store, request)\n"
        "KINDS['trial'] = replace(KINDS['trial'], body=body)\n"
    )
    summary, _ = driver.run(load(mini), store, console=quiet)
    rows = {row["seed"]: row for row in results.read(store).to_pylist()}
    assert rows[0]["status"] == "ok"
    assert rows[1]["status"] == "failed"
    assert "MemoryError: planted" in rows[1]["error"]
    assert summary.retries == 1 + 3
