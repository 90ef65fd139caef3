"""`ray up`, a submitted grid, closed ports and `ray down`, for real, on three test hosts (in this
order).
"""

import json
import sys

import pyarrow as pa
import pytest
import yaml
from hosts import LAPTOP, wait_until
from launched import BIN, CHECKOUT, DASHBOARD, REPOSITORY, cores, same_columns

from equigrid.grid.store import Store, results

pytestmark = pytest.mark.long

CONNECT = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR")
print("connected to", len(ray.nodes()), "nodes")
"""


def rows(store: Store) -> list[dict]:
    return results.read(store).to_pylist()


@pytest.fixture(scope="module")
def spec(cluster) -> str:
    """The small grid with slots as large as a host, so that each host gets one; its name in the
    laptop's checkout.
    """
    content = yaml.safe_load((REPOSITORY / "tests/cluster/digits-cluster.yaml").read_text())
    content["execution"]["cpus"] = cores()
    path = cluster.hosts.path(LAPTOP, f"{CHECKOUT}/digits-cluster.yaml")
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path.name


def test_ray_up_starts_every_host_with_its_token_private(cluster):
    assert cluster.nodes() == set(cluster.hosts.addresses.values())
    for host in cluster.hosts.addresses:
        token = cluster.hosts.path(host, "/root/.ray/auth_token")
        assert token.read_text().strip() == cluster.token
        assert token.stat().st_mode & 0o777 == 0o600


def test_nothing_but_metrics_answers_without_the_token(cluster):
    head, worker, _ = cluster.hosts.addresses.values()
    job = json.dumps({"entrypoint": "touch /tmp/intruder", "submission_id": "intruder"})
    for url, data in [
        (f"{DASHBOARD}/api/jobs/", None),
        (f"{DASHBOARD}/api/jobs/", job),
        (f"{DASHBOARD}/nodes?view=summary", None),
        # Each node's agent, which also starts jobs.
        (f"http://{head}:52365/api/job_agent/jobs/", job),
        (f"http://{worker}:52365/api/job_agent/jobs/", job),
    ]:
        assert cluster.ask(url, None, data)[0] == 401, url
        assert cluster.ask(url, "not-" + cluster.token, data)[0] == 403, url
    assert cluster.ask(f"{DASHBOARD}/api/jobs/", cluster.token) == (200, "[]")
    status, why = cluster.ask(f"http://{head}:8265/api/jobs/", cluster.token)
    assert status is None and "refused" in why, "the dashboard listens on the head's localhost only"
    assert not any(
        cluster.hosts.path(host, "/tmp/intruder").exists() for host in cluster.hosts.addresses
    )


def test_ray_init_without_the_token_is_refused(cluster):
    hosts = cluster.hosts
    head = hosts.addresses["host1"]
    gcs, client = f"{head}:6379", f"ray://{head}:10001"
    tries = {
        "without": (gcs, {"RAY_AUTH_MODE": "disabled"}),
        "wrong": (gcs, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}),
        "right": (gcs, {"RAY_AUTH_MODE": "token"}),
        "client without": (client, {"RAY_AUTH_MODE": "disabled"}),
        "client wrong": (client, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}),
    }
    logs = {
        name: hosts.path("host2", f"/tmp/connect-{name.replace(' ', '-')}.log") for name in tries
    }
    running = {
        name: hosts.start("host2", [sys.executable, "-c", CONNECT, address], logs[name], env=env)
        for name, (address, env) in tries.items()
    }
    codes = {name: process.wait(180) for name, process in running.items()}
    assert codes["right"] == 0, logs["right"].read_text()
    assert "connected to 3 nodes" in logs["right"].read_text()
    for name in ("without", "wrong"):
        assert codes[name] == 1 and "connected" not in logs[name].read_text()
        assert "InvalidAuthToken" in logs[name].read_text()
    for name in ("client without", "client wrong"):
        assert codes[name] == 1 and "connected" not in logs[name].read_text()


def test_a_grid_that_was_stopped_resumes_under_a_new_id(cluster, spec, shared):
    run = [
        "equigrid",
        "run",
        spec,
        "--address",
        "auto",
        "--store",
        shared / "store",
        "--out",
        shared / "out",
    ]
    cluster.submit("digits-1", *run, wait=False)
    store = Store(shared / "store", create=True)
    wait_until(
        lambda: rows(store) or cluster.status("digits-1") not in ("PENDING", "RUNNING"),
        600,
        "a result",
    )
    cluster.stop("digits-1")
    # SUCCEEDED if it was faster than the stopping.
    assert cluster.status("digits-1") in ("STOPPED", "SUCCEEDED"), cluster.log("digits-1")
    before = {row["trial_id"]: row["attempt"] for row in rows(store)}
    assert before, cluster.log("digits-1")

    log = cluster.submit("digits-2", *run)
    assert "Job 'digits-2' succeeded" in log and "trial 10/10" in log, log
    assert (shared / "out/report.html").exists()
    after = {row["trial_id"]: row for row in rows(store)}
    assert len(after) == 10 and {row["status"] for row in after.values()} == {"ok"}
    assert {trial: after[trial]["attempt"] for trial in before} == before, (
        "what was done is not done again"
    )
    assert {row["node"] for row in after.values()} <= set(cluster.hosts.addresses)
    assert len({row["node"] for row in after.values()}) > 1


def test_ray_down_stops_all_and_the_results_equal_a_local_run(cluster, spec, shared):
    cluster.down()
    wait_until(lambda: not cluster.ray_processes("host1"), 60, "the head to stop")
    local = [
        BIN / "python",
        "-m",
        "equigrid.grid.cli",
        "run",
        spec,
        "--no-dashboard",
        "--store",
        shared / "local",
        "--json",
    ]
    cluster.hosts.run(LAPTOP, local, cwd=CHECKOUT, timeout_s=600)
    tables = [same_columns(Store(shared / name)) for name in ("store", "local")]
    assert tables[0].num_rows == 10
    assert tables[0].equals(tables[1]), pa.concat_tables(tables).to_pandas().to_string()
    for host in ("host2", "host3"):  # they leave when they have not heard of the head for a minute
        wait_until(lambda host=host: not cluster.ray_processes(host), 180, f"{host} to leave")
