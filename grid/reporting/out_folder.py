"""The folder for what a person reads: figures and the report."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from equigrid.grid.errors import UserError


def out_folder(out: str | Path | None, grid: str, *, option: str = "out") -> Path:
    """The folder, made and tried: what cannot be written is said before the work, not after it.

    out: None for `equigrid-out/GRID`. option: what the message calls it. Raises UserError; OSError
    where the disk is full.
    """
    folder = Path(out) if out is not None else Path("equigrid-out") / grid
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        tried = folder / f".tried-{secrets.token_hex(4)}"
        try:
            tried.write_bytes(b"equigrid")
        finally:
            tried.unlink(missing_ok=True)
    except (OSError, ValueError, RuntimeError) as error:  # no path; no such user's home
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{option}: {os.fspath(folder)} cannot be written: {why}; name a folder that can"
        ) from error
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place once all is written: what is there is
    not lost to a full disk or an interrupt. What is no file, such as /dev/stdout, is `path` itself.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        yield path
        return
    aside = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
