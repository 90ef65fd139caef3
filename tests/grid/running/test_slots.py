"""Slots on local Ray: devices that are kept, work for those that came up alone, starts that fail."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch

from equigrid.classifiers.training import cuda_graphs
from equigrid.grid import jobs
from equigrid.grid.errors import ClusterError, StoreError
from equigrid.grid.running import slots
from equigrid.grid.running.slots import SlotPool


@pytest.mark.long
def test_a_slot_keeps_its_process_and_its_device(ray_here, store):
    """With several (fake) GPUs no process ever serves two; a replaced slot is another process."""
    now = [0.0]
    pool = SlotPool(
        store, cpus=0.5, gpus=1, threads=1, most=3, room=lambda gpus: 3, clock=lambda: now[0]
    )
    pool.resize(10)
    assert len(pool.slots) == 3
    seen = [ray.get([slot.whoami.remote() for slot in pool.slots]) for _ in range(5)]
    assert all(facts == seen[0] for facts in seen)
    assert len({facts["pid"] for facts in seen[0]}) == 3
    assert sorted(gpu for facts in seen[0] for gpu in facts["gpus"]) == [0, 1, 2]
    pool.drop(next(iter(pool.slots)))
    pool.resize(10)
    after = ray.get([slot.whoami.remote() for slot in pool.slots])
    assert sorted(gpu for facts in after for gpu in facts["gpus"]) == [0, 1, 2]
    devices: dict[int, set] = {}
    for facts in [*after, *seen[0]]:
        devices.setdefault(facts["pid"], set()).update(facts["gpus"])
    assert len(devices) == 4
    assert all(len(gpus) == 1 for gpus in devices.values())
    pool.resize(0)
    assert len(pool.slots) == 3  # there may be work again in a moment
    now[0] += 60
    pool.resize(1)
    assert len(pool.slots) == 1  # devices are let go when nothing is left for them
    pool.limit = 0  # a worker group needs room: at once
    pool.resize(1)
    assert not pool.slots


@pytest.mark.long
def test_only_slots_that_came_up_get_work_and_count_as_held(ray_here, store):
    """Slots beyond the present nodes are what an autoscaler sees; the machines for them may never
    come.
    """
    now = [0.0]
    pool = SlotPool(
        store, cpus=0.1, gpus=1, threads=1, most=5, room=lambda gpus: 3, clock=lambda: now[0]
    )
    pool.resize(10)
    assert len(pool.slots) == 5
    assert pool.idle(2) is None
    assert pool.devices_held == 3  # those that import now; two wait for a node
    while len(pool.coming) > 2:
        ray.wait(pool.coming, timeout=1)
        pool.greet()
    assert pool.devices_held == 3
    given = []
    for _ in range(3):
        given.append(pool.idle(1))
        pool.slots[given[-1]].requests.append(None)  # a request
    assert len(set(given)) == 3
    assert all(pool.node_of(slot) for slot in given)
    assert pool.idle(1) is None
    pool.slots[given[0]].requests.clear()
    now[0] += 60
    pool.resize(3)  # the slots that wait go before the warm one that idles
    assert set(pool.slots) == set(given)
    pool.most = 2
    pool.resize(3)
    assert set(pool.slots) == set(given[1:])
    for slot in given[1:]:
        pool.slots[slot].requests.clear()
    pool.close()
    assert not pool.slots
    assert pool.devices_held == 0


@pytest.mark.long
def test_slots_that_never_come_up_end_the_run_with_a_line(ray_here, store, tmp_path, monkeypatch):
    """A slot that does not see the store ends it at once; one whose process dies, after some
    tries.
    """

    def started(**changes) -> SlotPool:
        pool = SlotPool(store, cpus=0.1, gpus=0, threads=1, most=1, room=lambda gpus: 1)
        pool._options |= changes
        return pool

    def wait(pool: SlotPool) -> None:
        while True:
            pool.resize(1)
            ray.wait(pool.coming, timeout=1)
            pool.greet()

    pool = started()
    identity = store.path("identity")
    text = Path(identity).read_text()
    Path(identity).write_text("another")
    with pytest.raises(StoreError, match="another folder on .*use one that all nodes share"):
        wait(pool)
    pool.close()
    Path(identity).write_text(text)
    monkeypatch.setattr(slots, "MOST_FAILED_STARTS", 2)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'default_worker' in ' '.join(sys.orig_argv): sys.modules['torch'] = None\n"
    )
    pool = started(runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}})
    with pytest.raises(ClusterError, match="no slot comes up, 2 died on the way: ActorDiedError"):
        wait(pool)
    pool.close()


@pytest.mark.parametrize("broken", [False, True])
def test_a_process_that_a_recording_broke_asks_for_another_slot(broken, monkeypatch):
    """And its allocator, whose caches can no longer be emptied, is left alone."""
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    monkeypatch.setattr(cuda_graphs, "process_is_broken", lambda: broken)
    done = lambda store, requests: [{"id": r.id, "status": jobs.OK} for r in requests]  # noqa: E731
    monkeypatch.setattr(jobs, "run_together", done)
    slot = slots.Slot.__new__(slots.Slot)
    slot.store, slot.busy = None, False
    two = [SimpleNamespace(id=f"trial-{i}", kind="trial", gpus=1) for i in range(2)]
    outcomes = slot.run(two, ["a trial", "another"])
    assert [outcome.get("fresh_slot", False) for outcome in outcomes] == [broken, broken]
    assert bool(emptied) != broken
    on_a_cpu = slot.run([SimpleNamespace(id="trial-1", kind="trial", gpus=0)], ["a trial"])
    assert "fresh_slot" not in on_a_cpu[0]
