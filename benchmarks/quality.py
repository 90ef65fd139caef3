"""What `quality.metrics` take: seconds on n pool and n real images, by the number of images.

    python benchmarks/quality.py [--images 1250 2500 5000] [--dimensions 1024] [--device cpu]

Features are random, as no distance depends on their values; extracting them is left out (it is
the network's time: see docs/costs.md). Prints a table, each metric's time, and what its last
doubling multiplied it by. Nothing here asserts: machines differ.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from equigrid.generators.quality.copying import copying
from equigrid.generators.quality.frechet import frechet
from equigrid.generators.quality.kernel import kid
from equigrid.generators.quality.manifold import with_intervals


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1250, 2500, 5000])
    parser.add_argument("--dimensions", type=int, default=1024, help="DINOv2 ViT-L has 1,024")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {chosen.device}, "
          f"{torch.get_num_threads()} threads, {chosen.dimensions} dimensions")  # fmt: skip
    before: dict[str, float] = {}
    for n in chosen.images:
        took = {name: seconds(work) for name, work in works(n, chosen.dimensions, chosen.device)}
        for name, value in took.items():
            growth = f"  ×{value / before[name]:.1f}" if name in before else ""
            print(f"{n:>7,} × {n:<7,} {name:<44} {value:8.2f} s{growth}", flush=True)
        before = took
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


def works(n: int, d: int, device: str) -> list[tuple[str, Callable[[], object]]]:
    rng = np.random.default_rng(0)
    pool, real = (rng.normal(size=(n, d)).astype(np.float32) for _ in range(2))
    labels = np.arange(n) % 10
    half = n // 2
    learned, held_out = real[:half], (real[half:], labels[half:])
    return [
        ("fd, fd_infinity (66 distances)", lambda: frechet(pool, real)),
        ("kid", lambda: kid(pool, real, device)),
        ("precision, recall, density, coverage", lambda: with_intervals(pool, real, device)),
        ("copying", lambda: copying((pool, labels), learned, held_out, device)),
    ]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
