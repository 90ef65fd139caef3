"""The Parquet table of results: one immutable part per attempt, compaction, and reading both as one
table.

    results/parts/ID-ATTEMPT.parquet     one row, written by the process that made it
    results/tables/GENERATION.parquet    many rows: a compaction
    results/tables/GENERATION.json       its manifest, written last: the files it stands for

A generation stands for every loose part and every small generation that its compactor saw; one of
FULL_ROWS is left as it is, so that no compaction holds more than a bounded part of the table.
Readers take all generations that no other one stands for, and all loose parts besides, and keep one
row per id; so it does not matter which of two compactors wins, nor when the sources go. They go a
grace period after they were replaced.
"""

import hashlib
import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from equigrid.analysis.schema import SCHEMA, STATUSES
from equigrid.grid.errors import DocumentError, StoreError
from equigrid.grid.ids import new_attempt
from equigrid.grid.store import CONNECTIONS, Store, documents, layout
from equigrid.grid.store.documents import Generation
from equigrid.grid.store.layout import PARTS, TABLES
from equigrid.grid.store.store import Altered

GRACE_S = 600  # a reader that listed a file has at least this long to read it
FULL_ROWS = 20_000
LOT = 2000  # files read at once
KEYS = ["trial_id", "attempt", "status"]  # what decides which row of a trial stands


def write_part(store: Store, row: dict) -> None:
    """Writes one attempt's row. Raises ValueError if it does not fit the schema."""
    if unknown := row.keys() - set(SCHEMA.names):
        raise ValueError(f"result row: no such column: {', '.join(sorted(unknown))}")
    store.put(layout.result_part(row["trial_id"], row["attempt"]), _encode(_table([row])))


def read(store: Store, columns: list[str] | None = None) -> pa.Table:
    """All results, one row per trial id: a success before a failure, then the earliest attempt."""
    return Reader(store, columns).read()


class Reader:
    """All results, as often as they are asked for: no file ever changes, so each is read once.

    attempts: every attempt at a trial has its row, not the trial alone; small: without the
    generations that are full.
    """

    def __init__(
        self,
        store: Store,
        columns: list[str] | None = None,
        *,
        attempts: bool = False,
        small: bool = False,
    ):
        self.store = store
        self._wanted = columns or SCHEMA.names
        self._attempts = attempts
        self._small = small
        self._columns = [name for name in SCHEMA.names if name in {*KEYS, *self._wanted}]
        self._manifests: dict[str, Generation] = {}
        self._read: set[str] = set()
        self._table = pa.schema([SCHEMA.field(name) for name in self._columns]).empty_table()

    def read(self) -> pa.Table:
        """One row per trial id, in the columns asked for; a row that was there once is there in
        every later reading.
        """
        self.snapshot()
        return self._table.select(self._wanted)

    def snapshot(self) -> "_Sources":
        """The files that stand now, once all of them are read."""
        # A file may go between the listing and the reading; the next listing knows better.
        for attempt in range(5):
            time.sleep(0.1 * attempt)
            try:
                sources = _sources(self.store, self._manifests, FULL_ROWS if self._small else None)
                self._add([name for name in sources.files if name not in self._read])
                return sources
            except FileNotFoundError as error:
                gone = error
        raise StoreError(
            f"store {self.store.uri}: result files keep vanishing while they are read: {gone}"
        )

    def _add(self, names: list[str]) -> None:
        tables = [self._table]
        # Each lot made one: a table of one row takes the memory of a hundred.
        for start in range(0, len(names), LOT):
            # Parts are small: reading them is waiting.
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                lot = list(pool.map(self._file, names[start : start + LOT]))
            tables.append(pa.concat_tables(lot).combine_chunks())
            if wrong_value(
                tables[-1]
            ):  # of which file is asked only then: of thousands it takes time
                self._refuse(names[start : start + LOT], lot)
        if names:
            self._table = _one_row_each(pa.concat_tables(tables), attempts=self._attempts)
            self._read.update(names)

    def _refuse(self, names: list[str], lot: list[pa.Table]) -> None:
        """Raises DocumentError, which names the first of these files that holds a wrong value."""
        for name, table in zip(names, lot, strict=True):
            if why := wrong_value(table):
                right = "remove it: what it tells of is trained again"
                text = f"store {self.store.uri}: {name} is not a table of results: {why}; {right}"
                raise DocumentError(text, name=name, why=why)

    def _file(self, name: str) -> pa.Table:
        return self.store.get_decoded(
            name, lambda data: _decode(data, self._columns), "a table of results"
        )


