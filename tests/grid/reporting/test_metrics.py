"""What Prometheus finds of a run, scraped from Ray's agent; and that the dashboard asks for nothing
else.
"""

import json
import os
import re
import time
import urllib.request
from pathlib import Path

import pytest
import ray

from equigrid.grid.reporting.metrics import STATES, GridMetrics
from equigrid.grid.reporting.progress import Stage
from equigrid.grid.reporting.status import status
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, lock, results

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_here")]
DASHBOARD = Path(__file__).parents[3] / "deploy/grafana.json"
# Labels on every metric.
RAYS_OWN = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}


def scrape() -> list[tuple[str, dict[str, str], float]]:
    """All samples of this node's agent: name, labels, value."""
    port = ray.nodes()[0]["MetricsExportPort"]
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    text = directly.open(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    lines = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, flags=re.MULTILINE)
    return [
        (name, dict(re.findall(r'(\w+)="(.*?)"', labels)), float(value))
        for name, labels, value in lines
    ]


def of_grid(grid: str) -> dict[tuple[str, str | None], float]:
    """What is not zero among a grid's own samples, by name (without `ray_equigrid_`) and kind of
    job.
    """
    found = {}
    for name, labels, value in scrape():
        if labels.get("grid") == grid:
            finer = {label for label in labels if not label.startswith("otel_")} - RAYS_OWN
            assert finer <= {"grid", "kind"}, f"{name}: a series per {finer}"
            found[name.removeprefix("ray_equigrid_"), labels.get("kind")] = value
    return {key: value for key, value in found.items() if value}


def wait_for(read, wanted, keep=lambda: None, timeout_s: float = 60):
    """Reads until it is as wanted, since Ray's agents hear of changes every 10 s."""
    end = time.monotonic() + timeout_s
    while (found := read()) != wanted and time.monotonic() < end:
        keep()
        time.sleep(0.5)
    assert found == wanted


def test_everything_that_is_counted_reaches_prometheus_with_its_value():
    now = time.monotonic()
    stages = {
        "trial": Stage(
            total=20,
            cached=3,
            done=4,
            failed=2,
            blocked=1,
            running=2,
            started_s=now - 8,
            last_done_s=now,
        ),
        "generator": Stage(total=2, done=1, running=1, started_s=now),  # no rate yet
        "quality": Stage(),  # not in this grid
    }
    stages["generator"].last_done_s = now
    clock = [now]
    metrics = GridMetrics("counted", clock=lambda: clock[0])

    def update(hits=5, last=False):
        metrics.update(stages, shard_hits=hits, shard_loads=3, device_s=12.5, last=last)

    metrics.images("trial", 600.0)
    update(hits=4)
    update(hits=999)  # within the same second: Ray does not hear of it
    metrics.images("trial", 300.0)
    clock[0] += 2
    expected = {
        **{(f"jobs_{state}", "trial"): n for state, n in zip(STATES, (4, 2, 2, 3, 1, 10))},
        **{(f"jobs_{state}", "generator"): 1 for state in ("done", "running", "left")},
        ("left_seconds", "trial"): 10 / 0.5 - 2,
        ("images_total", "trial"): 900, ("device_seconds_total", None): 12.5,
        ("shard_hits_total", None): 5, ("shard_loads_total", None): 3,
    }  # fmt: skip
    update()
    wait_for(lambda: of_grid("counted"), expected, keep=lambda: update(last=True))


def test_the_dashboard_asks_for_metrics_that_there_are():
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    board = json.loads(DASHBOARD.read_text())
    expressions = [
        target["expr"] for panel in board["panels"] for target in panel.get("targets", [])
    ]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    expressions.append(variables["grid"]["query"]["query"])
    asked = {name for text in expressions for name in re.findall(r"\bray_\w+", text)}
    assert {f"ray_equigrid_jobs_{state}" for state in STATES} <= asked

    metrics = GridMetrics("asked")
    metrics.images("trial", 1.0)
    stage = Stage(total=2, done=1, started_s=0.0, last_done_s=1.0)

    def update():
        metrics.update({"trial": stage}, shard_hits=1, shard_loads=1, device_s=1.0, last=True)

    update()
    ray.get(ray.remote(num_cpus=0)(lambda: None).remote())  # so that there are tasks to count
    # A machine without a GPU has no samples of these: their names are from Ray's own list.
    of_gpus = {
        f"ray_{name}" for name in METRICS_GAUGES if name.startswith(("node_gpus_", "node_gram_"))
    }
    wait_for(lambda: asked - of_gpus - {name for name, _, _ in scrape()}, set(), keep=update)
    used = {name for text in expressions for name in re.findall(r"\$(\w+)", text)}
    assert used - {"__range"} == set(variables) - {"datasource"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(
        panel["datasource"]["uid"] == "${datasource}"
        for panel in board["panels"]
        if "targets" in panel
    )


@pytest.mark.usefixtures("one_slot")
def test_a_run_tells_how_far_it_is(mini, tmp_path, quiet):
    """The run that made everything, by its counters; then one that finds all of it done, by its
    gauges.
    """
    mini["name"] = "told"  # counters are by grid, and other tests run the small one too
    store = Store(tmp_path / "store", create=True)
    with lock.acquire(store, "told") as held:
        summary, the_plan = driver.run(load(mini), store, console=quiet, lock=held)
        held.beat()
        told = status(store, the_plan).driver
    assert told["who"].startswith(f"process {os.getpid()} of ")
    assert told["device_s"] == summary.device_s > 0
    assert (told["shard_hits"], told["shard_loads"]) == (summary.shard_hits, summary.shard_loads)
    assert {kind: facts["running"] for kind, facts in told["kinds"].items()} == {
        "generator": 0,
        "shard": 0,
        "trial": 0,
    }
    assert told["kinds"]["trial"]["left_s"] == 0 < told["kinds"]["trial"]["images_per_s"]
    assert status(store, the_plan).driver is None
    driver.run(load(mini), store, console=quiet)
    table = results.read(store, ["trial_id", "status", "epochs", "n_total"]).to_pylist()
    expected = {
        ("jobs_cached", "generator"): 2, ("jobs_cached", "shard"): 2, ("jobs_cached", "trial"): 18,
        ("shard_hits_total", None): summary.shard_hits, ("shard_loads_total", None): summary.shard_loads,
        ("images_total", "shard"): 2 * 256,
        ("images_total", "trial"): pytest.approx(sum(row["epochs"] * row["n_total"] for row in table)),
    }  # fmt: skip

    def found():
        samples = of_grid("told")
        return {key: samples.get(key) for key in expected}

    wait_for(found, expected, timeout_s=15)  # before Ray forgets the gauges
    assert of_grid("told")["device_seconds_total", None] >= summary.device_s * 0.99
