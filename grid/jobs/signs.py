"""Signs of life from within a job: how much of it is done, for whoever watches.

A body, and what it calls, may say it as often as it likes: after each step, each batch. Something
is sent every EVERY_S seconds at most, so that a job of a second sends nothing.
"""

import time
from collections.abc import Callable

EVERY_S = 2.0


class Signs:
    """Of one attempt at a job. `send`: takes the job's id, and the share of it that is done."""

    def __init__(
        self,
        job_id: str,
        send: Callable[[str, float], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job_id, self._send, self._clock = job_id, send, clock
        self._due_s = clock() + EVERY_S

    def part(self, start: float, stop: float) -> Callable[[float], None]:
        """For a part of the job, from one share of it to another: takes the part's own share."""
        return lambda share: self(start + share * (stop - start))

    def __call__(self, share: float) -> None:
        """So much of the job is done, from 0 to 1."""
        now = self._clock()
        if now >= self._due_s:
            self._due_s = now + EVERY_S
            self._send(self._job_id, min(max(share, 0.0), 1.0))