def compact(store: Store, *, now: float | None = None) -> int:
    """Puts all loose results into one new generation if that saves files; removes what was replaced
    long enough ago.

    Returns the number of rows in the generation, or 0 if there was nothing to do. Safe beside
    readers, writers and other compactors: nothing is changed in place, and rows are lost only if
    they stand in a newer generation.
    """
    now = time.time() if now is None else now
    store.delete(*replaced(store, now=now))
    reader = Reader(store, attempts=True, small=True)
    sources = reader.snapshot()
    small = sources.generations
    if not sources.loose and len(small) <= 1:
        return 0
    table = reader.read()
    number = 1 + max((layout.generation_number(name) for name in small), default=0)
    name = layout.generation(number, new_attempt())
    store.put(layout.generation_rows(name), _encode(table))
    replaces = [*sources.files, *map(layout.generation_manifest, small)]
    manifest = {"rows": table.num_rows, "replaces": replaces, "written_at_s": now}
    store.put_json(layout.generation_manifest(name), manifest)
    return table.num_rows


def finished(store: Store) -> set[str]:
    """Ids of the trials that have a successful result."""
    table = read(store, KEYS)
    ids, states = table["trial_id"].to_pylist(), table["status"].to_pylist()
    return {str(one) for one, state in zip(ids, states) if state == "ok"}


def replaced(store: Store, *, now: float | None = None) -> list[str]:
    """Files that a generation replaced more than GRACE_S ago: no reader needs them."""
    now = time.time() if now is None else now
    tables, gone = set(store.list(TABLES)), set()
    for name in sorted(filter(layout.is_generation_manifest, tables)):
        content = documents.read(store, name, Generation)
        if content is not None and now - content.written_at_s >= GRACE_S:
            gone.update(content.replaces)
    return sorted(gone & {*tables, *store.list(PARTS)}) if gone else []


# How it lies in the store -------------------------------------------------------------------------


class _Sources(NamedTuple):
    """The generations that stand (names without ending), and the loose parts besides."""

    generations: list[str]
    loose: list[str]

    @property
    def files(self) -> list[str]:
        return [*map(layout.generation_rows, self.generations), *self.loose]


def _sources(store: Store, manifests: dict[str, Generation], full_rows: int | None) -> _Sources:
    """What stands now, but for generations of `full_rows`. `manifests`: those read before, which is
    brought up to date. Raises FileNotFoundError.
    """
    # First: what a compaction takes from here meanwhile stands in its table then.
    parts = sorted(filter(layout.is_result_part, store.list(PARTS)))
    present = sorted(filter(layout.is_generation_manifest, store.list(TABLES)))
    for name in set(manifests) - set(present):
        del manifests[name]
    for name in present:
        if name not in manifests:
            content = documents.read(store, name, Generation)
            if content is None:
                raise FileNotFoundError(name)
            manifests[name] = content
    replaced = {source for content in manifests.values() for source in content.replaces}
    standing = [
        layout.generation_of(name)
        for name, content in sorted(manifests.items())
        if name not in replaced and (full_rows is None or content.rows < full_rows)
    ]
    return _Sources(standing, [name for name in parts if name not in replaced])


def _one_row_each(table: pa.Table, *, attempts: bool) -> pa.Table:
    """One row per trial (or per attempt): successes first, then the earliest attempt."""
    ids, names = table["trial_id"].to_pylist(), table["attempt"].to_pylist()
    failed = [status != "ok" for status in table["status"].to_pylist()]
    chosen: dict = {}
    for row in sorted(range(table.num_rows), key=lambda i: (failed[i], names[i])):
        chosen.setdefault((ids[row], names[row]) if attempts else ids[row], row)
    return (
        table
        if len(chosen) == table.num_rows
        else table.take(pa.array(sorted(chosen.values()), pa.int64()))
    )


