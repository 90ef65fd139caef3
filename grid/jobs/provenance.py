"""Where a job runs: its device and threads, and what a result says of them."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from equigrid import __version__
from equigrid.grid.jobs.energy import METER
from equigrid.grid.jobs.ray_train import group_device
from equigrid.grid.jobs.request import Request

LIBRARIES = ("torch", "torchvision", "ray", "numpy", "timm", "diffusers", "transformers", "pyarrow")


def device_of(request: Request) -> str:
    """The device that this process computes on; sets PyTorch's number of threads."""
    import torch

    torch.set_num_threads(request.threads)
    if not request.gpus:
        return "cpu"
    if request.workers > 1:
        return group_device()
    return "cuda"


def reset_peak(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.init()  # this may be the process's first CUDA call, and before it nothing counts
        torch.cuda.reset_peak_memory_stats(device)


def peak_device_bytes(device: str) -> int | None:
    """Peak bytes of the device since its last reset; None on a CPU, where there is no such
    count.
    """
    if device == "cpu":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device)


def reserved_device_bytes(device: str) -> int | None:
    """Peak bytes of the device that this process kept from others since the last reset; None on a
    CPU.

    More than its tensors took at any moment: memory is not handed from one stream to another, nor
    from one graph's to anything outside it. So of the branches of a graph each keeps its own.
    """
    if device == "cpu":
        return None
    import torch

    return torch.cuda.max_memory_reserved(device)


def device_bytes(device: str) -> int | None:
    """All memory of the device; None on a CPU."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.get_device_properties(device).total_memory


@cache
def device_name(device: str) -> str:
    """A device in words."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""
    )
    return f"CPU {model}".strip() or f"CPU {platform.machine()}"


def provenance(request: Request) -> dict:
    """What a result says of where it was made, and of its energy where that is counted."""
    energy = METER.taken(request)
    counted = {"energy_kwh": energy.kwh, "co2_kg": energy.co2_kg} if energy else {}
    return {
        "threads": request.threads,
        "versions": versions(),
        "code": code_version(),
        "node": platform.node(),
        **counted,
    }


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_version() -> str:
    """This project's version, and the commit where it runs from a checkout."""
    base = __version__
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return base
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return base
    return f"{base}+{commit}"
