"""What a file is, wherever it lies: its SHA-256."""

import hashlib
from functools import lru_cache
from pathlib import Path


def sha256(path: str, what: str) -> str:
    """Of a file's content, hexadecimal; ValueError that begins with `what` if there is none."""
    if not Path(path).is_file():
        raise ValueError(f"{what}: there is no file {path!r}")
    stat = Path(path).stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)  # a plan asks once per cell; a pipeline has dozens of files
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
