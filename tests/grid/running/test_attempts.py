"""Attempts that end in ways of their own, on a real Ray, without a grid."""

import time
from types import SimpleNamespace

import pytest
import ray

from equigrid.grid import jobs
from equigrid.grid.running import cluster
from equigrid.grid.running.attempts import Attempts
from equigrid.grid.running.board import Board

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_here")]
SOON_S = 60.0


def wait_for(what):
    end_s = time.monotonic() + SOON_S
    while not (found := what()):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    return found


@ray.remote(num_cpus=0)
class Actor:
    def run(self) -> list[dict]:
        return [{"status": jobs.OK}]

    def hold(self) -> None:
        self.group = ray.util.placement_group([{"CPU": 0.01}])
        ray.get(self.group.ready())


class Pool:
    """One slot."""

    coming = ()

    def __init__(self):
        self.slot = Actor.remote()

    def node_of(self, slot):
        return "node"

    def submit(self, slot, requests, stage, titles):
        return slot.run.remote()

    def greet(self):
        pass

    def done(self, slot, ref):
        pass


def attempts_on(pool) -> Attempts:
    requests = SimpleNamespace(make=lambda job, **how: job, title=lambda job: "")
    return Attempts(None, pool, requests)


def test_a_job_that_was_over_as_it_was_to_be_ended_takes_its_slot_along():
    """Else the next job would be sent to a process that is dead, at the cost of a try."""
    pool = Pool()
    attempts = attempts_on(pool)
    job = SimpleNamespace(id="a", stage="trial")
    attempts.send_to_slot([job], pool.slot, gpus=0)
    (ref,) = attempts._under_way
    ray.wait([ref], timeout=SOON_S)
    attempts.end("a", "it was silent")
    ((_, outcome),) = attempts.ended(within_s=1)
    assert outcome == {"status": jobs.OK, "fresh_slot": True}


def test_what_a_worker_group_of_an_interrupted_run_held_is_given_back(monkeypatch):
    """Where Ray lives on, as in a notebook, the next run waited for it for ever."""
    monkeypatch.setattr(cluster, "LOOK_EVERY_S", 0.0)
    maker = Actor.remote()
    ray.get(maker.hold.remote())
    before = ray.available_resources()["CPU"]
    ray.kill(maker)
    attempts = attempts_on(Pool())

    def is_free() -> bool:
        assert not list(attempts.ended(within_s=0.05))
        return ray.available_resources()["CPU"] > before

    wait_for(is_free)


def test_a_board_that_died_comes_back():
    """Without one, each job would look as if it hung."""
    board = Board()
    try:
        board.teller("a", 0.25)
        wait_for(lambda: board.look(["a"], time.monotonic()) and board.shares == {"a": 0.25})
        ray.kill(board._actor, no_restart=False)

        def is_back() -> bool:
            board.teller("a", 0.5)
            return board.look(["a"], time.monotonic()) and board.shares == {"a": 0.5}

        wait_for(is_back)
    finally:
        board.close()
