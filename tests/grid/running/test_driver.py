"""The whole path on local Ray, in this process: running, repeating, growing, mending, failing."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from equigrid.analysis.schema import SCHEMA
from equigrid.grid import jobs
from equigrid.grid.datasets import shards
from equigrid.grid.planning.pending import pending
from equigrid.grid.reporting import analysis_bridge
from equigrid.grid.reporting.status import status
from equigrid.grid.running import driver
from equigrid.grid.running.attempts import Attempts
from equigrid.grid.running.packing import Packing
from equigrid.grid.running.shard_cache import ShardCache
from equigrid.grid.spec import load
from equigrid.grid.store import Store, documents, layout, results

pytestmark = pytest.mark.usefixtures("ray_here")


def run(spec: dict, store: Store, quiet, **options):
    return driver.run(load(spec), store, console=quiet, **options)


def files(store: Store, *prefixes: str) -> dict[str, int]:
    return {
        name: os.stat(store.path(name)).st_mtime_ns
        for prefix in prefixes
        for name in store.list(prefix)
    }


def test_every_cell_has_a_whole_row(finished_mini):
    store, summary, the_plan = finished_mini
    assert summary.jobs == {"generator": 2, "shard": 2, "trial": 18}
    assert not summary.failures
    table = analysis_bridge.read_table(store, the_plan)
    assert len(table) == 20
    assert list(table.columns) == SCHEMA.names
    assert set(table.status) == {"ok"}
    assert (table.n_total == table.n_base + table.n_real_added + table.n_syn + table.n_copies).all()
    assert (table.steps == 15).all()
    assert table.top1.between(5, 100).all()
    assert (table.top5 >= table.top1).all()
    assert all(sum(confusion) == 597 for confusion in table.confusion)  # the whole test set
    syn = table[table.arm == "syn"]
    assert set(syn.setting) == {"closed"}
    assert set(syn.generator) == {"edm"}
    assert set(syn.shards.map(len)) == {3 + 1 + 2}  # train, pool and test shards, by content hash
    assert table[table.arm != "syn"].generator.isna().all()
    assert set(table.threads) == {1}
    assert {"torch", "ray", "python"} <= set(table.versions.iloc[0])
    accuracy = table.apply(lambda row: np.trace(np.reshape(row.confusion, (10, 10))) / 5.97, axis=1)
    assert np.allclose(accuracy, table.top1)


def test_the_same_command_again_finds_nothing_to_do(finished_mini, mini, quiet):
    store, _, _ = finished_mini
    before = files(store, "results", "generators", "pools", "datasets")
    summary, _ = run(mini, store, quiet)
    assert not summary.jobs
    assert summary.cached == {"generator": 2, "shard": 2, "trial": 18}
    assert files(store, "results", "generators", "pools", "datasets") == before


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_a_finished_grid_grows_by_its_new_jobs_only(finished_mini, mini, tmp_path, quiet, outcomes):
    import shutil

    shutil.copytree(finished_mini[0].uri, tmp_path / "grown")
    store = Store(tmp_path / "grown")
    before = files(store, "results/parts", "generators", "pools")
    # 5 × 60 = 300 and 5 × 120 = 600: beyond the pools' first shards of 256, by one and by two
    mini["blocks"][0]["syn"]["edm"] = [1, 2, 5]
    mini["seeds"] = [0, 1, 2]
    summary, the_plan = run(mini, store, quiet)
    # 9 of the old kind for the new seed, and ratio 5 at two base sizes for three seeds
    assert summary.jobs == {"shard": 3, "trial": 9 + 6}
    after = files(store, "results/parts", "generators", "pools")
    assert {name: after[name] for name in before} == before
    assert len(analysis_bridge.read_table(store, the_plan)) == 36
    assert outcomes(finished_mini[0]).items() <= outcomes(store).items()
    pool = next(pool for pool in the_plan.pools.values() if store.exists(pool.manifest(2)))
    refs = [
        shards.ref(pool.manifest(i), documents.read(store, pool.manifest(i), documents.PoolShard))
        for i in (0, 1, 2)
    ]
    assert [ref.n for ref in refs] == [256, 256, 512]
    labels = np.concatenate([shards.read(store, ref)[1] for ref in refs])
    for n in range(1, 1025, 31):  # balanced in every prefix, across shards
        counts = np.bincount(labels[:n], minlength=10)
        assert counts.max() - counts.min() <= 1


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_corrupt_shards_are_made_again_and_never_used(
    finished_mini, mini, tmp_path, quiet, outcomes
):
    import shutil

    shutil.copytree(finished_mini[0].uri, tmp_path / "store")
    store = Store(tmp_path / "store")
    the_plan = finished_mini[2]
    manifest = next(iter(the_plan.pools.values())).manifest(0)
    damaged = [
        shards.ref(manifest, documents.read(store, manifest, documents.PoolShard)),
        the_plan.resolved.dataset.train[1],
    ]
    for ref in damaged:
        data = bytearray(store.get(ref.data))
        data[-900] ^= 4
        store.put(ref.data, bytes(data))
    for name in [*store.list("results")]:
        store.delete(name)  # so that every trial runs again
    summary, _ = run(mini, store, quiet)
    assert summary.retries >= 2
    assert not summary.failures
    assert summary.jobs == {"shard": 1, "trial": 18}
    assert outcomes(store) == outcomes(finished_mini[0])
    for ref in damaged:
        shards.read(store, ref)  # whole again


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_a_trial_that_raises_is_a_row_and_the_rest_goes_on(mini, store, quiet):
    """A learning rate of 1e30 for one of two classifiers: its loss is not finite, really."""
    mini["name"], mini["classifiers"] = "failing", ["digits-cnn", "resnet20"]
    mini["recipe"]["by_classifier"] = {"resnet20": {"lr": 1e30}}
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "real": [1]}], [0]
    summary, the_plan = run(mini, store, quiet)
    assert summary.jobs == {"trial": 2}
    assert [failure.kind for failure in summary.failures] == ["trial", "trial"]
    assert summary.retries == 0  # it would raise again: no use in trying
    assert "resnet20" in summary.failures[0].cells[0]
    found = [row for row in results.read(store).to_pylist() if row["status"] == "failed"]
    assert len(found) == 2
    assert "Traceback" in found[0]["error"]
    assert "NotFinite: the loss became nan in epoch 0, step 1" in found[0]["error"]
    state = status(store, the_plan)
    assert (state.cells_done, len(state.failures)) == (2, 2)
    todo, _ = pending(store, the_plan)
    assert {job.id for job in todo} == {failure.id for failure in summary.failures}
    again, _ = run(mini, store, quiet)  # the next run tries exactly those
    assert not again.jobs
    assert {f.id for f in again.failures} == {f.id for f in summary.failures}
    parts = [name for name in store.list(results.PARTS) if summary.failures[0].id in name]
    assert len(parts) == 2  # one per attempt


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_a_generator_that_raises_blocks_its_trials_only(mini, store, quiet):
    mini["generators"]["wild"] = {
        "kind": "edm",
        "preset": "digits",
        "training": {"total_nimg": 640, "lr": 1e30},
    }
    mini["blocks"] = [{"n_base": [60], "syn": {"edm": [1], "wild": [1, 2]}}]
    mini["seeds"] = [0]
    summary, the_plan = run(mini, store, quiet)
    assert summary.jobs == {"generator": 1, "shard": 1, "trial": 2}
    (failure,) = summary.failures
    assert failure.kind == "generator"
    assert len(failure.cells) == 2
    assert all("wild" in cell for cell in failure.cells)
    assert summary.blocked == 3  # the pool's shard and two trials
    (found,) = status(store, the_plan).failures
    assert found["id"] == failure.id
    assert "Traceback" in found["traceback"]


@pytest.mark.long
def test_a_slot_killed_in_mid_trial_costs_nothing_but_time(
    finished_mini, mini, store, quiet, slot_processes, outcomes
):
    """kill -9 of the processes that hold the slots, twice, while trials run; and another name
    changes no outcome.
    """
    mini["name"] = "renamed"

    killed = []

    def killer():
        for wanted in (3, 9):
            while len(list(store.list(results.PARTS))) < wanted:
                time.sleep(0.02)
            for pid in slot_processes():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    summary, _ = run(mini, store, quiet)
    thread.join(10)
    assert len(killed) == 4
    assert 2 <= summary.retries <= 4  # what waited behind the killed trials had not begun
    assert not summary.failures
    assert outcomes(store) == outcomes(finished_mini[0])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a worker dies", "a worker hangs", "its start dies"])
def test_one_generator_on_two_workers_equals_one_on_one(
    finished_mini, mini, store, quiet, group_processes, slot_processes, what
):
    """Ray Train's worker group with gloo; the global batch and all draws are the same, sums differ
    by rounding. On the way one of its processes is killed, or hangs while the other waits for it,
    or the task that started the group dies, which left what the group held to nobody: the training
    goes on from its checkpoint.
    """
    from safetensors.numpy import load as load_tensors

    mini["execution"] |= {"workers": {"generator": 2}, "retries": 1, "checkpoint_every_s": 0}
    if what == "a worker hangs":
        mini["execution"]["hung_after_s"] = 45
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "syn": {"edm": [1]}}], [0]
    killed = []

    def kill_one():
        while not any(name.endswith(".pt") for name in store.list("generators")):
            time.sleep(0.02)
        group = slot_processes("generator") if what == "its start dies" else group_processes()
        killed.append(group[0])
        os.kill(killed[0], signal.SIGSTOP if what == "a worker hangs" else signal.SIGKILL)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    summary, the_plan = run(mini, store, quiet)
    thread.join(10)
    assert killed
    assert killed[0] not in group_processes(), "a process that hangs holds a device, and is ended"
    assert summary.retries == 1
    assert not summary.failures
    assert summary.jobs == {"generator": 1, "shard": 1, "trial": 2}
    (job,) = the_plan.of_kind("generator")
    two, one = (s.get_json(layout.GENERATORS.manifest(job.id)) for s in (store, finished_mini[0]))
    assert (two["world_size"], one["world_size"]) == (2, 1)
    two, one = (
        load_tensors(s.get(m["weights"])) for s, m in ((store, two), (finished_mini[0], one))
    )
    # Ten AdamW steps at 4e-3 amplify rounding where second moments are near zero; 1e-3 is far below
    # the step size.
    assert max(np.abs(two[name] - one[name]).max() for name in one) < 1e-3


@pytest.mark.long
def test_trials_share_a_device_but_what_comes_before_and_after_does_not(
    mini, store, quiet, monkeypatch, plant
):
    """Measures of pools come after the trials: they must not keep a grid from packing, nor be
    packed.
    """
    # Here a GPU is only Ray's word for it.
    plant(
        "from equigrid.grid.jobs.provenance import device_of\ndevice_of.__code__ = (lambda request: 'cpu').__code__\n"
    )
    shares: dict[str, set] = {}
    send = Attempts.send_to_slot

    def watch(self, alike, slot, *, gpus):
        shares.setdefault(alike[0].kind, set()).add(gpus)
        send(self, alike, slot, gpus=gpus)

    monkeypatch.setattr(Attempts, "send_to_slot", watch)
    monkeypatch.setattr(Packing, "of", lambda *_, **__: Packing(per_device=2, settled=True))
    mini["execution"] = {"gpus": "auto"}
    mini["quality"] = {"inception": "off", "vit": "off", "neighbours": False}
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "base": False, "syn": {"edm": [1]}}], [0]
    summary, _ = run(mini, store, quiet)
    assert not summary.failures
    assert shares == {
        "generator": {1.0},
        "shard": {1.0},
        "reference": {1.0},
        "trial": {0.5},
        "quality": {1.0},
    }


@pytest.mark.long
def test_no_work_waits_for_slots_to_come_or_for_generators(
    finished_mini, mini, store, quiet, outcomes, monkeypatch
):
    """More slots than the nodes hold, and trials that could run while generators train: they wait
    behind trials only.
    """
    before = []
    send = Attempts.send_to_slot

    def watch(self, alike, slot, *, gpus):
        for ref in self.pool.slots[slot].requests:
            before.extend(one.job.kind for one in self._under_way[ref])
        send(self, alike, slot, gpus=gpus)

    monkeypatch.setattr(Attempts, "send_to_slot", watch)
    mini["execution"]["slots"] = 6
    summary, _ = run(mini, store, quiet)
    assert set(before) == {"trial"}
    assert not summary.failures
    assert summary.device_s < 3 * summary.seconds  # two came up
    assert outcomes(store) == outcomes(finished_mini[0])


@pytest.mark.long
def test_a_run_opens_no_more_requests_than_its_window(mini, store, quiet, monkeypatch):
    """Submission is windowed: the driver holds two requests a slot however many trials wait."""
    most = 0
    send = Attempts.send_to_slot

    def watch(self, alike, slot, *, gpus):
        nonlocal most
        send(self, alike, slot, gpus=gpus)
        most = max(most, self.on_slots)

    monkeypatch.setattr(Attempts, "send_to_slot", watch)
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "real": [1]}], list(range(8))
    summary, _ = run(mini, store, quiet)
    assert summary.jobs == {"trial": 16}
    assert 2 < most <= 4


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_an_infrastructure_error_is_tried_again_a_bounded_number_of_times(
    mini, store, quiet, monkeypatch
):
    """A dataset shard that cannot be kept whole: retries end, and the failure is a row."""
    mini["blocks"], mini["seeds"] = [{"n_base": [60]}], [0]
    mini["execution"]["retries"] = 1
    real_handle = ShardCache.handle

    def broken(self, shard, dataset, node):
        wrong = shards.ShardRef(shard.manifest, shard.data, "0" * 32, shard.n)
        return real_handle(self, wrong, dataset, node)

    monkeypatch.setattr(ShardCache, "handle", broken)
    summary, _ = run(mini, store, quiet)
    assert summary.retries == 2
    (failure,) = summary.failures
    assert "checksum" in failure.error
    assert [row["status"] for row in results.read(store).to_pylist()] == ["failed"]


def test_bodies_need_no_ray(mini, tmp_path, request_of):
    """A task body is a function of plain values: here the handles are the arrays, and Ray is never
    asked.
    """
    from equigrid.grid.datasets import ingest
    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve

    store = Store(tmp_path / "plain", create=True)
    resolved = resolve(load(mini), store)
    the_plan = plan(resolved.with_dataset(ingest.ingest(store, resolved.source)))
    job = next(the_plan.of_kind("trial"))
    outcome = jobs.run(store, request_of(store, the_plan, job))
    assert outcome["status"] == "ok", outcome
    assert results.finished(store) == {job.id}
