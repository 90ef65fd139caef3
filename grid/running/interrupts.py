"""Signals that end a run in order."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SAME_WISH_S = 2.0
AGAIN_AFTER_S = 0.05
_last_s = float("-inf")
_terminated = False  # by SIGTERM, while it was heeded


def interrupt(number: int, frame: object) -> None:
    """A handler that raises KeyboardInterrupt, once for a wish that is sent more than once: by a
    terminal, a shell's `timeout` or a job's system to each of several processes, of which one
    passes it on.
    """
    global _last_s, _terminated
    _terminated |= number == signal.SIGTERM
    now_s = time.monotonic()
    if now_s - _last_s >= SAME_WISH_S:
        _last_s = now_s
        raise KeyboardInterrupt


def terminated() -> bool:
    """Whether this process was sent SIGTERM. Who sends that to each process of a run (systems of
    jobs and services do) ends the parts of Ray on this machine too: nobody is to be told that they
    died. (SIGINT they do not mind.)
    """
    return _terminated


@contextmanager
def terminating_signals_interrupt() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: nothing is lost, and the driver leaves in order.

    SIGINT is set too: a shell that starts a command in the background leaves it ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.signal(name, interrupt) for name in names}
    global _terminated
    _terminated &= before[signal.SIGTERM] is interrupt  # else it was an earlier run's
    try:
        with _none_is_lost():
            yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextmanager
def ctrl_c_interrupts() -> Iterator[None]:
    """For a command that has the process to itself, so that Ctrl-C just ends it (the system's own
    way): it raises KeyboardInterrupt within, and nothing after it, where nobody would catch that.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:  # ignored, or the caller's
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        with _none_is_lost():
            yield
    finally:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: object) -> None:
    """A handler that ends the process without a word, but not for a wish that was heeded."""
    if time.monotonic() - _last_s >= SAME_WISH_S:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


@contextmanager
def _none_is_lost() -> Iterator[None]:
    """What is raised in a destructor or a callback (of an import, too) goes no further: Python
    shows a traceback, and goes on. An interrupt comes again instead, once that is over.
    """
    before = sys.unraisablehook

    def hook(found: "sys.UnraisableHookArgs") -> None:
        global _last_s
        if not issubclass(found.exc_type, KeyboardInterrupt):
            before(found)
            return
        _last_s = float("-inf")
        main = threading.main_thread().ident
        # Not `interrupt_main`, which wakes nothing that waits.
        again = threading.Timer(AGAIN_AFTER_S, signal.pthread_kill, (main, signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
