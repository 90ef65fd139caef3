"""Test hosts: one machine made to look like several, each reachable by ssh, to try a real cluster
on.

A host is a process tree in namespaces of its own (network, pid, mount, host name) with its own
/tmp, /root, /run and /dev/shm, and an sshd. The rest of the file system is the machine's. A further
host without sshd, the `laptop`, holds the bridge that joins them and is where a user would type
commands. Nothing is made outside these namespaces, so nothing can collide with the machine's
network, and all of it vanishes with its processes, which end with the process that made them even
if that is killed.

Why so much separation: `ray stop` ends every Ray process whose command line it can see, Ray keeps
sessions in /tmp, keys and tokens are under ~, and plasma takes what /dev/shm has. Needs root,
iproute2, util-linux, openssh-server and openssh-client.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

LAPTOP = "laptop"
NETWORK = "10.77.0"  # exists inside the namespaces only
TOOLS = ("ip", "unshare", "nsenter", "setpriv", "mount", "ssh", "ssh-keygen", "rsync")
PRIVATE = ("/tmp", "/root", "/run", "/dev/shm")


def missing() -> str | None:
    """Why hosts cannot be made here, or None if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "test hosts need root on Linux"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if _sshd() is None:
        lacking.append("sshd")
    if lacking:
        return f"test hosts need {', '.join(lacking)} (iproute2, util-linux, openssh-server, openssh-client, rsync)"
    probe = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link add eqprobe type veth peer name eqpeer"
    command = [
        "unshare",
        "--net",
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
    ]
    tried = subprocess.run([*command, probe], capture_output=True, text=True, timeout=60)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


