"""The folder for what a person reads: figures and the report."""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from equigrid.grid.errors import UserError
from equigrid.grid.store import Store

_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")  # of two slashes a path makes one


def out_folder(
    out: str | Path | None, grid: str, *, option: str = "out", store: Store | str | None = None
) -> Path:
    """The folder, made and tried: what cannot be written is said before the work, not after it.

    out: None for `equigrid-out/GRID`. option: what the message calls it. store: the folder must
    not lie in it. Raises UserError; OSError where the disk is full.
    """
    folder = Path(out) if out is not None else Path("equigrid-out") / grid
    check_no_address(folder, option)
    if store is not None:
        check_outside(store, folder, option)
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        tried = folder / f".tried-{secrets.token_hex(4)}"
        try:
            tried.write_bytes(b"equigrid")
        finally:
            tried.unlink(missing_ok=True)
        report = folder / "report.html"
        if report.exists() and not report.is_file():
            raise FileExistsError(errno.EEXIST, f"{report.name} there is no file")
    except (OSError, ValueError, RuntimeError) as error:  # no path; no such user's home
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(number, os.strerror(number), os.fspath(folder)) from error
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{option}: {os.fspath(folder)} cannot be written: {why}; name a folder that can"
        ) from error
    return folder


def check_no_address(path: Path, option: str) -> None:
    """Raises UserError for an address, such as s3://…, of which a folder would be made here."""
    if _ADDRESS.match(str(path)):
        what = "is an address; name a place on this machine, and copy what is written from there"
        raise UserError(f"{option}: {path} {what}")


def check_outside(store: Store | str, path: Path, option: str) -> None:
    """Raises UserError for a path in a store's folder: a table under the name of one of its files
    would be the end of it; and for an address. store: its own, where it is not opened yet.
    """
    check_no_address(path, option)
    place = (store if isinstance(store, str) else store.uri).removeprefix("file://")
    if not place or "://" in place:
        return
    try:
        folder = Path(place).expanduser().resolve()
        inside = path.expanduser().resolve().is_relative_to(folder)
    except (OSError, RuntimeError, ValueError):  # links in a circle: whoever writes says so
        return
    if inside:
        raise UserError(f"{option}: {path} lies in the store; name a place outside it")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place, and its mode, once all is written:
    what is there is not lost to a full disk or an interrupt. What is no file, such as /dev/stdout,
    is `path` itself.

    Raises OSError, also for a file that may not be written, and for a pipe that nobody reads.
    """
    try:
        path = path.resolve()
    except RuntimeError as error:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path)) from error
    if path.exists() and not path.is_file():
        with _read_by_somebody(path):
            yield path
        return
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    aside = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        yield aside
        if path.exists():
            shutil.copymode(path, aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _read_by_somebody(path: Path) -> Iterator[None]:
    """A pipe without a reader would be waited for, for ever. Kept open within: closed, its reader
    would go.
    """
    if not stat.S_ISFIFO(path.stat().st_mode):
        yield
        return
    try:
        held = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise OSError(errno.ENXIO, "nobody reads from this pipe", os.fspath(path)) from error
    try:
        yield
    finally:
        os.close(held)
