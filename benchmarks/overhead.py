"""What the grid itself costs: expansion, resuming, overhead per trial, and the driver's memory.

    python benchmarks/overhead.py [expand] [resume] [overhead] [memory]

Each figure is printed as one JSON line. Nothing here asserts: machines differ.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

BASE = {
    "name": "bench",
    "dataset": "digits",
    "recipe": "digits",
    "classifiers": ["digits-cnn"],
    "generators": {"edm": {"kind": "edm", "preset": "digits"}},
    "execution": {"gpus": 0},
}
WIDE = {  # 20 cells per seed
    **BASE,
    "blocks": [
        {"n_base": [100, 200], "real": [1, 2, 3], "syn": {"edm": [1, 2, 3, 5]}, "copies": [1, 3]}
    ],
}


def tell(name: str, **figures) -> None:
    print(json.dumps({"benchmark": name, **figures}), flush=True)


def planned(spec: dict, store=None):
    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve
    from equigrid.grid.spec import load

    return plan(resolve(load(spec), store))


def expand() -> None:
    """Cells to jobs, ids included, once everything is imported."""
    planned(WIDE)
    for seeds in (50, 500):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            the_plan = planned(WIDE | {"seeds": list(range(seeds))})
            times.append(time.perf_counter() - began)
        tell(
            "expand",
            cells=len(the_plan.cells),
            seconds_median=statistics.median(times),
            seconds_max=max(times),
        )


def finished_store(folder: Path, seeds: int, *, compacted: bool):
    """A store in which every job of a grid has an output that planning believes."""
    from equigrid.grid.datasets import catalogue, ingest
    from equigrid.grid.store import Store, results

    store, spec = Store(folder, create=True), WIDE | {"seeds": list(range(seeds))}
    ingest.ingest(store, catalogue.source("digits"))
    the_plan = planned(spec, store)
    for job in the_plan.of_kind("generator"):
        store.put_json(f"generators/{job.id}/manifest.json", {"train_seconds": 1.0, "values": 1})
    for job in the_plan.of_kind("shard"):
        store.put_json(f"pools/{job.id}.json", {"seconds": 1.0})
    now = datetime.now(UTC)
    for trial_id, (cell, *_) in the_plan.cells_by_trial().items():
        labels = {k: v for k, v in cell._asdict().items() if k != "trial_id"}
        facts = {
            "top1": 90.0,
            "per_class": [90.0] * 10,
            "confusion": [6] * 100,
            "shards": ["0" * 32] * 6,
        }
        results.write_part(store, {
            **labels, **facts, "trial_id": trial_id, "attempt": "a", "status": "ok",
            "grid": "bench", "dataset": "digits", "fingerprint": "f", "n_total": cell.n_total,
            "rev": 1, "steps": 300, "seconds": 1.0, "finished_at": now,
        })  # fmt: skip
    if compacted:
        results.compact(store, now=0)  # long ago, so that the next one removes the parts
        results.compact(store)
    return store, spec, the_plan


def resume() -> None:
    """`equigrid run` on a finished grid: a whole process, from its start to "nothing to do"."""
    import yaml

    for compacted in (True, False):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            # Uncompacted is what a killed driver can leave at most: it compacts every thousand
            # parts.
            store, spec, the_plan = finished_store(
                folder / "store", 500 if compacted else 50, compacted=compacted
            )
            (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
            report = folder / "out" / "report.html"  # as a finished grid has it
            report.parent.mkdir()
            report.write_text("")
            command = [sys.executable, "-m", "equigrid.grid.cli", "run", str(folder / "spec.yaml")]
            command += ["--store", store.uri, "--out", str(report.parent)]
            times = []
            for _ in range(3):
                began = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                times.append(time.perf_counter() - began)
            assert "nothing to do" in done.stderr, done.stderr
            tell(
                "resume",
                cells=len(the_plan.cells),
                compacted=compacted,
                seconds_median=statistics.median(times),
            )


def overhead() -> None:
    """Seconds per trial outside the training loop, once the slots are warm."""
    import io

    from rich.console import Console

    from equigrid.grid.running import cluster, driver
    from equigrid.grid.spec import load
    from equigrid.grid.store import Store

    spec = {**BASE, "blocks": [{"n_base": [100], "real": [1]}], "seeds": list(range(60))}
    with tempfile.TemporaryDirectory() as scratch, cluster.connected("local", dashboard=False):
        summary, _ = driver.run(
            load(spec), Store(scratch, create=True), console=Console(file=io.StringIO())
        )
    warm = sorted(summary.trial_overheads_s[8:])  # the first few of each slot import and allocate
    training = summary.training_s / summary.jobs["trial"]
    tell(
        "overhead", trials=len(warm), median_s=statistics.median(warm),
        p90_s=warm[int(0.9 * len(warm))], training_mean_s=training, load_average=os.getloadavg()[0],
    )  # fmt: skip


def memory() -> None:
    """The driver's resident memory before and after a grid of n trials (of one step each)."""
    code = """
import io, json, sys, tempfile
from rich.console import Console
from equigrid.grid.running import cluster, driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store
spec = json.loads(sys.argv[1])
rss = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20
with tempfile.TemporaryDirectory() as scratch, cluster.connected("local", dashboard=False):
    before = rss()
    quiet = Console(file=io.StringIO())
    summary, _ = driver.run(load(spec), Store(scratch, create=True), console=quiet)
    memory = {"mib_before": before, "mib_after": rss()}
    print(json.dumps({"trials": summary.jobs["trial"], **memory, "seconds": summary.seconds}))
"""
    recipe = {"extends": "digits", "steps": 1}
    for seeds in (50, 500):
        spec = {
            **BASE,
            "recipe": recipe,
            "blocks": [{"n_base": [100], "real": [1]}],
            "seeds": list(range(seeds)),
        }
        command = [sys.executable, "-c", code, json.dumps(spec)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        tell("memory", **json.loads(done.stdout.strip().splitlines()[-1]))


BENCHMARKS = {"expand": expand, "resume": resume, "overhead": overhead, "memory": memory}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all without")
    for name in parser.parse_args().which or BENCHMARKS:
        BENCHMARKS[name]()
