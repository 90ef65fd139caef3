"""What the benchmarks of generators share: variants of the same work that take turns on one
device.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import torch


def main(
    doc: str, sizes: dict[str, dict], measure: Callable[[dict, torch.device], dict], table: Callable
) -> None:
    """The command line of a script: measures one of `sizes`, prints the table, and keeps the
    figures if asked to.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default)
    parser.add_argument("--size", choices=sizes, default="full" if default == "cuda" else "small")
    parser.add_argument(
        "--threads", type=int, default=None, help="CPU threads, torch's default if not given"
    )
    parser.add_argument("--json", default=None, help="write the figures to this file too")
    parser.add_argument(
        "--seconds", type=float, default=60.0,
        help="that each figure may take, beside its compilation; a call that has begun ends",
    )  # fmt: skip
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    fp32_means_fp32()
    device = torch.device(given.device)
    size = {**sizes[given.size], "seconds": given.seconds}
    report = {**measure(size, device), **machine(device), "size": given.size}
    print(table(report))
    if given.json:
        with open(given.json, "w") as file:
            json.dump(report, file, indent=1)


def fp32_means_fp32() -> None:
    """No TF32 in this process, which PyTorch would have in convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def machine(device: torch.device) -> dict:
    """What the figures depend on beside the code."""
    return {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": datetime.now(UTC).date().isoformat(),
    }


def headline(report: dict) -> str:
    """`machine` in words."""
    return (
        f"{report['device']}, {report['threads']} CPU threads, torch {report['torch']}, "
        f"CUDA {report['cuda']}, {report['date']}; size {report['size']}"
    )


def rates(
    work: dict[str, Callable[[], None]], images: int, device: torch.device, size: dict
) -> dict[str, float]:
    """Images per second of each, the fastest of size["rounds"] of size["steps"] calls that take
    `images` each; printed as they come, since a machine may be taken away.

    They take turns, so that a noisy machine is fair. After size["seconds"] of its own, each has had
    its last round; rounds are of fewer calls where all would take longer.
    """
    limit = size.get("seconds", np.inf)
    calls, spent, best = {}, {}, dict.fromkeys(work, np.inf)
    for name, one in work.items():
        one()  # warm up, and compile
        spent[name] = _timed(one, 1, device)
        calls[name] = max(1, int(min(size["steps"], limit / 2 / spent[name])))
    for number in range(size["rounds"]):
        for name, one in work.items():
            if number and spent[name] > limit:
                continue
            seconds = _timed(one, calls[name], device)
            spent[name] += seconds
            best[name] = min(best[name], seconds / calls[name])
            so_far = f"{name}: {images / best[name]:.4g} per s, round {number + 1}"
            print(so_far, file=sys.stderr, flush=True)
    return {name: images / seconds for name, seconds in best.items()}


def _timed(one: Callable[[], None], calls: int, device: torch.device) -> float:
    """Seconds of so many calls."""
    _wait(device)
    begin = time.perf_counter()
    for _ in range(calls):
        one()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
