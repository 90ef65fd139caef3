"""Bytes under names, in a local folder or any other `pyarrow.fs` file system. This class owns every path.

Data objects are written first under names of their own; the manifest that makes them visible comes last.
An object is there whole or not at all: object stores publish a PUT at once, and on a local disk the bytes
are written aside and renamed (which is atomic there, and needed nowhere else).
"""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pyarrow import fs


class StoreError(OSError):
    """The store could not be opened, read or written."""


class Store:
    """A store at `uri`: a path, or a URI that `pyarrow.fs` understands (`s3://bucket/prefix`, `gs://…`).

    Names are relative, with `/` between their parts; a name that would leave the store is refused.
    """

    def __init__(self, uri: str | Path, *, create: bool = False):
        self.uri = str(uri)
        try:
            if "://" in self.uri:
                self._fs, root = fs.FileSystem.from_uri(self.uri)
                self._root = root.rstrip("/")
            else:
                self._fs, self._root = fs.LocalFileSystem(), str(Path(self.uri).expanduser().resolve())
                self.uri = self._root
            self._local = isinstance(self._fs, fs.LocalFileSystem)
            kind = self._fs.get_file_info(self._root).type
            if kind == fs.FileType.File:
                raise StoreError(f"store {uri}: is a file; name a folder")
            if kind == fs.FileType.NotFound and create:
                self._fs.create_dir(self._root, recursive=True)
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            raise StoreError(f"store {uri}: cannot be opened: {_one_line(error)}") from error

    def __reduce__(self):  # travels to workers as its address
        return Store, (self.uri,)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def path(self, name: str) -> str:
        """The file system's path for `name`. Raises ValueError if the name is absolute or leaves the store."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise ValueError(f"store name {name!r}: must be relative, with no '..' and no backslash in it")
        return f"{self._root}/{'/'.join(parts)}"

    def put(self, name: str, data: bytes) -> None:
        """Publishes `data` under `name`, replacing what was there. Raises StoreError."""
        path = self.path(name)
        try:
            if self._local:
                _write_aside_then_rename(path, data)
            else:
                with self._fs.open_output_stream(path) as stream:
                    stream.write(data)
        except OSError as error:
            raise StoreError(f"store {self.uri}: cannot write {name}: {_one_line(error)}") from error

    def get(self, name: str) -> bytes:
        """The bytes under `name`. Raises FileNotFoundError, or StoreError for any other trouble."""
        try:
            with self._fs.open_input_stream(self.path(name)) as stream:
                return stream.read()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"store {self.uri}: cannot read {name}: {_one_line(error)}") from error

    def exists(self, name: str) -> bool:
        return self._fs.get_file_info(self.path(name)).type == fs.FileType.File

    def list(self, prefix: str) -> Iterator[str]:
        """Names of all objects below the folder `prefix`, in no order; none if there is no such folder."""
        selector = fs.FileSelector(self.path(prefix), recursive=True, allow_not_found=True)
        start = len(self._root) + 1
        for info in self._fs.get_file_info(selector):
            if info.type == fs.FileType.File and not info.base_name.startswith(".aside-"):
                yield info.path[start:]

    def size(self, prefix: str) -> int:
        """Bytes of all objects below the folder `prefix`."""
        selector = fs.FileSelector(self.path(prefix), recursive=True, allow_not_found=True)
        return sum(info.size or 0 for info in self._fs.get_file_info(selector) if info.type == fs.FileType.File)

    def delete(self, name: str) -> None:
        """Removes `name`; nothing happens if it is not there."""
        try:
            self._fs.delete_file(self.path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            if self.exists(name):
                raise StoreError(f"store {self.uri}: cannot remove {name}: {_one_line(error)}") from error

    def put_json(self, name: str, value) -> None:
        self.put(name, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())

    def get_json(self, name: str):
        """The JSON under `name`, or None where there is none. Raises StoreError if it is not JSON."""
        try:
            data = self.get(name)
        except FileNotFoundError:
            return None
        try:
            return json.loads(data)
        except ValueError as error:
            raise StoreError(f"store {self.uri}: {name} is not JSON: {error}") from error


def _write_aside_then_rename(path: str, data: bytes) -> None:
    folder, base = os.path.split(path)
    aside = os.path.join(folder, f".aside-{secrets.token_hex(4)}-{base}")
    try:
        try:
            Path(aside).write_bytes(data)
        except FileNotFoundError:  # the folder is there nearly always: making it first would cost each time
            os.makedirs(folder, exist_ok=True)
            Path(aside).write_bytes(data)
        os.replace(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.unlink(aside)
        raise


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
