"""Which cells a curve lacks: failed ones, and seeds that other cells of the curve have."""

import pandas as pd

from equigrid.analysis.data.cells import CurveKey
from equigrid.analysis.data.checks import CELL, Checked, describe_cell

_SHOWN = 5  # seeds named per cell


def missing_cells(checked: Checked, key: CurveKey) -> list[str]:
    """One phrase per failed trial without a success and per cell that lacks seeds."""
    rows, failed = key.rows_of(checked.frame), key.rows_of(checked.failed)
    failed = failed[~failed["trial_id"].isin(rows["trial_id"])].drop_duplicates("trial_id")
    words = [
        f"failed: {describe_cell(row)}, subset {row['subset_seed']}, seed {row['seed']}"
        for _, row in failed.iterrows()
    ]
    return words + _cells_without_seeds(rows)


def _cells_without_seeds(rows: pd.DataFrame) -> list[str]:
    pairs = rows[["subset_seed", "seed"]].drop_duplicates()
    counts = rows.drop_duplicates([*CELL, "subset_seed", "seed"]).groupby(CELL, sort=True).size()
    words = []
    for cell in counts.index[counts < len(pairs)]:
        part = rows[(rows[CELL] == list(cell)).all(axis=1)]
        present = set(zip(part["subset_seed"], part["seed"]))
        absent = sorted(
            pair for pair in pairs.itertuples(index=False, name=None) if pair not in present
        )
        listed = ", ".join(f"({subset}, {seed})" for subset, seed in absent[:_SHOWN])
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        words.append(f"{describe_cell(part.iloc[0])}: no (subset, seed) {listed}{more}")
    return words
