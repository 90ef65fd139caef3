"""The lock of one grid in a store: advice that keeps a second driver from doing the first one's
work again.

Object stores have no lock that is sure, and none is needed: two drivers waste work, and spoil
nothing. The lock is one object, `grids/GRID/lock.json`, which names its holder, counts heartbeats,
and says how far the holder is. Clocks of machines differ, so no two are compared: a holder is alive
if its count goes up while one watches, or if its process is there, on the same machine; it is dead
if its process is not, or if the store's own clock says that nothing was written for STALE_S.
"""

import getpass
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from equigrid.grid.errors import DocumentError, StoreError, UnavailableError
from equigrid.grid.store import Store, documents, layout
from equigrid.grid.store.documents import LockOwner, LockRecord
from equigrid.grid.units import duration

BEAT_S = 15.0
STALE_S = 60.0
LOOK_EVERY_S = 1.0
RELEASE_S = 3.0


@dataclass(frozen=True)
class Owner:
    """A process that runs a grid. machine: what its process ids are unique in; born: tells it from
    a later process.
    """

    run: str
    host: str
    pid: int
    user: str
    started_at: str
    machine: str
    born: str

    @staticmethod
    def of(content: LockRecord) -> "Owner":
        return Owner(**content.owner.model_dump(include={one.name for one in fields(Owner)}))


_DAMAGED = LockRecord(
    owner=LockOwner(
        run="", host="a host", pid=0, user="somebody", started_at="", machine="", born=""
    ),
    beats=0,
    held_s=0.0,
)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: age_s since it took it, silent_s since its last heartbeat (by the store's
    clock).

    progress: what it said of its run with that heartbeat (`equigrid.grid.running.driver`), None
    before there is anything to say.
    """

    owner: Owner
    beats: int
    age_s: float
    silent_s: float
    progress: dict | None

    @property
    def alive(self) -> bool:
        """Whether it seems to run still."""
        here = _runs_here(self.owner)
        return self.silent_s <= STALE_S if here is None else here

    def __str__(self) -> str:
        owner = self.owner
        since = f"running for {duration(self.age_s)}, last heard of {duration(self.silent_s)} ago"
        return f"process {owner.pid} of {owner.user} on {owner.host} ({since})"


def holder(store: Store, grid: str, *, now_s: float | None = None) -> Holder | None:
    """Who holds the lock of `grid`, alive or not; None if nobody does. Raises StoreError.

    now_s: seconds since 1970, for who may not write; without it the store's own clock is asked, by
    writing.
    """
    content, entry = _read(store, grid), store.stat(layout.lock(grid))
    if content is None or entry is None:
        return None
    silent_s = max(0.0, (store.check() if now_s is None else now_s) - entry.modified_s)
    progress = content.progress.model_dump() if content.progress else None
    age_s = content.held_s + silent_s
    return Holder(Owner.of(content), content.beats, age_s, silent_s, progress)


def _read(store: Store, grid: str) -> LockRecord | None:
    """What the lock says. One that is damaged, or empty, was written by somebody unknown: who
    holds it writes it anew with the next heartbeat.
    """
    try:
        return documents.read(store, layout.lock(grid), LockRecord)
    except DocumentError as error:
        documents.passed_over(str(error))
        return _DAMAGED


def acquire(
    store: Store,
    grid: str,
    *,
    takeover: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> "Lock":
    """Takes the lock of `grid` and keeps it with heartbeats until `release`.

    Raises UnavailableError if another driver holds it and lives, unless `takeover`. Where that
    driver may have died on another machine, watches for its heartbeat first, STALE_S at most;
    `tell` gets a line that says so.
    """
    found = holder(store, grid)
    if found and not takeover and _lives(store, grid, found, tell, clock, sleep):
        right = "wait for it, stop it, or take its place with --takeover"
        raise UnavailableError(f"grid {grid}: {found} runs it already in {store.uri}; {right}")
    lock = Lock(store, grid, clock)
    try:
        lock.write()
        lock.start()
    except KeyboardInterrupt:
        lock.release()
        raise
    return lock


class Lock:
    """A lock that this process holds. A context manager; a thread of its own beats while the driver
    is busy.
    """

    def __init__(self, store: Store, grid: str, clock: Callable[[], float]):
        self.store, self.grid, self.clock = store, grid, clock
        self.owner = _this_process()
        self.taken_by: Owner | None = None  # a driver that took over: this one should leave
        self.progress: dict | None = None  # JSON; told with the next heartbeat
        self._since_s, self._beats = clock(), 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def beat(self) -> None:
        """One heartbeat. Finds out who took over, and then leaves the lock to them. Raises
        StoreError.
        """
        content = _read(self.store, self.grid)
        if content is not None and content.owner.run not in ("", self.owner.run):
            self.taken_by = Owner.of(content)
            self._over.set()
        else:
            self.write()

    def write(self) -> None:
        self._beats += 1
        self.store.put_json(layout.lock(self.grid), {
            "owner": asdict(self.owner), "beats": self._beats,
            "held_s": self.clock() - self._since_s, "progress": self.progress,
        })  # fmt: skip

    def _beat_on(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                self.beat()
            # The driver meets the same trouble, and says so; the lock may go stale meanwhile.
            except StoreError:
                continue

    def release(self) -> None:
        """Gives the lock back, if it is still this one's. A store that is dead by now leaves it to
        go stale.
        """
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(RELEASE_S)
        store = self.store.patient(RELEASE_S)
        try:
            content = _read(store, self.grid)
            if content is not None and content.owner.run in ("", self.owner.run):
                store.delete(layout.lock(self.grid))
        except StoreError:
            return


def _lives(
    store: Store, grid: str, found: Holder, tell: Callable, clock: Callable, sleep: Callable
) -> bool:
    here = _runs_here(found.owner)
    if here is not None:
        return here
    end_s = clock() + STALE_S - found.silent_s
    if clock() < end_s:
        tell(
            f"grid {grid}: {found}; waiting for its heartbeat, {duration(end_s - clock())} at most"
        )
    while clock() < end_s:
        sleep(LOOK_EVERY_S)
        content = _read(store, grid)
        if content is None:
            return False  # it has ended meanwhile
        if (content.owner.run, content.beats) != (found.owner.run, found.beats):
            return True
    return False


def _this_process() -> Owner:
    return Owner(
        run=secrets.token_hex(8),
        host=platform.node(),
        pid=os.getpid(),
        user=_user(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_machine(),
        born=_born(os.getpid()) or "",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers run under numbers that have no name
        return str(os.getuid())


def _runs_here(owner: Owner) -> bool | None:
    """Whether this process is there; None if that cannot be seen from here."""
    if not owner.machine or owner.machine != _machine() or not owner.born:
        return None
    return _born(owner.pid) == owner.born


def _machine() -> str:
    """Names what process ids are unique in: the boot and the pid namespace (containers share host
    names).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return ""


def _born(pid: int) -> str | None:
    """When a process of this machine started, in its kernel's ticks; None if there is no such
    process.
    """
    try:
        state, *fields = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rsplit(")", 1)[1]
            .split()
        )
    except OSError:
        return None
    return None if state == "Z" else fields[18]
