"""The test hosts themselves: what a drill does to one happens to that one alone, and nothing is
left of them.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import hosts as test_hosts
import pytest
from hosts import LAPTOP, Hosts, wait_until

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(why := test_hosts.missing()), reason=str(why)),
]
OWNER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from hosts import Hosts
with Hosts(1, Path(sys.argv[2])) as made:
    made.start("host1", ["sleep", "7301"], Path(sys.argv[2], "sleep.log"))
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    shared = tmp_path_factory.mktemp("shared")
    (shared / "file").write_text("for all")
    folders = (*test_hosts.environment_folders(), shared)
    with Hosts(2, tmp_path_factory.mktemp("hosts"), shared=folders) as made:
        yield made, shared


def ssh(made: Hosts, name: str, command: str) -> str:
    options = ["-q", "-i", made.key, "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=2"]
    return made.run(
        LAPTOP, ["ssh", *options, f"root@{made.addresses[name]}", command], check=False
    ).stdout.strip()


def test_hosts_have_private_folders_and_see_shared_ones(pair):
    made, shared = pair
    assert ssh(made, "host1", "hostname") == "host1"
    made.run("host1", "echo mine > /tmp/file; echo mine > /root/file; echo mine > /dev/shm/file")
    assert made.path("host1", "/tmp/file").read_text() == "mine\n"
    assert (
        made.run("host2", "cat /tmp/file /root/file /dev/shm/file", check=False).stdout.count(
            "No such file"
        )
        == 3
    )
    assert ssh(made, "host2", f"cat {shared}/file") == "for all"
    assert made.run(
        "host2", [sys.executable, "-c", "import ray; print(ray.__version__)"]
    ).stdout.strip()


def test_a_cut_host_is_silent_until_it_is_healed(pair):
    made, _ = pair
    made.cut("host1")
    assert ssh(made, "host1", "hostname") == ""
    assert ssh(made, "host2", "hostname") == "host2"
    assert made.run("host1", ["hostname"]).stdout == "host1\n", "it lives, and can be looked into"
    made.heal("host1")
    wait_until(lambda: ssh(made, "host1", "hostname") == "host1", 30, "host1 to be back")


def test_kill_reaches_the_processes_of_one_host_only(pair, tmp_path):
    made, _ = pair
    for name in made.addresses:
        made.start(name, ["sleep", "7302"], tmp_path / name)
        wait_until(
            lambda name=name: "sleep 7302" in made.processes(name).values(), 30, "the process"
        )
    assert made.kill("host1", "sleep 73") == 1
    wait_until(lambda: "sleep 7302" not in made.processes("host1").values(), 30, "its end")
    assert "sleep 7302" in made.processes("host2").values()


def test_nothing_is_left_when_the_owner_is_killed(tmp_path):
    command = [sys.executable, "-c", OWNER, Path(__file__).parent, tmp_path]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "up\n"
    texts = (
        "sleep\0" + "7301\0",
        str(tmp_path / "host1/boot.sh"),
        str(tmp_path / "laptop/boot.sh"),
    )
    # A process that was started is not at once the command: it enters the host first.
    wait_until(lambda: all(running(text) for text in texts), 30, "all to run")
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not any(running(text) for text in texts), 30, "all to be gone")


def running(text: str) -> list[str]:
    """Command lines on this machine that contain `text`, a zombie's is empty."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in line and OWNER[:20] not in line:
            found.append(line)
    return found
