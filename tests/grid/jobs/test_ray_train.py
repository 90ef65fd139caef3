"""Checkpoints in the store: killed and resumed equals uninterrupted, bitwise, for generators and
for trials.
"""

import hashlib
import io
import threading
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load as load_tensors

from equigrid.grid import jobs
from equigrid.grid.datasets import ingest
from equigrid.grid.errors import StoreError
from equigrid.grid.ids import new_attempt
from equigrid.grid.jobs import generator
from equigrid.grid.jobs.checkpoints import MOST_SHARE, Checkpoints, Saving
from equigrid.grid.jobs.provenance import peak_device_bytes, reserved_device_bytes, reset_peak
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


@pytest.mark.long
@pytest.mark.parametrize(("kind", "steps"), [("generator", 10), ("trial", 15)])
def test_killed_and_resumed_equals_uninterrupted(job_of, monkeypatch, kind, steps):
    monkeypatch.setattr(generator, "LOOK_SHARE", 1e9)  # else a second's training is not looked at
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


@pytest.mark.long
def test_a_generator_that_another_attempt_finished_stays(job_of):
    """On a GPU the second's weights differ: shards of one pool would come from two networks."""
    store, request = job_of("generator", "twice")
    assert jobs.run(store, request)["status"] == "ok"
    first = store.get_json(layout.GENERATORS.manifest(request.id))
    assert jobs.run(store, replace(request, attempt=new_attempt()))["status"] == "ok"
    assert store.get_json(layout.GENERATORS.manifest(request.id)) == first


def test_a_checkpoint_cut_short_is_passed_over(tmp_path):
    store = Store(tmp_path / "store", create=True)
    checkpoints = Checkpoints(store, "c")
    checkpoints.save(1, {"step": 1, "weights": torch.arange(3)})
    checkpoints.save(2, {"step": 2})
    newest = sorted(store.list("c"))[-1]
    store.put(newest, store.get(newest)[:40])
    assert checkpoints.load()["step"] == 1


def test_checkpoints_are_written_when_it_is_time_and_run_no_pickle(tmp_path):
    store, now = Store(tmp_path / "store", create=True), [0.0]
    checkpoints, made = Checkpoints(store, "c"), []
    with Saving(checkpoints, every_s=60, clock=lambda: now[0]) as saving:
        for step in range(1, 200):
            now[0] += 1
            saving(step, lambda step=step: made.append(step) or {"step": step})
            saving.wait()
    assert made == [60, 120, 180]
    assert checkpoints.load() == {"step": 180}

    class Evil:
        def __reduce__(self):
            return (made.append, ("ran",))

    import pickle

    buffer = io.BytesIO()
    torch.save({"x": Evil()}, buffer)
    digest = hashlib.blake2b(buffer.getvalue(), digest_size=8).hexdigest()
    store.put(f"c/0000000999-x-{digest}.pt", buffer.getvalue())
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load()
    assert "ran" not in made


class Slow(Checkpoints):
    """Its writes last until the test lets them end, or raise what it says."""

    def __init__(self, store):
        super().__init__(store, "c")
        self.begun, self.may_end, self.error = threading.Event(), threading.Event(), None
        self.written = []

    def save(self, step, state):
        self.begun.set()
        assert self.may_end.wait(30)
        if self.error:
            raise self.error
        self.written.append((step, state["step"]))


def test_a_state_is_written_while_the_training_goes_on_and_one_at_a_time(store):
    slow = Slow(store)
    with Saving(slow, every_s=0) as saving:
        saving(1, lambda: {"step": 1})
        assert slow.begun.wait(30)
        assert slow.written == []  # and yet the training goes on
        threading.Timer(0.2, slow.may_end.set).start()
        saving(2, lambda: {"step": 2})  # waits for the first
        assert slow.written[0] == (1, 1)
    assert slow.written == [(1, 1), (2, 2)]  # leaving waits for the last


