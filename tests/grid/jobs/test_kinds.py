"""The table of kinds of job: a kind that is added to it is known everywhere, and payloads grow
without new ids.
"""

import dataclasses
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass, replace

import pytest

from equigrid.grid import gc, jobs
from equigrid.grid.jobs import trial
from equigrid.grid.jobs.grid_facts import GridFacts
from equigrid.grid.jobs.job import FLAT, HOW, Identified, Job, Payload, Stream, Subset, Synthetic
from equigrid.grid.jobs.kind import NOTHING, JobKind
from equigrid.grid.jobs.kinds import KINDS, on_slots, rank
from equigrid.grid.jobs.pool import PlannedPool, PoolIdentity
from equigrid.grid.jobs.request import Request
from equigrid.grid.jobs.trial import Copies
from equigrid.grid.planning.pending import done_jobs, pending
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting import console, estimate
from equigrid.grid.reporting.status import status
from equigrid.grid.reporting.summary import Summary, closing_line
from equigrid.grid.spec import load
from equigrid.grid.store import Store, layout

# A kind of job: counting the letters of a pool's id ----------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LettersPayload(Payload):
    pool: str
    alphabet: str = "latin"
    shout: bool = field(default=False, metadata=HOW)


def _planned(grid: GridFacts, pool: PlannedPool) -> Iterator[Job]:
    payload = LettersPayload(pool=pool.pool.id, shout=True)
    yield LETTERS.job(payload, [grid.ingest, pool.training.id], pool.where)


def _count(store: Store, request: Request[LettersPayload]) -> dict:
    letters = sum(map(str.isalpha, request.payload.pool))
    facts = {"letters": letters, "shout": request.payload.shout, "seconds": 3.0, "device": "abacus"}
    store.put_json(LETTERS.outputs.manifest(request.id), facts)
    return {}


LETTERS = JobKind(
    name="letters",
    payload=LettersPayload,
    body=_count,
    words="letter count",
    plural="letter counts",
    outputs=layout.Files("letters"),
    wanted=True,
    reads=lambda payload: NOTHING,
    plan=_planned,
)


@pytest.fixture
def letters(monkeypatch) -> JobKind:
    """The toy kind, in the table."""
    monkeypatch.setitem(KINDS, "letters", LETTERS)
    return LETTERS


def test_a_new_kind_is_planned_after_what_it_needs(letters, mini):
    without = mini | {"blocks": [{"n_base": 60, "real": [1]}]}
    assert not list(plan(resolve(load(without), None)).of_kind("letters"))
    the_plan = plan(resolve(load(mini), None))
    found = list(the_plan.of_kind("letters"))
    assert {job.payload.pool for job in found} == the_plan.pools.keys()
    assert {job.stage for job in found} == {"letters:digits:n60", "letters:digits:n120"}
    places = list(the_plan.jobs)
    for job in found:
        assert {the_plan.jobs[need].kind for need in job.needs} == {"ingest", "generator"}
        assert all(places.index(need) < places.index(job.id) for need in job.needs)
    assert rank("letters") == len(KINDS) - 1
    assert list(on_slots())[-1] == "letters"


def test_a_new_kind_is_run_counted_estimated_and_shown(letters, planned, request_of, mini, capsys):
    store, the_plan = planned(mini | {"expected_seconds": {"letters": 40}})
    first, second = the_plan.of_kind("letters")
    todo, _ = pending(store, the_plan)
    assert [job.id for job in todo if job.kind == "letters"] == [first.id, second.id]

    def line():
        return next(one for one in estimate.lines(store, the_plan) if one.kind == "letters")

    assert (line().seconds, line().basis, line().todo) == (80, ("the spec's",), 2)
    assert jobs.run(store, request_of(store, the_plan, first))["status"] == "ok"
    written = store.get_json(f"letters/{first.id}.json")
    assert (written["letters"], written["shout"]) == (
        sum(map(str.isalpha, first.payload.pool)),
        True,
    )
    assert done_jobs(store, the_plan) == {the_plan.resolved.source.key, first.id}
    assert (line().seconds, line().basis, line().todo) == (3, ("measured",), 1)

    broken = replace(second, payload=replace(second.payload, pool=None))
    outcome = jobs.run(store, request_of(store, the_plan, broken))
    assert outcome["status"] == "failed" and outcome["row"] is None
    found = status(store, the_plan)
    stage = next(stage for stage in found.stages if stage.kind == "letters")
    assert (stage.total, stage.done, stage.failed, stage.left) == (2, 1, 1, 0)
    assert [failure["kind"] for failure in found.failures] == ["letters"]
    console.show_status(found)
    assert re.search(r"letter count +\W* 2 +\W* 1 +\W* 1 +\W* 0", capsys.readouterr().out)
    summary = Summary("mini", store.uri)
    summary.jobs.update({"letters": 2})
    assert closing_line(summary, "").startswith("2 letter counts in")


