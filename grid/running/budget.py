"""What a run may cost, in device seconds: what is used, under way, and can still be afforded."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job likely costs."""

    devices: float  # that it holds: a group's workers, a slot's share of a device
    seconds: float | None  # for which it holds them; None is unknown, and counts as nothing


class Budget:
    """Counts for how long devices are held, and tells what would go beyond the limit.

    Slots hold their devices while they import and while they idle, so what is used is counted by
    the devices held; jobs count in what lies ahead.
    """

    def __init__(self, limit_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """limit_s: None only counts. clock: seconds since any time."""
        self.limit_s = limit_s
        self.used_s = 0.0  # device seconds up to the last count
        self._clock = clock
        self._counted_at_s = clock()
        self._held = 0.0  # devices, at the last count
        self._under_way: dict[str, tuple[Cost, float]] = {}  # by job: its cost, when it began

    def count(self, held: float) -> None:
        """So many devices are held now, and were since the last count."""
        now = self._clock()
        self.used_s += held * (now - self._counted_at_s)
        self._counted_at_s, self._held = now, held

    def begin(self, job_id: str, cost: Cost) -> None:
        """A job was sent off."""
        self._under_way[job_id] = cost, self._clock()

    def end(self, job_id: str) -> None:
        """It came back, whatever came of it."""
        del self._under_way[job_id]

    def affords(self, cost: Cost) -> bool:
        """Whether a job would likely end within the limit, with all that is under way."""
        if self.limit_s is None:
            return True
        now = self._clock()
        ahead_s = sum(
            job.devices * max(0.0, (job.seconds or 0) - (now - began_s))
            for job, began_s in self._under_way.values()
        )
        return self.used_s + ahead_s + cost.devices * (cost.seconds or 0) <= self.limit_s

    def is_reached(self, following: Cost | None, within_s: float) -> bool:
        """Whether the run must end: what is held could pass the limit within so many seconds, or
        the run is starved: nothing is under way and the job that follows cannot be afforded."""
        if self.limit_s is None:
            return False
        starved = not self._under_way and following is not None and not self.affords(following)
        return starved or self.used_s + self._held * within_s >= self.limit_s
