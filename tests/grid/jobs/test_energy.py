"""Energy: counted by the real codecarbon where it is installed, kept with results, asked of nobody
else, and never a reason to fail.
"""

import importlib.util
import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from equigrid.grid.errors import UserError
from equigrid.grid.jobs import Request, energy
from equigrid.grid.jobs.provenance import provenance
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import results

ASKED = Request(
    id="trial-1", kind="trial", payload=None, attempt="a1", class_names=("a", "b"),
    image_shape=(8, 8, 1), energy="DEU",
)  # fmt: skip
codecarbon = pytest.mark.skipif(
    importlib.util.find_spec("codecarbon") is None, reason="not installed: codecarbon"
)


def test_nothing_is_counted_that_was_not_asked_for(monkeypatch):
    monkeypatch.setattr(energy, "_tracker", lambda country: pytest.fail("it was asked"))
    for request in (replace(ASKED, energy=None), replace(ASKED, workers=2)):
        energy.METER.begin([request])
        assert "energy_kwh" not in provenance(request)
        assert energy.METER.taken(request) is None


def test_a_tracker_that_raises_ends_no_job(monkeypatch, caplog):
    class Broken:
        def start_task(self, name):
            raise OSError("no counters")

    monkeypatch.setattr(energy, "_tracker", lambda country: Broken())
    energy.METER.begin([ASKED])
    assert "energy_kwh" not in provenance(ASKED)
    assert "no counters" in caplog.text


def test_a_slot_has_its_share_of_a_gpu_and_all_of_the_rest():
    data = SimpleNamespace(
        cpu_energy=1.0, ram_energy=2.0, gpu_energy=8.0, energy_consumed=11.0, emissions=5.5
    )
    assert energy._of_this_slot(data, 0.25) == (5.0, 2.5)
    assert energy._of_this_slot(data, 1) == (11.0, 5.5)
    assert energy._of_this_slot(data, 0) == (3.0, 1.5)


@codecarbon
def test_codecarbon_counts_a_job_and_more_for_a_longer_one():
    found = []
    for attempt, seconds in (("a1", 0.3), ("a2", 1.2)):
        request = replace(ASKED, attempt=attempt)
        energy.METER.begin([request])
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        facts = provenance(request)
        assert provenance(request)["energy_kwh"] == facts["energy_kwh"]  # once for all that is kept
        found.append(facts)
    short, long = found
    assert 0 < short["energy_kwh"] < long["energy_kwh"] < 1e-3
    # Germany's mix lies between 0.1 and 1 kg a kWh.
    assert 0.1 < long["co2_kg"] / long["energy_kwh"] < 1
    assert "energy_kwh" not in provenance(replace(ASKED, attempt="a3"))  # of no other attempt


@pytest.mark.skipif(
    importlib.util.find_spec("codecarbon") is not None, reason="codecarbon is installed"
)
def test_a_run_says_at_once_that_codecarbon_is_missing(mini, store, quiet):
    from equigrid.grid.running import preparation

    mini["execution"] = {**mini.get("execution", {}), "energy": "DEU"}
    with pytest.raises(UserError, match="codecarbon is not installed; pip install codecarbon"):
        preparation.prepared(load(mini), store, quiet)


def test_a_country_is_three_letters_and_changes_no_id(mini):
    with pytest.raises(UserError, match="energy"):
        load({**mini, "execution": {"energy": "Germany"}})
    before = set(plan(resolve(load(mini), None)).jobs)
    assert set(plan(resolve(load({**mini, "execution": {"energy": "DEU"}}), None)).jobs) == before


def row_of(trial_id: str) -> dict:
    labels = dict.fromkeys(("grid", "dataset", "recipe", "fingerprint", "classifier"), "x")
    amounts = "n_total n_base n_nominal n_real_added n_syn n_copies subset_seed seed rev"
    now = datetime.now(UTC)
    return {
        **labels, **dict.fromkeys(amounts.split(), 1), "trial_id": trial_id, "attempt": "a",
        "status": "ok", "arm": "base", "started_at": now, "finished_at": now,
    }  # fmt: skip


def test_the_report_sums_what_was_counted(planned, mini):
    from equigrid.grid.reporting import analysis_bridge

    store, the_plan = planned(mini)
    trials = [job.id for job in the_plan.of_kind("trial")][:3]
    for trial_id, kwh in zip(trials, (0.25, 0.5, None)):
        counted = {} if kwh is None else {"energy_kwh": kwh, "co2_kg": kwh / 2}
        results.write_part(store, {**row_of(trial_id), **counted})
    (row,) = analysis_bridge._energy(store, the_plan)
    assert row == {"jobs": "trials", "counted": "2 of 3", "kWh": 0.75, "kg CO2": 0.375}
