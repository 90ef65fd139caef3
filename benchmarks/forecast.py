"""What a run says of how long it still takes, against how long it took; and what its jobs' signs of
life cost.

    python benchmarks/forecast.py [--spec digits] [--known]

Runs the spec into an empty store, without its `expected_seconds` unless --known is given, and looks
twice a second at what the driver tells. Each figure is printed as one JSON
line. Nothing here asserts: machines differ.
"""

import argparse
import io
import json
import tempfile
import threading
import time
from pathlib import Path

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def tell(name: str, **figures) -> None:
    print(json.dumps({"benchmark": name, **figures}), flush=True)


def watched_run(spec: dict) -> tuple[list[tuple[float, float | None]], float]:
    """What was said of the seconds left, and when; and what the run took."""
    from rich.console import Console

    from equigrid.grid.running import cluster, driver
    from equigrid.grid.spec import GridSpec
    from equigrid.grid.store import Store, lock

    loaded = GridSpec.model_validate(spec)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store", create=True)
        held = lock.acquire(store, loaded.name)
        said: list[tuple[float, float | None]] = []
        over = threading.Event()
        began = time.monotonic()

        def look() -> None:
            while not over.wait(0.5):
                said.append((time.monotonic() - began, (held.progress or {}).get("left_s")))

        with held, cluster.connected("local", dashboard=False):
            began = time.monotonic()
            looker = threading.Thread(target=look)
            looker.start()
            console = Console(file=io.StringIO())
            driver.run(loaded, store, console=console, lock=held)
            took = time.monotonic() - began
            over.set()
            looker.join()
    return said, took


def against_time(name: str, spec: dict) -> None:
    said, took = watched_run(spec)
    known = [(at, left) for at, left in said if left is not None]
    tell("forecast", run=name, seconds=round(took, 1), first_said_at_s=round(known[0][0], 1))
    for share in SHARES:
        at, left = min(known, key=lambda one: abs(one[0] - share * took))
        tell(
            "forecast",
            run=name,
            share=round(at / took, 2),
            said_over_true=round((at + left) / took, 2),
        )
    late = [(at + left) / took for at, left in known if at >= 0.1 * took]
    tell(
        "forecast",
        run=name,
        from_a_tenth_on={"least": round(min(late), 2), "most": round(max(late), 2)},
    )


def signs() -> None:
    """A call of what a training calls after each step."""
    from equigrid.grid.jobs.signs import Signs

    sent = []
    told, n = Signs("job", lambda *one: sent.append(one)), 1_000_000
    began = time.perf_counter()
    for step in range(n):
        told(step / n)
    tell(
        "signs", nanoseconds_per_step=round((time.perf_counter() - began) / n * 1e9), sent=len(sent)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", default="digits")
    parser.add_argument("--known", action="store_true")
    arguments = parser.parse_args()
    from equigrid.grid.spec import load

    signs()
    spec = load(arguments.spec).model_dump(mode="json")
    if arguments.known:
        against_time("with expected_seconds", spec)
    else:
        against_time("without expected_seconds", spec | {"expected_seconds": {}})


if __name__ == "__main__":
    main()
