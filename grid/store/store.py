"""Bytes under names, in a local or shared folder or an object store. This class owns every path.

Data objects are written first under names of their own; the manifest that makes them visible comes
last. An object is there whole or not at all: object stores publish a PUT at once, and in a folder
the bytes are written aside and renamed (which is atomic there, and needed nowhere else).

Trouble that may pass (no answer, 500, 503, a cut connection, a stale file handle) is tried again
with back-off until RETRY_S is over; what will not pass (access denied, no such bucket, disk full)
is not. Either ends in a StoreError of one line. An address that names no store (an unknown scheme,
a file, a bucket that is not there) is a UserError.
"""

import errno
import json
import os
import platform
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

from equigrid.grid.errors import StoreError, UserError

RETRY_S = 120.0  # unless EQUIGRID_STORE_RETRY_S says otherwise
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 10.0
CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S = 5.0, 20.0  # of an object store's server
CONNECTIONS = 16  # requests at once where many objects are wanted: it is all waiting
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
# Of an object store's answers, these are final, and any other may pass (curl's 60: a certificate is
# not trusted).
FINAL_ANSWERS = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH|MISSING_AUTHENTICATION"
    r"|UNRECOGNIZED_CLIENT|NO_SUCH_BUCKET|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT"
    r"|[Bb]ucket '[^']*' not found|HTTP status 4(?!08|29)\d\d|curlCode: 60\b"
)
S3_OPTIONS = ("region", "scheme", "endpoint_override")


class Entry(NamedTuple):
    """An object that is there; modified_s: by the clock of the store's server, seconds since
    1970.
    """

    name: str
    bytes: int
    modified_s: float


