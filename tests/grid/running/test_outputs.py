"""What jobs take in, in a store without Ray: let go, found absent, found wrong, made again."""

from dataclasses import replace

import pytest

from equigrid.grid.datasets import ingest
from equigrid.grid.errors import UserError
from equigrid.grid.planning.pending import pending
from equigrid.grid.running.dispatch import queue_of
from equigrid.grid.running.outputs import Outputs
from equigrid.grid.running.queue import State
from equigrid.grid.store import layout


class Cache:
    """In the shard cache's place."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.cleared = 0

    def drop(self, manifest: str) -> None:
        self.dropped.append(manifest)

    def clear(self) -> None:
        self.cleared += 1


class Run:
    """The small grid with one synthetic trial: a generator, a shard and a trial, as the store has
    them.
    """

    def __init__(self, store, the_plan) -> None:
        self.store, self.plan = store, the_plan
        (self.generator,) = the_plan.of_kind("generator")
        (self.shard,) = the_plan.of_kind("shard")
        self.trial = next(job for job in the_plan.of_kind("trial") if self.shard.id in job.needs)
        self.manifest = layout.POOLS.manifest(self.shard.id)
        self.weights = layout.GENERATORS.manifest(self.generator.id)
        self.cache = Cache()

    def begin(self) -> None:
        self.queue = queue_of(self.plan, pending(self.store, self.plan)[0])
        self.outputs = Outputs(self.plan, self.store, self.cache, self.queue)

    def put_shard(self) -> None:
        self.store.put_json(self.manifest, {"data": "d", "checksum": 32 * "0", "n": 5})

    def put_generator(self) -> None:
        self.store.put_json(self.weights, {})

    def states(self) -> list[State]:
        return [self.queue.state(job.id) for job in (self.generator, self.shard, self.trial)]


@pytest.fixture
def a_run(mini, planned) -> Run:
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "syn": {"edm": [1]}}], [0]
    return Run(*planned(mini))


def test_a_shard_that_was_removed_is_absent_and_made_again(a_run):
    a_run.put_generator()
    a_run.put_shard()
    a_run.begin()
    assert a_run.outputs.absent(a_run.trial) is None
    a_run.begin()
    a_run.store.delete(a_run.manifest)
    assert a_run.outputs.absent(a_run.trial) == a_run.shard.id
    a_run.outputs.remake(a_run.shard.id)
    assert a_run.states() == [State.DONE, State.READY, State.WAITING]


def test_a_wrong_shard_is_removed_and_made_again_once(a_run):
    a_run.put_generator()
    a_run.put_shard()
    a_run.begin()
    assert a_run.outputs.absent(a_run.trial) is None
    a_run.queue.start(a_run.trial.id)
    a_run.queue.retry(a_run.trial.id)
    a_run.outputs.mend(a_run.manifest, a_run.trial)
    assert a_run.states() == [State.DONE, State.READY, State.WAITING]
    assert not a_run.store.exists(a_run.manifest)
    assert a_run.cache.dropped == [a_run.manifest]
    a_run.queue.start(a_run.shard.id)
    a_run.put_shard()  # it is there, and the driver does not know of it yet
    a_run.outputs.mend(a_run.manifest, a_run.trial)
    assert a_run.store.exists(a_run.manifest)
    a_run.queue.finish(a_run.shard.id)
    a_run.outputs.mend(a_run.manifest, a_run.trial)  # another one that had the first one's
    assert a_run.store.exists(a_run.manifest)
    assert a_run.states() == [State.DONE, State.DONE, State.READY]


def test_a_generator_that_is_gone_too_is_made_first(a_run):
    a_run.put_shard()
    a_run.begin()
    assert a_run.states() == [State.DONE, State.DONE, State.READY]  # nothing asks for it
    a_run.outputs.remake(a_run.shard.id)
    assert a_run.states() == [State.READY, State.WAITING, State.WAITING]


def test_weights_that_are_wrong_are_trained_again(a_run):
    a_run.put_generator()
    a_run.begin()
    a_run.queue.start(a_run.shard.id)
    a_run.queue.retry(a_run.shard.id)
    a_run.outputs.mend(a_run.weights, a_run.shard)
    assert a_run.states() == [State.READY, State.WAITING, State.WAITING]
    assert not a_run.store.exists(a_run.weights)


def test_a_shard_leaves_the_cache_with_its_last_reader(a_run):
    a_run.put_generator()
    a_run.put_shard()
    a_run.begin()
    a_run.outputs.let_go(a_run.trial)
    assert a_run.cache.dropped == []
    a_run.queue.start(a_run.trial.id)
    a_run.queue.finish(a_run.trial.id)
    a_run.outputs.let_go(a_run.trial)
    assert a_run.cache.dropped == [a_run.manifest]


def test_a_dataset_is_mended_unless_its_source_has_changed(a_run, monkeypatch):
    a_run.begin()
    now = a_run.plan.resolved.dataset
    monkeypatch.setattr(ingest, "again", lambda *_: now)
    a_run.outputs.mend(now.train[0].manifest, a_run.trial)
    assert a_run.cache.cleared == 1
    now = replace(now, fingerprint="another")
    with pytest.raises(UserError, match="dataset digits: its content changed while the grid ran"):
        a_run.outputs.mend(a_run.plan.resolved.dataset.train[0].manifest, a_run.trial)
