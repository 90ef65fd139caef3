"""How fast the analysis is: `python benchmarks/fits.py`.

Targets: the paper's equations under 5 s; 1,000 bootstrap refits of a 60-cell grid under 20 s on one
core; a table of 100,000 rows read and summarised under 3 s; 10,000 rows through the analyst under
10 s. Whether intervals cover: `coverage.py`.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.data.summary import cell_means
from equigrid.analysis.paper import published
from equigrid.analysis.schema import SCHEMA

SIXTY = Planted(
    {**LIKE_CIFAR10, 2_000: (8.0, 0.1, 5.0, -35.0), 10_000: (5.0, 0.1, 3.0, 12.0)},
    real=(0.5, 1.0, 2.0, 3.0, 4.0), syn=(0.5, 1.0, 2.0, 3.0, 4.0, 5.0),
)  # fmt: skip


def paper_seconds() -> float:
    """Re-fitting the seven published equations, intervals included."""
    start = time.perf_counter()
    published.refit()
    return time.perf_counter() - start


def bootstrap_seconds() -> float:
    """One curve of 60 cells with 1,000 draws, everything that `analyse` reports included."""
    table = SIXTY.table(0)
    cells = len(table.drop_duplicates(["arm", "n_base", "n_real_added", "n_syn"]))
    assert cells == 60, cells
    start = time.perf_counter()
    analyse(table, settings=SIXTY.settings(replicates=1000))
    return time.perf_counter() - start


def large_table(rows: int) -> pd.DataFrame:
    """`rows` results with per-class accuracies: many seeds of the sixty cells."""
    table = replace(SIXTY, seeds=-(-rows // 180)).table(0).iloc[:rows]
    return table.assign(per_class=[[90.0] * 10] * rows)


def reading_seconds(rows: int = 100_000) -> float:
    """Parquet to DataFrame to cell means."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.parquet"
        pq.write_table(
            pa.Table.from_pandas(large_table(rows), schema=SCHEMA, preserve_index=False), path
        )
        start = time.perf_counter()
        cell_means(pq.read_table(path).to_pandas())
        return time.perf_counter() - start


def fitting_seconds(rows: int = 100_000) -> float:
    """The whole analysis of as many rows."""
    table = large_table(rows)
    start = time.perf_counter()
    analyse(table, settings=SIXTY.settings(replicates=200))
    return time.perf_counter() - start


def analyst_seconds(rows: int = 10_000, batch: int = 20) -> dict[str, float]:
    """Rows handed to the actor in batches, as the driver does: the driver's own time, and until all
    are fitted.
    """
    import ray

    from equigrid.analysis.actor import Analyst

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        table = SIXTY.table(0)
        actor = Analyst.remote(
            lambda: table, lambda name, data: None, SIXTY.settings(replicates=200)
        )
        ray.get(actor.status.remote())  # the process is up
        start = time.perf_counter()
        for i in range(rows // batch):
            actor.add.remote([{"trial_id": f"{i}-{j}"} for j in range(batch)])
        driver = time.perf_counter() - start
        ray.get(actor.finish.remote())
        return {"driver": driver, "in all": time.perf_counter() - start}
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    runs = {
        "paper": paper_seconds,
        "1,000 refits of 60 cells": bootstrap_seconds,
        "read and summarise 100,000 rows": reading_seconds,
        "analyse 100,000 rows": fitting_seconds,
        "analyst, 10,000 rows": analyst_seconds,
    }
    for name, run in runs.items():
        print(json.dumps({"benchmark": name, "seconds": run()}), flush=True)


if __name__ == "__main__":
    main()