class Store:
    """A store at `uri`: a path, or a URI that `pyarrow.fs` understands (`s3://bucket/prefix`,
    `gs://…`).

    Names are relative, with `/` between their parts; a name that would leave the store is refused,
    and so is one that a symbolic link would lead out of it. Credentials come from the environment
    of each process. Raises UserError if `uri` names no store, StoreError if it cannot be opened.
    """

    def __init__(self, uri: str | Path, *, create: bool = False):
        self._place(str(uri), None)
        self._identity = self._patiently("be opened", lambda: self._files.open(create))

    def patient(self, retry_s: float) -> "Store":
        """The same store, which waits this long for trouble to pass."""
        other = _reopened(self.uri, self._identity)
        other._retry_s = retry_s
        return other

    def check_identity(self) -> None:
        """Whether this is the store that was opened, also in a process on another machine, where a
        folder may be another one or not mounted: what is read there would be missing, what is
        written lost. Raises StoreError.
        """
        self._patiently("be identified", lambda: None)

    def _place(self, uri: str, identity: str | None) -> None:
        self._retry_s: float | None = None  # of the environment, at the time
        self._identity, self._identified = identity, identity is None
        _refuse_credentials(uri)
        self._files = _Folder(uri.removeprefix("file://")) if _is_local(uri) else _Bucket(uri)
        self.uri = self._files.root if _is_local(uri) else uri

    def __reduce__(
        self,
    ):  # travels to workers as its address, and is not asked anything before it is used
        return _reopened, (self.uri, self._identity)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def path(self, name: str) -> str:
        """The file system's path for `name`. Raises ValueError if the name is absolute or leaves
        the store.
        """
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise ValueError(
                f"store name {name!r}: must be relative, with no '..' and no backslash in it"
            )
        return f"{self._files.root}/{'/'.join(parts)}"

    def put(self, name: str, data: bytes) -> None:
        """Publishes `data` under `name`, replacing what was there. Raises StoreError."""
        path = self.path(name)
        self._patiently(f"write {name}", lambda: self._files.put(path, data))

    def get(self, name: str) -> bytes:
        """The bytes under `name`. Raises FileNotFoundError, or StoreError for any other trouble."""
        path = self.path(name)
        return self._patiently(f"read {name}", lambda: self._files.get(path))

    def stat(self, name: str) -> Entry | None:
        """Size and time of `name`; None if it is not there."""
        path = self.path(name)
        found = self._patiently(f"look for {name}", lambda: self._files.stat(path))
        return found and Entry(name, *found)

    def exists(self, name: str) -> bool:
        return self.stat(name) is not None

    def list(self, prefix: str) -> Iterator[str]:
        """Names of all objects below the folder `prefix`, in no order; none if there is no such
        folder.
        """
        start, folder = len(self._files.root) + 1, self.path(prefix)
        found = self._patiently(f"list {prefix}", lambda: list(self._files.names(folder)))
        return (path[start:] for path in found if not _is_aside(path))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects below the folder `prefix`, with their sizes and times."""
        return (entry for entry in self._everything(prefix) if not _is_aside(entry.name))

    def asides(self, prefix: str) -> Iterator[Entry]:
        """What writers below `prefix` have not published: they are at it, or died. Object stores
        show none.
        """
        return (entry for entry in self._everything(prefix) if _is_aside(entry.name))

    def _everything(self, prefix: str) -> Iterator[Entry]:
        start, folder = len(self._files.root) + 1, self.path(prefix)
        found = self._patiently(f"list {prefix}", lambda: list(self._files.entries(folder)))
        return (Entry(path[start:], *facts) for path, *facts in found)

    def size(self, prefix: str) -> int:
        """Bytes of all objects below the folder `prefix`."""
        return sum(entry.bytes for entry in self.entries(prefix))

    def delete(self, *names: str) -> None:
        """Removes objects, several at a time; nothing happens where one is not there."""
        paths = [self.path(name) for name in names]

        def remove(name_and_path):
            name, path = name_and_path
            self._patiently(f"remove {name}", lambda: self._files.delete(path))

        if len(names) == 1:
            remove((names[0], paths[0]))
            return
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(remove, zip(names, paths)))

    def put_json(self, name: str, value) -> None:
        self.put(
            name, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
        )

    def get_json(self, name: str):
        """The JSON under `name`, or None where there is none. Raises StoreError if it is not
        JSON.
        """
        try:
            return self.get_decoded(name, json.loads, "JSON")
        except FileNotFoundError:
            return None

    def get_decoded(self, name: str, decode: Callable[[bytes], object], kind: str):
        """`decode(get(name))`. Bytes that do not decode (ValueError) are read once more: the first
        reading may have been cut short. Raises FileNotFoundError, or StoreError if they are no
        `kind`.
        """
        data = self.get(name)
        try:
            return decode(data)
        except ValueError:
            data = self.get(name)
        try:
            return decode(data)
        except ValueError as error:
            raise StoreError(
                f"store {self.uri}: {name} is not {kind}: {_one_line(error)}"
            ) from error

    def check(self) -> float:
        """Writes and reads a small object, `check`; returns the time by the store's own clock,
        seconds since 1970.

        Raises StoreError once the store has been dead for RETRY_S.
        """
        name, data = "check", b"equigrid"
        self.put(name, data)
        entry = self.stat(name)
        if entry is None or self.get(name) != data:
            raise StoreError(f"store {self.uri}: what was written under {name} does not come back")
        return entry.modified_s

    def _patiently(self, what: str, action: Callable):
        """`action()`, again and again while its trouble is one that may pass, for retry_s() at
        most.
        """
        patience_s = retry_s() if self._retry_s is None else self._retry_s
        end_s, tries = time.monotonic() + patience_s, 0
        while True:
            try:
                if not self._identified:  # once in a process, before anything else
                    self._files.identify(self._identity)
                    self._identified = True
                return action()
            except (FileNotFoundError, StoreError):
                raise
            except OSError as error:
                tries += 1
                left_s = end_s - time.monotonic()
                permanent = not self._files.may_pass(error)
                if permanent or left_s <= 0:
                    times = f" (tried {tries} times in {patience_s:g} s)" if tries > 1 else ""
                    message = f"store {self.uri}: cannot {what}: {_why(error)}{times}"
                    raise StoreError(message, permanent=permanent) from error
            longest_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**tries)
            time.sleep(
                min(left_s, random.uniform(0.5, 1) * longest_s)
            )  # jitter: many workers see one server die


def _reopened(uri: str, identity: str | None = None) -> Store:
    store = Store.__new__(Store)
    store._place(uri, identity)
    return store


def retry_s() -> float:
    """How long trouble that may pass is waited for. Raises UserError if EQUIGRID_STORE_RETRY_S is
    no number.
    """
    text = os.environ.get("EQUIGRID_STORE_RETRY_S", RETRY_S)
    try:
        return float(text)
    except ValueError:
        raise UserError(
            f"EQUIGRID_STORE_RETRY_S: {text!r}; write seconds, like {RETRY_S:g}"
        ) from None


# Folders ------------------------------------------------------------------------------------------


class _Folder:
    """A folder of this machine, or one that a server shares (NFS): rename is atomic there too, also
    between clients.

    Bytes are synced before the rename, so that after a power cut a name that is there has all its
    bytes (the name itself may be lost, and then the work is done again). The folder is not synced.
    """

    def __init__(self, path: str):
        self.root = str(Path(path).expanduser().resolve())

    def may_pass(self, error: OSError) -> bool:
        return error.errno in TRANSIENT_ERRNOS

    def open(self, create: bool) -> str | None:
        """The store's identity; None if it was never opened to write."""
        if os.path.isfile(self.root):
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
            with open(f"{self.root}/{IDENTITY}") as file:
                return file.read().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write_identity(self) -> None:
        """Of two that open a new store at once, one gives it its identity."""
        path = f"{self.root}/{IDENTITY}"
        aside = f"{self.root}/{ASIDE}{secrets.token_hex(4)}-{IDENTITY}"
        self._write_synced(aside, f"{secrets.token_hex(16)}\n".encode())
        try:
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
            except (
                FileNotFoundError
            ):  # the folder is there nearly always: making it first would cost each time
                if not os.path.isdir(
                    self.root
                ):  # made here, it would be another store than the driver's
                    where = f"not a folder on {platform.node()}"
                    raise StoreError(
                        f"store {self.root}: {where}; use one that all nodes share, or s3://…"
                    ) from None
                os.makedirs(os.path.dirname(path), exist_ok=True)  # and may go again: see delete
        raise OSError(errno.EAGAIN, "its folder keeps vanishing")

    def get(self, path: str) -> bytes:
        self._check_inside(path)
        with open(path, "rb") as file:
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
        while (
            folder != self.root
        ):  # empty folders would be walked through in each listing, for ever
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


