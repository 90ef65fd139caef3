"""A trial's images when they are several times larger than Ray's object store: what the store
holds, what it spills.

Writes a set of random 256×256 images as shards, then reads it for some epochs as a streamed trial
does, through `load_shard` tasks and nested references, and prints images/s, the store's peak, what
was spilled to disk, and this process's memory. The loader alone: nothing is trained.

    python benchmarks/streaming.py --times-store 4 --store-mb 400 --epochs 2
"""

import argparse
import os
import re
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import ray
import torch

from equigrid.classifiers.data.stream import Streamed, StreamedMix
from equigrid.classifiers.recipes import ResolvedRecipe, recipe, resolve
from equigrid.generators.common import pools
from equigrid.grid.datasets import shards
from equigrid.grid.jobs import inputs
from equigrid.grid.jobs.grid_facts import WINDOW_BYTES
from equigrid.grid.running import cluster
from equigrid.grid.running.shard_cache import ShardCache
from equigrid.grid.store import Store

SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store-mb", type=int, default=400, help="Ray's object store")
    parser.add_argument(
        "--times-store", type=float, default=4, help="the set's size in object stores"
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--window-mb", type=int, default=WINDOW_BYTES // 2**20, help="images at hand at once"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store", create=True)
        refs = write_set(store, options.times_store * options.store_mb * 2**20)
        local = {"num_cpus": 2, "object_store_memory": options.store_mb * 2**20}
        with cluster.connected("local", dashboard=False, **local):
            measure(store, refs, options)


def write_set(store: Store, total_bytes: float) -> list[shards.ShardRef]:
    size = pools.shard_size(SIDE, SIDE, 3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, SIDE, SIDE, 3), np.uint8)
    count = max(1, round(total_bytes / images.nbytes))
    refs = []
    for j in range(count):
        labels = rng.integers(0, 100, size)
        refs.append(
            shards.write(
                store, f"datasets/x/train-{j:05d}.json", np.roll(images, j, axis=0), labels
            )
        )
    return refs


def measure(store: Store, refs: list[shards.ShardRef], options) -> None:
    cache = ShardCache(store)
    handles = [cache.handle(ref, "random") for ref in refs]
    parts = inputs.fetchers([(handle, np.arange(ref.n)) for handle, ref in zip(handles, refs)])
    shard_bytes = refs[0].n * SIDE * SIDE * 3
    window = max(1, options.window_mb * 2**20 // shard_bytes)
    mix = StreamedMix(parts, (SIDE, SIDE, 3), window=window)
    feed = Streamed(mix, _recipe(mix.n_total), seed=1, classes=100, device=torch.device("cpu"))
    mib = mix.n_total * SIDE * SIDE * 3 / 2**20
    text = f"{len(refs)} shards, {mix.n_total:,} images, {mib:,.0f} MiB"
    print(f"{text}; object store {options.store_mb} MiB; window {window} shards")
    with Watch() as watch:
        for epoch, seconds, images in epochs(feed, options.epochs):
            mib_per_s = images * SIDE * SIDE * 3 / 2**20 / seconds
            print(f"epoch {epoch}: {images / seconds:,.0f} images/s, {mib_per_s:,.0f} MiB/s")
    print(
        f"object store at most {watch.peak_mb:,.0f} MiB; "
        f"spilled {watch.spilled_mb:,.0f} MiB to disk"
    )
    own_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"this process at most {own_mib:,.0f} MiB, shared pages counted")


def _recipe(n_total: int) -> ResolvedRecipe:
    sizes = {"n_base": n_total, "n_total": max(n_total, 650), "n_dataset": n_total}
    return resolve(recipe("paper/imagenet"), **sizes, classifier="resnet50")


def epochs(feed: Streamed, count: int):
    """(epoch, seconds, images) of each: batches as a training takes them, before augmentation."""
    batches = feed.batches(0, 0)
    try:
        for epoch in range(count):
            began, images = time.perf_counter(), 0
            for _ in range(feed.steps_per_epoch):
                images += next(batches).n_global
            yield epoch, time.perf_counter() - began, images
    finally:
        batches.close()


class Watch:
    """Samples Ray's own account of the object store."""

    def __enter__(self):
        self.peak_mb = self.spilled_mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        from ray._private.internal_api import memory_summary

        address = ray.get_runtime_context().gcs_address
        while not self._over.wait(0.5):
            text = memory_summary(address, stats_only=True)
            if used := re.search(r"Plasma memory usage (\d+) MiB", text):
                self.peak_mb = max(self.peak_mb, float(used[1]))
            if spilled := re.search(r"Spilled (\d+) MiB", text):
                self.spilled_mb = max(self.spilled_mb, float(spilled[1]))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
