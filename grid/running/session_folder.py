"""Where a local Ray keeps its sockets, logs and spilled objects: Ray makes every folder of its own
writable for all, now and again while it runs. So they lie in one that is its user's alone.
"""

import os
import stat
import tempfile
from pathlib import Path

# A socket's path has at most 107 bytes (103 on macOS); a few are left for longer names to come.
LONGEST = 100 - len("/session_2026-11-30_17-44-32_254216_4194304/sockets/plasma_store")


def prepare() -> str | None:
    """Ray's folder for temporary files, in one of mode 0700; in the system's place for them, or in
    the one that RAY_TMPDIR or TMPDIR names. None where no such path is short enough for the sockets
    in it, or none can be made: Ray's own place it is then.
    """
    from ray._common.utils import get_default_system_temp_dir

    try:
        folder = _own(Path(get_default_system_temp_dir()).absolute()) / "ray"
    except OSError:
        return None
    return str(folder) if len(os.fsencode(folder)) <= LONGEST else None


def _own(base: Path) -> Path:
    """The user's folder; another one where somebody else has taken its name."""
    folder = base / f"equigrid-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            folder.chmod(0o700)
            return folder
    except FileExistsError:  # a file
        pass
    return Path(tempfile.mkdtemp(prefix="equigrid-", dir=base))
