"""A head without work of its own, and Ray's autoscaler, which starts and ends worker nodes for it on
this machine (Ray's own `fake_multinode` provider).
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import psutil
import yaml
from hosts import wait_until

IDLE_S = 15
PORTS = (
    "port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port",
    "metrics-export-port",
)  # fmt: skip


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Autoscaled:
    """The cluster; a context manager, which ends all of its processes and no others.

    most: worker nodes at once, of one CPU each.
    """

    def __init__(self, *, version: int = 1, most: int = 2) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="eq-", dir="/tmp", ignore_cleanup_errors=True
        )
        self.folder, self._version, self._most = Path(self._folder.name), version, most
        self.address, self._token = "", secrets.token_hex(32)

    @property
    def environment(self) -> dict[str, str]:
        """Of all of its processes, and of a driver's. Small objects are not inlined: the digits'
        shards are held by nodes as larger ones are.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return kept | {
            "HOME": str(self.folder / "home"), "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token, "RAY_max_direct_call_object_size": "1000",
            "RAY_enable_autoscaler_v2": str(self._version - 1), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_memory_monitor_refresh_ms": "0",
        }  # fmt: skip

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        home = self.folder / "home"
        home.mkdir()
        ports = {name: _free_port() for name in PORTS}
        own = subprocess.run(
            [sys.executable, "-c", "import ray; print(ray.util.get_node_ip_address())"],
            capture_output=True, text=True, check=True,
        ).stdout.split()[-1]  # fmt: skip
        self.address = f"{own}:{ports['port']}"
        # Where `ray up` writes it on a head.
        config = home / "ray_bootstrap_config.yaml"
        config.write_text(yaml.safe_dump(self._config()))
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
        command += [f"--{name}={port}" for name, port in ports.items()]
        command += ["--include-dashboard=false", "--num-cpus=0", f"--temp-dir={self.folder}/ray"]
        command += [f"--node-ip-address={own}", f"--autoscaling-config={config}"]
        with open(self.folder / "log", "w") as log:
            self._head = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        wait_until(self._is_up, 120, "the head")

    def _config(self) -> dict:
        worker = {"resources": {"CPU": 1, "object_store_memory": 100 * 2**20}}
        return {
            "cluster_name": "autoscaled", "max_workers": self._most,
            "idle_timeout_minutes": IDLE_S / 60, "upscaling_speed": 10,
            "provider": {
                "type": "fake_multinode", "gcs_address": self.address, "use_node_id_as_ip": True,
                "disable_node_updaters": True, "disable_launch_config_check": True,
            },
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "worker": {
                    **worker, "node_config": {}, "min_workers": 0, "max_workers": self._most
                },
            },
            "head_node_type": "ray.head.default",
            # What `ray up` would fill in.
            "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [],
            "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
            "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
            "worker_setup_commands": [], "head_start_ray_commands": [],
            "worker_start_ray_commands": [],
        }  # fmt: skip

    def _is_up(self) -> bool:
        log = (self.folder / "log").read_text()
        assert self._head.poll() is None, log
        return "Ray runtime started" in log and bool(self.raylets())

    # What there is --------------------------------------------------------------------------------

    def _own(self) -> list[psutil.Process]:
        """Its processes: their command lines name its folder, or they were started by those."""
        found, name = {}, f"{self.folder}/"
        for process in psutil.process_iter():
            try:
                if name in " ".join(process.cmdline()):
                    found[process.pid] = process
                    found |= {child.pid: child for child in process.children(recursive=True)}
            except psutil.Error:
                continue
        return list(found.values())

    def raylets(self) -> list[int]:
        """Process ids of the nodes' raylets, the head's among them."""
        found = []
        for process in self._own():
            try:
                if process.name() == "raylet":
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    @property
    def workers(self) -> int:
        """Worker nodes that live."""
        return len(self.raylets()) - 1

    def monitor_log(self) -> str:
        """What the autoscaler says."""
        logs = (self.folder / "ray").glob("session_2*/logs/monitor.*")
        return "\n".join(path.read_text(errors="replace")[-5_000:] for path in logs)

    def close(self) -> None:
        """Ends all processes, the autoscaler first: it would start others."""
        end_s = time.monotonic() + 30
        while (own := self._own()) and time.monotonic() < end_s:
            for process in own:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.2)
        self._folder.cleanup()
