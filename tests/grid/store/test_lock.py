"""The lock of a grid: a second driver refuses while the first lives, and takes over once it is
dead.
"""

import os
import subprocess
import sys
import time

import pytest

from equigrid.grid.errors import UnavailableError
from equigrid.grid.store import Store, lock

NAME = "grids/g/lock.json"


class Time:
    """A clock that only sleeping advances; `then` happens with every look."""

    def __init__(self, then=lambda: None):
        self.now_s, self.then = 0.0, then

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.then()


def change(store: Store, *, silent_s: float = 0.0, beats: int = 0, **owner) -> None:
    """Makes the lock another's, with its last heartbeat so long ago."""
    content = store.get_json(NAME)
    content["owner"] |= owner
    content["beats"] += beats
    store.put_json(NAME, content)
    at = time.time() - silent_s
    os.utime(store.path(NAME), (at, at))


def elsewhere(store: Store, **changes) -> None:
    """As if a driver on another machine had taken the lock."""
    lock.Lock(store, "g", time.monotonic).write()
    change(store, machine="another boot", host="node-7", pid=4711, user="eve", **changes)


def acquire(store: Store, **options) -> lock.Lock:
    watch = options.pop("watch", Time())
    return lock.acquire(store, "g", clock=watch, sleep=watch.sleep, **options)


def test_it_is_there_while_held_and_gone_after(store):
    assert lock.holder(store, "g") is None
    with lock.acquire(store, "g") as held:
        found = lock.holder(store, "g")
        assert found.owner == held.owner
        assert (found.owner.pid, found.alive, found.beats) == (os.getpid(), True, 1)
        held.beat()
        assert lock.holder(store, "g").beats == 2
        with lock.acquire(store, "another grid"):
            assert lock.holder(store, "another grid").owner.run != held.owner.run
    assert lock.holder(store, "g") is None
    assert list(store.list("grids")) == []


def test_it_says_how_far_its_holder_is_with_the_next_heartbeat(store):
    with lock.acquire(store, "g") as held:
        assert lock.holder(store, "g").progress is None
        held.progress = {"device_s": 1.5}
        assert lock.holder(store, "g").progress is None
        held.beat()
        store.delete("check")
        assert lock.holder(store, "g", now_s=time.time()).progress["device_s"] == 1.5
        assert not store.exists("check"), "whoever brings a clock writes nothing"


def test_a_living_driver_on_this_machine_is_refused_at_once(store):
    code = "import sys, time; from equigrid.grid.store import Store, lock\n"
    code += (
        "held = lock.acquire(Store(sys.argv[1]), 'g'); print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, store.uri], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        watch = Time()
        with pytest.raises(UnavailableError) as caught:
            acquire(store, watch=watch)
        line = str(caught.value)
        assert f"process {other.pid} of " in line
        assert lock.platform.node() in line
        assert "running for " in line
        assert "--takeover" in line
        assert "\n" not in line
        assert watch.now_s == 0
    finally:
        other.kill()  # -9: it gives nothing back
        other.wait()
    assert store.exists(NAME)
    assert not lock.holder(store, "g").alive
    acquire(store, watch=watch).release()  # and is taken over at once: its process is gone
    assert watch.now_s == 0


def test_a_process_id_that_another_process_has_now_is_not_the_holder(store):
    lock.Lock(store, "g", time.monotonic).write()
    change(store, born="1", run="earlier")
    acquire(store).release()


def test_a_beating_heart_on_another_machine_is_waited_for_and_then_respected(store):
    elsewhere(store, silent_s=10)
    told, watch = [], Time()
    watch.then = lambda: watch.now_s >= 7 and change(store, beats=1)
    with pytest.raises(UnavailableError, match="process 4711 of eve on node-7"):
        acquire(store, watch=watch, tell=told.append)
    assert watch.now_s == 7
    assert len(told) == 1
    assert "waiting for its heartbeat" in told[0]


def test_a_heart_that_stopped_is_watched_for_a_minute_in_all(store):
    elsewhere(store, silent_s=10)
    watch = Time()
    held = acquire(store, watch=watch)
    assert lock.STALE_S - 11 <= watch.now_s <= lock.STALE_S - 9
    assert lock.holder(store, "g").owner.run == held.owner.run


@pytest.mark.parametrize("silent_s", [61, 90_000])
def test_a_stale_lock_is_taken_over_at_once_by_the_stores_clock(store, monkeypatch, silent_s):
    elsewhere(store, silent_s=silent_s)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # machines' clocks differ: ours is not asked
    watch = Time()
    acquire(store, watch=watch)
    assert watch.now_s == 0


def test_a_driver_that_ends_while_it_is_watched_leaves_the_lock(store):
    elsewhere(store)
    acquire(store, watch=Time(then=lambda: store.delete(NAME)))
    assert lock.holder(store, "g").owner.pid == os.getpid()


def test_who_is_taken_over_finds_out_and_leaves_the_lock_alone(store):
    first = acquire(store)
    second = acquire(store, takeover=True)
    assert first.taken_by is None
    first.beat()
    assert first.taken_by == second.owner
    first.release()
    assert lock.holder(store, "g").owner == second.owner
    second.beat()
    assert second.taken_by is None
    second.release()
    assert not store.exists(NAME)


def test_it_beats_by_itself(store, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.02)
    with lock.acquire(store, "g") as held:
        end = time.monotonic() + 20
        while lock.holder(store, "g").beats < 4:
            assert time.monotonic() < end
    assert not held._thread.is_alive()


def test_a_store_that_died_does_not_keep_a_driver_from_leaving(store, monkeypatch):
    held = acquire(store)
    monkeypatch.setattr(lock, "RELEASE_S", 0.1)
    dead = OSError(5, "Input/output error")

    def get(self, path):
        raise dead

    monkeypatch.setattr(type(store._files), "get", get)
    began = time.monotonic()
    held.release()
    assert time.monotonic() - began < 3
    monkeypatch.undo()
    assert store.exists(NAME)


def test_a_lock_holds_nothing_secret(store, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    with lock.acquire(store, "g"):
        content = store.get_json(NAME)
    assert set(content) == {"owner", "beats", "held_s", "progress"}
    assert set(content["owner"]) == {"run", "host", "pid", "user", "started_at", "machine", "born"}
    assert "very-secret" not in str(content)


@pytest.mark.parametrize("part", ["write", "start"])
def test_an_interrupt_while_it_is_taken_leaves_none(store, monkeypatch, part):
    done = getattr(lock.Lock, part)

    def interrupted(self):
        done(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(lock.Lock, part, interrupted)
    with pytest.raises(KeyboardInterrupt):
        lock.acquire(store, "g")
    assert not store.exists(NAME)


def test_two_at_once_are_harmless_and_one_of_them_learns_of_it(store):
    first, second = (lock.Lock(store, "g", time.monotonic) for _ in range(2))
    first.write()
    second.write()
    first.beat()
    second.beat()
    assert (first.taken_by, second.taken_by) == (second.owner, None)
