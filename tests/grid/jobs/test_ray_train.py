"""Checkpoints in the store: killed and resumed equals uninterrupted, bitwise, for generators and
for trials.
"""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load as load_tensors

from equigrid.grid import jobs
from equigrid.grid.datasets import ingest
from equigrid.grid.ids import new_attempt
from equigrid.grid.jobs.checkpoints import Checkpoints
from equigrid.grid.jobs.provenance import reset_peak
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import Store, layout, results


class Killed(BaseException):
    """Stands for the process's end: nothing may catch it."""


@pytest.fixture
def job_of(mini, tmp_path, request_of):
    """Makes a store with the ingested digits, and a request for the grid's first job of a kind."""

    def make(kind: str, name: str):
        store = Store(tmp_path / name, create=True)
        resolved = resolve(load(mini), store)
        resolved = resolved.with_dataset(ingest.ingest(store, resolved.source))
        the_plan = plan(resolved)
        job = next(the_plan.of_kind(kind))
        request = request_of(store, the_plan, job, checkpoint_every_s=0)
        return store, request

    return make


def output(store: Store, request: jobs.Request):
    if request.kind == "trial":
        columns = ["trial_id", "top1", "top5", "per_class", "confusion", "loss", "steps"]
        return results.read(store).select(columns).to_pylist()
    weights = load_tensors(
        store.get(store.get_json(layout.GENERATORS.manifest(request.id))["weights"])
    )
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def kept(store: Store) -> list[str]:
    return [
        name
        for folder in ("generators", "checkpoints")
        for name in store.list(folder)
        if name.endswith(".pt")
    ]


@pytest.mark.parametrize(("kind", "steps"), [("generator", 10), ("trial", 15)])
def test_killed_and_resumed_equals_uninterrupted(job_of, monkeypatch, kind, steps):
    store, request = job_of(kind, "straight")
    assert jobs.run(store, replace(request, checkpoint_every_s=1e9))["status"] == "ok"
    whole = output(store, request)

    store, request = job_of(kind, "killed")
    save, saved = Checkpoints.save, []

    def save_and_die(self, step, state):
        save(self, step, state)
        saved.append(step)
        if step == steps // 2:
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        jobs.run(store, request)
    assert saved[-1] == steps // 2
    assert len(kept(store)) == 2  # the newest two are kept
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, step, state: (saved.append(step), save(self, step, state))
    )
    assert jobs.run(store, replace(request, attempt=new_attempt()))["status"] == "ok"
    assert saved[steps // 2] == steps // 2 + 1  # it went on where it was, and repeated nothing
    assert output(store, request) == whole
    if kind == "generator":  # what it made on the way: its log, and a picture after each checkpoint
        names = [name.rsplit("/", 1)[1] for name in store.list(f"generators/{request.id}")]
        assert any(name.startswith("log-") for name in names)
        assert {f"{step:08d}.png" for step in (1, steps)} <= set(names)
    assert not kept(store)  # cleared once there is an output


def test_a_generator_that_another_attempt_finished_stays(job_of):
    """On a GPU the second's weights differ: shards of one pool would come from two networks."""
    store, request = job_of("generator", "twice")
    assert jobs.run(store, request)["status"] == "ok"
    first = store.get_json(layout.GENERATORS.manifest(request.id))
    assert jobs.run(store, replace(request, attempt=new_attempt()))["status"] == "ok"
    assert store.get_json(layout.GENERATORS.manifest(request.id)) == first


def test_a_checkpoint_cut_short_is_passed_over(tmp_path):
    store = Store(tmp_path / "store", create=True)
    checkpoints = Checkpoints(store, "c", every_s=0)
    checkpoints.save(1, {"step": 1, "weights": torch.arange(3)})
    checkpoints.save(2, {"step": 2})
    newest = sorted(store.list("c"))[-1]
    store.put(newest, store.get(newest)[:40])
    assert checkpoints.load()["step"] == 1


def test_checkpoints_are_written_when_it_is_time_and_run_no_pickle(tmp_path):
    store, now = Store(tmp_path / "store", create=True), [0.0]
    checkpoints = Checkpoints(store, "c", every_s=60, clock=lambda: now[0])
    made = []
    for step in range(1, 200):
        now[0] += 1
        checkpoints(step, lambda step=step: made.append(step) or {"step": step})
    assert made == [60, 120, 180]
    assert checkpoints.load() == {"step": 180}

    class Evil:
        def __reduce__(self):
            return (made.append, ("ran",))

    import hashlib
    import io
    import pickle

    buffer = io.BytesIO()
    torch.save({"x": Evil()}, buffer)
    digest = hashlib.blake2b(buffer.getvalue(), digest_size=8).hexdigest()
    store.put(f"c/0000000999-x-{digest}.pt", buffer.getvalue())
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load()
    assert "ran" not in made


def test_what_counts_memory_is_there_before_it_is_set_back(monkeypatch):
    """A job may make its process's first CUDA call."""
    calls = []
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append("init"))
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(f"reset {device}")
    )
    reset_peak("cpu")
    assert calls == []
    reset_peak("cuda")
    assert calls == ["init", "reset cuda"]
