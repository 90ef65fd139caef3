"""The results table: parts, compaction, and one row per id whatever happened on the way."""

import json
import multiprocessing
import threading
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from equigrid.analysis.schema import COLUMNS, SCHEMA
from equigrid.grid.errors import DocumentError, StoreError
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting import analysis_bridge
from equigrid.grid.spec import load
from equigrid.grid.store import Store, layout, results


def row(trial_id: str, attempt: str = "a", status: str = "ok", **changes) -> dict:
    now = datetime.now(UTC)
    return {
        "trial_id": trial_id, "attempt": attempt, "status": status, "error": None if status == "ok" else "boom",
        "grid": "g", "dataset": "d", "fingerprint": "f", "arm": "base", "classifier": "c", "recipe": "r",
        "n_total": 10, "n_base": 10, "n_nominal": 10, "n_real_added": 0, "n_syn": 0, "n_copies": 0,
        "subset_seed": 0, "seed": 0, "rev": 1, "top1": 50.0, "per_class": [50.0, 50.0], "confusion": [1, 1, 1, 1],
        "shards": ["x"], "versions": {"torch": "2"}, "started_at": now, "finished_at": now, **changes,
    }  # fmt: skip


def rows(store: Store) -> dict[str, dict]:
    return {r["trial_id"]: r for r in results.read(store).to_pylist(maps_as_pydicts="strict")}


def names(store: Store, prefix: str) -> set[str]:
    return set(store.list(prefix))


def test_columns_that_are_younger_than_a_file_are_null(store, monkeypatch):
    """Rows of a store from before a column was added are read, and compacted, beside new ones."""
    young = {"auc", "balanced_accuracy", "energy_kwh", "co2_kg", "pretrained"}
    older = pa.schema([field for field in results.SCHEMA if field.name not in young])
    row = _row_of_a_trial("trial-old")
    with monkeypatch.context() as before:
        before.setattr(results, "SCHEMA", older)
        results.write_part(store, {key: value for key, value in row.items() if key not in young})
    results.write_part(store, {**row, "trial_id": "trial-new", "auc": 91.0})
    for _ in range(2):
        table = results.read(store).to_pylist()
        assert {r["trial_id"]: r["auc"] for r in table} == {"trial-old": None, "trial-new": 91.0}
        assert {r["top1"] for r in table} == {row["top1"]}
        results.compact(store)


def _row_of_a_trial(trial_id: str) -> dict:
    number = {pa.int64(): 1, pa.float64(): 50.0, pa.string(): "x"}
    row = {f.name: number.get(f.type) for f in results.SCHEMA}
    return {**row, "trial_id": trial_id, "status": "ok", "attempt": results.new_attempt()}


def test_the_schema_is_the_contract_column_by_column():
    assert (
        SCHEMA.names
        == (
            "trial_id attempt status error grid dataset fingerprint arm setting generator classifier recipe n_total n_base "
            "n_nominal n_real_added n_syn n_copies subset_seed generator_seed seed rev epochs steps top1 top5 per_class "
            "confusion loss val_top1 seconds images_per_s peak_device_bytes device world_size threads shards versions code "
            "started_at finished_at node balanced_accuracy macro_f1 auc sensitivity specificity "
            "energy_kwh co2_kg by_class augmentation pretrained"
        ).split()
    )
    kinds = {name: str(SCHEMA.field(name).type) for name in SCHEMA.names}
    integers = "n_total n_base n_nominal n_real_added n_syn n_copies subset_seed generator_seed seed rev steps world_size"
    assert all(
        kinds[name] == "int64" for name in [*integers.split(), "peak_device_bytes", "threads"]
    )
    assert all(
        kinds[n] == "double" for n in "epochs top1 top5 loss val_top1 seconds images_per_s".split()
    )
    assert kinds["per_class"].startswith("list<") and "double" in kinds["per_class"]
    assert kinds["confusion"].startswith("list<") and "int64" in kinds["confusion"]
    assert kinds["shards"].startswith("list<") and "string" in kinds["shards"]
    assert kinds["versions"] == "map<string, string>"
    assert kinds["started_at"] == kinds["finished_at"] == "timestamp[us, tz=UTC]"
    assert {name for name, kind in kinds.items() if kind == "string"} == set(
        "trial_id attempt status error grid dataset fingerprint arm setting generator classifier recipe device code node augmentation pretrained".split()
    )
    assert SCHEMA.metadata == {b"schema_version": b"1"}
    assert len(COLUMNS) == 52


