"""A cluster on test hosts, brought up with `ray up` from this checkout's cluster-local.yaml, as a
user would do it.

Commands are typed on the laptop, in its copy of the checkout; the dashboard comes through `ray
dashboard`'s tunnel.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import yaml
from hosts import LAPTOP, Hosts, wait_until

from equigrid.grid.store import Store, results

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CHECKOUT = "/root/checkout"
CONFIG = "/root/checkout/cluster-local.yaml"
TOKEN = "/root/.ray/auth_token"
DASHBOARD = "http://localhost:8265"
# With the second version the local provider brings up one worker and adds the rest for ever.
UP = {"RAY_UP_enable_autoscaler_v2": "0"}
CLIENT = {"RAY_AUTH_MODE": "token"}

ASK = """
import json, sys, urllib.error, urllib.request
url, token, data = json.loads(sys.argv[1])
headers = {"Authorization": f"Bearer {token}"} if token else {}
request = urllib.request.Request(url, data and data.encode(), headers | {"Content-Type": "application/json"})
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        status, body = answer.status, answer.read().decode()
except urllib.error.HTTPError as error:
    status, body = error.code, error.read().decode()
except OSError as error:
    status, body = None, str(error)
print(json.dumps([status, body]))
"""


class Cluster:
    """`ray up`, `ray dashboard`, `ray job submit` and `ray down`; host1 is the head, the others are
    workers.
    """

    def __init__(self, hosts: Hosts):
        self.hosts, self.tunnel = hosts, None

    def prepare(self) -> None:
        """A checkout with the hosts' addresses on the laptop, a token, and on each host what setup
        would install.
        """
        checkout = self.hosts.path(LAPTOP, CHECKOUT)
        config = yaml.safe_load((REPOSITORY / "cluster-local.yaml").read_text())
        for name in [*config["file_mounts"].values(), ".gitignore", ".rayignore"]:
            if not name.startswith("~"):
                _copy(REPOSITORY / name, checkout / name)
        head, *workers = self.hosts.addresses.values()
        config["provider"].update(head_ip=head, worker_ips=workers)
        config["auth"].update(ssh_user="root", ssh_private_key=str(self.hosts.key))
        (checkout / "cluster-local.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        installed = "".join(
            (REPOSITORY / name).read_text() for name in ("requirements.txt", "pyproject.toml")
        )
        for name in self.hosts.addresses:
            project = self.hosts.path(name, "/root/equigrid")
            project.mkdir()
            (project / ".venv").symlink_to(sys.prefix)
            (project / ".installed").write_text(installed)
            # All hosts are one machine with one memory: Ray's monitor would blame each for what the
            # others hold.
            self.hosts.path(name, "/root/.bashrc").write_text(
                "export RAY_memory_monitor_refresh_ms=0\n"
            )
        self.hosts.run(LAPTOP, f"umask 077 && {BIN}/ray get-auth-token --generate")

    @property
    def token(self) -> str:
        return self.hosts.path(LAPTOP, TOKEN).read_text().strip()

    def up(self, *, timeout_s: float = 600) -> None:
        """Returns when every host has joined."""
        command = [BIN / "ray", "up", "-y", "--no-config-cache", CONFIG]
        self.hosts.run(LAPTOP, command, cwd=CHECKOUT, env=UP, timeout_s=timeout_s)
        self.open_dashboard()
        wait_until(
            lambda: self.nodes() == set(self.hosts.addresses.values()),
            timeout_s,
            "all nodes to join",
        )

    def open_dashboard(self) -> None:
        """(Again) the tunnel to the head's dashboard; it lasts as long as the head."""
        if self.tunnel is not None:
            self.hosts.kill(LAPTOP, r"ray dashboard|^ssh\b")
            self.tunnel.wait(30)
        log = self.hosts.path(LAPTOP, "/tmp/ray-dashboard.log")
        self.tunnel = self.hosts.start(
            LAPTOP, [BIN / "ray", "dashboard", "--no-config-cache", CONFIG], log, cwd=CHECKOUT
        )
        wait_until(
            lambda: self.ask(f"{DASHBOARD}/api/version", self.token)[0] == 200, 120, "the dashboard"
        )

    def nodes(self) -> set[str | None]:
        """Addresses of the nodes that are alive."""
        status, body = self.ask(f"{DASHBOARD}/nodes?view=summary", self.token)
        assert status == 200, body
        summary = json.loads(body)["data"]["summary"]
        # One just joined: None.
        return {node.get("ip") for node in summary if node["raylet"].get("state") == "ALIVE"}

    def ask(
        self, url: str, token: str | None = None, data: str | None = None, *, host: str = LAPTOP
    ):
        """Status and body of an HTTP answer, asked for on `host`; (None, why) if there is no
        connection.
        """
        argument = json.dumps([url, token, data])
        return tuple(
            json.loads(self.hosts.run(host, [sys.executable, "-I", "-c", ASK, argument]).stdout)
        )

    def submit(self, name: str, *command, wait: bool = True, timeout_s: float = 600) -> str:
        """`ray job submit` of `command` from the laptop's checkout under the id `name`; returns the
        log.

        Waits for the job's end, and raises AssertionError with the log if it fails; not so without
        `wait`.
        """
        submit = [
            BIN / "ray",
            "job",
            "submit",
            "--address",
            DASHBOARD,
            "--submission-id",
            name,
            "--working-dir",
            ".",
        ]
        job = [*submit, *([] if wait else ["--no-wait"]), "--", *command]
        return self.hosts.run(LAPTOP, job, cwd=CHECKOUT, env=CLIENT, timeout_s=timeout_s).stdout

    def stop(self, name: str, *, timeout_s: float = 120) -> None:
        """`ray job stop`: SIGTERM to the driver; returns when the job has ended."""
        command = [BIN / "ray", "job", "stop", "--address", DASHBOARD, name]
        self.hosts.run(LAPTOP, command, env=CLIENT, timeout_s=timeout_s)

    def status(self, name: str) -> str:
        """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
        status, body = self.ask(f"{DASHBOARD}/api/jobs/{name}", self.token)
        assert status == 200, body
        return json.loads(body)["status"]

    def log(self, name: str) -> str:
        """What a job has printed so far, and what Ray says about it."""
        answers = [
            self.ask(f"{DASHBOARD}/api/jobs/{name}{part}", self.token)[1] for part in ("/logs", "")
        ]
        return "\n".join([*(json.loads(answers[0]).get("logs") or "").splitlines(), answers[1]])

    def down(self) -> None:
        """`ray down`: the head stops at once, workers when they have missed it for a minute."""
        self.hosts.run(LAPTOP, [BIN / "ray", "down", "-y", CONFIG], cwd=CHECKOUT, timeout_s=180)

    def ray_processes(self, host: str) -> list[str]:
        return [
            line
            for line in self.hosts.processes(host).values()
            if "raylet" in line or "gcs_server" in line
        ]


SAME = [
    "trial_id",
    "arm",
    "top1",
    "top5",
    "per_class",
    "confusion",
    "loss",
    "shards",
    "steps",
    "threads",
]


def same_columns(store: Store) -> pa.Table:
    """What must not depend on where a grid ran, in one order."""
    return results.read(store).select(SAME).sort_by("trial_id")


def cores() -> int:
    """What each host believes to have: all of the machine's."""
    return os.cpu_count() or 1


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, ignore=ignore, symlinks=True)
    else:
        shutil.copy(source, target)
