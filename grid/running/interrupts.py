"""Signals that end a run in order."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SAME_WISH_S = 2.0
_last_s = float("-inf")


def interrupt(number: int, frame: object) -> None:
    """A handler that raises KeyboardInterrupt, once for a wish that is sent more than once: by a
    terminal, a shell's `timeout` or a job's system to each of several processes, of which one
    passes it on.
    """
    global _last_s
    now_s = time.monotonic()
    if now_s - _last_s >= SAME_WISH_S:
        _last_s = now_s
        raise KeyboardInterrupt


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
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
