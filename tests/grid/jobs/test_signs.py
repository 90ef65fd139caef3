"""Signs of life from within a job: few, and in bounds; and that bodies give them."""

import numpy as np
import pytest

from equigrid.generators.calls import SampleCall
from equigrid.generators.common import pools
from equigrid.grid import jobs
from equigrid.grid.jobs.signs import EVERY_S, Signs


def test_at_most_one_in_two_seconds_and_none_of_a_short_job():
    now, sent = [0.0], []
    signs = Signs("job", lambda *told: sent.append(told), clock=lambda: now[0])
    for step in range(1000):  # 10 s, a hundred steps a second
        now[0] = step / 100
        signs(step / 1000)
    assert [job for job, _ in sent] == ["job"] * 4
    assert [share for _, share in sent] == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=1e-6)
    now[0] += EVERY_S
    signs(1.7)
    assert sent[-1] == ("job", 1.0)


def test_batches_of_a_pool_add_up_to_one_wherever_a_call_begins():
    told = []
    call = SampleCall(classes=2, shape=(1, 1, 1), seed=0, start=5, stop=20, progress=told.append)
    pools.in_batches(lambda numbers, labels: np.zeros((len(numbers), 1, 1, 1), np.uint8), call,
                     batch=4)  # fmt: skip
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert pools.share_done(call, range(8, 12), 0.5) == 0.375


def test_bodies_say_how_far_they_are(planned, mini, request_of, monkeypatch):
    """A generator's training, a shard within its batch, and a trial, all of the small grid."""
    monkeypatch.setattr("equigrid.grid.jobs.signs.EVERY_S", 0.0)
    store, plan = planned(mini)
    told: dict[str, list[float]] = {}

    def tell(job_id: str, share: float) -> None:
        told.setdefault(job_id, []).append(share)

    chosen = [next(iter(plan.of_kind("generator")))]
    chosen.append(next(job for job in plan.of_kind("shard") if job.needs[0] == chosen[0].id))
    chosen.append(next(job for job in plan.of_kind("trial") if job.payload.syn is None))
    for job in chosen:
        outcome = jobs.run(store, request_of(store, plan, job, tell=tell))
        assert outcome["status"] == jobs.OK, outcome
    for job in chosen:
        shares = told[job.id]
        assert shares == sorted(shares), job.kind
        assert shares[-1] == pytest.approx(1.0), job.kind
        assert len(shares) >= 4, job.kind
    assert len(told[chosen[1].id]) > 4  # the sampler's steps, not its batch alone


def _told_of(store, plan, request_of, job) -> list[float]:
    told: list[float] = []
    outcome = jobs.run(
        store, request_of(store, plan, job, tell=lambda job_id, share: told.append(share))
    )
    assert outcome["status"] == jobs.OK, outcome
    return told


def test_what_is_measured_of_a_pool_says_how_far_it_is(planned, mini, request_of, monkeypatch):
    """The domain gap within its training and its test, t-SNE after it; quality batch by batch, and
    distance by distance. What the first pool left behind is at once done for the second.
    """
    monkeypatch.setattr("equigrid.grid.jobs.signs.EVERY_S", 0.0)
    mini["quality"] = {
        "inception": "off", "vit": "off", "metrics": "all", "extractor": "classifier"
    }  # fmt: skip
    mini["domain_gap"] = {"patches": [], "tsne": 10}
    store, plan = planned(mini)
    for kind in ("generator", "shard", "reference"):
        for job in plan.of_kind(kind):
            assert jobs.run(store, request_of(store, plan, job))["status"] == jobs.OK
    gap = _told_of(store, plan, request_of, next(iter(plan.of_kind("domain"))))
    assert gap == sorted(gap) and gap[-1] == pytest.approx(1.0)
    trained = [share for share in gap if share <= 0.9]
    assert len(trained) > 4 and len(gap) - len(trained) >= 2, "steps, then both sides of the test"
    pools = [*plan.of_kind("quality")]
    assert len(pools) >= 2
    first, second = (_told_of(store, plan, request_of, job) for job in pools[:2])
    for shares in (first, second):
        assert shares == sorted(shares)
        assert 0.8 < shares[-1] <= 1.0
        steps = np.diff([0.0, *shares])
        assert len(shares) >= 6 and steps.max() < 0.5
    assert len(second) < len(first), "the real images' features were there"
