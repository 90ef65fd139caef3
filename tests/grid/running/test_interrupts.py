"""A wish to end is heeded once, and never lost."""

import contextlib
import signal
import sys
import time

import pytest
import ray

from equigrid.grid.errors import ClusterError
from equigrid.grid.running import cluster, interrupts
from equigrid.grid.running.interrupts import ctrl_c_interrupts, terminating_signals_interrupt
from equigrid.grid.running.watch import Watch


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """As in a process that nobody has sent anything: a shell's background leaves it ignored."""
    monkeypatch.setattr(interrupts, "_last_s", float("-inf"))
    monkeypatch.setattr(interrupts, "_terminated", False)
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for name in names:
        signal.signal(name, before[name])


class Dies:
    def __init__(self, number: int):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.parametrize("context", [ctrl_c_interrupts, terminating_signals_interrupt])
def test_one_that_comes_in_a_destructor_comes_again(context, capfd):
    """Python shows what is raised there, and goes on; a signal sent twice for one wish was lost."""
    if context is ctrl_c_interrupts:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt), context():  # noqa: PT012
        Dies(signal.SIGINT)
        time.sleep(30)
    assert time.monotonic() - began_s < 20
    assert capfd.readouterr().err == ""


def test_what_else_a_destructor_raises_is_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with terminating_signals_interrupt():
        Dies(-1)
    assert [found.exc_type for found in told] == [OSError]


@pytest.mark.parametrize("when", ["while Ray starts", "while it works", "while Ray ends"])
def test_rays_own_handler_of_sigterm_ends_no_run(monkeypatch, when):
    """It would end the process with 15, as if a part of Ray had died, and release no lock."""

    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        if when == "while Ray starts":
            signal.raise_signal(signal.SIGTERM)

    def shutdown() -> None:
        if when == "while Ray ends":
            signal.raise_signal(signal.SIGTERM)

    for name, function in (
        ("init", init), ("shutdown", shutdown), ("is_initialized", lambda: False)
    ):  # fmt: skip
        monkeypatch.setattr(ray, name, function)
    monkeypatch.setattr(cluster, "_check_reachable", lambda *_: None)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), cluster.connected("auto"):  # noqa: PT012
        if when == "while it works":
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("raises", [False, True])
def test_parts_that_were_terminated_with_this_process_have_not_died(raises):
    """As systems of jobs and services end a run: SIGTERM to each of its processes."""
    lives = [True]
    with terminating_signals_interrupt():
        watched = Watch(lambda: {"raylet": lives[0]})
        expected = pytest.raises(KeyboardInterrupt) if raises else contextlib.nullcontext()
        with expected, watched, contextlib.suppress(KeyboardInterrupt):
            watched.lost = "Ray's raylet died"
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            if raises:
                raise ray.exceptions.RaySystemError("what Ray said")
    with terminating_signals_interrupt():
        assert not interrupts.terminated(), "an earlier run was"
    with pytest.raises(ClusterError), Watch(lambda: {}) as watched:
        watched.lost = "Ray's raylet died"
