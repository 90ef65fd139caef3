"""Garbage collection: what no recorded grid needs goes once it is old enough, and not one thing
more.
"""

import copy
import os
import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from equigrid.grid import gc
from equigrid.grid.datasets import catalogue, ingest, shards
from equigrid.grid.errors import UserError
from equigrid.grid.planning.planner import Plan, plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import Store, lock, results

OLD_S = 2 * gc.YOUNG_S


def record(store: Store, mapping: dict) -> Plan:
    """A recorded grid with its dataset in the store."""
    spec = load(mapping)
    store.put_json(f"grids/{spec.name}/spec.json", spec.model_dump(mode="json"))
    ingest.ingest(store, catalogue.source(spec.dataset))
    return plan(resolve(spec, store))


def finish(store: Store, the_plan: Plan) -> None:
    """Outputs for all of a plan's jobs, as their bodies leave them."""
    for job in the_plan.of_kind("generator"):
        weights = f"generators/{job.id}/weights-b.safetensors"
        store.put(weights, b"w" * 100)
        store.put(f"generators/{job.id}/log-b.parquet", b"l")
        store.put_json(f"generators/{job.id}/manifest.json", {"weights": weights})
    for job in the_plan.of_kind("shard"):
        write_shard(store, job.id, b"d")
    for trial_id, (cell, *_) in the_plan.cells_by_trial().items():
        labels = {
            key: value for key, value in cell._asdict().items() if key in results.SCHEMA.names
        }
        facts = {
            "attempt": "a",
            "status": "ok",
            "grid": "g",
            "dataset": "digits",
            "fingerprint": "f",
            "rev": 1,
        }
        row = {
            **labels,
            **facts,
            "trial_id": trial_id,
            "n_total": cell.n_total,
            "finished_at": datetime.now(UTC),
        }
        results.write_part(store, row)


def write_shard(store: Store, shard_id: str, content: bytes) -> None:
    data = f"pools/{shard_id}-{content.hex()}.safetensors"
    store.put(data, content)
    store.put_json(
        f"pools/{shard_id}.json", {"data": data, "checksum": "0", "n": 1, "columns": None}
    )


def age(store: Store, seconds: float = OLD_S) -> None:
    at = time.time() - seconds
    for folder, _, files in os.walk(store.uri):
        for file in files:
            os.utime(os.path.join(folder, file), (at, at))


def garbage(store: Store, *, aged: bool = True) -> dict[str, str]:
    if aged:
        age(store)
    return {item.name: item.why for item in gc.plan_gc(store, gc.recorded(store))}


def ids(the_plan: Plan, kind: str) -> list[str]:
    return [job.id for job in the_plan.of_kind(kind)]


def test_a_finished_grid_holds_nothing_to_remove(store, mini):
    finish(store, record(store, mini))
    results.compact(store)
    assert garbage(store) == {}


def test_what_only_training_needed_goes_once_it_is_done(store, mini):
    the_plan = record(store, mini)
    trial, other = ids(the_plan, "trial")[:2]
    generator, shard = ids(the_plan, "generator")[0], ids(the_plan, "shard")[0]
    unfinished = {f"checkpoints/{trial}/0001-a.pt", f"generators/{generator}/checkpoints/0001-a.pt"}
    for name in unfinished | {f"checkpoints/{other}/0002-a.pt"}:
        store.put(name, b"c" * 10)
    store.put_json(f"failures/{generator}/a.json", {"error": "boom"})
    store.put_json(f"failures/{shard}/a.json", {"error": "boom"})
    assert garbage(store) == {}  # all of it may still be needed
    finish(store, the_plan)
    store.put(
        f"generators/{generator}/weights-a.safetensors",
        b"of an attempt that died before its manifest",
    )
    store.put(f"generators/{generator}/artefacts/latents.json", b"{}")
    store.put(f"generators/{generator}/sheets/0001.png", b"to be looked at")
    store.put(f"pools/{shard}-e0.safetensors", b"of a shard that was made again")
    assert garbage(store) == {
        **dict.fromkeys(unfinished | {f"checkpoints/{other}/0002-a.pt"}, gc.TRAINED),
        f"generators/{generator}/artefacts/latents.json": gc.TRAINED,
        f"generators/{generator}/weights-a.safetensors": gc.LEFTOVER,
        f"pools/{shard}-e0.safetensors": gc.LEFTOVER,
        f"failures/{generator}/a.json": gc.OVERCOME,
        f"failures/{shard}/a.json": gc.OVERCOME,
    }


