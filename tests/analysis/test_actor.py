"""The analyst: debounced, never in the way, published at the end; as plain object and as Ray
actor.
"""

import json
import threading
import time

import pytest

from equigrid.analysis.actor import AnalystState
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted

PLANTED = Planted(LIKE_CIFAR10, seeds=1)
SETTINGS = PLANTED.settings(replicates=50)


class Store:
    """What is handed in: a table to read, a place to publish."""

    def __init__(self):
        self.table, self.reads, self.published = PLANTED.table(0), 0, {}

    def read(self):
        self.reads += 1
        return self.table

    def publish(self, name, data):
        self.published[name] = data


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def test_finish_publishes_and_returns_the_curves():
    store = Store()
    analyst = AnalystState(store.read, store.publish, SETTINGS)
    assert analyst.add([{"trial_id": "a"}, {"trial_id": "b"}]) == 2
    result = analyst.finish()
    assert json.loads(store.published["curves.json"]) == json.loads(json.dumps(result))
    assert result["curves"][0]["status"] == "determined"
    assert store.reads == 1


def test_a_burst_of_rows_is_one_refit():
    store = Store()
    analyst = AnalystState(store.read, store.publish, SETTINGS, quiet_s=1.0, longest_s=30.0)
    for _ in range(200):
        analyst.add([{"trial_id": "a"}])
    wait_for(lambda: analyst.status()["fits"] == 1)
    assert "curves.json" in store.published
    assert store.reads == 1
    analyst.finish()


def test_rows_that_never_pause_are_refitted_all_the_same():
    store = Store()
    analyst = AnalystState(store.read, store.publish, SETTINGS, quiet_s=5.0, longest_s=0.3)
    end = time.monotonic() + 20
    while analyst.status()["fits"] == 0 and time.monotonic() < end:
        analyst.add([{"trial_id": "a"}])
        time.sleep(0.01)
    assert analyst.status()["fits"] >= 1
    analyst.finish()


def test_adding_never_waits_for_a_refit():
    reading, gate = threading.Event(), threading.Event()
    store = Store()

    def slow():
        reading.set()
        gate.wait(60)
        return store.table

    analyst = AnalystState(slow, store.publish, SETTINGS, quiet_s=0.0)
    analyst.add([{"trial_id": "a"}])
    assert reading.wait(20)  # and will not come back
    start = time.monotonic()
    for _ in range(1000):
        analyst.add([{"trial_id": "a"}])
    assert time.monotonic() - start < 5
    gate.set()
    analyst.finish()


def test_an_error_is_shown_and_the_next_rows_are_tried_again():
    store = Store()
    good = store.table
    store.table = good.drop(columns="top1")
    analyst = AnalystState(store.read, store.publish, SETTINGS, quiet_s=0.0)
    analyst.add([{"trial_id": "a"}])
    wait_for(lambda: analyst.status()["error"])
    assert "top1" in analyst.status()["error"]
    store.table = good
    analyst.add([{"trial_id": "b"}])
    wait_for(lambda: analyst.status()["fits"] == 1)
    assert analyst.status()["error"] is None
    analyst.finish()


@pytest.mark.long
def test_as_a_ray_actor(tmp_path):
    ray = pytest.importorskip("ray")
    from equigrid.analysis.actor import Analyst

    table = PLANTED.table(0)
    target = tmp_path / "curves.json"
    ours = not ray.is_initialized()  # other tests of this process may keep a local Ray
    if ours:
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        actor = Analyst.remote(lambda: table, lambda name, data: target.write_bytes(data), SETTINGS)
        ray.get([actor.add.remote([{"trial_id": str(i)}]) for i in range(50)])
        result = ray.get(actor.finish.remote())
        assert json.loads(target.read_bytes())["curves"][0]["c1"] == result["curves"][0]["c1"]
        assert ray.get(actor.status.remote())["rows"] == 50
    finally:
        if ours:
            ray.shutdown()
