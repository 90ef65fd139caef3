"""The folder for what a person reads: figures and the report."""

import errno
import os
import secrets
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
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user's home
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"{option}: {os.fspath(folder)} cannot be written: {why}; name a folder that can"
        ) from error
    return folder
