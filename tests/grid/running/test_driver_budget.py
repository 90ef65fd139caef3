"""A run that must not cost more: it stops before, and the next one goes on to the same table."""

import pytest

from equigrid.grid.planning.pending import pending
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting import estimate
from equigrid.grid.reporting.estimate import price_per_hour
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, results


@pytest.mark.long
def test_it_stops_before_the_budget_and_goes_on_to_the_same_table(
    finished_mini, mini, tmp_path, quiet, write_spec, start, outcomes
):
    store = Store(tmp_path / "store", create=True)
    # Two slots take longer to load PyTorch, on any machine; the whole grid takes about 19.
    hours = 5 / 3600
    summary, the_plan = driver.run(load(mini), store, console=quiet, max_device_hours=hours)
    assert summary.budget_reached
    assert 0 < summary.device_s <= 3600 * hours
    assert pending(store, the_plan)[0]
    options = ("--store", store.uri, "--no-dashboard", "--max-gpu-hours", "0.000001")
    command = start("run", write_spec(mini), *options)
    assert command.finish() == 3, command.text
    assert "stopped at the budget" in command.text
    assert "To go on: equigrid run" in command.text
    summary, _ = driver.run(load(mini), store, console=quiet, max_device_hours=10)
    assert not summary.budget_reached
    assert outcomes(store) == outcomes(finished_mini[0])


@pytest.mark.long
def test_a_job_that_would_not_fit_is_not_begun(finished_mini, mini, tmp_path, quiet):
    """With what jobs took before at hand, nothing is started that would have to be cut off."""
    store = Store(tmp_path / "store", create=True)
    mini["expected_seconds"] = {"generator": 500, "shard": 1, "trial": 1}
    mini["blocks"] = [{"n_base": [60], "syn": {"edm": [1]}}]
    summary, _ = driver.run(load(mini), store, console=quiet, max_device_hours=400 / 3600)
    assert summary.budget_reached
    assert summary.jobs["generator"] == 0
    assert summary.device_s < 100


def test_plan_says_what_it_costs_at_the_prices_of_the_devices_seen(
    finished_mini, mini, write_spec, start
):
    store, _, _ = finished_mini
    device = results.read(store, ["device"])["device"][0].as_py()
    mini["prices"] = {"default": 1.0, device[:8]: 36.0}
    mini["currency"] = "EUR"
    mini["seeds"] = [0, 1, 2]
    the_plan = plan(resolve(load(mini), store))
    (trials,) = [line for line in estimate.lines(store, the_plan) if line.kind == "trial"]
    assert trials.todo == 9
    assert trials.money == pytest.approx(trials.seconds / 100)
    command = start("plan", write_spec(mini), "--store", store.uri)
    assert command.finish() == 0, command.text
    assert "EUR at the spec's prices" in command.text


def test_prices_go_by_the_longest_name_that_is_part_of_the_devices():
    prices = {"default": 1.0, "A100": 2.0, "A100-SXM4-80GB": 3.0}
    assert price_per_hour(prices, "NVIDIA A100-SXM4-80GB") == 3.0
    assert price_per_hour(prices, "NVIDIA A100-PCIE-40GB") == 2.0
    assert price_per_hour(prices, "NVIDIA H200") == 1.0
    assert price_per_hour({"H200": 4.0}, "CPU") is None
