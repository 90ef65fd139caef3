"""Searches by a real Ray Tune on the digits: found, killed, gone on with, and used."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from equigrid.grid.errors import ExitCode
from equigrid.grid.jobs import candidate as candidates
from equigrid.grid.planning import planner
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import Store, documents, layout, lock, results
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
    searched["recipe"]["steps"] = 600  # a candidate lasts while it is killed
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


@pytest.mark.slow
def test_ctrl_c_ends_a_search_within_ten_seconds_and_the_same_command_goes_on(
    searched, write_spec, start, tmp_path, left_of
):
    """As a terminal sends it, in the middle of a candidate; what ended is not trained again, and
    the one under way goes on from its checkpoint.
    """
    searched["recipe"]["steps"], searched["blocks"] = 800, [{"n_base": 60}]
    searched["execution"] |= {"slots": 1, "checkpoint_every_s": 0.5}
    searched["tune"] |= {"trials": 3, "confirm": 0, "looks": 8}
    searched["tune"]["space"] = {"lr": {"low": 0.01, "high": 0.1, "log": True}}
    store, spec = Store(tmp_path / "store", create=True), write_spec(searched)
    arguments = ("tune", spec, "--store", store.uri, "--no-dashboard")
    first = start(*arguments)

    def under_way() -> list[str]:
        kept = records(store).items()
        return [name for name, r in kept if r.status == candidates.RUNNING and r.history]

    def ended() -> dict:
        return {k: r for k, r in records(store).items() if r.status in candidates.ENDED}

    first.wait_until(lambda: bool(ended() and under_way()))
    running = first.descendants()
    os.killpg(first.process.pid, signal.SIGINT)
    began = time.monotonic()
    assert first.finish(30) == ExitCode.INTERRUPTED, first.text
    assert time.monotonic() - began < 10
    said = first.err_path.read_text().strip().splitlines()[-1]
    assert said.startswith("interrupted; what is done is kept, to go on: equigrid tune ")
    assert "Traceback" not in first.text
    assert len(running) > 3 and not left_of(running)
    assert lock.holder(store, "mini") is None
    before, done = records(store), ended()
    assert done
    (name,) = under_way()

    second = start(*arguments)
    assert second.finish() == ExitCode.DONE, second.text
    after = records(store)
    assert sum(record.replicate == 0 for record in after.values()) == 3
    assert {other: after[other] for other in done} == done
    looks = before[name].history
    assert after[name].history[: len(looks)] == looks
    assert after[name].status in candidates.ENDED


@pytest.mark.slow
def test_a_search_runs_on_the_cluster_that_is_named(
    searched, write_spec, start, tmp_path, head, token, monkeypatch, descendants_of
):
    """`ray start --head` with a token: the candidates are processes of that cluster, and none of
    the command's own.
    """
    pid, ports = head
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    searched["tune"] |= {"trials": 3, "confirm": 1}
    store, spec = Store(tmp_path / "store", create=True), write_spec(searched)
    address = f"127.0.0.1:{ports['port']}"
    command = start("tune", spec, "--store", store.uri, "--address", address, "--json")
    most, own = 0, set()
    while command.process.poll() is None:
        there = descendants_of(pid).values()
        most = max(most, sum("ImplicitFunc" in line for line in there))
        started = command.descendants().values()
        own.update(line for line in started if re.search("raylet|gcs_server|^ray::", line))
        time.sleep(0.1)
    assert command.finish() == ExitCode.DONE, command.text
    assert most >= 1, "two for a moment, where one ends and the next begins"
    assert not own, "no Ray of its own"
    found = json.loads(command.out_path.read_text())
    assert found["searches"][0]["candidates"] == 3


@pytest.mark.slow
def test_a_generators_search_makes_a_file_that_a_spec_uses(searched, write_spec, start, tmp_path):
    """By the command: searched, written, planned by another spec beside it, and run; the pool then
    comes from a generator of the duration and the sampler that were found.
    """
    del searched["tune"]["space"]
    searched["tune"] |= {"trials": 2, "confirm": 0, "looks": 2}
    searched["blocks"] = [{"n_base": 60, "syn": {"edm": 1}}]
    searched["validation"] = {"images": 200}
    store, spec = Store(tmp_path / "store", create=True), write_spec(searched, "first.yaml")
    command = start(
        "tune", spec, "--generator", "edm", "--store", store.uri, "--no-dashboard", "--json",
        "--out", tmp_path, "--space", "{length: [2, 3], sampler.steps: [3, 5]}",
    )  # fmt: skip
    assert command.finish() == ExitCode.DONE, command.text
    told = json.loads(command.out_path.read_text())
    assert Path(told["recipe"]) == tmp_path / "tuned-generator.yaml"
    best = told["searches"][0]["best_values"]
    written = yaml.safe_load((tmp_path / "tuned-generator.yaml").read_text())
    assert written["generator"]["training"]["total_nimg"] == best["length"] * 640
    assert written["provenance"]["searched"] == "generator edm"

    del searched["tune"]
    again = searched | {"name": "again", "generators": {"edm": "tuned-generator.yaml"}}
    the_plan = planner.plan(resolve(load(write_spec(again, "again.yaml")), store))
    (training,) = the_plan.of_kind("generator")
    assert training.payload.mapping["training"]["total_nimg"] == best["length"] * 640
    assert training.payload.mapping["sampler"]["steps"] == best["sampler.steps"]
    first = planner.plan(resolve(load(spec), store))
    assert training.id not in first.jobs
    run = start("run", tmp_path / "again.yaml", "--store", store.uri, "--no-dashboard")
    assert run.finish() == ExitCode.DONE, run.text
    rows = results.read(store).to_pylist()
    assert {(row["generator"], row["status"]) for row in rows if row["arm"] == "syn"} == {
        ("edm", "ok")
    }