def test_a_row_comes_back_as_it_was_written(store):
    written = row("t1", top1=91.25, generator_seed=None)
    results.write_part(store, written)
    read = rows(store)["t1"]
    assert {k: read[k] for k in written} == written
    assert read["generator"] is None
    with pytest.raises(ValueError, match="no such column: accuracy"):
        results.write_part(store, row("t2", accuracy=1.0))


def test_two_attempts_are_one_row_a_success_first_then_the_earliest(store):
    results.write_part(store, row("t", "1", status="failed", top1=None))
    results.write_part(store, row("t", "3", top1=3.0))
    results.write_part(store, row("t", "2", top1=2.0))
    results.write_part(store, row("u", "2", status="failed"))
    results.write_part(store, row("u", "1", status="failed"))
    for _ in range(2):  # loose, then compacted
        found = rows(store)
        assert (found["t"]["attempt"], found["t"]["top1"]) == ("2", 2.0)
        assert found["u"]["attempt"] == "1"
        assert results.finished(store) == {"t"}
        results.compact(store, now=0)


def test_compaction_keeps_every_row_and_removes_sources_only_after_the_grace_period(store):
    for i in range(20):
        results.write_part(store, row(f"t{i}"))
    before, parts = rows(store), names(store, results.PARTS)
    assert results.compact(store, now=1000) == 20
    assert names(store, results.PARTS) == parts  # a reader that listed them may still come for them
    assert rows(store) == before
    assert results.compact(store, now=1001) == 0  # nothing new
    results.write_part(store, row("later"))
    assert results.compact(store, now=1000 + results.GRACE_S) == 21
    assert names(store, results.PARTS) == {layout.result_part("later", "a")}
    assert rows(store).keys() == before.keys() | {"later"}
    results.write_part(store, row("last"))
    results.compact(store, now=3000 + results.GRACE_S)
    results.write_part(store, row("very last"))
    results.compact(store, now=9000 + results.GRACE_S)
    # The last generation, and the one whose grace still runs.
    assert len(names(store, results.TABLES)) == 4
    assert len(rows(store)) == 23


def test_a_compactor_that_dies_before_its_manifest_changes_nothing(store, monkeypatch):
    results.write_part(store, row("t"))
    put = Store.put

    def die(self, name, data):
        if name.endswith(".json"):
            raise KeyboardInterrupt
        put(self, name, data)

    monkeypatch.setattr(Store, "put", die)
    with pytest.raises(KeyboardInterrupt):
        results.compact(store)
    monkeypatch.undo()
    assert rows(store).keys() == {"t"}
    assert results.compact(store) == 1
    assert rows(store).keys() == {"t"}


def test_two_compactors_at_once_lose_and_double_nothing(store):
    for i in range(6):
        results.write_part(store, row(f"t{i}"))
    reader = results.Reader(store)
    sources, table = reader.snapshot(), reader.read()
    results.compact(store, now=10)
    # The second one saw the store before the first had written.
    name = f"{results.TABLES}/00000001-second"
    store.put(f"{name}.parquet", results._encode(table))
    store.put_json(f"{name}.json", {"rows": 6, "replaces": sources.files, "written_at_s": 10})
    assert results.read(store).num_rows == 6
    assert results.compact(store, now=20) == 6
    assert results.read(store).num_rows == 6
    results.compact(store, now=20 + 2 * results.GRACE_S)
    assert results.read(store).num_rows == 6


