"""Whether the parts of Ray live that a run cannot do without, so that none of them is waited for
for ever.

Ray's own driver stays silent when the raylet beside it dies: what it asks for never comes.
"""

import os
import select
import signal
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from equigrid.grid.errors import ClusterError
from equigrid.grid.running import interrupts

LOOK_EVERY_S = 1.0
NEEDED = ("raylet", "gcs_server")  # of Ray's parts, by their names as processes
MISSES = 8  # in a row, of a part that does not answer: its machine may be busy
# Ray ends a process without a word 10 s after its GCS died; who waits in Ray for what never comes
# is ended before that.
LEAVE_WITHIN_S = 5.0
CAUSES = "(killed, or short of memory, files or disk)"
GO_ON = "what finished is in the store: run the same command again"
LOST = threading.Event()  # in this process: it cannot leave Ray in order any more


class Watch:
    """Looks at the parts from a thread of its own, once started. lost: what died, in words; None
    while all live.

    The thread that made it is interrupted then, if it is the main one. last_word: what is done,
    with the words, where it has not left LEAVE_WITHIN_S later.
    """

    def __init__(
        self,
        parts: Callable[[], dict[str, bool | None]],
        last_word: Callable[[str], None] | None = None,
        processes: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        """parts: by name, whether each lives; None where it did not answer. processes: those of
        this machine whose end is a reason to look at once.
        """
        self.lost: str | None = None
        self._parts, self._last_word, self._processes = parts, last_word, processes
        self._missed: Counter[str] = Counter()
        self._lock, self._left = threading.Lock(), threading.Event()
        self._interrupts = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(target=self._look, name="ray-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Whatever leaves the context once a part is lost is a ClusterError; but for an interrupt,
        where the parts were ended with this process.
        """
        self.stop()
        if self.lost is None:
            return
        if not interrupts.terminated():
            raise ClusterError(self.lost) from error
        if error is not None and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error

    def stop(self) -> None:
        """Nothing is looked at any more, and nobody is interrupted."""
        with self._lock:
            self._left.set()

    def _look(self) -> None:
        while not self._left.is_set():
            # Ray's client of the object store ends this process, with 1 and no word, if it is used
            # after the raylet's death: the sooner it is known, the better.
            _wait_for_an_end(self._processes(), LOOK_EVERY_S)
            if self._left.is_set():
                return
            for name, lives in self._parts().items():
                self._missed[name] = self._missed[name] + 1 if lives is None else 0
                if lives is False or self._missed[name] >= MISSES:
                    self._give_up(name)
                    return

    def _give_up(self, name: str) -> None:
        with self._lock:
            if self._left.is_set():  # it went because the work was over
                return
            self.lost = f"Ray's {name} died {CAUSES}; {GO_ON}"
            LOST.set()
            main = threading.main_thread().ident
            if self._interrupts and main:  # it may wait in Ray: a signal reaches it there
                signal.pthread_kill(main, signal.SIGINT)
        if not self._left.wait(LEAVE_WITHIN_S) and self._last_word:
            self._last_word(self.lost)


def _wait_for_an_end(pids: Iterable[int], within_s: float) -> None:
    """Until one of the processes ends, at most so long; where the system cannot tell, so long."""
    with ExitStack() as opened:
        ends = select.poll()
        for pid in pids:
            with suppress(AttributeError, OSError):  # no Linux; it has ended, and was waited for
                number = os.pidfd_open(pid)
                opened.callback(os.close, number)
                ends.register(number, select.POLLIN)
        ends.poll(1000 * within_s)


def parts_of_ray() -> dict[str, bool | None]:
    """The raylet beside this process and the cluster's GCS, while Ray starts or is connected."""
    from ray._private import worker

    node: Any = worker._global_node
    if node is None:  # it starts them, or waits for a cluster's
        return {part.name: part.lives for part in _started()}
    own = {
        name: infos[0].process
        for name, infos in list(node.all_processes.items())
        if name in NEEDED and infos
    }
    if own:
        return {name: process.poll() is None for name, process in own.items()}
    host, _, port = node.gcs_address.rpartition(":")
    return {
        "raylet": _answers(socket.AF_UNIX, node.raylet_socket_name.removeprefix("unix://")),
        "head": _answers(socket.AF_INET, (host, int(port))),
    }


def processes_of_ray() -> list[int]:
    """Of this machine, those that `parts_of_ray` looks at: their ids, where they can be known."""
    from ray._private import worker

    node: Any = worker._global_node
    if node is None:
        return [part.pid for part in _started()]
    own = [
        infos[0].process.pid
        for name, infos in list(node.all_processes.items())
        if name in NEEDED and infos
    ]
    return own or _listening(node.raylet_socket_name.removeprefix("unix://"))


class _Part(NamedTuple):
    name: str
    pid: int
    lives: bool


def _started() -> list[_Part]:
    """Children of this process that are parts of Ray, while nothing else knows of them: Ray waits
    half a minute for a raylet that died while it started.
    """
    import psutil  # which Ray brings

    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it was waited for
            if (name := child.name()) in NEEDED:
                found.append(_Part(name, child.pid, child.status() != psutil.STATUS_ZOMBIE))
    return found


def _listening(path: str) -> list[int]:
    """Who listens on a socket of this machine, where the system says."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return []
    with suppress(OSError), socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(3)
        tried.connect(path)
        said = tried.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
        return [struct.unpack("3i", said)[0]]
    return []


def _answers(family: socket.AddressFamily, place: Any) -> bool | None:
    """False where nobody listens; None where nobody answers: a busy machine may be slow."""
    try:
        with socket.socket(family) as tried:
            tried.settimeout(3)
            tried.connect(place)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return None
    return True
