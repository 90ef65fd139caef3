"""How far one head goes: sleeping trials through the real driver, on a simulated cluster of many nodes on this machine.

    python benchmarks/scale.py [--trials 10000] [--nodes 16] [--slots 4] [--seconds 2] [--store URI]

Planning, driver, slots, shard cache, results and compaction are the project's own; only the training inside a trial is
replaced, by fetching its shards and sleeping. Slots import no torch, so that hundreds fit on one machine. Prints JSON
lines: one each few seconds while it runs, then what a trial cost, then the model of when one head is not enough.
"""

import argparse
import io
import json
import os
import resource
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from grid import driver, results, slots, tasks
from grid.spec import load
from grid.store import Store

WATCH_EVERY_S = 5.0
# Ray's published scalability envelope (release/benchmarks/README.md): head m5.16xlarge, tests of trivial work.
RAY_ACTORS, RAY_TASKS = 20_000, 15_000  # and 3,000 nodes
BUSY = 0.7  # the share of a core that a driver or head may use before others wait for it


def tell(name: str, **figures) -> None:
    print(json.dumps({"benchmark": name, **figures}), flush=True)


def grid_of(trials: int, sleep_s: float) -> dict:
    """Two trials a seed, on one base subset of the digits."""
    return {
        "name": "scale", "dataset": "digits", "recipe": {"extends": "digits", "steps": max(1, round(1000 * sleep_s))},
        "classifiers": ["digits-cnn"], "generators": {}, "seeds": list(range(-(-trials // 2))),
        "execution": {"gpus": 0}, "blocks": [{"n_base": [100], "real": [1]}],
    }  # fmt: skip


class SleepingSlot(slots.Slot):
    """A slot whose trainings sleep for a thousandth of a second a step."""

    def __init__(self, store: Store, memory_fraction: float | None):
        self.store, self.busy = store, False
        tasks.trials.fit = _sleep


def _sleep(loop, config: dict, **_) -> dict:
    request = config["request"]
    arrays = ray.get([request.labels, *request.train.handles, *request.test.handles])
    steps = request.payload["recipe"]["steps"]
    time.sleep(steps / 1000)
    classes = len(request.class_names)
    return {
        "epochs": 1.0, "steps": steps, "images_per_s": 1.0, "top1": 50.0, "top5": 90.0, "loss": 1.0,
        "per_class": [50.0] * classes, "confusion": [len(arrays)] * classes**2, "training_s": steps / 1000,
        "device": "none", "peak_device_bytes": None, "device_bytes": None,
    }  # fmt: skip


@contextmanager
def simulated(nodes: int, slots_a_node: int):
    """A head without cores and `nodes` of `slots_a_node` cores, each with a raylet and an object store of its own.

    Gives the process id of the head's global control service.
    """
    for name, value in driver.STARTUP_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 * 2**20})
    try:
        for _ in range(nodes):
            cluster.add_node(wait=False, num_cpus=slots_a_node, object_store_memory=80 * 2**20)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
        yield cluster.head_node.all_processes["gcs_server"][0].process.pid
    finally:
        ray.shutdown()
        cluster.shutdown()


def rss_mib(pid: int | str = "self") -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def object_store() -> str:
    """What the nodes' object stores hold now, all copies counted, as Ray's own summary says."""
    from ray._private.internal_api import memory_summary

    address = ray.get_runtime_context().gcs_address
    lines = memory_summary(address, stats_only=True).splitlines()
    return "; ".join(line.strip() for line in lines if line.startswith(("Plasma memory usage", "Spilled")))


class Watch(threading.Thread):
    """The driver's and the head's memory while a run goes on."""

    def __init__(self, head: int):
        super().__init__(daemon=True)
        self.head, self.over, self.rows, self.began_s = head, threading.Event(), [], time.monotonic()
        self.object_store = ""

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()

    def run(self) -> None:
        while not self.over.wait(WATCH_EVERY_S):
            row = {
                "seconds": time.monotonic() - self.began_s, "driver_mib": rss_mib(), "head_mib": rss_mib(self.head),
                "driver_cpu_s": time.process_time(), "head_cpu_s": cpu_s(self.head),
            }  # fmt: skip
            self.object_store = object_store()
            self.rows.append(row)
            tell("scale.watch", **{key: round(value, 1) for key, value in row.items()})


def measure(trials: int, nodes: int, slots_a_node: int, sleep_s: float, uri: str) -> dict:
    slots.Slot = SleepingSlot
    store, count = Store(uri, create=True), nodes * slots_a_node
    with simulated(nodes, slots_a_node) as head:
        cpu, head_cpu = time.process_time(), cpu_s(head)
        with Watch(head) as watch:
            summary, the_plan = driver.run(load(grid_of(trials, sleep_s)), store, console=Console(file=io.StringIO()))
        cpu, head_cpu = time.process_time() - cpu, cpu_s(head) - head_cpu
    began = time.perf_counter()
    rows = len(results.finished(store))
    finished_s = time.perf_counter() - began
    done, middle = summary.jobs["trial"], watch.rows[len(watch.rows) // 4 :]
    dataset = the_plan.resolved.dataset
    shard_bytes = sum(store.stat(ref.data).bytes for ref in (*dataset.train, *dataset.test))
    return {
        "trials": done, "failures": len(summary.failures), "retries": summary.retries, "nodes": nodes, "slots": count,
        "sleep_s": sleep_s, "seconds": summary.seconds, "trials_per_s": done / summary.seconds,
        "ideal_seconds": done * sleep_s / count,
        "slot_s_per_trial_beyond_sleep": summary.seconds * count / done - sleep_s,
        "driver_cpu_ms_per_trial": 1000 * cpu / done, "head_cpu_ms_per_trial": 1000 * head_cpu / done,
        "driver_mib": [round(middle[0]["driver_mib"]), round(middle[-1]["driver_mib"])] if middle else None,
        "head_mib": [round(middle[0]["head_mib"]), round(middle[-1]["head_mib"])] if middle else None,
        "driver_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "shard_loads": summary.shard_loads, "shard_hits": summary.shard_hits, "dataset_bytes": shard_bytes,
        "object_store": watch.object_store,
        "results": rows, "results_read_s": finished_s, "load_average": os.getloadavg()[0], "cores": os.cpu_count(),
    }  # fmt: skip


def model(found: dict) -> None:
    """One driver serves as many slots as it can hand trials to: slots ≤ BUSY · T / (CPU seconds it spends on a trial).

    The head's own process has the same bound; beyond both stands Ray's published envelope. The first that is reached
    is what calls for a second cluster (two grids, or one grid's datasets apart, in one store).
    """
    driver_s, head_s = (found[f"{who}_cpu_ms_per_trial"] / 1000 for who in ("driver", "head"))
    for trial_s in (1, 10, 60, 600, 3600):
        by_driver, by_head = int(BUSY * trial_s / driver_s), int(BUSY * trial_s / max(head_s, 1e-6))
        limits = {"driver": by_driver, "head": by_head, "ray_actors": RAY_ACTORS, "ray_running_tasks": RAY_TASKS}
        first = min(limits, key=limits.get)
        tell("scale.model", trial_s=trial_s, most_slots=limits[first], reached_first=first, **limits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--slots", type=int, default=4, help="a node")
    parser.add_argument("--seconds", type=float, default=2.0, help="what a trial sleeps")
    parser.add_argument("--store", help="a store's URI; a folder that is removed, without it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="equigrid-scale-") as scratch:
        where = chosen.store or f"{scratch}/store"
        measured = measure(chosen.trials, chosen.nodes, chosen.slots, chosen.seconds, where)
    tell("scale", **measured)
    model(measured)
