"""A spot instance's notice, from the metadata service to slots that have saved, with the scripts
that run on AWS.

Only the service is played, by a server that answers as EC2's does, and Ray, by commands that write
down that they were called. The drills have a real Ray. What runs is the command of cluster.yaml, in
a pid namespace: it signals slots by their command lines, and others may be running here.
"""

import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from hosts import wait_until
from launched import REPOSITORY

TOKEN = "/latest/api/token"
NOTICE = "/latest/meta-data/spot/instance-action"
# Takes a while to save, as a slot does between two steps.
SLOT = """
trap 'sleep 2; echo saved >> "$HOME/calls"; exit' TERM
while sleep 0.1; do :; done
"""
NAMESPACE = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]


def missing() -> str | None:
    if absent := [name for name in ("unshare", "flock", "curl", "pkill") if not shutil.which(name)]:
        return f"needs {', '.join(absent)}"
    made = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True)
    return f"no namespaces here: {made.stderr.strip()}" if made.returncode else None


pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(why := missing()), reason=str(why))]


class Metadata(ThreadingHTTPServer):
    """EC2's metadata service, second version: tokens by PUT, nothing without one, 404 until there
    is a notice.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.tokens, self.asked, self.refused = set(), 0, 0
        self.broken, self.notice = threading.Event(), threading.Event()


class _Answers(BaseHTTPRequestHandler):
    def do_PUT(self):
        if (
            self.path != TOKEN
            or not self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit()
        ):
            return self._answer(400)
        token = f"token-{len(self.server.tokens)}"
        self.server.tokens.add(token)
        return self._answer(200, token)

    def do_GET(self):
        if self.server.broken.is_set():
            return self._answer(503)
        if self.headers.get("X-aws-ec2-metadata-token") not in self.server.tokens:
            self.server.refused += 1
            return self._answer(401)
        self.server.asked += 1
        if self.path == NOTICE and self.server.notice.is_set():
            return self._answer(200, '{"action": "terminate", "time": "2026-11-23T04:00:00Z"}')
        return self._answer(404)

    def _answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Nothing: a test's output is not for this."""


@pytest.fixture
def metadata():
    with Metadata() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def machine(tmp_path, metadata):
    """A worker's home folder, and the environment in which its start commands run."""
    (tmp_path / "equigrid").mkdir()
    (tmp_path / "equigrid/deploy").symlink_to(REPOSITORY / "deploy")
    (tmp_path / "bin").mkdir()
    ray = tmp_path / "bin/ray"
    ray.write_text('#!/bin/sh\necho "ray $*" >> "$HOME/calls"\n')
    ray.chmod(0o755)
    (tmp_path / "slot.sh").write_text(SLOT)
    address = f"http://127.0.0.1:{metadata.server_port}"
    paths = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    return tmp_path, {
        **paths,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": address,
        "HTTP_PROXY": "http://127.0.0.1:9",
    }


def calls(home) -> list[str]:
    path = home / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_a_notice_lets_the_slots_save_before_ray_stops(machine, metadata):
    home, environment = machine
    *_, watch = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())[
        "worker_start_ray_commands"
    ]
    slot = "(exec -a ray::trial:digits:n100 bash $HOME/slot.sh) & exec -a ray::IDLE sleep 600"
    metadata.broken.set()
    with subprocess.Popen([*NAMESPACE, "bash", "-c", f"{watch}\n{slot}"], env=environment) as host:
        try:
            wait_until(lambda: len(metadata.tokens) >= 1, 30, "the first question")
            metadata.broken.clear()
            wait_until(lambda: metadata.asked >= 1, 30, "a question that is answered")
            assert calls(home) == [], "there was no notice"
            metadata.notice.set()
            wait_until(lambda: calls(home)[-1:] == ["ray stop"], 30, "Ray to be stopped")
        finally:
            host.kill()
    drain, saved, stop = calls(home)
    assert drain.startswith("ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION")
    assert (saved, stop) == ("saved", "ray stop")
    assert '{"action": "terminate"' in (home / "watch-spot.log").read_text()
    assert metadata.refused == 0, "every question carried a token that the service gave"


def test_a_second_watcher_ends_at_once(machine, metadata):
    home, environment = machine
    metadata.notice.set()  # it would act on it
    command = ["flock", home / ".equigrid-spot.lock", "bash", REPOSITORY / "deploy/watch-spot.sh"]
    assert subprocess.run(command, env=environment, timeout=10).returncode == 0
    assert metadata.asked == 0 and calls(home) == []
