"""The list of a store's grids: how far each is, when, and how large, from the store alone."""

import json
from datetime import UTC, datetime

import pytest

from equigrid.grid.cli import entry
from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.errors import UserError
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting.grids import grids
from equigrid.grid.spec import load
from equigrid.grid.store import lock, results

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
def recorded(store, mini):
    """Two grids of one dataset: the second has one base size less. Three trials of them are done."""
    ingest.ingest(store, catalogue.source("digits"))
    plans = {}
    for name, sizes in (("large", [60, 120]), ("small", [60])):
        mini["name"], mini["blocks"][0]["n_base"] = name, sizes
        spec = load(mini)
        store.put_json(f"grids/{name}/spec.json", spec.model_dump(mode="json"))
        plans[name] = plan(resolve(spec, store))
    by_trial = plans["large"].cells_by_trial()
    small, large = (
        [trial for trial, cells in by_trial.items() if cells[0].n_base == n] for n in (60, 120)
    )
    for trial, status, hour in (
        (small[0], "ok", 12),
        (small[1], "failed", 15),
        (large[0], "ok", 14),
    ):
        cell = by_trial[trial][0]._asdict()
        row = {key: value for key, value in cell.items() if key in results.SCHEMA.names}
        facts = {"attempt": "a", "status": status, "grid": "g", "dataset": "digits", "rev": 1}
        row |= {**facts, "fingerprint": "f", "trial_id": trial, "n_total": 60}
        results.write_part(store, {**row, "finished_at": AT.replace(hour=hour)})
    return store, plans


def test_cells_times_and_sizes(recorded):
    store, plans = recorded
    before = {line.name: line for line in grids(store)}
    assert [line.name for line in grids(store)] == ["large", "small"]
    assert (before["small"].done, before["small"].cells) == (1, len(plans["small"].cells))
    assert before["large"].done == 2
    assert before["small"].last_result_at == "2026-11-29T12:00:00+00:00", "a failure is no result"
    assert before["large"].last_result_at == "2026-11-29T14:00:00+00:00"
    assert before["small"].bytes == before["large"].bytes == store.size("datasets")

    both = next(iter(plans["small"].of_kind("generator"))).id
    one = next(job.id for job in plans["large"].of_kind("generator") if job.id != both)
    store.put(f"generators/{both}/weights-a.safetensors", b"1" * 1000)
    store.put(f"generators/{one}/weights-a.safetensors", b"1" * 50)
    store.put("generators/of-another-grid/manifest.json", b"1" * 7)
    after = {line.name: line for line in grids(store)}
    assert after["small"].bytes - before["small"].bytes == 1000
    assert after["large"].bytes - before["large"].bytes == 1050


def test_a_grid_that_runs_says_so(recorded):
    store, _ = recorded
    with lock.acquire(store, "small"):
        assert [line.running for line in grids(store)] == [False, True]


def test_a_grid_that_cannot_be_planned_is_listed_with_the_reason(recorded, tmp_path, capsys):
    store, _ = recorded
    spec = store.get_json("grids/small/spec.json")
    spec["dataset"] = {"imagefolder": str(tmp_path / "gone")}
    store.put_json("grids/small/spec.json", spec)
    store.put_json("grids/old/spec.json", {"name": "old", "colour": "blue"})
    large, old, small = grids(store)
    assert large.trouble is None
    assert "gone is no folder" in small.trouble
    assert old.trouble
    assert (small.cells, small.bytes) == (None, None)
    entry.app(["grids", "--store", store.uri], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "gone is no folder" in shown
    assert "large" in shown
    entry.app(["grids", "--store", store.uri, "--json"], standalone_mode=False)
    assert [line["name"] for line in json.loads(capsys.readouterr().out)] == [
        "large",
        "old",
        "small",
    ]


def test_an_empty_store_is_said_to_be_empty(tmp_path):
    with pytest.raises(UserError, match="no grid yet"):
        entry.app(["grids", "--store", str(tmp_path / "none")], standalone_mode=False)
