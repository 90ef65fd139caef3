"""Standard output and error as commands need them, whatever they are connected to.

What nobody reads (`>&-`, `| head -1`) does not change what happened: writing to it does nothing,
and the exit code says how the work ended. A character that the terminal's encoding lacks is
written as its nearest in ASCII.
"""

import codecs
import io
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

from equigrid.grid.text import safe

if TYPE_CHECKING:
    from typing_extensions import Buffer

ERRORS = "equigrid-ascii"
NEAREST = dict(zip("≈≃×−–—→…τ", ("~", "~", "x", "-", "-", "-", "->", "...", "tau"), strict=True))


class _Sink(io.FileIO):
    """A file descriptor whose reader may go away: what is written after that is dropped.

    dispensable: so is what cannot be written for any other reason, such as a full disk.
    """

    def __init__(self, number: int, *, dispensable: bool):
        super().__init__(number, "w", closefd=False)
        self.unread, self._dropped = False, OSError if dispensable else BrokenPipeError

    def write(self, data: "Buffer") -> int:
        try:
            return super().write(data)
        except self._dropped:
            self.unread = True
            silence(self.fileno())
            return memoryview(data).nbytes


def prepare() -> None:
    """Makes the process's three standard streams usable. Once, before anything is written."""
    codecs.register_error(ERRORS, _nearest)
    closed = {number for number in (0, 1, 2) if not _is_open(number)}
    for _ in closed:  # ascending: each takes the lowest free number, which else a file would get
        os.open(os.devnull, os.O_RDWR)
    if 0 in closed:
        sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115  # for the process's life
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or _is_of(stream, number):
            setattr(sys, name, _opened(number, stream))
    # Where the home cannot be written Matplotlib says so at length; its figures are the same.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Commands draw into files. What a shell or a notebook left here may be no backend at all, and
    # Matplotlib would not even be imported.
    os.environ["MPLBACKEND"] = "agg"


def say(text: str, file: TextIO | None = None) -> None:
    """A line to standard output, or to `file`: the only way in which commands print text of their
    own. What others have put into it (paths, names, errors) steers no terminal and tells no secret.

    Raises OSError.
    """
    print(safe(text), file=file or sys.stdout, flush=file is not None)


def output_is_read() -> bool:
    """Whether somebody may still read standard output: what shows things for ever ends without."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return not getattr(raw, "unread", False)


def silence(number: int) -> None:
    """What is written to a descriptor from now on goes nowhere, also what is buffered already."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _opened(number: int, stream: TextIO | None) -> TextIO:
    if stream is not None:
        stream.flush()
    encoding = stream.encoding if stream is not None else "utf-8"
    sink = _Sink(number, dispensable=number == 2)  # progress: the work goes on without
    interactive = sink.isatty() or number == 2
    return io.TextIOWrapper(
        io.BufferedWriter(sink), encoding=encoding, errors=ERRORS, line_buffering=interactive
    )


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _is_of(stream: TextIO, number: int) -> bool:
    """False where somebody, such as a test, has put a stream of its own there."""
    try:
        return stream.fileno() == number
    except (AttributeError, OSError, ValueError):
        return False


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(NEAREST.get(character, "?") for character in found), error.end
