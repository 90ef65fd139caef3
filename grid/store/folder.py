"""A store's bytes in a folder, local or shared: see `equigrid.grid.store.store`."""

import errno
import os
import platform
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from equigrid.grid.errors import StoreError, UserError

ASIDE = ".aside-"
IDENTITY = "identity"  # a file in a folder's root: 32 random hexadecimal digits

# On a folder that a server shares, these pass; on a disk they do not occur. All other numbers are
# final.
TRANSIENT_ERRNOS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


class Folder:
    """A folder of this machine, or one that a server shares (NFS): rename is atomic there too, also
    between clients.

    Bytes are synced before the rename, so that after a power cut a name that is there has all its
    bytes (the name itself may be lost, and then the work is done again). The folder is not synced.
    """

    def __init__(self, path: str):
        try:
            if not path:
                raise RuntimeError("an empty path")
            self.root = str(Path(path).expanduser().resolve())
        except (RuntimeError, OSError) as error:  # no such user's home, links in a circle
            raise UserError(f"store {path!r}: is no place: {error}; name a folder") from error

    def may_pass(self, error: OSError) -> bool:
        return error.errno in TRANSIENT_ERRNOS

    def open(self, create: bool) -> str | None:
        """The store's identity; None if it was never opened to write, or if it is damaged: who
        opens it to write then gives it another.
        """
        if os.path.exists(self.root) and not os.path.isdir(self.root):
            raise UserError(f"store {self.root}: is a file; name a folder")
        if create:
            try:
                os.makedirs(self.root, exist_ok=True)
            except (FileNotFoundError, NotADirectoryError) as error:  # as in /proc, or below a file
                raise UserError(
                    f"store {self.root}: cannot be opened: {error.strerror}; name a folder"
                ) from error
            if self._read_identity() is None:
                self._write_identity()
        return self._read_identity()

    def identify(self, identity: str) -> None:
        """Raises StoreError if what is here is not the store of that identity."""
        if self._read_identity() != identity:
            found = "another folder" if os.path.isdir(self.root) else "not a folder"
            raise StoreError(
                f"store {self.root}: {found} on {platform.node()}; use one that all nodes share, or s3://…"
            )

    def _read_identity(self) -> str | None:
        try:
            with _opened(f"{self.root}/{IDENTITY}") as file:
                content = file.read(100).strip()
            return content.decode() if re.fullmatch(b"[0-9a-f]{32}", content) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write_identity(self) -> None:
        """Of two that open a new store at once, one gives it its identity."""
        path = f"{self.root}/{IDENTITY}"
        aside = f"{self.root}/{ASIDE}{secrets.token_hex(4)}-{IDENTITY}"
        self._write_synced(aside, f"{secrets.token_hex(16)}\n".encode())
        try:
            if os.path.exists(path) and self._read_identity() is None:  # it is damaged
                os.replace(aside, path)
            else:
                os.link(aside, path)  # unlike a rename it fails where there is one
                os.unlink(aside)
        except FileExistsError:
            os.unlink(aside)
        except OSError:  # no hard links there
            os.replace(aside, path)

    def put(self, path: str, data: bytes) -> None:
        self._check_inside(path)
        folder, base = os.path.split(path)
        aside = os.path.join(folder, f"{ASIDE}{secrets.token_hex(4)}-{base}")
        try:
            self._write_synced(aside, data)
            os.replace(aside, path)
        except BaseException:
            if os.path.exists(aside):
                os.unlink(aside)
            raise

    def _write_synced(self, path: str, data: bytes) -> None:
        for _ in range(10):
            try:
                with open(path, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                return
            # The folder is there nearly always: making it first would cost each time.
            except FileNotFoundError:
                # Made here, it would be another store than the driver's.
                if not os.path.isdir(self.root):
                    where = f"not a folder on {platform.node()}"
                    raise StoreError(
                        f"store {self.root}: {where}; use one that all nodes share, or s3://…"
                    ) from None
                os.makedirs(os.path.dirname(path), exist_ok=True)  # and may go again: see delete
        raise OSError(errno.EAGAIN, "its folder keeps vanishing")

    def get(self, path: str) -> bytes:
        self._check_inside(path)
        with _opened(path) as file:
            return file.read()

    def stat(self, path: str) -> tuple[int, float] | None:
        self._check_inside(path)
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (found.st_size, found.st_mtime) if S_ISREG(found.st_mode) else None

    def names(self, folder: str) -> Iterator[str]:
        return (entry.path for entry in self._walk(folder))

    def entries(self, folder: str) -> Iterator[tuple[str, int, float]]:
        for entry in self._walk(folder):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield entry.path, found.st_size, found.st_mtime

    def _walk(self, folder: str) -> Iterator[os.DirEntry]:
        """Files below `folder`. Links in it are neither followed nor shown."""
        self._check_inside(folder)
        left = [folder]
        while left:
            try:
                with os.scandir(left.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            left.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            yield entry
            except (FileNotFoundError, NotADirectoryError):
                continue

    def delete(self, path: str) -> None:
        self._check_inside(path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        folder = os.path.dirname(path)
        # Empty folders would be walked through in each listing, for ever.
        while folder != self.root:
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)

    def _check_inside(self, path: str) -> None:
        real = os.path.realpath(path)
        if real != path and not real.startswith(self.root + os.sep):
            name = path[len(self.root) + 1 :]
            raise StoreError(
                f"store {self.root}: {name} leads out of the store through a link; remove the link"
            )


def _opened(path: str) -> BinaryIO:
    """A file, to read. Raises OSError for a pipe or a device: reading it might never end."""

    def at_once(name: str, flags: int) -> int:  # a pipe would be waited for
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=at_once)  # noqa: SIM115
    if S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "is no file (a pipe or a device?)")


def is_aside(path: str) -> bool:
    return path.rsplit("/", 1)[1].startswith(ASIDE)
