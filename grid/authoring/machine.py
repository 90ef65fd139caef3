"""The machine that a spec is written on."""

import os
import subprocess
from typing import NamedTuple


class Machine(NamedTuple):
    """cores: that this process may use. gpus: the names of NVIDIA's devices here."""

    cores: int
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        gpus = f"{len(self.gpus)} × {self.gpus[0]}" if self.gpus else "no GPU"
        return f"{self.cores} CPU core{'s' * (self.cores != 1)}, {gpus}"


def this_machine() -> Machine:
    """The one that this process runs on."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    return Machine(cores, _gpus())


def _gpus() -> tuple[str, ...]:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return ()
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in found.stdout.splitlines() if line.strip())