@pytest.mark.long
def test_readers_during_writing_and_compaction_see_every_finished_row(store, monkeypatch):
    """With no grace at all sources vanish under the reader, which then must look again."""
    monkeypatch.setattr(results, "GRACE_S", 0)
    errors, count, stop = [], 0, threading.Event()

    def compact():
        while not stop.is_set():
            results.compact(store)

    def read():
        seen = 0
        while not stop.is_set():
            before = count
            try:
                found = results.read(store).num_rows
            except OSError as error:
                errors.append(error)
                return
            if found < max(before, seen):
                errors.append(AssertionError(f"{found} rows after {max(before, seen)}"))
            seen = found

    threads = [threading.Thread(target=target) for target in (compact, read)]
    for thread in threads:
        thread.start()
    for i in range(150):
        results.write_part(store, row(f"t{i}"))
        count = i + 1
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert results.read(store).num_rows == 150


def writer(uri: str, first: int, count: int) -> None:
    store = Store(uri)
    for i in range(first, first + count):
        results.write_part(store, row(f"t{i}", f"{i:06d}", status="failed", top1=None))
        results.write_part(store, row(f"t{i}", f"{i:06d}-again", top1=i / 2))
        if i % 3 == 0:  # as a second driver does that runs the same trial
            results.write_part(store, row(f"t{i}", f"{i:06d}-twice", top1=99.5))


def compactor(uri: str, stop) -> None:
    results.GRACE_S, results.FULL_ROWS = 0, 100
    while not stop.is_set():
        results.compact(Store(uri))


def reader(uri: str, stop, wrong) -> None:
    kept, seen = results.Reader(Store(uri), ["trial_id", "top1", "status"]), {}
    while not stop.is_set():
        table = kept.read()
        found = {r["trial_id"]: r["top1"] for r in table.to_pylist() if r["status"] == "ok"}
        if table.num_rows != len(set(table["trial_id"].to_pylist())):
            wrong.put("an id is there twice")
        if any(found.get(i) != top1 for i, top1 in seen.items()):
            wrong.put(f"{len(seen.keys() - found.keys())} successes went away, or changed")
        seen = found


@pytest.mark.long
def test_processes_that_write_compact_and_read_together(store):
    """Three writers, two compactors with no grace and small generations, two readers: all rows,
    each once, for ever.
    """
    context = multiprocessing.get_context("fork")
    stop, wrong, n = context.Event(), context.Queue(), 60
    others = [context.Process(target=compactor, args=(store.uri, stop)) for _ in range(2)]
    others += [context.Process(target=reader, args=(store.uri, stop, wrong)) for _ in range(2)]
    writers = [context.Process(target=writer, args=(store.uri, i * n, n)) for i in range(3)]
    for process in others + writers:
        process.start()
    for process in writers:
        process.join(120)
    stop.set()
    for process in others:
        process.join(60)
    assert wrong.empty(), wrong.get()
    assert [process.exitcode for process in others + writers] == [0] * 7
    for _ in range(2):
        assert {i: r["top1"] for i, r in rows(store).items()} == {
            f"t{i}": i / 2 for i in range(3 * n)
        }
        assert results.finished(store) == {f"t{i}" for i in range(3 * n)}
        results.compact(store)


def test_a_reader_reads_every_file_once(store, monkeypatch):
    for i in range(5):
        results.write_part(store, row(f"t{i}", top1=float(i)))
    reads, get = [], Store.get
    monkeypatch.setattr(Store, "get", lambda self, name: reads.append(name) or get(self, name))
    kept = results.Reader(store, ["trial_id", "top1"])
    assert kept.read().column_names == ["trial_id", "top1"]
    assert len(reads) == 5
    results.write_part(store, row("t5", top1=5.0))
    assert kept.read().num_rows == 6
    assert len(reads) == 6
    results.compact(store)
    reads.clear()
    assert dict(zip(*kept.read().to_pydict().values())) == {f"t{i}": float(i) for i in range(6)}
    assert [name.rsplit(".")[-1] for name in reads] == ["json", "parquet"]
    reads.clear()
    kept.read()
    assert not reads


