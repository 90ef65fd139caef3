"""The queue of a run: which job waits, may run, runs, is done, failed, or is blocked by a failure.

A state machine of plain values. It knows neither Ray nor the store nor the time, so a test can
drive it through any order of events. The driver tells it what happened (events, which return
nothing) and asks it what to do (queries, which change nothing).

    event      from          to
    start      ready         running
    finish     running       done; what waited for this job alone becomes ready
    fail       running       failed; what needs it is blocked
    retry      running       *, and a try is used up; failed, once there is none left
    lose       running       *; its machine went, no fault of the job's: no try is used up
    give_back  running       *; its slot went before the job had begun
    remake     done, failed  *; its output is wrong or gone. What needs it and has not begun waits
                             for it again, and what it had blocked is blocked no longer
    charge     any           the same: it turns out that a loss was the job's own, and a try

* is where the job's inputs put it: blocked if one of them failed or is blocked, else waiting if one
is not done yet, else ready. A running job keeps running whatever becomes of its inputs: it has them
already, or it comes back and says so.
"""

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from itertools import count


class State(Enum):
    """Where a job stands. The module's text says what leads from one state to another."""

    WAITING = "waiting"  # for an input that is not made yet
    READY = "ready"
    RUNNING = "running"
    BLOCKED = "blocked"  # an input failed, or is blocked itself
    DONE = "done"  # or not wanted: nothing that is to be done asks for it
    FAILED = "failed"


IDLE = (State.WAITING, State.READY, State.BLOCKED)  # which of them, the job's inputs decide
LEFT = (State.WAITING, State.READY, State.RUNNING)  # it runs or may yet run
HOPELESS = (State.FAILED, State.BLOCKED)


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """What the queue must know of a job."""

    id: str
    kind: str  # jobs are counted by it
    rank: int  # of the kind: ready jobs of a lower one go first
    needs: tuple[str, ...] = ()  # ids of the jobs whose outputs it takes
    shards: tuple[str, ...] = ()  # those of `needs` that are kept at hand while somebody reads them
    group: bool = False  # it runs as a worker group, on several devices; all others run on a slot
    alike: Hashable | None = None  # jobs of an equal one may share a request; None: it shares none


@dataclass(slots=True)
class _Entry:
    """A job and where it stands."""

    job: QueuedJob
    needed_by: list["_Entry"] = field(default_factory=list)
    state: State = State.DONE
    missing: int = 0  # inputs that are not done
    hopeless: int = 0  # inputs that failed or are blocked
    tries: int = 0  # that were used up
    place: int | None = None  # in the order of what is to be done; given once it is
    turn: tuple[int, int, str] | None = None  # while it is ready: what the ready jobs are sorted by
    started_at: int = -1  # when it was last sent off, in events of the queue
    made_at: int = -1  # when it was last finished, likewise

    @property
    def idle_state(self) -> State:
        """Where its inputs put it."""
        if self.hopeless:
            return State.BLOCKED
        return State.WAITING if self.missing else State.READY


