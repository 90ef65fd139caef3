"""Cells against others than their own base: recipes of one base (Table 6), real beside synthetic
(Table 20).
"""

import numpy as np
import pandas as pd
from scipy import stats

from equigrid.analysis.data.checks import CELL, FAMILY, check_table
from equigrid.analysis.data.estimates import Estimate
from equigrid.analysis.data.summary import cell_means, fixed_synthetic

_KEYS = [*FAMILY, *CELL]
Compared = list[tuple[pd.Series, Estimate | None]]
"""Lines of `summary.cell_means`, each with its gain in points over a reference; None for the
reference itself.
"""


def recipe_gains(
    table: pd.DataFrame, plain: str, *, metric: str = "top1", level: float = 0.95
) -> Compared:
    """Where one base was trained by several recipes: every cell of it against the base alone under
    `plain`.
    """
    cells, found = Cells(table, metric, level), []
    for _, rows in cells.means.groupby(["dataset", "classifier", "n_nominal"], sort=True):
        bases = rows[rows["arm"] == "base"]
        reference = bases[bases["recipe"] == plain]
        if bases["recipe"].nunique() > 1 and len(reference):
            order = rows.assign(other=rows["recipe"] != plain).sort_values(
                ["other", "recipe", "arm", "scale"]
            )
            found += cells.over(order, reference.index[0])
    return found


def real_gains(table: pd.DataFrame, *, metric: str = "top1", level: float = 0.95) -> Compared:
    """Where a family fixes the synthetic amount and varies the real one: every cell against the
    same synthetic images with the fewest real ones (none, in the paper).
    """
    cells, found = Cells(table, metric, level), []
    for _, rows in cells.means.groupby(FAMILY, sort=True):
        if fixed_synthetic(rows):
            for _, own in rows.groupby("generator", sort=True):
                own = own.sort_values("n_base")
                found += cells.over(own, own.index[0])
    return found


class Cells:
    """The cells of a table as `means`, the lines of `cell_means`, and what makes their
    intervals.
    """

    def __init__(self, table: pd.DataFrame, metric: str, level: float, *, rivals: bool = False):
        self.level = level
        self.means = cell_means(table, metric=metric, level=level, rivals=rivals)
        frame = check_table(table, metric, rivals=rivals).frame
        self._frame = frame.drop_duplicates([*_KEYS, "trial_id"])
        self._places = self._frame.groupby(_KEYS).indices

    def trials(self, row: pd.Series) -> list[str]:
        """The ids of a line's trainings."""
        return list(self._of(row)["trial_id"])

    def over(self, rows: pd.DataFrame, reference: int, level: float | None = None) -> Compared:
        """Some lines of `means`, each with its gain over the line labelled `reference`; level: of
        the intervals, in place of the table's.

        Paired where both have the same subset seeds. The spread is pooled over the lines, since a
        few repetitions say little about their own.
        """
        level = level or self.level
        own = {i: self._repetitions(row) for i, row in rows.iterrows()}
        theirs = own[reference]
        paired = {
            i: (values - theirs).to_numpy()
            for i, values in own.items()
            if values.index.name == "subset_seed" and values.index.equals(theirs.index)
        }
        of_pairs = _pooled([pairs for i, pairs in paired.items() if i != reference])
        of_trials = _pooled([values.to_numpy() for values in own.values()])
        found: Compared = []
        for i, row in rows.iterrows():
            gain = float(own[i].mean() - theirs.mean())
            if i == reference:
                found.append((row, None))
            elif i in paired:
                found.append((row, _estimate(gain, *of_pairs, 1 / len(theirs), level)))
            else:
                several = min(len(own[i]), len(theirs)) > 1
                parts = 1 / len(own[i]) + 1 / len(theirs) if several else np.inf
                found.append((row, _estimate(gain, *of_trials, parts, level)))
        return found

    def _of(self, row: pd.Series) -> pd.DataFrame:
        return self._frame.iloc[self._places[tuple(row[_KEYS])]]

    def _repetitions(self, row: pd.Series) -> pd.Series:
        """The means of the cell's subset seeds, or the trials of a single one."""
        own = self._of(row)
        by = "subset_seed" if own["subset_seed"].nunique() > 1 else "trial_id"
        return own.groupby(by)["accuracy"].mean()


def _estimate(gain: float, variance: float, df: int, parts: float, level: float) -> Estimate:
    """No interval where nothing was repeated, or no spread was seen."""
    if not (variance > 0 and np.isfinite(parts)):
        return Estimate(gain, None, None, level)
    half = float(stats.t.ppf(0.5 + level / 2, df) * np.sqrt(variance * parts))
    return Estimate(gain, max(gain - half, -100.0), min(gain + half, 100.0), level)


def _pooled(groups: list[np.ndarray]) -> tuple[float, int]:
    """The variance within groups, and its degrees of freedom; NaN without any."""
    df = sum(len(values) - 1 for values in groups)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in groups)
    return (squares / df if df else np.nan), df
