"""How far one head goes: sleeping trials through the real driver, on a simulated cluster of many
nodes on this machine.

    python benchmarks/scale.py [--trials 10000] [--nodes 16] [--slots 4] [--seconds 2] [--store URI]
    [--out FILE]

Planning, driver, slots, shard cache, results and compaction are the project's own; only the
training inside a trial is replaced, by fetching its shards and sleeping. Slots import no torch, so
that hundreds fit on one machine. Prints JSON lines: memory and processor time after every tenth of
the trials (1,000 at most), then what a trial cost, then the model of when one head is not enough.
Stopped by Ctrl-C or SIGTERM it ends the same way, with what it has by then; FILE holds the same
lines at any moment.
"""

import argparse
import json
import os
import re
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from equigrid.grid import jobs
from equigrid.grid.running import driver, slots
from equigrid.grid.running.cluster import STARTUP_ENVIRONMENT
from equigrid.grid.spec import load
from equigrid.grid.store import Store, results

WATCH_EVERY_S = 2.0
# Ray's published scalability envelope (release/benchmarks/README.md): head m5.16xlarge, tests of
# trivial work.
RAY_ACTORS, RAY_TASKS = 20_000, 15_000  # and 3,000 nodes
BUSY = 0.7  # the share of a core that a driver or head may use before others wait for it


class Lines:
    """JSON lines on standard output, and in a file where one is named."""

    def __init__(self, path: str | None):
        self.file = open(path, "w") if path else None  # noqa: SIM115  # open as long as the benchmark runs

    def tell(self, name: str, **figures) -> None:
        line = json.dumps({"benchmark": name, **figures})
        for file in (sys.stdout, self.file):
            if file:
                print(line, file=file, flush=True)


def write_images(folder: str) -> str:
    """An .npz of noise, as large as real sets, whose shards lie in Ray's object store. (The digits'
    do not: what is below 100 kB Ray sends with every request.)
    """
    draw, path = np.random.default_rng(0), f"{folder}/noise.npz"
    arrays = {}
    for split, n in (("train", 16_384), ("test", 4096)):
        arrays[f"{split}_images"] = draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(n) % 10
    np.savez(path, **arrays)
    return path