# Object stores ------------------------------------------------------------------------------------


class _Bucket:
    """A bucket, or a prefix in one, of any file system that pyarrow knows."""

    def __init__(self, uri: str):
        self._uri = uri
        parts = urlsplit(uri)
        if parts.scheme in ("s3", "gs"):
            self.root = f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        else:
            with _opening(uri):
                self.root = fs.FileSystem.from_uri(uri)[1].rstrip("/")

    @property
    def _fs(self) -> fs.FileSystem:
        """Made at its first use in a process, with the environment's credentials of that moment."""
        kept = ("AWS_", "GOOGLE_")
        environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith(kept)))
        return _client(self._uri, environment)

    def may_pass(self, error: OSError) -> bool:
        return not FINAL_ANSWERS.search(str(error))

    def open(self, create: bool) -> None:
        with _opening(self._uri):
            kind = self._fs.get_file_info(self.root).type
        if kind == fs.FileType.File:
            raise UserError(f"store {self._uri}: is a file; name a folder")
        bucket = self.root.split("/")[0]
        if (
            kind == fs.FileType.NotFound
            and self._fs.get_file_info(bucket).type == fs.FileType.NotFound
        ):
            raise UserError(f"store {self._uri}: there is no bucket {bucket}; make it first")

    def put(self, path: str, data: bytes) -> None:
        # In a thread, which no signal interrupts: a stream that is left early publishes what it
        # has.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._upload, path, data).result()

    def _upload(self, path: str, data: bytes) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)

    def get(self, path: str) -> bytes:
        with self._fs.open_input_file(path) as file:
            data = file.read()
            if len(data) != file.size():
                raise OSError(f"{len(data):,} bytes of {file.size():,} came")
        return data

    def stat(self, path: str) -> tuple[int, float] | None:
        info = self._fs.get_file_info(path)
        return (info.size, info.mtime.timestamp()) if info.type == fs.FileType.File else None

    def names(self, folder: str) -> Iterator[str]:
        return (path for path, _, _ in self.entries(folder))

    def entries(self, folder: str) -> Iterator[tuple[str, int, float]]:
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        for info in self._fs.get_file_info(selector):
            if info.type == fs.FileType.File:
                yield info.path, info.size, info.mtime.timestamp()

    def delete(self, path: str) -> None:
        try:
            self._fs.delete_file(path)
        except FileNotFoundError:
            return
        except OSError:
            # pyarrow then writes a marker for the folder; where only that failed, the object is
            # gone all the same.
            if self.stat(path):
                raise


