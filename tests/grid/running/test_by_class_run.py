"""Whole runs with classes of unequal shares: the images that trials saw are counted by their
labels.
"""

from collections import Counter

import numpy as np
import pytest

from equigrid.grid.datasets import shards
from equigrid.grid.reporting import analysis_bridge
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, documents
from equigrid.grid.store.layout import POOLS

FOURTH = {str(digit): 4 if digit == 3 else 1 for digit in range(10)}


def run(tmp_path, mini, quiet, name="store"):
    store = Store(tmp_path / name, create=True)
    summary, the_plan = driver.run(load(mini), store, console=quiet)
    assert not summary.failures, summary.failures
    return store, the_plan, analysis_bridge.read_table(store, the_plan)


def labels_by_checksum(store, the_plan) -> dict[str, np.ndarray]:
    found = {}
    for job in the_plan.of_kind("shard"):
        content = documents.read(store, POOLS.manifest(job.id), documents.ShardRecord)
        ref = shards.ref(POOLS.manifest(job.id), content)
        found[ref.checksum] = shards.read(store, ref)[1]
    return found


def counted(row, n: int, labels: dict[str, np.ndarray]) -> np.ndarray:
    """Classes of the first n synthetic images of a row's shards, in the order it consumed them."""
    own = [labels[checksum] for checksum in row["shards"] if checksum in labels]
    return np.bincount(np.concatenate(own)[:n], minlength=10)


@pytest.mark.long
@pytest.mark.parametrize("balance", ["as_data", "mapping"])
@pytest.mark.usefixtures("one_slot")
def test_a_run_with_a_balance_trains_on_these_shares(ray_here, tmp_path, mini, quiet, balance):
    mini["dataset"] = {"digits": None, "keep": {"7": 40, "8": 20, "9": 10}}
    mini["generators"]["edm"]["balance"] = FOURTH if balance == "mapping" else balance
    mini["seeds"] = [0]
    mini["blocks"] = [{"n_base": 120, "syn": {"edm": 1}, "copies": 1}]
    store, the_plan, table = run(tmp_path, mini, quiet)
    counts = np.array(the_plan.resolved.shape.train_counts)
    shares = np.array([*FOURTH.values()]) if balance == "mapping" else counts
    wanted = 120 * shares / shares.sum()
    (row,) = table[table["arm"] == "syn"].to_dict("records")
    found = counted(row, row["n_syn"], labels_by_checksum(store, the_plan))
    # Sainte-Laguë keeps no quota: a large class may get a little more than one image too many.
    assert found.sum() == 120 and (np.abs(found - wanted) < 2).all()
    assert found.max() > 2 * found.min()
    assert set(table["status"]) == {"ok"} and len(table) == 3


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_a_run_by_class_trains_on_these_images_and_says_so(ray_here, tmp_path, mini, quiet):
    mini["dataset"] = {"digits": None, "keep": {"8": 12, "9": 6}}
    mini["subset_seeds"] = [0, 1]
    amounts = [{"8": 3, "9": "25 images"}, "to_balance"]
    mini["blocks"] = [{"n_base": 200, "syn": {"edm": amounts}, "copies": amounts}]
    store, the_plan, table = run(tmp_path, mini, quiet)
    assert set(table["status"]) == {"ok"}
    labels = labels_by_checksum(store, the_plan)
    made = Counter(the_plan.pools[job.payload.pool].label for job in the_plan.of_kind("shard"))
    assert None not in made
    chosen = table[table["by_class"].notna()]
    assert len(chosen) == 2 * 2 * 2 * 2
    for row in chosen.to_dict("records"):
        assert sum(row["by_class"]) == row["n_syn"] + row["n_copies"]
        assert row["n_total"] == 200 + sum(row["by_class"])
        if row["arm"] == "syn":  # pools of one class each, in the order of the classes
            own = [labels[checksum] for checksum in row["shards"] if checksum in labels]
            assert all(len(set(one)) == 1 for one in own)
            assert {int(one[0]) for one in own} == {c for c, n in enumerate(row["by_class"]) if n}
    table_, analysis = analysis_bridge.fit(store, the_plan)
    assert len(analysis.chosen) == 4
    path = analysis_bridge.write_report(store, the_plan, table_, analysis, tmp_path / "report")
    page = path.read_text()
    assert "Chosen classes" in page and "balanced accuracy" in page
    assert "25 of 9" in page
    again, _ = driver.run(load(mini), store, console=quiet)
    assert not sum(again.jobs.values())
