"""The results of a grid's cells: rows of the store under the labels of the plan."""

import pandas as pd
import pyarrow as pa

from equigrid.analysis.schema import SCHEMA
from equigrid.grid.planning.graph import Cell


def cell_table(cells: list[Cell], results: pa.Table, *, grid: str, dataset: str) -> pd.DataFrame:
    """The results of a grid's cells, in the schema's columns: one row per cell that has a result.

    A trial that several cells share is there once for each of them, under that cell's labels. grid,
    dataset: names.
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