@contextmanager
def _opening(uri: str):
    try:
        yield
    except (ValueError, NotImplementedError) as error:  # an unknown scheme or option
        raise UserError(f"store {uri}: cannot be opened: {_why(error)}") from error


@lru_cache(maxsize=8)
def _client(uri: str, environment: tuple) -> fs.FileSystem:
    if uri.startswith("s3://"):
        return _s3(uri)
    if uri.startswith("gs://") and "retry_limit_seconds" not in uri:
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={SILENCE_TIMEOUT_S:.0f}"
    return fs.FileSystem.from_uri(uri)[0]


def _s3(uri: str) -> fs.S3FileSystem:
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    if unknown := options.keys() - set(S3_OPTIONS):
        raise ValueError(
            f"no such option: {', '.join(sorted(unknown))}; known: {', '.join(S3_OPTIONS)}"
        )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = options.setdefault("endpoint_override", endpoint)
    if endpoint:
        # Checksums in trailers, which Amazon's library sends of late, are refused by other servers.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    else:
        region = None if "region" in options else fs.resolve_s3_region(parts.netloc)
    options.setdefault("region", region)
    return fs.S3FileSystem(
        **options,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=SILENCE_TIMEOUT_S,  # on Linux too: no byte for so long
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),  # the store does the retrying
        allow_delayed_open=True,  # a small object is one request, not three
    )


# Words --------------------------------------------------------------------------------------------


def _is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def _is_aside(path: str) -> bool:
    return path.rsplit("/", 1)[1].startswith(ASIDE)


def _refuse_credentials(uri: str) -> None:
    """What is in a URI ends in logs, records and process lists."""
    if "://" not in uri:
        return
    scheme, rest = uri.split("://", 1)
    user = rest.split("?")[0].rpartition("@")[0]
    options = [
        name
        for name, _ in parse_qsl(urlsplit(uri).query)
        if re.search("key|secret|token|password", name)
    ]
    if options or ":" in user or (user and scheme == "s3"):
        clean = f"{scheme}://{rest.split('?')[0].rpartition('@')[2]}"
        right = (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            if scheme == "s3"
            else "use the environment"
        )
        raise UserError(
            f"store {clean}: its URI holds credentials, which do not belong there; {right}"
        )


def _why(error: BaseException) -> str:
    """The error in one line, without what must not be seen."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else _one_line(error)
    for code, words in (
        ("NO_SUCH_BUCKET", "there is no such bucket; make it first"),
        (
            "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH",
            "access denied; look at the credentials",
        ),
        ("SERVICE_UNAVAILABLE|SLOW_DOWN", "the server is overloaded"),
    ):
        if found := re.search(code, text):
            text = f"{words} ({found[0]})"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        if os.environ.get(name):
            text = text.replace(os.environ[name], "***")
    return text if len(text) <= 300 else text[:297] + "…"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
