"""A real Slurm on test hosts: munged and slurmd on each, slurmctld on the first."""

import shutil
from pathlib import Path

from hosts import Hosts, wait_until

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "squeue")
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Everything as root, without accounting or cgroups: what schedules, starts, signals and requeues
# jobs is Slurm's own. cred_expire: after a requeue a job may start again that many seconds later.
_CONFIGURATION = """
ClusterName=equigrid
SlurmctldHost={head}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/run/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdSpoolDir=/run/slurmd
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2,sched_min_interval=0
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
KillWait=15
MinJobAge=600
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here, or None."""
    lacking = [name for name in DAEMONS if shutil.which(name, path=PATHS) is None]
    what = "Debian: apt-get install --no-install-recommends slurmd slurmctld slurm-client munge"
    return f"needs {', '.join(lacking)} ({what})" if lacking else None


class Slurm:
    """A Slurm whose nodes are the first `nodes` of the hosts. Its daemons end with the hosts.

    folder: an empty one that all hosts see, for configuration, key, state and logs.
    """

    def __init__(self, hosts: Hosts, folder: Path, nodes: int = 2):
        self.hosts, self.folder = hosts, folder
        self.names = list(hosts.addresses)[:nodes]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def up(self) -> None:
        """Starts all daemons, and waits until all nodes are idle."""
        lines = [
            f"NodeName={name} NodeAddr={self.hosts.addresses[name]} CPUs=2 RealMemory=1024"
            for name in self.names
        ]
        text = _CONFIGURATION.format(head=self.names[0], folder=self.folder, nodes="\n".join(lines))
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(bytes(range(256)) * 4)  # munged asks for 32 bytes at least
        key.chmod(0o400)
        for name in self.names:
            munged = (
                "mkdir -p /run/munge && chmod 755 /run/munge && munged --force"
                f" --socket=/run/munge/socket --key-file={key} --log-file=/run/munge/log"
                " --pid-file=/run/munge/pid --seed-file=/run/munge/seed"
            )
            self.hosts.run(name, munged)
        self.on(self.names[0], "slurmctld -c")
        for name in self.names:
            self.on(name, f"mkdir -p /run/slurmd && slurmd -N {name}")
        wait_until(self._all_idle, 60, "idle nodes of Slurm")

    def _all_idle(self) -> bool:
        states = self.on(self.names[0], "sinfo -N -h -o '%T'", check=False).split()
        return states == ["idle"] * len(self.names)

    def on(self, host: str, command: str, *, check: bool = True, env=None, cwd="/root") -> str:
        """What a command prints on a host."""
        done = self.hosts.run(
            host, command, check=check, cwd=cwd, env={**self.environment, **(env or {})}
        )
        return done.stdout

    def state(self, job: str) -> str:
        """Of a job: PENDING, RUNNING, COMPLETED and so on; '' when Slurm has forgotten it."""
        shown = self.on(self.names[0], f"scontrol show job {job}", check=False)
        return shown.partition("JobState=")[2].partition(" ")[0]

    def restarts(self, job: str) -> int:
        """How often a job was requeued."""
        shown = self.on(self.names[0], f"scontrol show job {job}")
        return int(shown.partition("Restarts=")[2].partition(" ")[0])
