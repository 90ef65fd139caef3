"""Bytes under names, in a local or shared folder or an object store. This class owns every path.

Data objects are written first under names of their own; the manifest that makes them visible comes
last. An object is there whole or not at all: object stores publish a PUT at once, and in a folder
the bytes are written aside and renamed (which is atomic there, and needed nowhere else).

Trouble that may pass (no answer, 500, 503, a cut connection, a stale file handle) is tried again
with back-off until RETRY_S is over; what will not pass (access denied, no such bucket, disk full)
is not. Either ends in a StoreError of one line. An address that names no store (an unknown scheme,
a file, a bucket that is not there) is a UserError.
"""

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from equigrid import __version__
from equigrid.grid.errors import DocumentError, StoreError, UserError
from equigrid.grid.store import layout
from equigrid.grid.store.bucket import Bucket
from equigrid.grid.store.folder import Folder, is_aside
from equigrid.grid.store.trouble import one_line, why
from equigrid.grid.text import as_one_word, holds_credentials, redacted

T = TypeVar("T")

RETRY_S = 120.0  # unless EQUIGRID_STORE_RETRY_S says otherwise
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 10.0
FORMAT = 1  # of a store; raised when an earlier release would misread what lies there
DIGEST = "digest"  # of a document: a key of its own
CONNECTIONS = 16  # requests at once where many objects are wanted: it is all waiting


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
        self._check_format(create)

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

    def _check_format(self, create: bool) -> None:
        """Refuses a store that a later release laid out in a way that this one does not know."""
        content = self.get_json(layout.FORMAT)
        if content is None:  # of before there were several, or new
            if create:
                written = {"format": FORMAT, "written_by": __version__}
                self.put_json(layout.FORMAT, written)
            return
        found = content.get("format") if isinstance(content, dict) else None
        if type(found) is not int or found < 1:
            what = f"its format is {found!r:.100}, which is no number"
            right = "remove the file if all that wrote there was of one version of equigrid"
            raise DocumentError(
                f"store {self.uri}: {layout.FORMAT}: {what}; {right}",
                name=layout.FORMAT, why=what,
            )  # fmt: skip
        if found > FORMAT:
            by = f"{content.get('written_by', 'another version')!s:.40}"
            raise StoreError(
                f"store {self.uri}: is of format {found}, written by equigrid {by}; this is "
                f"{__version__}, which knows formats up to {FORMAT}: use a later one"
            )

    def _place(self, uri: str, identity: str | None) -> None:
        self._retry_s: float | None = None  # of the environment, at the time
        self._identity, self._identified = identity, identity is None
        try:
            _refuse_credentials(uri)
            _check_slashes(uri)
            self._files = Folder(uri.removeprefix("file://")) if _is_local(uri) else Bucket(uri)
        except UserError:
            raise
        except ValueError as error:  # brackets or a port that are none
            text = redacted(f"store {uri}: is no address: {error}")
            raise UserError(text) from error
        self.uri = self._files.root if _is_local(uri) else uri

    # Travels to workers as its address, and is not asked anything before it is used.
    def __reduce__(self) -> tuple[Callable[[str, str | None], "Store"], tuple[str, str | None]]:
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
        return (path[start:] for path in found if not _is_hidden(path[start:]))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects below the folder `prefix`, with their sizes and times."""
        return (entry for entry in self._everything(prefix) if not _is_hidden(entry.name))

    def asides(self, prefix: str) -> Iterator[Entry]:
        """What writers below `prefix` have not published: they are at it, or died. Object stores
        show none.
        """
        return (entry for entry in self._everything(prefix) if is_aside(entry.name))

    def _everything(self, prefix: str) -> Iterator[Entry]:
        start, folder = len(self._files.root) + 1, self.path(prefix)
        found = self._patiently(f"list {prefix}", lambda: list(self._files.entries(folder)))
        return (Entry(path[start:], size, time_s) for path, size, time_s in found)

    def size(self, prefix: str) -> int:
        """Bytes of all objects below the folder `prefix`."""
        return sum(entry.bytes for entry in self.entries(prefix))

    def delete(self, *names: str) -> None:
        """Removes objects, several at a time; nothing happens where one is not there."""
        paths = [self.path(name) for name in names]

        def remove(name_and_path: tuple[str, str]) -> None:
            name, path = name_and_path
            self._patiently(f"remove {name}", lambda: self._files.delete(path))

        if len(names) == 1:
            remove((names[0], paths[0]))
            return
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(remove, zip(names, paths)))

    def put_json(self, name: str, value: object) -> None:
        """Publishes a document. A mapping is given a digest of its content, which `get_json`
        compares.
        """
        if isinstance(value, dict):
            value = {**value, DIGEST: _digest(json.loads(json.dumps(value, allow_nan=False)))}
        self.put(
            name, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
        )

    def get_json(self, name: str) -> Any:
        """The JSON under `name`, or None where there is none. Raises DocumentError if it is not
        JSON, or not what was written.

        What it says is for `equigrid.grid.store.documents` to check: ask there.
        """
        try:
            return self.get_decoded(name, _document, "JSON")
        except FileNotFoundError:
            return None

    def get_decoded(self, name: str, decode: Callable[[bytes], T], kind: str) -> T:
        """`decode(get(name))`. Bytes that do not decode (ValueError) are read once more: the first
        reading may have been cut short. Raises FileNotFoundError, or DocumentError if they are no
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
            what = "what was written" if isinstance(error, Altered) else kind
            why = f"is not {what}: {one_line(error)}"
            raise DocumentError(f"store {self.uri}: {name} {why}", name=name, why=why) from error

    def check(self) -> float:
        """Writes and reads a small object; returns the time by the store's own clock,
        seconds since 1970.

        Raises StoreError once the store has been dead for RETRY_S.
        """
        name, data = layout.CHECK, b"equigrid"
        self.put(name, data)
        entry = self.stat(name)
        if entry is None or self.get(name) != data:
            raise StoreError(f"store {self.uri}: what was written under {name} does not come back")
        return entry.modified_s

    def _patiently(self, what: str, action: Callable[[], T]) -> T:
        """`action()`, again and again while its trouble is one that may pass, for retry_s() at
        most.
        """
        patience_s = retry_s() if self._retry_s is None else self._retry_s
        end_s, tries = time.monotonic() + patience_s, 0
        while True:
            try:
                if not self._identified:  # once in a process, before anything else
                    if isinstance(self._files, Folder) and self._identity is not None:
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
                    message = f"store {self.uri}: cannot {what}: {why(error)}{times}"
                    raise StoreError(message, permanent=permanent) from error
            longest_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**tries)
            # Jitter: many workers see one server die.
            time.sleep(min(left_s, random.uniform(0.5, 1) * longest_s))