class JobQueue:
    """The jobs of a plan, and the state of each; events and queries as in the module's text.

    Ready jobs for slots go by rank, and within a rank in the order of `todo`, where jobs that share
    shards lie side by side. Worker groups go in the order in which they became ready.
    """

    def __init__(self, jobs: Iterable[QueuedJob], todo: Iterable[str], retries: int) -> None:
        """jobs: all of the plan, each after those that it needs. todo: ids of those that are to be
        done, in order; the others count as done. retries: tries that a job has after its first.

        Raises ValueError for a job that does not come after all that it needs, or is there twice.
        """
        self._retries = retries
        self._entries: dict[str, _Entry] = {}
        self._events = count()  # tells earlier from later
        self._places = count()
        self._for_slots: list[tuple[int, int, str]] = []  # ready jobs, sorted by (rank, place)
        self._for_groups: list[tuple[int, int, str]] = []  # those of groups, by when they got ready
        self._counts: Counter[tuple[str, State]] = Counter()  # jobs by kind and state
        self._alike: dict[Hashable, list[_Entry]] = defaultdict(list)
        self._readers: Counter[str] = Counter()  # by shard: jobs left that read it
        self._failed: dict[str, None] = {}  # ids, in the order in which they failed
        for job in jobs:
            self._add(job)
        for job_id in todo:
            self.remake(job_id)

    def _add(self, job: QueuedJob) -> None:
        if job.id in self._entries:
            raise ValueError(f"job {job.id} is there twice")
        entry = _Entry(job)
        for need in dict.fromkeys(job.needs):
            if need not in self._entries:
                raise ValueError(f"job {job.id} needs {need}, which does not come before it")
            self._entries[need].needed_by.append(entry)
        self._entries[job.id] = entry
        if job.alike is not None and not job.group:
            self._alike[job.alike].append(entry)
        self._counts[job.kind, State.DONE] += 1

    # Events ---------------------------------------------------------------------------------------

    def start(self, job_id: str) -> None:
        """A ready job was sent to a slot or to a worker group."""
        entry = self._expect(job_id, State.READY)
        entry.started_at = next(self._events)
        self._move(entry, State.RUNNING)

    def finish(self, job_id: str) -> None:
        """A running job succeeded: its output is in the store."""
        entry = self._expect(job_id, State.RUNNING)
        entry.made_at = next(self._events)
        self._move(entry, State.DONE)

    def fail(self, job_id: str) -> None:
        """A running job failed, and repeating it would not mend that."""
        self._move(self._expect(job_id, State.RUNNING), State.FAILED)

    def retry(self, job_id: str) -> None:
        """A running job came back without its output; another try may mend that."""
        self.charge(job_id)
        self.lose(job_id)

    def lose(self, job_id: str) -> None:
        """A running job is lost with its machine. It fails if it was charged too many tries."""
        entry = self._expect(job_id, State.RUNNING)
        self._move(entry, State.FAILED if entry.tries > self._retries else entry.idle_state)

    def give_back(self, job_id: str) -> None:
        """A job that counts as running waited for a slot that is gone: it had not begun."""
        entry = self._expect(job_id, State.RUNNING)
        self._move(entry, entry.idle_state)

    def remake(self, job_id: str) -> None:
        """A job's output is wrong or gone. Nothing changes if the job is to be done anyway."""
        entry = self._entries[job_id]
        if entry.state not in (State.DONE, State.FAILED):
            return
        if entry.place is None:
            entry.place = next(self._places)
        self._move(entry, entry.idle_state)

    def charge(self, job_id: str) -> None:
        """A try of the job's is used up."""
        self._entries[job_id].tries += 1

    # Queries --------------------------------------------------------------------------------------

    def state(self, job_id: str) -> State:
        """Where a job stands."""
        return self._entries[job_id].state

    def next_for_slot(self) -> str | None:
        """The job that the next free slot should run; None if none is ready."""
        return self._for_slots[0][-1] if self._for_slots else None

    def ready_beside(self, job_id: str) -> list[str]:
        """The other ready jobs that may share a request with a ready one, in order."""
        own = self._expect(job_id, State.READY)
        if own.job.alike is None or own.job.group:
            return []
        turns = [entry.turn for entry in self._alike[own.job.alike] if entry.turn is not None]
        return [turn[-1] for turn in sorted(turns) if turn[-1] != job_id]

    def next_for_group(self) -> str | None:
        """The job that the next worker group should run; None if none is ready."""
        return self._for_groups[0][-1] if self._for_groups else None

    @property
    def ready_for_slots(self) -> int:
        """How many ready jobs want a slot."""
        return len(self._for_slots)

    @property
    def is_over(self) -> bool:
        """Whether every job is done, failed or blocked."""
        running = sum(n for (_, state), n in self._counts.items() if state is State.RUNNING)
        return not (self._for_slots or self._for_groups or running)

    def count(self, kind: str, *states: State) -> int:
        """How many jobs of a kind are in one of these states."""
        return sum(self._counts[kind, state] for state in states)

    def left(self, kind: str) -> int:
        """How many jobs of a kind run or may yet run."""
        return self.count(kind, *LEFT)

    def readers_left(self, shard_id: str) -> int:
        """How many jobs that read a shard run or may yet run: after the last it can be let go."""
        return self._readers[shard_id]

    def is_old_news(self, job_id: str, need: str) -> bool:
        """Whether an input was made anew after a job was sent off: then what is wrong with the one
        that the job saw is mended already."""
        maker = self._entries[need]
        return maker.state is State.DONE and maker.made_at > self._entries[job_id].started_at

    def failed(self) -> list[str]:
        """The jobs that failed, in the order in which they did."""
        return list(self._failed)

    def blocked_by(self, job_id: str) -> list[str]:
        """All blocked jobs that need a job, directly or not."""
        found: dict[str, None] = {}
        self._add_blocked(self._entries[job_id], found)
        return list(found)

    def _add_blocked(self, entry: _Entry, found: dict[str, None]) -> None:
        for other in entry.needed_by:
            if other.state is State.BLOCKED and other.job.id not in found:
                found[other.job.id] = None
                self._add_blocked(other, found)

    # How states change ----------------------------------------------------------------------------

    def _expect(self, job_id: str, state: State) -> _Entry:
        entry = self._entries[job_id]
        assert entry.state is state, f"job {job_id} is {entry.state.value}, not {state.value}"
        return entry

    def _move(self, entry: _Entry, state: State) -> None:
        """Puts a job into a state, and what needs it where that then belongs. Every change passes
        here.

        It calls itself as deep as jobs need each other in a chain: four in any plan.
        """
        before, entry.state = entry.state, state
        self._counts[entry.job.kind, before] -= 1
        self._counts[entry.job.kind, state] += 1
        self._line_up(entry)
        self._failed.pop(entry.job.id, None)
        if state is State.FAILED:
            self._failed[entry.job.id] = None
        if left := (state in LEFT) - (before in LEFT):
            for shard_id in set(entry.job.shards):
                self._readers[shard_id] += left
        missing = (state is not State.DONE) - (before is not State.DONE)
        hopeless = (state in HOPELESS) - (before in HOPELESS)
        if missing or hopeless:
            self._tell_dependants(entry, missing, hopeless)

    def _tell_dependants(self, entry: _Entry, missing: int, hopeless: int) -> None:
        for other in entry.needed_by:
            other.missing += missing
            other.hopeless += hopeless
            if other.state in IDLE and other.state is not other.idle_state:
                self._move(other, other.idle_state)

    def _line_up(self, entry: _Entry) -> None:
        """Keeps the ready jobs, and no others, in line."""
        line = self._for_groups if entry.job.group else self._for_slots
        if entry.turn is not None:
            del line[bisect_left(line, entry.turn)]
            entry.turn = None
        if entry.state is State.READY:
            assert entry.place is not None, f"job {entry.job.id} is not to be done"
            sort_by = (next(self._events), 0) if entry.job.group else (entry.job.rank, entry.place)
            entry.turn = (*sort_by, entry.job.id)
            insort(line, entry.turn)
