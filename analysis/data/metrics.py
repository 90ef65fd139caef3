"""The metrics that a result has, and those that older rows leave to be worked out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def metric_values(table: pd.DataFrame, metric: str) -> pd.Series:
    """The metric of each row, percent, float64; NaN where a row has none.

    Balanced accuracy, sensitivity and specificity follow from `per_class`, macro F1 from
    `confusion`, in rows that were written before these had columns of their own.
    Raises ValueError where neither the column nor what it follows from is there.
    """
    source = {
        "balanced_accuracy": ("per_class", _balanced),
        "sensitivity": ("per_class", lambda classes: _of_two(classes, 1)),
        "specificity": ("per_class", lambda classes: _of_two(classes, 0)),
        "macro_f1": ("confusion", _macro_f1),
    }.get(metric)
    if metric not in table and (source is None or source[0] not in table):
        raise ValueError(f"the table has no column {metric}")
    given = table[metric] if metric in table else pd.Series(np.nan, table.index)
    values = pd.to_numeric(given, errors="coerce").astype(float)
    if source is None or source[0] not in table:
        return values
    column, work_out = source
    missing = values.isna() & table[column].notna()
    values.loc[missing] = np.array([work_out(items) for items in table.loc[missing, column]])
    return values


def _balanced(per_class: Sequence[float]) -> float:
    found = _numbers(per_class)
    found = found[np.isfinite(found)]
    return float(found.mean()) if len(found) else np.nan


def _of_two(per_class: Sequence[float], label: int) -> float:
    found = _numbers(per_class)
    return float(found[label]) if len(found) == 2 else np.nan


def _macro_f1(confusion: Sequence[int]) -> float:
    cells = _numbers(confusion)
    classes = round(len(cells) ** 0.5)
    if classes == 0 or classes**2 != len(cells):
        return np.nan
    matrix = cells.reshape(classes, classes)  # true class by row
    true, predicted = matrix.sum(1), matrix.sum(0)
    f1 = 2 * matrix.diagonal() / np.maximum(true + predicted, 1)
    return float(100 * f1[true > 0].mean()) if (true > 0).any() else np.nan


def _numbers(items: Sequence[float]) -> np.ndarray:
    return np.array([np.nan if item is None else item for item in items], dtype=float)
