"""Signals that end a run in order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def terminating_signals_interrupt() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: nothing is lost, and the driver leaves in order.

    SIGINT is set too: a shell that starts a command in the background leaves it ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.signal(name, signal.default_int_handler) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
