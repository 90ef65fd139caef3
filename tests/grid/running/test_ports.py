"""Who listens, and who is answered: every port of a head that was started as in docs/cluster.md, and
of a local run, asked without a token, with a wrong one and with another user's.
"""

import os
import secrets
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
METHODS = (
    "NodeInfoGcsService/GetAllNodeInfo",
    "JobInfoGcsService/GetAllJobInfo",
    "InternalKVGcsService/InternalKVKeys",
    "NodeManagerService/GetNodeStats",
    "ObjectManagerService/FreeObjects",
    "CoreWorkerService/GetCoreWorkerStats",
    "RayletDriver/ClusterInfo",
    "RayletDriver/PrepRuntimeEnv",
    "ReporterService/GetProfilingStats",
)
PATHS = ("/api/jobs/", "/nodes?view=summary", "/api/job_agent/jobs/", "/get_or_create_runtime_env")


def grpc_code(port: int, method: str, token: str | None) -> str:
    import grpc

    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/ray.rpc.{method}")
        try:
            call(b"", timeout=2, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


def http_code(port: int, path: str, token: str | None) -> int | str:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except Exception:  # it speaks something else
        return "none"


def gives_metrics(port: int) -> bool:
    """Numbers for Prometheus, whatever it is asked for: Ray has no token there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs/", timeout=3) as answer:
            return answer.read().startswith(b"# HELP ")
    except Exception:  # it refuses, or speaks something else
        return False


def check_refused(ports: dict[int, set[str]], token: str) -> None:
    """Nobody without the token is answered, but for metrics; whoever has it is, so that the asking
    is right.
    """
    answered, right = [], []
    metrics = {port for port in ports if gives_metrics(port)}
    for port in ports:
        if http_code(port, "/", None) == "none":
            for method in METHODS:
                for other in (None, "wrong", secrets.token_hex(32)):
                    if (code := grpc_code(port, method, other)) == "OK":
                        answered.append((port, method, other, code))
                if grpc_code(port, method, token) == "OK":
                    right.append(method)
        for path in PATHS:
            for other in (None, "wrong", secrets.token_hex(32)):
                code = http_code(port, path, other)
                if code not in ("none", 401, 403, 404, 405, 500) and port not in metrics:
                    answered.append((port, path, other, code))
            if http_code(port, path, token) == 200:
                right.append(path)
    assert not answered
    assert "NodeInfoGcsService/GetAllNodeInfo" in right
    assert "NodeManagerService/GetNodeStats" in right


def test_no_port_of_a_head_answers_without_its_token(head, token, listening):
    pid, named = head
    ports = listening(pid)
    check_refused(ports, token)
    assert gives_metrics(named["metrics-export-port"])
    assert ports[named["dashboard-port"]] == {"127.0.0.1"}
    assert http_code(named["dashboard-port"], "/api/jobs/", token) == 200
    assert http_code(named["dashboard-port"], "/api/jobs/", None) == 401
    assert http_code(named["dashboard-port"], "/api/jobs/", "wrong") == 403


def test_a_local_run_is_its_users_alone(short, listening):
    """Its token, its session's folder, and its ports; the dashboard's is this machine's alone. (The
    others listen on all addresses: Ray has no setting for it.)
    """
    code = (
        "import sys\n"
        "from equigrid.grid.running import cluster\n"
        "with cluster.connected('local', num_cpus=1, dashboard=True):\n"
        "    import ray\n"
        "    other = {'env_vars': {'X': '1'}}\n"  # then Ray opens its session's folder for all
        "    ray.get(ray.remote(lambda: 1).options(runtime_env=other).remote())\n"
        "    print(ray._private.worker._global_node.get_session_dir_path(), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**kept, "HOME": str(short)},
    )  # fmt: skip
    try:
        session = Path(process.stdout.readline().strip())
        made = short / ".ray" / "auth_token"
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        above = [stat.S_IMODE(folder.stat().st_mode) for folder in (session, *session.parents)]
        assert 0o700 in above, [f"{mode:o}" for mode in above]
        ports = listening(process.pid)
        check_refused(ports, made.read_text())
        (dashboard,) = (p for p in ports if http_code(p, "/nodes?view=summary", None) == 401)
        assert ports[dashboard] == {"127.0.0.1"}
    finally:
        process.communicate("", timeout=60)