def wait_until(condition, timeout_s: float, what: str) -> None:
    """Returns as soon as `condition()` is true. Raises TimeoutError that names `what`."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"still waiting for {what} after {timeout_s:.0f} s")
        time.sleep(0.1)


class Hosts:
    """`count` hosts named host1, host2, … and the laptop; a context manager.

    folder: an empty folder for their private files, which stay there when the hosts are gone.
    shared: folders that every host sees at the same path, such as a Python environment or a store
    (needed only for what lies under /tmp, /root, /run or /dev/shm; the rest is visible anyway).
    """

    def __init__(self, count: int, folder: Path, *, shared: tuple[Path, ...] = ()):
        self.folder, self.key = folder, Path("/root/.ssh/hosts")
        self.addresses = {f"host{n}": f"{NETWORK}.{n}" for n in range(1, count + 1)}
        self.shared = tuple(dict.fromkeys(str(path) for path in shared if _hidden(path)))
        self._processes: dict[str, subprocess.Popen] = {}

    def __enter__(self):
        try:
            self._make_files()
            self._boot(LAPTOP, "exec sleep infinity")
            self._on_bridge("ip link set lo up; ip link add bridge type bridge")
            self._on_bridge(f"ip addr add {NETWORK}.254/24 dev bridge; ip link set bridge up")
            for name, address in self.addresses.items():
                self._boot(name, _sshd_command())
                self._connect(name, address)
            for name in self.addresses:
                wait_until(lambda name=name: self._answers(name), 60, f"sshd of {name}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Ends every process of every host; their namespaces and network go with them."""
        for process in self._processes.values():
            process.kill()  # unshare ignores SIGTERM; --kill-child takes the rest down
        for process in self._processes.values():
            process.wait(30)
        self._processes.clear()

    # What a test does with a host -----------------------------------------------------------------

    def run(
        self,
        host: str,
        command,
        *,
        timeout_s: float = 120,
        check: bool = True,
        cwd="/root",
        env=None,
    ):
        """Runs a command (a list, or a string for bash) in `host` and returns the CompletedProcess,
        output as text.

        Not by ssh: it works while the network is cut. `env` is added to a clean environment.
        Raises AssertionError with the output if `check` and it fails, TimeoutExpired.
        """
        done = subprocess.run(
            self._inside(host, command, cwd), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, timeout=timeout_s, env={**_environment(), **(env or {})},
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"{host}: {command} → {done.returncode}\n{done.stdout}"
        )
        return done

    def start(self, host: str, command, log: Path, *, cwd="/root", env=None) -> subprocess.Popen:
        """Starts a command in `host`, its output in `log`. End it with `kill`: the Popen is what
        entered the host.
        """
        with open(log, "w") as out:
            return subprocess.Popen(
                self._inside(host, command, cwd), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**_environment(), **(env or {})},
            )  # fmt: skip

    def cut(self, host: str) -> None:
        """Pulls the host's cable: packets vanish in both directions, and neither side is told."""
        self._on_bridge(f"ip link set {host} down")

    def heal(self, host: str) -> None:
        """Plugs it in again."""
        self._on_bridge(f"ip link set {host} up")

    def kill(self, host: str, pattern: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Signals all processes of `host` whose command line matches the regular expression;
        returns how many.
        """
        found = [pid for pid, line in self.processes(host).items() if re.search(pattern, line)]
        for pid in found:
            try:
                os.kill(pid, how)
            except ProcessLookupError:
                continue
        return len(found)

    def processes(self, host: str) -> dict[int, str]:
        """Process ids (as this machine counts them) and command lines of all that runs in
        `host`.
        """
        namespace = os.readlink(self._pid_namespace(host))
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.readlink(entry / "ns/pid") == namespace:
                        line = (
                            (entry / "cmdline")
                            .read_bytes()
                            .replace(b"\0", b" ")
                            .decode(errors="replace")
                        )
                        found[int(entry.name)] = line.strip()
                except OSError:
                    continue  # it has ended
        return found

    def path(self, host: str, path: str) -> Path:
        """Where a file under the host's /root or /tmp lies on this machine."""
        return self.folder / host / Path(path).relative_to("/")

    def log(self, host: str) -> str:
        """What the host's first process printed: why it did not start."""
        return (self.folder / host / "log.txt").read_text()

    # Making one -----------------------------------------------------------------------------------

    def _make_files(self) -> None:
        names = [*self.addresses, LAPTOP]
        for name in names:
            for part, mode in (
                ("root", 0o700),
                ("root/.ssh", 0o700),
                ("tmp", 0o1777),
                ("etc", 0o755),
            ):
                (self.folder / name / part).mkdir(parents=True)
                (self.folder / name / part).chmod(mode)
            # Where Debian's own files would send a login; Ray's launcher appends to ~/.bashrc and
            # sources it.
            (self.folder / name / "root/.profile").write_text(". ~/.bashrc\n")
            (self.folder / name / "root/.bashrc").touch()
            hosts = "".join(f"{address} {host}\n" for host, address in self.addresses.items())
            (self.folder / name / "etc/hosts").write_text(f"127.0.0.1 localhost {name}\n{hosts}")
            # No name server: look-ups fail at once, not after 10 s.
            (self.folder / name / "etc/resolv.conf").touch()
        private = self.folder / LAPTOP / "root/.ssh/hosts"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private], check=True)
        for name in self.addresses:
            ssh = self.folder / name / "root/.ssh"
            shutil.copy(private.with_suffix(".pub"), ssh / "authorized_keys")
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh / "host_key"], check=True
            )

    def _boot(self, name: str, last: str) -> None:
        folder = self.folder / name
        script = folder / "boot.sh"
        script.write_text(
            "\n".join(["set -e", *_mounts(folder, self.shared), f"hostname {name}", last, ""])
        )
        unshare = [
            "unshare",
            "--net",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        with open(folder / "log.txt", "w") as log:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *unshare, "bash", script],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=_environment(), cwd="/",
            )  # fmt: skip
        wait_until(lambda: self._is_booted(name), 30, f"the namespaces of {name}")

    def _is_booted(self, name: str) -> bool:
        assert self._processes[name].poll() is None, f"{name} did not start: {self.log(name)}"
        try:  # there is nothing to read before the namespace has its first process
            return os.readlink(self._pid_namespace(name)) != os.readlink("/proc/self/ns/pid")
        except FileNotFoundError:
            return False

    def _connect(self, name: str, address: str) -> None:
        pid = self._processes[name].pid
        self._on_bridge(
            f"ip link add {name} type veth peer name eth0 netns {pid}; ip link set {name} master bridge up"
        )
        inside = f"ip addr add {address}/24 dev eth0; ip link set eth0 up; ip link set lo up"
        # The default route is how Ray finds out which of its addresses is the node's.
        self._in_network(name, f"{inside}; ip route add default via {NETWORK}.254")

    def _answers(self, name: str) -> bool:
        assert self._processes[name].poll() is None, f"{name} did not start: {self.log(name)}"
        options = shlex.split(
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5"
        )
        ssh = ["ssh", "-q", "-i", str(self.key), *options, f"root@{self.addresses[name]}", "true"]
        return self.run(LAPTOP, ssh, check=False).returncode == 0

    # Entering one ---------------------------------------------------------------------------------

    def _pid_namespace(self, host: str) -> str:
        return f"/proc/{self._processes[host].pid}/ns/pid_for_children"

    def _inside(self, host: str, command, cwd="/root") -> list[str]:
        argv = (
            ["bash", "-c", command] if isinstance(command, str) else [str(part) for part in command]
        )
        pid = str(self._processes[host].pid)
        enter = [
            "nsenter",
            "--target",
            pid,
            "--net",
            "--mount",
            "--uts",
            f"--pid={self._pid_namespace(host)}",
        ]
        return ["setpriv", "--pdeathsig", "KILL", *enter, f"--wdns={cwd}", "--", *argv]

    def _in_network(self, host: str, command: str) -> None:
        pid = str(self._processes[host].pid)
        subprocess.run(
            ["nsenter", "--target", pid, "--net", "sh", "-ec", command], check=True, timeout=60
        )

    def _on_bridge(self, command: str) -> None:
        self._in_network(LAPTOP, command)


