"""Gains class by class: which classes synthetic (or real, or copied) images help and which they
harm.
"""

from collections.abc import Hashable

import numpy as np
import pandas as pd
from scipy import stats

from equigrid.analysis.data.checks import CELL, FAMILY, check_table

COLUMNS = [
    *FAMILY,
    "arm",
    "generator",
    "n_nominal",
    "scale",
    "class",
    "gain",
    "low",
    "high",
    "pairs",
]


_SHOWN = 5  # classes in a sentence


def class_gains(table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Per cell and class, the mean gain over the base in points, paired by subset seed (by trial
    seed where there is one subset), with Student's interval.

    Each class's spread of the pairs is pooled over the cells of its base size. Columns: COLUMNS;
    `class` counts from 0 in the order of `per_class`; `low`, `high` are NaN with one pair, or
    where no spread was seen; they end at a change by 100 points. Intervals are per class,
    not corrected for their number. Empty where no row has `per_class`.
    """
    frame = check_table(table).frame
    per_class = table.drop_duplicates("trial_id").set_index("trial_id")["per_class"].dropna()
    frame = frame[frame["trial_id"].isin(per_class.index)].drop_duplicates(
        [*FAMILY, *CELL, "trial_id"]
    )
    found = [
        _family(rows, per_class, level)
        for _, rows in frame.groupby([*FAMILY, "n_nominal"], sort=True)
    ]
    found = [part for part in found if len(part)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


def never_right(table: pd.DataFrame) -> list[str]:
    """A sentence for each base size at which every training on the base alone gets all test images
    of a class wrong: gains there begin at nothing, and top-1 may not show it.
    """
    if "per_class" not in table:
        return []
    base = table[(table["arm"] == "base") & (table["status"] == "ok") & table["per_class"].notna()]
    base = base.drop_duplicates([*FAMILY, "n_nominal", "trial_id"])
    found = []
    for (dataset, classifier, _, n), rows in base.groupby([*FAMILY, "n_nominal"], sort=True):
        best = np.max([np.asarray(one, dtype=float) for one in rows["per_class"]], axis=0)
        wrong = np.flatnonzero(best == 0)  # NaN: no test image of the class
        if len(wrong):
            some = ", ".join(map(str, wrong[:_SHOWN])) + (", …" if len(wrong) > _SHOWN else "")
            what = f"class{'es' * (len(wrong) > 1)} {some}"
            found.append(
                f"{dataset}, {classifier}, base {n:,}: no image of {what} is ever classified right "
                f"({len(rows)} trainings on the base alone); look at balanced accuracy, and at "
                "class weights"
            )
    return found


def _family(rows: pd.DataFrame, per_class: pd.Series, level: float) -> pd.DataFrame:
    base = rows[rows["arm"] == "base"]
    if base.empty:
        return pd.DataFrame(columns=COLUMNS)
    repeated = "subset_seed" if rows["subset_seed"].nunique() > 1 else "seed"
    reference = _means(base, per_class, repeated)
    cells: list[tuple[pd.Series, np.ndarray]] = []
    for _, cell in rows[rows["arm"] != "base"].groupby(CELL, sort=True):
        means = _means(cell, per_class, repeated)
        common = [key for key in means if key in reference]
        if common:
            gains = np.stack([means[key] - reference[key] for key in common])  # (pairs, classes)
            cells.append((cell.iloc[0], gains))
    if not cells:
        return pd.DataFrame(columns=COLUMNS)
    squares = sum(((gains - gains.mean(axis=0)) ** 2).sum(axis=0) for _, gains in cells)
    df = sum(len(gains) - 1 for _, gains in cells)
    sd = np.sqrt(squares / df) if df else np.full(cells[0][1].shape[1], np.nan)
    parts = [_summary(cell, gains, sd, df, level) for cell, gains in cells]
    return pd.concat(parts, ignore_index=True)


def _means(rows: pd.DataFrame, per_class: pd.Series, repeated: str) -> dict[Hashable, np.ndarray]:
    """Per repetition the mean of the class accuracies, (classes,) percent."""
    return {
        key: np.mean(
            [np.asarray(per_class[trial], dtype=float) for trial in part["trial_id"]], axis=0
        )
        for key, part in rows.groupby(repeated)
    }


def _summary(
    cell: pd.Series, gains: np.ndarray, sd: np.ndarray, df: int, level: float
) -> pd.DataFrame:
    """sd: (classes,) of one pair, with df degrees of freedom."""
    pairs, classes = gains.shape
    mean = gains.mean(axis=0)
    half = np.full(classes, np.nan)
    if pairs > 1:
        half = stats.t.ppf(0.5 + level / 2, df) * sd / np.sqrt(pairs)
        half[~(sd > 0)] = np.nan
    added = cell["n_real_added"] + cell["n_syn"] + cell["n_copies"]
    shared = {name: cell[name] for name in [*FAMILY, "arm", "generator", "n_nominal"]}
    scale = added / cell["n_nominal"] if cell["n_nominal"] else np.nan
    low, high = np.maximum(mean - half, -100.0), np.minimum(mean + half, 100.0)
    found = {"gain": mean, "low": low, "high": high, "pairs": pairs}
    return pd.DataFrame({**shared, "scale": scale, "class": np.arange(classes), **found})[COLUMNS]
