"""The results of a grid's cells: rows of the store under the labels of the plan."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from equigrid.analysis.schema import SCHEMA
from equigrid.grid.errors import DocumentError
from equigrid.grid.planning.graph import Cell
from equigrid.grid.reporting.out_folder import replacing


def cell_table(cells: list[Cell], results: pa.Table, *, grid: str, dataset: str) -> pd.DataFrame:
    """The results of a grid's cells, in the schema's columns: one row per cell that has a result.

    A trial that several cells share is there once for each of them, under that cell's labels. grid,
    dataset: names.
    """
    named = pd.DataFrame(cells, columns=Cell._fields)
    added = named["n_real_added"] + named["n_syn"] + named["n_copies"]
    labels = named.assign(grid=grid, dataset=dataset, n_total=named["n_base"] + added)
    try:
        frame = results.to_pandas(maps_as_pydicts="strict", types_mapper=_nullable)
    except pa.ArrowException as error:
        raise DocumentError(f"results: a row says something twice: {error}") from error
    outcomes = frame.drop(columns=[c for c in labels.columns if c != "trial_id"])
    joined = labels.merge(outcomes, on="trial_id", how="inner", sort=False)
    return joined[SCHEMA.names].astype({"generator_seed": "Int64"})


def _nullable(kind: pa.DataType) -> pd.Int64Dtype | None:
    return pd.Int64Dtype() if kind == pa.int64() else None


def write_table(frame: pd.DataFrame, path: Path, kind: str) -> None:
    """`cell_table`'s rows as one file, 'csv' or 'parquet'. In CSV, lists and maps are JSON.

    Raises OSError.
    """
    if kind == "parquet":
        table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
        with replacing(path) as aside:
            pq.write_table(table, aside)
        return
    nested = [f.name for f in SCHEMA if pa.types.is_nested(f.type)]
    written = frame.copy()
    for name in nested:
        written[name] = pd.Series(
            [_json(value) for value in frame[name]], frame.index, dtype=object
        )
    with replacing(path) as aside:
        written.to_csv(aside, index=False)


def _json(value: Any) -> str | None:
    """Of a list, array or mapping; None where there is none."""
    if value is None or value is pd.NA:
        return None
    plain = value if isinstance(value, dict) else list(value)
    return json.dumps(plain, default=lambda number: number.item())
