"""The token of a local Ray: made before Ray makes it, since Ray's own can be read by everybody."""

import logging
import os
import secrets
import stat
from pathlib import Path

from equigrid.grid.text import safe

log = logging.getLogger("equigrid")
MODE, TOKEN, PLACE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def prepare() -> None:
    """Sees to it that the Ray that this process starts has a token that its user alone can read.

    One that is there is used, with a warning where others may read it. Where none can be written (a
    home that is read-only, or none), there is one for this process and its children alone. Nothing
    happens where RAY_AUTH_MODE says that there shall be no token.
    """
    if os.environ.get(MODE, "token").lower() != "token" or os.environ.get(TOKEN):
        return
    try:
        path = Path(os.environ.get(PLACE) or Path.home() / ".ray" / "auth_token")
        if not _is_there(path):
            _write(path)
        _check(path)
    except (OSError, RuntimeError):  # RuntimeError: no such home
        os.environ[TOKEN] = secrets.token_hex(32)


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _write(path: Path) -> None:
    """Under another name first: nobody ever sees it empty, or with other rights. Of two processes
    at once one writes it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    number = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
        if path.exists():  # empty: Ray would refuse it
            os.replace(aside, path)
        else:
            os.link(aside, path)
    except FileExistsError:
        return
    finally:
        aside.unlink(missing_ok=True)


def _check(path: Path) -> None:
    found = path.stat()
    with open(path, encoding="utf-8", errors="replace"):  # what cannot be read is no token
        pass
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        rights = f"{stat.S_IMODE(found.st_mode):04o}"
        log.warning(
            "%s",
            safe(
                f"warning: {path} has mode {rights}: whoever reads it can run anything as you on "
                f"your Ray clusters; chmod 600 {path}, or delete it: a new one is made"
            ),
        )
