"""Commands that use Ray go on in a child of their process, so that whatever ends them is told.

Ray's library ends the process that it is part of, with 1 and no word of ours, where the raylet dies
while the process registers with it or uses its objects. A system that is short of memory kills the
process that has most. Nothing inside the process can say so, and 1 means something else here
(`ExitCode`). What is outside can: a parent that does nothing but wait.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from equigrid.grid.errors import ExitCode
from equigrid.grid.running import watch

WITH_RAY = ("run", "demo", "tune")
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
MOST_BYTES = 4096  # of what the child says at its end
ON_DEATH_OF_PARENT = 1  # of prctl: PR_SET_PDEATHSIG
_told_on: int | None = None  # in the child: the pipe on which the parent hears how it will end


@dataclass(frozen=True)
class Ended:
    """How the child ended. words: what is to be said of it; nothing where it has said all."""

    code: int
    words: str = ""


INTERRUPTED = Ended(ExitCode.INTERRUPTED, f"interrupted; {watch.GO_ON}")


def is_wanted(arguments: list[str]) -> bool:
    """Whether a command line names a command that uses Ray; on Linux alone, where the system ends a
    child that has lost its parent, and not where there are threads already.
    """
    command = next((word for word in arguments if not word.startswith("-")), None)
    return sys.platform == "linux" and threading.active_count() == 1 and command in WITH_RAY


def split() -> Ended | None:
    """Returns twice: None in the child, in which the command goes on; in the parent, once that has
    ended, how. Call it before any thread is started.

    The parent passes on the signals that end a run in order. Where it is killed, so is the child.
    """
    global _told_on
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # none is lost in between
    parent, (heard, told) = os.getpid(), os.pipe()
    child = os.fork()
    if child:
        os.close(told)
        return _wait(child, heard, before)
    os.close(heard)
    _told_on = told
    _die_with(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return None


def will_end_with(code: int) -> None:
    """Tells the parent, if there is one: whatever becomes of this process on its way out."""
    if _told_on is not None:
        os.write(_told_on, bytes([code]))


def end(words: str) -> None:
    """Ends the process, whatever it waits for: a lost cluster's last word. The parent says it, who
    may know better: this process may be stuck where it hears no signal.
    """
    if _told_on is None:
        sys.stderr.write(f"equigrid: {words}\n")
        sys.stderr.flush()
    else:
        os.write(_told_on, bytes([ExitCode.UNAVAILABLE]) + words.encode())
    os._exit(ExitCode.UNAVAILABLE)


def _die_with(parent: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(ON_DEATH_OF_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # too late
        os.kill(os.getpid(), signal.SIGKILL)


def _wait(child: int, heard: int, mask: Iterable[int]) -> Ended:
    passed: set[int] = set()

    def pass_on(number: int, _: object) -> None:
        passed.add(number)
        os.kill(child, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else, where it is ignored, nothing is to be had
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its number stays its own
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    _, status = os.waitpid(child, 0)
    os.set_blocking(heard, False)  # what the child has forked may hold the other end, and live on
    with suppress(BlockingIOError):
        if said := os.read(heard, MOST_BYTES):
            code, words = said[0], said[1:].decode(errors="replace")
            return INTERRUPTED if words and passed else Ended(code, words)
    by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    if by in passed:  # before it would have left in order: as if there were no parent
        os.kill(os.getpid(), by)
    if passed and by != signal.SIGKILL:  # parts of Ray were sent it too, and what that led to
        return INTERRUPTED
    return Ended(ExitCode.UNAVAILABLE, _words(by))


def _words(by: int | None) -> str:
    if by == signal.SIGKILL:
        what = "the run was killed (by somebody, or by a system short of memory)"
    elif by is not None:
        what = f"the run was ended by {signal.Signals(by).name}, of a library's or from outside"
    else:
        what = f"Ray ended the run, as it does where a part of it died {watch.CAUSES}"
    return f"{what}; {watch.GO_ON}"