def _table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _encode(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    how: dict[str, Any] = {"compression": "zstd"}
    if table.num_rows <= 1:
        # Dictionaries and statistics of one row only cost: reading is six times as fast without.
        how = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(sink, table.schema, write_page_checksum=True, **how) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_DIGEST: "0" * 32})
    data = sink.getvalue()
    place = _digest_place(data)
    assert place is not None, "it was written just now"
    return data[:place] + _digest(data, place) + data[place + 32 :]


# Parquet's own checksums are of pages: a bit that flips in a footer would make a column vanish, or
# be another one's. So the footer has a digest of the whole file, itself counted as zeros.
_DIGEST = "equigrid.digest"


def _digest_place(data: bytes) -> int | None:
    """Where the 32 hexadecimal digits stand; None in a file of before there were any."""
    key = _DIGEST.encode() + b"\x18\x20"  # then, as Thrift has it, a text of 32 bytes
    found = data.rfind(key)
    return None if found < 0 else found + len(key)


def _digest(data: bytes, place: int) -> bytes:
    digest = hashlib.blake2b(data[:place], digest_size=16)
    digest.update(b"0" * 32)
    digest.update(data[place + 32 :])
    return digest.hexdigest().encode()


def _decode(data: bytes, columns: list[str]) -> pa.Table:
    """Raises ValueError if these are not the bytes that were written."""
    place = _digest_place(data)
    if place is not None and data[place : place + 32] != _digest(data, place):
        raise Altered
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        there = set(file.schema_arrow.names)
        table = file.read(columns=[name for name in columns if name in there], use_threads=False)
        if lacking := [name for name in KEYS if name not in there]:
            raise ValueError(f"it has no column {lacking[0]}")
        return _in_columns(table, columns, there)
    except (OSError, pa.ArrowException, MemoryError, OverflowError) as error:
        raise ValueError(str(error)) from error


_COUNTS = ("n_total", "n_base", "n_nominal", "n_real_added", "n_syn", "n_copies", "steps")
# What no training gives; null is for what a row does not tell. A loss may be infinite, and a
# percentage rounded in float32.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("top1", "top5", "val_top1", "per_class"), (0, 100.0001)),
    **dict.fromkeys(("seconds", "epochs", "energy_kwh", "co2_kg"), (0, 1e15)),
    **dict.fromkeys((*_COUNTS, "confusion"), (0, 2**53)),
}


def wrong_value(table: pa.Table) -> str | None:
    """The first value in a table of results that no training gives, in words; None if all may be
    right.
    """
    own: Any = pc  # its stubs know scalars and expressions alone
    for name, (least, most) in _RANGES.items():
        if name not in table.column_names:
            continue
        values: Any = table[name].combine_chunks()
        values = values.flatten() if pa.types.is_list(values.type) else values
        low, high = (pa.scalar(end, values.type) for end in (least, most))
        right = own.and_(own.greater_equal(values, low), own.less_equal(values, high))
        if name == "per_class":  # nan: of a class of which a test set has no image
            right = own.or_(right, own.is_nan(values))
        found = values.filter(own.invert(right))  # else nan is not right; nulls are left out
        if len(found):
            return f"{name} is {found[0].as_py()}; it lies from {least} to {most:.4g}"
    if "status" in table.column_names:
        states = set(pc.unique(table["status"]).to_pylist()) - set(STATUSES)
        if states:
            return f"status is {min(map(str, states))!r:.60}; it is {' or '.join(STATUSES)}"
    return None


def _in_columns(table: pa.Table, columns: list[str], there: set[str]) -> pa.Table:
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    for place, name in enumerate(columns):  # a column that is younger than the file
        if name not in there:
            nothing = pa.nulls(table.num_rows, schema.field(name).type)
            table = table.add_column(place, schema.field(name), nothing)
    return table if table.schema.equals(schema) else table.cast(schema)