def grid_of(images: str, trials: int, sleep_s: float) -> dict:
    """Two trials a seed, on one base subset of the images."""
    return {
        "name": "scale", "dataset": {"npz": images}, "classifiers": ["digits-cnn"],
        "recipe": {"extends": "digits", "steps": max(1, round(1000 * sleep_s))},
        "generators": {}, "seeds": list(range(-(-trials // 2))),
        "execution": {"gpus": 0}, "blocks": [{"n_base": [100], "real": [1]}],
    }  # fmt: skip


class SleepingSlot(slots.Slot):
    """A slot whose trainings sleep for a thousandth of a second a step."""

    def __init__(self, store: Store, memory_fraction: float | None):
        self.store, self.busy = store, False
        jobs.trial.fit = _sleep


def _sleep(loop, config: dict, **_) -> list[dict]:
    return [_slept(request) for request in config["requests"]]


def _slept(request: jobs.Request) -> dict:
    arrays = ray.get([request.labels, *request.train.handles, *request.test.handles])
    steps = request.payload.recipe.steps
    time.sleep(steps / 1000)
    classes = len(request.class_names)
    return {
        "epochs": 1.0, "steps": steps, "images_per_s": 1.0, "top1": 50.0, "top5": 90.0, "loss": 1.0,
        "per_class": [50.0] * classes, "confusion": [len(arrays)] * classes**2,
        "training_s": steps / 1000, "device": "none", "peak_device_bytes": None,
        "device_bytes": None, "reserved_bytes": None, "together": 1,
    }  # fmt: skip


@contextmanager
def simulated(nodes: int, slots_a_node: int):
    """A head without cores and `nodes` of `slots_a_node` cores, each with a raylet and an object
    store of its own.

    Gives the process id of the head's global control service.
    """
    # All nodes share this machine: their processes take long to start, and none is started that no
    # slot needs.
    crowded = {
        "RAY_worker_register_timeout_seconds": "600",
        "RAY_prestart_worker_first_driver": "0",
    }
    for name, value in (STARTUP_ENVIRONMENT | crowded).items():
        os.environ.setdefault(name, value)
    head = {"num_cpus": 0, "object_store_memory": 200 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            # The set takes 60 MiB. In a store fuller than 70% Ray has every process collect
            # garbage, for ever.
            cluster.add_node(wait=False, num_cpus=slots_a_node, object_store_memory=160 * 2**20)
        cluster.wait_for_nodes(timeout=300)
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
        yield cluster.head_node.all_processes["gcs_server"][0].process.pid
    finally:
        ray.shutdown()
        cluster.shutdown()


# What a process is, by its command line; Ray names its workers by what they run.
ROLES = {
    "gcs_server": "head",
    "raylet/raylet": "raylets",
    "ray::SleepingSlot": "slots",
    "ray::trial": "slots",
}


def rss_mib(pid: int | str = "self") -> float:
    return (
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    )


def cpu_s() -> Counter:
    """Seconds of processor time of this process and its descendants: driver, head, raylets, slots,
    and the rest (Ray's agents; the workers that load shards and compact). A process that has ended
    counts no more.
    """
    parents, found = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        found[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), command
    total = Counter()
    for pid, (seconds, command) in found.items():
        line, ours = pid, os.getpid()
        while line not in (ours, 0, None):
            line = parents.get(line)
        if pid == ours:
            total["driver"] += seconds
        elif line == ours:
            total[next((role for text, role in ROLES.items() if text in command), "rest")] += (
                seconds
            )
    return total


def object_store() -> dict:
    """What the nodes' object stores hold now, and all that was ever written into one of them,
    copies counted.
    """
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    stats = get_memory_info_reply(
        get_state_from_address(ray.get_runtime_context().gcs_address)
    ).store_stats
    return {
        "objects": stats.num_local_objects, "held_mib": stats.object_store_bytes_used / 2**20,
        "written_mib": stats.cumulative_created_bytes / 2**20,
        "spilled_mib": stats.spilled_bytes_total / 2**20,
    }  # fmt: skip


class Watch(threading.Thread):
    """The driver's and the head's memory and processor time while a run goes on.

    Is the file that the driver's progress is printed to: from there it knows how many trials are
    done.
    """

    def __init__(self, head: int, every: int, lines: Lines):
        super().__init__(daemon=True)
        self.head, self.every, self.lines, self.over = head, every, lines, threading.Event()
        self.done, self.rows, self.began_s = 0, [], time.monotonic()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()

    def write(self, text: str) -> int:
        if found := re.search(r"\btrial ([\d,]+)/", text):
            self.done = int(found[1].replace(",", ""))
        return len(text)

    def flush(self) -> None:
        """Console asks for it; nothing is kept back."""

    def run(self) -> None:
        due = 0
        while not self.over.wait(WATCH_EVERY_S):
            if self.done >= due:
                due = self.done - self.done % self.every + self.every
                self.look()

    def look(self) -> None:
        row = {"trials": self.done, "seconds": time.monotonic() - self.began_s}
        row |= {"driver_mib": rss_mib(), "head_mib": rss_mib(self.head)}
        seconds = cpu_s()
        row |= {
            f"{role}_cpu_s": seconds[role]
            for role in ("driver", "head", "raylets", "slots", "rest")
        }
        row |= {f"store_{name}": value for name, value in object_store().items()}
        self.rows.append(row)
        self.lines.tell("scale.watch", **{key: round(value, 1) for key, value in row.items()})


def measure(
    trials: int, nodes: int, slots_a_node: int, sleep_s: float, uri: str, images: str, lines: Lines
) -> dict:
    slots.Slot = SleepingSlot
    store, count = Store(uri, create=True), nodes * slots_a_node
    with (
        simulated(nodes, slots_a_node) as head,
        Watch(head, max(1, min(1000, trials // 10)), lines) as watch,
    ):
        console, spec = Console(file=watch, width=200), load(grid_of(images, trials, sleep_s))
        summary, the_plan = driver.run(spec, store, console=console)
    began = time.perf_counter()
    rows = len(results.finished(store))
    finished_s = time.perf_counter() - began
    done = summary.jobs["trial"]
    steady = [row for row in watch.rows if row["slots_cpu_s"]]
    if len(steady) < 3:
        raise SystemExit(f"{done} trials in {summary.seconds:.0f} s: too few to say what one costs")
    # Once all slots are up and warm, and before they go.
    first, last = steady[len(steady) // 4], steady[-1]
    between = max(1, last["trials"] - first["trials"])
    roles = [name.removesuffix("_cpu_s") for name in last if name.endswith("_cpu_s")]
    dataset = the_plan.resolved.dataset
    shard_bytes = sum(store.stat(ref.data).bytes for ref in (*dataset.train, *dataset.test))
    return {
        "trials": done, "of": trials, "interrupted": summary.interrupted,
        "failures": len(summary.failures), "retries": summary.retries, "nodes": nodes,
        "slots": count, "sleep_s": sleep_s, "seconds": summary.seconds,
        "trials_per_s": done / summary.seconds, "ideal_seconds": done * sleep_s / count,
        "slot_s_per_trial_beyond_sleep": summary.seconds * count / done - sleep_s,
        "cpu_ms_per_trial": {
            role: 1000 * (last[f"{role}_cpu_s"] - first[f"{role}_cpu_s"]) / between
            for role in roles
        },
        "between_trials": [first["trials"], last["trials"]],
        "driver_mib": [round(first["driver_mib"], 1), round(last["driver_mib"], 1)],
        "head_mib": [round(first["head_mib"], 1), round(last["head_mib"], 1)],
        "driver_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "shard_loads": summary.shard_loads, "shard_hits": summary.shard_hits,
        "dataset_bytes": shard_bytes,
        "object_store": {name: value for name, value in last.items() if name.startswith("store_")},
        "results": rows, "results_read_s": finished_s, "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }  # fmt: skip


def model(found: dict, lines: Lines) -> None:
    """One driver serves as many slots as it can hand trials to: slots ≤ BUSY · T / (CPU seconds it
    spends on a trial).

    The head's own process has the same bound; beyond both stands Ray's published envelope. The
    first that is reached is what calls for a second cluster (two grids, or one grid's datasets
    apart, in one store).
    """
    driver_s, head_s = (found["cpu_ms_per_trial"][who] / 1000 for who in ("driver", "head"))
    for trial_s in (1, 10, 60, 600, 3600):
        by_driver, by_head = int(BUSY * trial_s / driver_s), int(BUSY * trial_s / max(head_s, 1e-6))
        limits = {
            "driver": by_driver,
            "head": by_head,
            "ray_actors": RAY_ACTORS,
            "ray_running_tasks": RAY_TASKS,
        }
        first = min(limits, key=limits.get)
        lines.tell(
            "scale.model", trial_s=trial_s, most_slots=limits[first], reached_first=first, **limits
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--slots", type=int, default=4, help="a node")
    parser.add_argument("--seconds", type=float, default=2.0, help="what a trial sleeps")
    parser.add_argument("--store", help="a store's URI; a folder that is removed, without it")
    parser.add_argument("--out", help="a file for the lines that are printed")
    chosen = parser.parse_args()
    told = Lines(chosen.out)
    with tempfile.TemporaryDirectory(prefix="equigrid-scale-") as scratch:
        where = chosen.store or f"{scratch}/store"
        images = write_images(scratch)
        measured = measure(
            chosen.trials, chosen.nodes, chosen.slots, chosen.seconds, where, images, told
        )
    told.tell("scale", **measured)
    model(measured, told)
