"""Ingest: images per second with one and two processes, and the memory of each while a large set
goes through.

    python benchmarks/ingest.py small PARQUET      a folder of 32×32 images in Parquet files, such
    as CIFAR-10
    python benchmarks/ingest.py large [--images N]  a folder of N JPEGs of 400×300, made for it,
    stored at 256×256

Prints a table. Memory is the peak resident set of each process (VmHWM), shared libraries included.
Nothing here asserts: machines differ.
"""

import argparse
import io
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

DISTINCT = 400  # JPEGs that are really encoded; the rest are copies under other names


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    small_command = commands.add_parser("small")
    small_command.add_argument(
        "place", help="a folder or URI with train-*.parquet and test-*.parquet"
    )
    small_command.set_defaults(run=lambda arguments: small(arguments.place))
    large_command = commands.add_parser("large")
    large_command.add_argument("--images", type=int, default=20_000)
    large_command.set_defaults(run=lambda arguments: large(arguments.images))
    arguments = parser.parse_args()
    print(
        f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True
    )
    arguments.run(arguments)


def small(place: str) -> None:
    spec = {"parquet": place}
    tell("", "images", "wall s", "CPU s", "images/s", "peak MiB per process")
    tell("this process, no Ray", *measured(spec, cpus=0))
    tell("Ray, 1 process", *measured(spec, cpus=1))
    tell("Ray, 2 processes", *measured(spec, cpus=2))


def large(images: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder, "set"), images)
        tell("", "images", "wall s", "CPU s", "images/s", "peak MiB per process")
        tell("Ray, 2 processes", *measured({"imagefolder": f"{folder}/set", "size": 256}, cpus=2))


def tell(what: str, *cells) -> None:
    print(
        f"{what:22}" + "".join(f"{cell:>12}" for cell in cells[:-1]) + f"  {cells[-1]}", flush=True
    )


def measured(spec: dict, cpus: int) -> tuple:
    """Images, wall seconds, CPU seconds, images per second and peak MiB of an ingest into an empty
    store.
    """
    from equigrid.grid.datasets import catalogue, ingest
    from equigrid.grid.running import cluster
    from equigrid.grid.store import Store

    with tempfile.TemporaryDirectory() as folder:
        store, source = Store(f"{folder}/store", create=True), catalogue.source(spec)
        if not cpus:
            began, began_cpu = time.perf_counter(), time.process_time()
            dataset = ingest.ingest(store, source)
            wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
            peaks = {os.getpid(): peak_mib(os.getpid())}
        else:
            with cluster.connected("local", dashboard=False, num_cpus=cpus), Watch() as watch:
                began = time.perf_counter()
                dataset = ingest.with_ray(store, source)
                wall_s = time.perf_counter() - began
            cpu_s, peaks = sum(watch.cpu_s.values()), watch.peaks
        n = dataset.shape.n_train + dataset.shape.n_val + dataset.shape.n_test
    listed = ", ".join(f"{peak:.0f}" for peak in sorted(peaks.values(), reverse=True))
    return f"{n:,}", f"{wall_s:.1f}", f"{cpu_s:.1f}", f"{n / wall_s:.0f}", listed


class Watch:
    """Looks, four times a second, at the processes that run ingest tasks: their peak memory and CPU
    time.
    """

    def __enter__(self):
        self.peaks: dict[int, float] = {}
        self.cpu_s: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            for pid in workers() | set(self.peaks):
                try:
                    self.peaks[pid] = max(self.peaks.get(pid, 0), peak_mib(pid))
                    self.cpu_s[pid] = cpu_s(pid)
                except OSError:
                    continue  # it has gone: what was seen last counts


def workers() -> set[int]:
    """Process ids of this user's Ray workers that run a task named `ingest:…` now, below this
    process.
    """
    children: dict[int, list[int]] = {}
    titles = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, wave = set(), [os.getpid()]
    while wave:
        pid = wave.pop()
        wave += children.get(pid, [])
        if titles.get(pid, "").startswith("ray::ingest:"):
            found.add(pid)
    return found


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return (
        next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
        / 1024
    )


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_folder(root: Path, images: int) -> None:
    """Ten classes, a twentieth of the images to test on; smooth pictures with some noise, as
    photographs are.
    """
    from PIL import Image

    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(DISTINCT):
        rough = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((400, 300))
        noisy = np.asarray(rough).astype(np.int16) + rng.integers(-12, 13, (300, 400, 3))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, format="JPEG", quality=90)
        encoded.append(buffer.getvalue())
    test = images // 20
    for split, n, pictures in (
        ("train", images - test, encoded[:380]),
        ("test", test, encoded[380:]),
    ):
        for i in range(n):
            path = root / split / f"class{i % 10}" / f"{i:06d}.jpg"
            if i < 10:
                path.parent.mkdir(parents=True)
            path.write_bytes(pictures[i % len(pictures)])


if __name__ == "__main__":
    main()