def test_what_a_new_kind_wrote_is_collected_once_no_grid_needs_it(letters, planned, mini):
    store, the_plan = planned(mini)
    store.put_json(layout.spec("mini"), the_plan.resolved.spec.model_dump(mode="json"))
    mine = next(the_plan.of_kind("letters")).id
    for name in (f"letters/{mine}.json", "letters/letters-of-nobody.json"):
        store.put_json(name, {})
        os.utime(store.path(name), (time.time() - 2 * gc.YOUNG_S,) * 2)
    found = gc.plan_gc(store, gc.recorded(store))
    assert [(item.name, item.why) for item in found] == [
        ("letters/letters-of-nobody.json", gc.NOT_NEEDED)
    ]


def test_a_kind_that_there_is_not_is_refused_where_a_spec_names_one(mini):
    for changes, words in (
        ({"expected_seconds": {"trail": 3}}, "expected_seconds: 'trail' .*did you mean 'trial'"),
        ({"execution": {"workers": {"shard": 2}}}, "workers: 'shard' .*known: generator, trial"),
    ):
        with pytest.raises(ValueError, match=words):
            resolve(load(mini | changes), None)


# Payloads -----------------------------------------------------------------------------------------

PARTS = [Subset, Synthetic, Copies, Stream, PoolIdentity]


def an_instance(kind: type) -> Identified:
    """One with a plain value in every field that it has had from the start."""
    needed = [one.name for one in fields(kind) if _has_no_default(one)]
    return kind(**dict.fromkeys(needed, 1))


def _has_no_default(one: dataclasses.Field) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


@pytest.mark.parametrize(
    "kind", [*(kind.payload for kind in KINDS.values()), *PARTS], ids=lambda kind: kind.__name__
)
def test_a_field_that_a_payload_gains_later_gives_no_job_another_id(kind):
    before = an_instance(kind)
    later = [("later_added", int, field(default=2))]
    grown = make_dataclass("Grown", later, bases=(kind,), frozen=True, kw_only=True)
    facts = {one.name: getattr(before, one.name) for one in fields(kind)}
    assert grown(**facts).identity() == before.identity()
    assert grown(**facts, later_added=3).identity() == {**before.identity(), "later_added": 3}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_fields_of_a_payload_from_its_start_are_in_every_identity(kind):
    """Those are frozen: see the golden ids. Only what determines nothing, and what came later with
    a default, may stay out.
    """
    determining = {
        one.name
        for one in fields(kind.payload)
        if not one.metadata.get("how") and _has_no_default(one)
    }
    assert an_instance(kind.payload).identity().keys() == determining


def test_an_identity_is_plain_json_without_what_is_only_how():
    @dataclass(frozen=True, kw_only=True)
    class Inner(Identified):
        n: int
        shuffled: bool = False

    @dataclass(frozen=True, kw_only=True)
    class Outer(Payload):
        parts: tuple[Inner, ...]
        path: str = field(metadata=HOW)
        more: dict = field(default_factory=dict, metadata=FLAT)

    outer = Outer(parts=(Inner(n=1), Inner(n=2, shuffled=True)), path="/tmp/x", more={"a": 1})
    assert outer.identity() == {"parts": [{"n": 1}, {"n": 2, "shuffled": True}], "a": 1}
    assert replace(outer, path="/tmp/y", more={}).identity() == {"parts": outer.identity()["parts"]}


def test_ids_follow_from_the_identity_alone(mini):
    """The payload that a job carries is enough to say what it is called."""
    mini |= {"quality": {"images": 30}, "domain_gap": {"images": 30, "tsne": 5}}
    for job in plan(resolve(load(mini), None)).jobs.values():
        again = KINDS[job.kind].job(job.payload, job.needs, job.stage.partition(":")[2])
        assert again == job


def test_trials_alone_queue_and_share_devices():
    assert [name for name, kind in KINDS.items() if kind.shares_device] == [trial.KIND.name]


def test_a_manifest_of_another_pool_counts_as_none(store, mini, caplog):
    """Whole, and copied to this name: from another pool, or from another store."""
    from equigrid.grid.jobs import quality
    from equigrid.grid.store import layout

    mini["quality"] = {"images": 100}
    the_plan = plan(resolve(load(mini), None))
    one, other = list(the_plan.of_kind("quality"))[:2]
    for job in (one, other):
        content = {"pool": one.payload.syn.pool, "seconds": 1.0, "device": "cpu"}
        store.put_json(layout.QUALITY.manifest(job.id), content)
    assert quality.KIND.recorded(store, one)["pool"] == one.payload.syn.pool
    assert quality.KIND.recorded(store, other) is None
    assert f"is of {one.payload.syn.pool}, not of {other.payload.syn.pool}" in caplog.text