def test_data_without_a_manifest_stays_while_its_job_is_wanted(store, mini):
    """A generator that died between weights and manifest is trained again from its checkpoint."""
    generator = ids(the_plan := record(store, mini), "generator")[0]
    shard = ids(the_plan, "shard")[0]
    store.put(f"generators/{generator}/weights-a.safetensors", b"w")
    store.put(f"generators/{generator}/weights-b.safetensors", b"w")
    store.put(f"pools/{shard}-e0.safetensors", b"d")
    assert garbage(store) == {}


def test_what_no_grid_names_goes_and_what_another_grid_shares_stays(store, mini, tmp_path):
    smaller = copy.deepcopy(mini)
    smaller["name"], smaller["blocks"][0]["n_base"] = "small", [60]
    both, small = record(store, mini), record(store, smaller)
    finish(store, both)
    finish(store, small)
    assert small.jobs.keys() < both.jobs.keys()
    store.put("checkpoints/trial-of-nobody/1.pt", b"x")
    store.delete("grids/mini/spec.json")
    before = {entry.name: entry.bytes for entry in store.entries("results")}
    why = garbage(store)
    gone = both.jobs.keys() - small.jobs.keys()
    (generator,) = gone & set(ids(both, "generator"))
    (shard,) = gone & set(ids(both, "shard"))
    assert why == dict.fromkeys(
        [
            "checkpoints/trial-of-nobody/1.pt", f"generators/{generator}/manifest.json",
            f"generators/{generator}/weights-b.safetensors", f"generators/{generator}/log-b.parquet",
            f"pools/{shard}.json", f"pools/{shard}-64.safetensors",
        ],
        gc.NOT_NEEDED,
    )  # fmt: skip
    sizes = {
        entry.name: entry.bytes
        for prefix in ("checkpoints", "generators", "pools")
        for entry in store.entries(prefix)
    }
    assert gc.collect(store, gc.plan_gc(store, gc.recorded(store))) == sum(
        sizes[name] for name in why
    )
    assert garbage(store) == {}
    # Results are never touched.
    assert {entry.name: entry.bytes for entry in store.entries("results")} == before
    assert set(ids(small, "generator")) == {name.split("/")[1] for name in store.list("generators")}


def test_a_dataset_that_no_grid_names_goes_whole(store, mini, tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (40, 8, 8), dtype=np.uint8),
        "train_labels": np.arange(40) % 2,
    }
    arrays |= {
        "test_images": arrays["train_images"][:10],
        "test_labels": arrays["train_labels"][:10],
    }
    np.savez(tmp_path / "x.npz", **arrays)
    finish(store, record(store, mini))
    mine = set(store.list("datasets"))
    ingest.ingest(store, catalogue.source({"npz": str(tmp_path / "x.npz")}))
    theirs = set(store.list("datasets")) - mine
    assert len(theirs) >= 3
    assert garbage(store) == dict.fromkeys(theirs, gc.NOT_NEEDED)
    gc.collect(store, gc.plan_gc(store, gc.recorded(store)))
    dataset = gc.recorded(store)[0].resolved.dataset
    assert all(len(shards.read(store, ref)[1]) == ref.n for ref in (*dataset.train, *dataset.test))


