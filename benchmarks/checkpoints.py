"""What share of a training its checkpoints hold it up for: written in its way, and beside it.

    python benchmarks/checkpoints.py [--seconds OF_EACH] [--every-s 2] [--channels 64]

Trains the same EDM twice with a state every few seconds into a folder: as it was until 2026-11,
where the training waited until a state was written, and as it is, where a thread writes a copy.
Held: the time between two steps that went into checkpoints. What the thread takes from the
training's cores shows in the steps per second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import torch

from equigrid.generators import registry
from equigrid.generators.registry import config
from equigrid.grid.jobs.checkpoints import Checkpoints, Saving
from equigrid.grid.store import Store

State = dict


class Enough(Exception):
    pass


def in_the_way(checkpoints: Checkpoints, every_s: float) -> Callable:
    """As `Checkpoints` was: a state is due every `every_s`, and the training waits for it."""
    last_s = time.monotonic()

    def checkpoint(step: int, make_state: Callable[[], State]) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= every_s:
            checkpoints.save(step, make_state())
            last_s = time.monotonic()

    return checkpoint


def measure(how: Callable, seconds: float, chosen: object) -> dict:
    """Trains for so long; how: makes the callback from checkpoints in a new folder."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (512, 16, 16, 3), np.uint8), np.arange(512) % 10
    found = {"steps": 0, "states": 0, "held_s": 0.0, "begun_s": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = how(Checkpoints(Store(folder + "/store", create=True), "checkpoints/t"))

        def look(step: int, make_state: Callable[[], State]) -> None:
            def counted() -> State:
                found["states"] += 1
                return make_state()

            began_s = time.perf_counter()
            checkpoint(step, counted)
            now_s = time.perf_counter()
            if step == 1:  # the first step warms up
                found.update(begun_s=now_s, held_s=0.0)
                return
            found["steps"] += 1
            found["held_s"] += now_s - began_s
            if now_s - found["begun_s"] > seconds:
                raise Enough

        with contextlib.suppress(Enough):
            registry.train(images, labels, chosen, classes=10, seed=0, checkpoint=look)
        wall_s = time.perf_counter() - found["begun_s"]
        if isinstance(checkpoint, Saving):
            checkpoint.wait()  # before its folder goes
    return {**found, "wall_s": wall_s, "share": found["held_s"] / wall_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each training")
    parser.add_argument("--every-s", type=float, default=2.0, help="between two states")
    parser.add_argument("--channels", type=int, default=64)
    given = parser.parse_args()
    chosen = config(
        {
            "kind": "edm",
            "network": {"model_channels": given.channels, "channel_mult": [1, 2], "num_blocks": 1,
                        "attn_resolutions": []},
            "training": {"batch": 8, "total_nimg": 10**7},
        }
    )  # fmt: skip
    thousands = chosen.cost_facts(16, 16, 3, 10, None)["parameters"] / 1000
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{datetime.now(UTC):%Y-%m-%d}; EDM of {thousands:.0f} thousand parameters, a state every "
        f"{given.every_s:g} s for {given.seconds:g} s\n"
    )
    print("| checkpoints | states | steps/s | held up, ms a state | held up, % of the time |")
    print("|---|---|---|---|---|")

    def row(name: str, found: dict) -> None:
        each = 1000 * found["held_s"] / max(1, found["states"])
        rate = found["steps"] / found["wall_s"]
        share = 100 * found["share"]
        print(f"| {name} | {found['states']} | {rate:.2f} | {each:.1f} | {share:.2f} |", flush=True)

    row("none", measure(lambda _: lambda step, make_state: None, given.seconds, chosen))
    row(
        "in the training's way",
        measure(lambda own: in_the_way(own, given.every_s), given.seconds, chosen),
    )

    def beside(own: Checkpoints) -> Callable:
        saving.append(Saving(own, every_s=given.every_s))
        return saving[0]

    saving: list[Saving] = []
    found = measure(beside, given.seconds, chosen)
    row("beside it", found)
    print(f"\nThe interval that `Saving` came to: {saving[0].interval_s:.1f} s")


if __name__ == "__main__":
    main()