def environment_folders() -> tuple[Path, ...]:
    """The folders that this Python needs: its environment, the installation below it, and this
    checkout.
    """
    prefixes = [Path(sys.prefix), Path(sys.base_prefix)]  # either may be reached through a link
    return (
        *prefixes,
        *(prefix.resolve() for prefix in prefixes),
        Path(__file__).resolve().parents[2],
    )


def _hidden(path: Path) -> bool:
    return any(Path(path).is_relative_to(private) for private in PRIVATE)


def _mounts(folder: Path, shared: tuple[str, ...]) -> list[str]:
    """Shell commands that give a host its own folders. Shared ones are held in /run while /tmp and
    /root are hidden.
    """
    quote = shlex.quote
    held = [(quote(path), f"/run/shared/{number}") for number, path in enumerate(shared)]
    files = [
        (quote(str(folder / "etc" / name)), f"/etc/{name}") for name in ("hosts", "resolv.conf")
    ]
    return [
        "mount --make-rprivate /",
        *(f"mount --bind {ours} {theirs}" for ours, theirs in files if Path(theirs).exists()),
        "mount -t tmpfs tmpfs /run; mkdir -p /run/sshd /run/shared",
        *(f"mkdir {at}; mount --rbind {path} {at}" for path, at in held),
        f"mkdir /run/own; mount --bind {quote(str(folder))} /run/own",
        "mount --bind /run/own/root /root; mount --bind /run/own/tmp /tmp; mount -t tmpfs tmpfs /dev/shm",
        *(f"mkdir -p {path}; mount --rbind {at} {path}" for path, at in held),
    ]


def _sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _sshd_command() -> str:
    """In the foreground, with none of the machine's settings; Ray opens many sessions over one
    connection.
    """
    settings = (
        "HostKey=/root/.ssh/host_key", "PermitRootLogin=yes", "StrictModes=no", "UsePAM=no", "PidFile=none",
        "PasswordAuthentication=no", "MaxSessions=100", "MaxStartups=100",
    )  # fmt: skip
    return " ".join(
        ["exec", _sshd(), "-D", "-e", "-f", "/dev/null", *(f"-o {setting}" for setting in settings)]
    )


def _environment() -> dict[str, str]:
    """A clean one: nothing of the test's own environment (tokens, proxies, Ray's variables) reaches
    a host.
    """
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
    }
