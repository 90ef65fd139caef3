"""Where running jobs say how far they are, and the driver reads it.

An actor that holds a number per job. Slots call it without waiting for it, and the driver asks
without waiting either: a board that dies, or is slow, costs nothing but the numbers. Ray starts
another one then: without numbers, nobody could tell a job that hangs.
"""

from typing import Any

import ray
from ray.actor import ActorHandle

from equigrid.grid.running import cluster

ASK_EVERY_S = 1.0


class Shares:
    """What the actor does, without Ray: the share of each job that is done."""

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}

    def tell(self, job_id: str, share: float) -> None:
        """From a slot."""
        self._shares[job_id] = share

    def read(self, running: list[str]) -> dict[str, float]:
        """The shares of the jobs that run; those of all others are forgotten."""
        self._shares = {i: self._shares[i] for i in running if i in self._shares}
        return dict(self._shares)


class Teller:
    """What a request carries: tells the board of a job, and waits for nothing."""

    def __init__(self, board: ActorHandle) -> None:
        self._board = board

    def __call__(self, job_id: str, share: float) -> None:
        self._board.tell.remote(job_id, share)


class Board:
    """The driver's side. `shares`: as last read."""

    def __init__(self) -> None:
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(Shares)
        self._actor = actor.options(scheduling_strategy=cluster.here()).remote()
        self.teller = Teller(self._actor)
        self.shares: dict[str, float] = {}
        self._asked: ray.ObjectRef | None = None
        self._asked_at_s = -ASK_EVERY_S

    def look(self, running: list[str], now_s: float) -> bool:
        """Takes in what came, and asks again now and then; waits for nothing. Whether an answer
        came.
        """
        if self._asked is not None:
            if not ray.wait([self._asked], timeout=0)[0]:
                return False
            asked, self._asked = self._asked, None
            try:
                self.shares = ray.get(asked)
            except ray.exceptions.RayError:
                self.shares = {}
            else:
                return True
        elif now_s - self._asked_at_s >= ASK_EVERY_S:
            self._asked_at_s = now_s
            self._asked = self._actor.read.remote(running)
        return False

    def close(self) -> None:
        """Ends the actor."""
        ray.kill(self._actor)
