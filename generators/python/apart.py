"""What a user's module changes of its process is its own: nobody else in the process sees it.

A slot runs a user's generator and then trials. `torch.set_num_threads`, another default dtype or a
folder that the module went to would change their results, or fail them.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

_Setting = tuple[Callable[[], Any], Callable[[Any], object]]  # how one is read, and set


def _environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _unless_cpu(device: torch.device) -> torch.device | None:
    """None is how torch begins; the CPU, once set, slows every call."""
    return None if device.type == "cpu" else device


def _attribute(owner: Any, name: str) -> _Setting:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


def _handler(number: int) -> _Setting:
    return lambda: signal.getsignal(number), lambda value: signal.signal(number, value)


_SETTINGS: tuple[_Setting, ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, lambda value: torch.set_default_device(_unless_cpu(value))),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    *(_attribute(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")),
    (np.geterr, lambda value: np.seterr(**value)),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    *(_attribute(sys, name) for name in ("stdin", "stdout", "stderr")),
    (lambda: dict(os.environ), _environment),
    (os.getcwd, os.chdir),
)
# Put back, but not found again by the modules: a slot that is told to leave hears it.
_SIGNALS = tuple(map(_handler, (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM)))

_theirs: list[Any] | None = None  # what the modules left, which they find again


@contextmanager
def apart() -> Iterator[None]:
    """Within, the settings of the process are as the users' modules left them before; after it, as
    they were.

    They are those of one process for all modules in it. Random states are not among them: nothing
    of ours draws from a state that it did not seed.
    """
    global _theirs
    signals = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
    ours, handlers = _read(_SETTINGS), _read(signals)
    if _theirs is not None:
        _set(_SETTINGS, ours, _theirs)
    try:
        yield
    finally:
        _theirs = _read(_SETTINGS)
        _set(_SETTINGS, _theirs, ours)
        _set(signals, _read(signals), handlers)


def _read(settings: Sequence[_Setting]) -> list[Any]:
    return [_value(read) for read, _ in settings]


def _value(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, RuntimeError):  # a folder that is gone; flags that cannot be told any more
        return None


def _set(settings: Sequence[_Setting], now: list[Any], wanted: list[Any]) -> None:
    """Only what differs: setting may cost, or not be allowed any more."""
    for (_, write), is_now, value in zip(settings, now, wanted):
        if is_now != value and value is not None:
            with suppress(OSError, RuntimeError, ValueError, TypeError):
                write(value)