def test_young_things_stay(store, mini):
    record(store, mini)
    store.put("checkpoints/trial-of-nobody/1.pt", b"x")
    assert garbage(store, aged=False) == {}
    age(store, gc.YOUNG_S - 60)
    assert garbage(store, aged=False) == {}
    assert garbage(store) == {"checkpoints/trial-of-nobody/1.pt": gc.NOT_NEEDED}


def test_a_grid_that_runs_is_left_alone(store, mini):
    the_plan = record(store, mini)
    finish(store, the_plan)
    generator = ids(the_plan, "generator")[0]
    names = [
        f"generators/{generator}/weights-a.safetensors",
        f"checkpoints/{ids(the_plan, 'trial')[0]}/1.pt",
    ]
    for name in names:
        store.put(name, b"x")
    with lock.acquire(store, "mini"):
        assert garbage(store) == {}
    assert garbage(store).keys() == set(names)


def test_what_writers_left_when_they_died(store, mini):
    finish(store, record(store, mini))
    aside = f"pools/p/.aside-0123-00000-{'a' * 12}.safetensors"
    for name in (aside, "results/parts/.aside-0123-t.parquet", "results/tables/00000001-x.parquet"):
        path = store.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"half")
    assert Counter(garbage(store).values()) == {gc.UNFINISHED: 3}
    gc.collect(store, gc.plan_gc(store, gc.recorded(store)))
    assert not os.path.exists(store.path(aside))
    assert garbage(store) == {}


def test_replaced_tables_go_and_their_rows_stay(store, mini, monkeypatch):
    finish(store, record(store, mini))
    results.compact(store, now=0)
    age(store)
    rows = results.read(store).num_rows
    why = garbage(store)
    assert set(why.values()) == {gc.REPLACED}
    assert len(why) == rows == 18
    gc.collect(store, gc.plan_gc(store, gc.recorded(store)))
    assert results.read(store).num_rows == rows
    assert list(store.list(results.PARTS)) == []


def test_a_grid_that_cannot_be_planned_keeps_everything(store, mini):
    record(store, mini)
    store.put_json(
        "grids/gone/spec.json", {**mini, "name": "gone", "dataset": {"npz": "/nowhere/x.npz"}}
    )
    assert len(gc.recorded(store)) == 1, "a first start that failed has nothing in the store"
    store.put_json("grids/gone/runs/a.json", {})
    with pytest.raises(
        UserError, match=r"grids/gone/spec.json.*not known.*run it again, or remove"
    ):
        gc.recorded(store)
    store.put_json("grids/gone/spec.json", {"name": "gone", "of": "another version"})
    with pytest.raises(UserError, match=r"grids/gone/spec.json.*not known"):
        gc.recorded(store)


def test_a_grid_whose_dataset_left_the_store_keeps_everything(store, mini):
    the_plan = record(store, mini)
    finish(store, the_plan)
    store.put_json("grids/mini/runs/a.json", {})
    store.delete(the_plan.resolved.dataset.manifest)
    with pytest.raises(UserError, match="its dataset is not in the store"):
        gc.recorded(store)


def test_manifests_go_before_their_data(store, monkeypatch):
    names = ["pools/p/00000-a.safetensors", "pools/p/00000.json"]
    for name in names:
        store.put(name, b"12")
    order, delete = [], Store.delete
    monkeypatch.setattr(
        Store, "delete", lambda self, *names: order.append(names) or delete(self, *names)
    )
    assert gc.collect(store, [gc.Garbage(name, 2, gc.NOT_NEEDED) for name in names]) == 4
    assert order == [("pools/p/00000.json",), ("pools/p/00000-a.safetensors",)]
    assert list(store.list("pools")) == []


def test_a_store_without_a_grid_is_not_emptied(store):
    store.put("pools/p/00000.json", b"{}")
    with pytest.raises(UserError, match="records no grid"):
        gc.recorded(store)