def test_a_full_generation_is_not_written_again(store, monkeypatch):
    monkeypatch.setattr(results, "FULL_ROWS", 10)
    written = []
    for i in range(45):
        results.write_part(store, row(f"t{i}"))
        written.append(results.compact(store, now=i * 2 * results.GRACE_S))
    assert max(written) == 10
    assert written[-1] == 5
    assert results.compact(store, now=10**9) == 0  # and removes the last sources
    assert len(names(store, results.TABLES)) == 2 * 5
    assert not names(store, results.PARTS)
    assert rows(store).keys() == {f"t{i}" for i in range(45)}


def test_a_result_file_that_was_cut_is_named_and_not_used(store):
    results.write_part(store, row("good"))
    results.write_part(store, row("bad"))
    name = layout.result_part("bad", "a")
    data = store.get(name)
    for damaged in (b"", data[:-50], data[:200] + b"\0" + data[201:]):
        store.put(name, damaged)
        with pytest.raises(
            StoreError, match=f"{name} is not (a table of results|what was written)"
        ):
            results.read(store)
    store.put(name, data)
    assert rows(store).keys() == {"good", "bad"}


def test_parts_of_an_earlier_layout_are_read_too(store):
    results.write_part(store, row("t"))
    store.put(f"{results.PARTS}/u/a.parquet", results._encode(results._table([row("u")])))
    assert rows(store).keys() == {"t", "u"}
    results.compact(store)
    assert rows(store).keys() == {"t", "u"}


def test_other_tools_can_read_a_part(store, tmp_path):
    results.write_part(store, row("t"))
    table = pq.read_table(store.path(layout.result_part("t", "a")))
    assert table.schema.metadata[b"schema_version"] == b"1"
    assert table.schema.equals(SCHEMA)


def test_cells_that_share_a_trial_each_have_its_outcome(store, mini):
    the_plan = plan(resolve(load(mini), None))
    shared = next(
        trial_id for trial_id, cells in the_plan.cells_by_trial().items() if len(cells) == 2
    )
    results.write_part(store, row(shared, top1=77.0))
    results.write_part(store, row("of another grid", top1=1.0))
    table = analysis_bridge.read_table(store, the_plan)
    assert list(table.columns) == SCHEMA.names
    assert list(zip(table.arm, table.n_base, table.n_real_added, table.top1)) == [
        ("real", 60, 60, 77.0), ("base", 120, 0, 77.0),
    ]  # fmt: skip
    assert set(table.grid) == {"mini"}
    assert json.loads(table.to_json(orient="records"))
    assert pa.Table.from_pandas(table, schema=SCHEMA, preserve_index=False).num_rows == 2


@pytest.mark.parametrize("changes", [
    {"top1": float("nan")}, {"top1": -5.0}, {"top5": 1e308}, {"per_class": [50.0, float("inf")]},
    {"seconds": -1.0}, {"n_base": -1}, {"steps": 2**62}, {"confusion": [-1, 1]}, {"status": "odd"},
    {"energy_kwh": float("nan")},
])  # fmt: skip
def test_a_value_that_no_training_gives_is_refused_with_its_file(store, changes):
    """Whole, with the digest that is right: written by another program, or a fault of one."""
    results.write_part(store, row("t-1"))
    results.write_part(store, row("t-2", **changes))
    with pytest.raises(
        DocumentError, match=r"t-2-a\.parquet is not a table of results: .*remove it"
    ):
        results.read(store)
    store.delete(layout.result_part("t-2", "a"))
    assert set(rows(store)) == {"t-1"}


def test_what_a_row_leaves_out_is_no_wrong_value(store):
    nothing = dict.fromkeys(("top1", "per_class", "confusion", "loss", "seconds", "steps"))
    results.write_part(store, row("t-1", status="failed", **nothing))
    results.write_part(
        store, row("t-2", top1=0.0, per_class=[None, 100.00000762], loss=float("inf"))
    )
    absent = float("nan")  # a class of which the test set has no image
    results.write_part(store, row("t-3", per_class=[absent, 50.0]))
    assert set(rows(store)) == {"t-1", "t-2", "t-3"}
