"""What becomes of an attempt whose process the driver ends, at the moments that drills seldom hit."""

import ray

from equigrid.grid import jobs
from equigrid.grid.running.attempts import Attempts


class Slots:
    """A pool of one slot, which works on one request."""

    def done(self, slot, ref) -> None:
        self.slot, self.ref = slot, ref

    def greet(self) -> None:
        pass

    def submit(self, slot, requests, stage, titles) -> str:
        return "ref"

    def node_of(self, slot) -> str:
        return "node"

    coming = ()


class Requests:
    """Requests and titles that nobody looks into."""

    def make(self, job, **_):
        return f"request of {job.id}"

    def title(self, job) -> str:
        return job.id


class Job:
    """As much of a job as an attempt asks for."""

    id, stage = "trial-a", "trial:x"


def test_a_slot_ended_as_its_job_was_done_takes_no_other(monkeypatch):
    """Its process is gone: the next job there would be charged a try for that."""
    killed = []
    monkeypatch.setattr(ray, "kill", killed.append)
    monkeypatch.setattr(ray, "get", lambda ref: [{"status": jobs.OK}])
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
    attempts = Attempts(None, Slots(), Requests())
    attempts.send_to_slot([Job()], "slot", gpus=0)
    attempts.end("trial-a", "hung")
    attempts.end("trial-a", "hung")
    assert killed == ["slot"], "once"
    ((attempt, outcome),) = attempts.ended(within_s=0)
    assert attempt.job.id == "trial-a"
    assert outcome == {"status": jobs.OK, "fresh_slot": True}
    attempts.send_to_slot([Job()], "slot", gpus=0)
    ((_, outcome),) = attempts.ended(within_s=0)
    assert outcome == {"status": jobs.OK}, "another attempt is not taken for that one"
