"""The Parquet table of results: one immutable part per attempt, compaction, and reading both as one table.

    results/parts/ID/ATTEMPT.parquet     one row, written by the process that made it
    results/tables/GENERATION.parquet    many rows: a compaction
    results/tables/GENERATION.json       its manifest, written last: the files it stands for

A generation stands for every loose part and every older generation that its compactor saw. Readers take all
generations that no other one stands for, and all loose parts besides, and keep one row per id; so it does not
matter which of two compactors wins, nor when the sources go. They go a grace period after they were replaced.
"""

import io
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.schema import SCHEMA
from grid.ids import new_attempt
from grid.plan import Cell
from grid.store import Store, StoreError

PARTS, TABLES = "results/parts", "results/tables"
GRACE_S = 600  # a reader that listed a file has at least this long to read it
READERS = 16  # parts are small: reading them is waiting


def part_name(trial_id: str, attempt: str) -> str:
    return f"{PARTS}/{trial_id}/{attempt}.parquet"


def write_part(store: Store, row: dict) -> None:
    """Writes one attempt's row. Raises ValueError if it does not fit the schema."""
    if unknown := row.keys() - set(SCHEMA.names):
        raise ValueError(f"result row: no such column: {', '.join(sorted(unknown))}")
    store.put(part_name(row["trial_id"], row["attempt"]), _encode(_table([row])))


def read(store: Store) -> pa.Table:
    """All results, one row per trial id: a success before a failure, then the earliest attempt."""
    _, _, table = _snapshot(store)
    return _one_row_per_id(table)


def compact(store: Store, *, now: float | None = None) -> int:
    """Puts all results into one new generation if that saves files; removes what was replaced long enough ago.

    Returns the number of rows in the generation, or 0 if there was nothing to do. Safe beside readers, writers
    and other compactors: nothing is changed in place, and rows are lost only if they stand in a newer generation.
    """
    now = time.time() if now is None else now
    _remove_replaced(store, now)
    generations, loose, table = _snapshot(store)
    if not loose and len(generations) <= 1:
        return 0
    table = _one_row_per_id(table, keep_attempts=True)
    number = 1 + max((int(name.rsplit("/", 1)[1].split("-")[0]) for name in generations), default=0)
    name = f"{TABLES}/{number:08d}-{new_attempt()}"
    store.put(f"{name}.parquet", _encode(table))
    sources = [*(f"{g}.parquet" for g in generations), *(f"{g}.json" for g in generations), *loose]
    store.put_json(f"{name}.json", {"rows": table.num_rows, "replaces": sources, "written_at_s": now})
    return table.num_rows


def finished(store: Store) -> set[str]:
    """Ids of the trials that have a successful result."""
    table = read(store).select(["trial_id", "status"])
    return {i for i, s in zip(table["trial_id"].to_pylist(), table["status"].to_pylist()) if s == "ok"}


def cell_table(cells: list[Cell], results: pa.Table, *, grid: str, dataset: str) -> pd.DataFrame:
    """The results of a grid's cells, in the schema's columns: one row per cell that has a result.

    A trial that several cells share is there once for each of them, under that cell's labels. grid, dataset: names.
    """
    cells = pd.DataFrame(cells, columns=Cell._fields)
    labels = cells.assign(
        grid=grid,
        dataset=dataset,
        n_total=cells.n_base + cells.n_real_added + cells.n_syn + cells.n_copies,
    )
    frame = results.to_pandas(maps_as_pydicts="strict", types_mapper=_nullable_integers.get)
    outcomes = frame.drop(columns=[c for c in labels.columns if c != "trial_id"])
    joined = labels.merge(outcomes, on="trial_id", how="inner", sort=False)
    return joined[SCHEMA.names].astype({"generator_seed": "Int64"})


_nullable_integers = {pa.int64(): pd.Int64Dtype()}


# How it lies in the store ------------------------------------------------------------------------------------


def _snapshot(store: Store) -> tuple[list[str], list[str], pa.Table]:
    """The files that stand, and all their rows."""
    for _ in range(5):  # a file may go between the listing and the reading; the next listing knows better
        try:
            generations, loose = _sources(store)
            return generations, loose, _read_all(store, generations, loose)
        except FileNotFoundError:
            continue
    raise StoreError(f"store {store.uri}: result files keep vanishing while they are read")


def _sources(store: Store) -> tuple[list[str], list[str]]:
    """Names (without ending) of the generations that stand, and of the loose parts besides."""
    manifests = {name.removesuffix(".json") for name in store.list(TABLES) if name.endswith(".json")}
    replaced: set[str] = set()
    for name in manifests:
        content = store.get_json(f"{name}.json")
        if content is None:
            raise FileNotFoundError(name)
        replaced.update(content["replaces"])
    generations = sorted(name for name in manifests if f"{name}.parquet" not in replaced)
    loose = sorted(name for name in store.list(PARTS) if name not in replaced)
    return generations, loose


def _remove_replaced(store: Store, now: float) -> None:
    tables = set(store.list(TABLES))
    present = tables | set(store.list(PARTS))
    for name in sorted(n for n in tables if n.endswith(".json")):
        content = store.get_json(name)
        if content is None or now - content["written_at_s"] < GRACE_S:
            continue
        for source in content["replaces"]:  # in any order: nobody reads what a standing generation replaced
            if source in present:
                store.delete(source)


def _read_all(store: Store, generations: list[str], loose: list[str]) -> pa.Table:
    with ThreadPoolExecutor(READERS) as pool:
        names = [*(f"{name}.parquet" for name in generations), *loose]
        tables = list(pool.map(lambda name: _decode(store.get(name)), names))
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def _one_row_per_id(table: pa.Table, *, keep_attempts: bool = False) -> pa.Table:
    """One row per trial (or, for compaction, per attempt): successes first, then the earliest attempt."""
    ids, attempts = table["trial_id"].to_pylist(), table["attempt"].to_pylist()
    failed = [status != "ok" for status in table["status"].to_pylist()]
    chosen: dict = {}
    for row in sorted(range(table.num_rows), key=lambda i: (failed[i], attempts[i])):
        chosen.setdefault((ids[row], attempts[row]) if keep_attempts else ids[row], row)
    return table.take(pa.array(sorted(chosen.values()), pa.int64()))


def _table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _encode(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    if table.num_rows > 1:
        pq.write_table(table, sink, compression="zstd")
    else:  # dictionaries and statistics of one row only cost: reading is six times as fast without
        pq.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False)
    return sink.getvalue()


def _decode(data: bytes) -> pa.Table:
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    return table if table.schema.equals(SCHEMA) else table.cast(SCHEMA)
