"""How long the whole of a run will still take, from its first minute on.

Each job left is given the seconds that jobs like it took: in this run, by how much there was to do;
else by what the store or the spec says, times how much faster or slower this run has been than
that. Where nothing is known of a kind (a first grid of one's own) one job of it is run early, and
until it has told, shards are guessed from the training of their generator. A running job that says
how far it is counts as one that took so much more.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

FEW = 3  # of fewer the quickest speaks: the first job of a process loads what others find there
EARLIEST_S, EARLIEST_SHARE = 3.0, 0.02  # of a running job, before it speaks for others
LAST = 101  # jobs that speak: a machine may get busier, or less so
ANY = None  # stands for all of a kind
MOST_OFF = 20.0  # a run is not this much faster or slower than what is expected


@dataclass(frozen=True, slots=True)
class Task:
    """What a forecast knows of a job.

    alike: what jobs are compared by, the closest first. work: how much there is to do, in units
    that jobs that are alike share. expected_s: what the store or the spec says, None for nothing.
    devices: that it holds, 1 for a slot.
    """

    id: str
    kind: str
    alike: tuple[Hashable, ...] = ("",)
    work: float = 1.0
    expected_s: float | None = None
    devices: float = 1.0


@dataclass(slots=True)
class _Lot:
    """All that is left of tasks that are alike: one of them, and what they add up to."""

    first: Task
    work: float = 0.0
    expected_s: float = 0.0

    def add(self, task: Task, sign: int) -> None:
        self.work += sign * task.work
        self.expected_s += sign * (task.expected_s or 0.0)


Key = tuple[str, Hashable]
Running = Mapping[str, tuple[float, float | None]]
"""By job that runs: seconds since it began, and the share that is done, if it says so."""


class Forecast:
    """Told when jobs end; asked how long those left will take."""

    def __init__(
        self,
        tasks: Iterable[Task],
        guess: Callable[[Task, float, Mapping[str, float]], float | None] = lambda *_: None,
    ) -> None:
        """tasks: all that are to be done. guess: seconds of so much work of tasks of which nothing
        is known, the first of which it is given, from the seconds per unit of work by kind.
        """
        self._tasks: dict[str, Task] = {}
        self._left: set[str] = set()
        self._lots: dict[Hashable, _Lot] = {}
        self._guess = guess
        self._rates: dict[Key, deque[float]] = defaultdict(lambda: deque(maxlen=LAST))
        self._known: dict[Key, float] = {}  # what they say; one that is missing is computed anew
        self._took_s = 0.0  # of those that ended and were expected
        self._expected_s = 0.0  # what was expected of them
        for task in tasks:
            self._tasks[task.id] = task
            self._put(task, 1)

    def _put(self, task: Task, sign: int) -> None:
        (self._left.add if sign > 0 else self._left.remove)(task.id)
        key = (task.kind, task.alike, task.devices, task.expected_s is None)
        self._lots.setdefault(key, _Lot(task)).add(task, sign)

    # Events ---------------------------------------------------------------------------------------

    def ended(self, job_id: str, seconds: float | None) -> None:
        """A job is over. seconds: that it took, None where it failed or was lost for good."""
        if job_id not in self._left:
            return
        task = self._tasks[job_id]
        self._put(task, -1)
        if seconds is None:
            return
        for key in (*task.alike, ANY):
            self._rates[task.kind, key].append(seconds / task.work)
            self._known.pop((task.kind, key), None)
        if task.expected_s:
            self._took_s += seconds
            self._expected_s += task.expected_s

    # Queries --------------------------------------------------------------------------------------

    def unknown(self) -> list[Task]:
        """Of each kind of which nothing is known, the least task: worth running early."""
        least: dict[str, Task] = {}
        for job_id, task in self._tasks.items():
            if job_id not in self._left or task.expected_s is not None:
                continue
            if (task.kind, ANY) not in self._rates:
                best = least.get(task.kind)
                if best is None or task.work < best.work:
                    least[task.kind] = task
        return list(least.values())

    def device_s_left(self, running: Running) -> float | None:
        """Device-seconds that what is left will hold; None while nothing can be said of a kind that
        is left.
        """
        found = self._looked_ahead(running)
        return None if found is None else found[0]

    def seconds_left(self, running: Running, devices: float) -> float | None:
        """Seconds until all is done on so many devices; None as `device_s_left`, and where there
        are no devices yet.
        """
        found = self._looked_ahead(running)
        if found is None or devices <= 0:
            return None
        return max(found[0] / devices, found[1])

    # ----------------------------------------------------------------------------------------------

    def _looked_ahead(self, running: Running) -> tuple[float, float] | None:
        """Device-seconds left, and the longest that a running job still takes."""
        spoken, total, longest = self._spoken(running), 0.0, 0.0
        for lot in self._lots.values():
            if lot.work <= 1e-9:
                continue
            seconds = self._seconds(lot, spoken)
            if seconds is None:
                return None
            total += seconds * lot.first.devices
        for job_id, (elapsed, share) in running.items():
            if job_id in self._left:
                task = self._tasks[job_id]
                whole = self._seconds(_Lot(task, task.work, task.expected_s or 0.0), spoken)
                assert whole is not None, "its lot was known"
                rest = self._remaining(whole, elapsed, share)
                total += (rest - whole) * task.devices
                longest = max(longest, rest)
        return max(total, 0.0), longest

    @staticmethod
    def _remaining(seconds: float, elapsed: float, share: float | None) -> float:
        if share and elapsed >= EARLIEST_S and share >= EARLIEST_SHARE:
            return elapsed * (1 - share) / share
        # One that is overdue takes some more; how much, nobody knows.
        return max(seconds - elapsed, 0.1 * elapsed)

    def _spoken(self, running: Running) -> dict[Key, float]:
        """Seconds per unit of work by what running jobs say."""
        found: dict[Key, list[float]] = defaultdict(list)
        for job_id, (elapsed, share) in running.items():
            task = self._tasks.get(job_id)
            if task and share and elapsed >= EARLIEST_S and share >= EARLIEST_SHARE:
                for key in (*task.alike, ANY):
                    found[task.kind, key].append(elapsed / share / task.work)
        return {key: _typical(rates) for key, rates in found.items()}

    def _seconds(self, lot: _Lot, spoken: Mapping[Key, float]) -> float | None:
        """Of all of a lot's work: by what is most like it."""
        kind = lot.first.kind
        for key in lot.first.alike:
            if (rate := self._rate((kind, key), spoken)) is not None:
                return rate * lot.work
        if lot.first.expected_s is not None:
            return lot.expected_s * self._pace()
        if (rate := self._rate((kind, ANY), spoken)) is not None:
            return rate * lot.work
        known = {k: rate for k, key in (*self._rates, *spoken) if key is ANY
                 and (rate := self._rate((k, ANY), spoken)) is not None}  # fmt: skip
        return self._guess(lot.first, lot.work, known)

    def _rate(self, key: Key, spoken: Mapping[Key, float]) -> float | None:
        """Seconds per unit of work: of jobs that ended, else of those that run."""
        if key not in self._known and (rates := self._rates.get(key)):
            self._known[key] = _typical(rates)
        return self._known.get(key, spoken.get(key))

    def _pace(self) -> float:
        """How much longer jobs took in this run than was expected of them."""
        if not self._expected_s:
            return 1.0
        return min(max(self._took_s / self._expected_s, 1 / MOST_OFF), MOST_OFF)


def _typical(rates: Collection[float]) -> float:
    return min(rates) if len(rates) < FEW else median(rates)
