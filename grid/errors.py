"""What can go wrong for reasons outside the program, and the exit code that each kind ends with.

An error of these classes is told in one line. Whatever else is raised is a fault of equigrid's own.
"""

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's process ends with, and what that means: stated in this place alone."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        code = int.__new__(cls, value)
        code._value_, code.meaning = value, meaning
        return code

    DONE = 0, "all done"
    FAILED_CELLS = 1, "some cells failed, each listed; the next run tries them again"
    BAD_INPUT = 2, "bad input: one line says what, where, what would be right"
    BUDGET = 3, "stopped at the budget of this run (--max-gpu-hours)"
    UNAVAILABLE = 4, "not to be had: store, cluster, network, memory, disk or lock"
    FAULT = 70, "a fault of equigrid itself: one line names its traceback's file"
    INTERRUPTED = 130, "interrupted or taken over; everything finished is kept"


class UserError(ValueError):
    """Bad input: says what, where, and what would be right."""


class UnavailableError(OSError):
    """Something outside does not answer, refuses, is full, or is in use. The input may be right."""


class StoreError(UnavailableError):
    """The store could not be opened, read or written. permanent: nothing suggests that it will mend
    by itself.
    """

    def __init__(self, message: str, *, permanent: bool = True):
        super().__init__(message)
        self.permanent = permanent


class DocumentError(StoreError):
    """Something in the store is not what equigrid wrote. name: where it lies; why: in words."""

    def __init__(self, message: str, *, name: str = "", why: str = ""):
        super().__init__(message)
        self.name, self.why = name, why


class ClusterError(UnavailableError):
    """No Ray cluster answers or starts, or none of its machines takes work."""


def near(name: object, names: Iterable[object]) -> str:
    """`; did you mean 'x'?` for the nearest of `names`, or nothing: the end of a message."""
    found = difflib.get_close_matches(str(name), [str(n) for n in names], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
