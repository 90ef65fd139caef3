"""The machines that Ray's autoscaler may bring: a cluster that has none yet may have room.

Ray tells a driver which nodes there are, and not which there may be. Where its autoscaler runs on
the driver's machine, as it does for a job that was submitted, the file that it was given says it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class NodeType(NamedTuple):
    """A declared type of worker, and how many of it there may be at once."""

    resources: dict[str, float]
    most: int


class Declared(NamedTuple):
    """What an autoscaler was told: types of workers, and how many of all types there may be."""

    types: tuple[NodeType, ...] = ()
    most: int = 0

    @property
    def has_gpus(self) -> bool:
        return any(each.most and each.resources.get("GPU") for each in self.types)

    def slots(self, cpus: float, gpus: float) -> int:
        """How many slots of so many CPUs and GPUs there may be, on the machines that hold most."""
        found, left = 0, self.most
        for each in sorted(self.types, key=lambda each: -room(each.resources, cpus, gpus)):
            nodes = min(each.most, left)
            found, left = found + nodes * room(each.resources, cpus, gpus), left - nodes
        return found


def declared(gcs_address: str, processes: Path = Path("/proc")) -> Declared:
    """What the autoscaler of the cluster whose GCS is at an address was told; nothing where none
    runs on this machine.
    """
    for line in _autoscalers(processes):
        options = dict(one.split("=", 1) for one in line if one.startswith("--") and "=" in one)
        if options.get("--gcs-address") == gcs_address and "--autoscaling-config" in options:
            try:
                return _read(
                    yaml.safe_load(
                        Path(options["--autoscaling-config"]).read_text(encoding="utf-8")
                    )
                )
            except (OSError, LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError):
                return Declared()  # Ray's file, not ours: where it is otherwise, nothing is known
    return Declared()


def _autoscalers(processes: Path) -> Iterator[list[str]]:
    """The command lines of Ray's autoscalers."""
    for path in processes.glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if any(one.endswith("/monitor.py") and "/ray/autoscaler/" in one for one in line):
            yield line


def _read(config: dict[str, Any]) -> Declared:
    most = int(config["max_workers"])
    workers = [
        NodeType(dict(one.get("resources") or {}), int(one.get("max_workers", most)))
        for name, one in config["available_node_types"].items()
        if name != config["head_node_type"]
    ]
    return Declared(tuple(workers), most)


def room(resources: dict[str, float], cpus: float, gpus: float) -> int:
    """How many slots of so many CPUs and GPUs one node has room for."""
    by_cpu = int(resources.get("CPU", 0) / cpus + 1e-9)
    return min(by_cpu, int(resources.get("GPU", 0) / gpus + 1e-9)) if gpus else by_cpu
