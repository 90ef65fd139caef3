"""Compactions beside a run."""

import time

import pytest
import ray

from equigrid.grid.running import compaction, driver
from equigrid.grid.running.compaction import Compaction
from equigrid.grid.spec import load


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_compactions_never_overlap(ray_here, mini, store, quiet, monkeypatch):
    """Each reads all loose parts: beside one that is slow, others would do the same work over and
    over.
    """

    def slow() -> tuple[float, float]:
        began_s = time.time()
        time.sleep(0.5)
        return began_s, time.time()

    begun = []

    def compact(self):
        begun.append(ray.remote(num_cpus=0)(slow).remote())
        return begun[-1]

    monkeypatch.setattr(compaction, "EVERY", 1)
    monkeypatch.setattr(Compaction, "_compact", compact)
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "real": [1]}], list(range(8))
    summary, _ = driver.run(load(mini), store, console=quiet)
    times = sorted(ray.get(begun))
    assert 2 <= len(times) <= summary.jobs["trial"]
    assert all(ended_s <= began_s for (_, ended_s), (began_s, _) in zip(times, times[1:]))
