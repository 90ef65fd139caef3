"""Searches by a real Ray Tune on the digits: found, killed, gone on with, and used."""

import json

import pandas as pd
import pytest
import yaml

from equigrid.grid.errors import ExitCode
from equigrid.grid.jobs import candidate as candidates
from equigrid.grid.planning import planner
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import Store, documents, layout
from equigrid.grid.tuning import session, wishes, writing

pytestmark = pytest.mark.long


@pytest.fixture
def searched(mini) -> dict:
    tune = {"trials": 5, "confirm": 2, "looks": 2,
            "space": {"lr": {"low": 0.001, "high": 0.3, "log": True}, "length": [0.5, 1, 2]}}  # fmt: skip
    return mini | {"validation": {"images": 300}, "tune": tune}


def records(store: Store) -> dict[str, documents.CandidateRecord]:
    names = [name for name in store.list(layout.TUNING) if layout.is_candidate(name)]
    found = zip(names, documents.read_all(store, names, documents.CandidateRecord))
    return {name: record for name, record in found if record is not None}


def test_a_search_per_arm_makes_a_recipe_that_a_spec_uses(
    searched, ray_here, tmp_path, quiet, write_spec
):
    """In this process: generator and pool are made first, then each arm has as many candidates."""
    store = Store(tmp_path / "store", create=True)
    searched["tune"] |= {"per_arm": True, "trials": 2, "confirm": 0, "looks": 1}
    searched["blocks"] = [{"n_base": 60, "syn": {"edm": [1]}}]
    spec = load(searched)
    found = session.tune(spec, store, console=quiet, tell=quiet.print)
    assert not found.failures
    assert {one.study.arm: len(one.searched) for one in found.outcomes} == {"base": 2, "syn": 2}
    assert found.summary.jobs["generator"] == 1
    assert "trial" not in found.summary.jobs
    tables = writing.table_of(found.outcomes)
    assert len(tables) == len(records(store))

    paths = writing.write(tmp_path, found.outcomes, found.plan, "spec.yaml")
    (tmp_path / "spec").mkdir()
    paths["recipe"].rename(tmp_path / "spec/mine.yaml")
    again = write_spec(searched | {"recipe": "mine.yaml", "name": "again"}, "spec/again.yaml")
    tuned = planner.plan(resolve(load(again), store))
    best = {one.study.arm: one.study.recipe_with(one.best.values) for one in found.outcomes}
    for cell in tuned.cells:
        recipe = tuned.jobs[cell.trial_id].payload.recipe
        assert (recipe.lr, recipe.steps) == (best[cell.arm].lr, best[cell.arm].steps)
        assert cell.recipe.startswith("tuned-mini (")
    written = yaml.safe_load((tmp_path / "spec/mine.yaml").read_text())["provenance"]
    assert written["fingerprint"] == found.plan.resolved.fingerprint
    assert [one["candidates"] for one in written["searches"]] == [2, 2]
    assert pd.read_csv(paths["table"]).shape == pd.read_parquet(paths["columns"]).shape
    assert paths["figure"].stat().st_size > 10_000

    before = records(store)
    more = session.tune(
        wishes.wished(spec, {"trials": 3}, None)[0], store, console=quiet, tell=print
    )
    assert [len(one.searched) for one in more.outcomes] == [3, 3]
    after = records(store)
    assert {name: after[name] for name in before} == before


def test_no_shard_of_the_test_split_is_so_much_as_loaded(
    searched, ray_here, tmp_path, quiet, monkeypatch
):
    """Not only unused: no reference to one exists in what Ray is handed."""
    from equigrid.grid.running.shard_cache import ShardCache

    asked, real = [], ShardCache.handle
    monkeypatch.setattr(
        ShardCache,
        "handle",
        lambda self, ref, *where: asked.append(ref.manifest) or real(self, ref, *where),
    )
    searched["tune"] |= {"trials": 1, "confirm": 0, "looks": 1}
    session.tune(load(searched), Store(tmp_path / "s", create=True), console=quiet, tell=print)
    assert {layout.split_of(name) for name in asked} == {"train"}


def test_a_search_that_was_killed_goes_on_and_trains_nothing_again(
    searched, write_spec, start, tmp_path
):
    """kill -9 of the driver while a candidate is trained; then the same command."""
    searched["recipe"]["steps"] = 250
    searched["execution"] |= {"slots": 1, "checkpoint_every_s": 0.5}
    searched["tune"] |= {"confirm": 1}
    store, spec = Store(tmp_path / "store", create=True), write_spec(searched)
    arguments = ("tune", spec, "--store", store.uri, "--no-dashboard")
    first = start(*arguments)

    def ended() -> dict:
        return {k: r for k, r in records(store).items() if r.status in candidates.ENDED}

    first.wait_until(
        lambda: (
            len(ended()) >= 2
            and any(r.status == candidates.RUNNING and r.history for r in records(store).values())
        )
    )
    first.kill()
    before = records(store)
    done = {k: r for k, r in before.items() if r.status in candidates.ENDED}
    assert 2 <= len(done) < len(before) <= 5

    second = start(*arguments, "--json")
    assert second.finish() == ExitCode.DONE, second.text
    after = records(store)
    assert {name: after[name] for name in done} == done
    for name in before.keys() - done.keys():
        looks = len(before[name].history)
        assert after[name].history[:looks] == before[name].history
    assert sum(record.replicate == 0 for record in after.values()) == 5
    printed = json.loads(second.out_path.read_text())
    assert printed["searches"][0]["candidates"] == 5
    assert printed["searches"][0]["with_fresh_seeds"]["values"]


def test_a_budget_ends_a_search_and_the_next_goes_on(searched, ray_here, tmp_path, quiet):
    store = Store(tmp_path / "store", create=True)
    searched["tune"] |= {"trials": 4, "confirm": 0}
    searched["recipe"]["steps"] = 400
    found = session.tune(
        load(searched), store, console=quiet, tell=print, max_device_hours=2 / 3600
    )
    assert found.budget_reached
    assert len(found.outcomes[0].finished) < 4
    found = session.tune(load(searched), store, console=quiet, tell=print)
    assert not found.budget_reached
    assert len(found.outcomes[0].searched) == 4