def _is_hidden(name: str) -> bool:
    """What is being written, and what file managers leave behind: no name of ours begins so."""
    return name.startswith(".") or "/." in name


class Altered(ValueError):
    """Bytes whose digest is not the one that was written with them."""

    def __init__(self) -> None:
        super().__init__("its digest is another; it was damaged, or changed by hand")


def _document(data: bytes) -> Any:
    """The JSON in these bytes. Raises ValueError, also where it is not what was written."""
    try:
        content = json.loads(data, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if content is None:
        raise ValueError("it is null")
    if not isinstance(content, dict) or DIGEST not in content:
        return content  # of before documents had one
    if content.pop(DIGEST) != _digest(content):
        raise Altered
    return content


def _digest(content: dict) -> str:
    """32 hexadecimal digits over a document."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


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
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):  # nan is neither
        raise UserError(f"EQUIGRID_STORE_RETRY_S: {text!r}; write seconds, like {RETRY_S:g}")
    return seconds


def _check_slashes(uri: str) -> None:
    """A folder `s3:` here is not what was meant."""
    scheme, slash, rest = uri.partition(":/")
    if slash and re.fullmatch(r"[A-Za-z][\w+.-]+", scheme) and not rest.startswith("/"):
        what = "an address has two slashes, and a folder whose name ends so begins with ./"
        raise UserError(redacted(f"store {uri}: {what}"))


def _is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def _refuse_credentials(uri: str) -> None:
    """What is in a URI ends in logs, records and process lists."""
    word = as_one_word(uri)
    if "://" in uri and holds_credentials(word):
        scheme, rest = word.split("://", 1)
        clean = redacted(f"{scheme}://{re.split('[?#]', rest)[0].rpartition('@')[2]}")
        right = (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            if scheme.lower() == "s3"
            else "use the environment"
        )
        raise UserError(
            f"store {clean}: its URI holds credentials, which do not belong there; {right}"
        )