@pytest.mark.parametrize("when", ["next step", "end"])
def test_a_write_that_failed_ends_the_training(store, when):
    slow = Slow(store)
    slow.error = StoreError("no room")
    slow.may_end.set()
    reached = []

    def train():
        with Saving(slow, every_s=60) as saving:
            saving.save(1, [{"step": 1}])
            if when == "next step":
                while not saving._writing.done():
                    time.sleep(0.001)
                saving(2, lambda: {"step": 2})
            reached.append("the end")

    with pytest.raises(StoreError, match="no room"):
        train()
    assert bool(reached) == (when == "end")


def test_a_trainings_own_error_is_not_hidden_by_that_of_a_write(store, caplog):
    slow = Slow(store)
    slow.error = StoreError("no room")
    slow.may_end.set()

    def train():
        with Saving(slow, every_s=60) as saving:
            saving.save(1, [{"step": 1}])
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        train()
    assert "a checkpoint was not written: no room" in caplog.messages


class Costly(Checkpoints):
    """Handing a state over takes so long, and writing it so long, by a clock of the test's."""

    def __init__(self, store, now, write_s):
        super().__init__(store, "c")
        self.now, self.write_s, self.ended_at = now, write_s, []
        self.may_begin = threading.Semaphore(0)

    def save(self, step, state):
        assert self.may_begin.acquire(timeout=30)
        self.now[0] += self.write_s
        self.ended_at.append(self.now[0])


@pytest.mark.parametrize(
    ("held_s", "write_s", "interval_s"),
    [(0.1, 1.0, 60.0), (0.1, 20.0, 60.0), (3.0, 1.0, 3.0 / MOST_SHARE), (0.1, 90.0, 180.0)],
)
def test_states_are_spaced_by_what_they_cost_and_written_by_the_intervals_end(
    store, held_s, write_s, interval_s
):
    now = [0.0]
    costly, taken = Costly(store, now, write_s), []

    def state():
        taken.append(now[0])
        now[0] += held_s
        return {}

    with Saving(costly, every_s=60, clock=lambda: now[0]) as saving:
        for step in range(20_000):
            now[0] += 0.05
            saving(step, state)
            if saving._writing and not saving._writing.done():
                costly.may_begin.release()  # here a write takes its time once the training goes on
                saving._writing.result()
        assert saving.interval_s == pytest.approx(interval_s)
    # What a kill just before a write's end repeats: all since the state before was taken.
    repeated = [end - begun for begun, end in zip(taken[1:], costly.ended_at[2:])]
    assert repeated
    assert max(repeated) <= interval_s + 2 * held_s + 0.1
    assert min(repeated) >= interval_s - held_s - 0.1
    spent = held_s * len(repeated) / (costly.ended_at[-1] - costly.ended_at[1])
    assert spent <= MOST_SHARE * 1.05


@pytest.mark.long
@pytest.mark.parametrize("kind", ["generator", "trial"])
def test_a_state_stays_as_it_was_while_the_training_goes_on(job_of, monkeypatch, kind):
    """Written three steps late, it is bitwise what it was when it was taken."""
    taken, kept_back = [], []

    def digest(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return hashlib.sha256(buffer.getvalue()).hexdigest()

    def save(self, step, states):
        taken.append(digest(states))
        kept_back.append(states)
        if len(kept_back) > 3:
            assert digest(kept_back[-4]) == taken[-4]

    monkeypatch.setattr(Saving, "save", save)
    store, request = job_of(kind, "late")
    assert jobs.run(store, request)["status"] == "ok"
    assert len(set(taken)) == len(taken) >= 10


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


def test_what_a_device_reserved_is_told_beside_what_tensors_took(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", {"cuda": 7}.__getitem__)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {"cuda": 5}.__getitem__)
    assert (reserved_device_bytes("cuda"), peak_device_bytes("cuda")) == (7, 5)
    assert reserved_device_bytes("cpu") is None
