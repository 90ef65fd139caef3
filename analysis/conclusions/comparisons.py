"""Cells against others than their own base: recipes of one base (Table 6), real beside synthetic
(Table 20).
"""

import pandas as pd
from scipy import stats

from equigrid.analysis.data.checks import CELL, FAMILY, check_table
from equigrid.analysis.data.estimates import Estimate, student_estimate
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
    cells, found = _Cells(table, metric, level), []
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
    cells, found = _Cells(table, metric, level), []
    for _, rows in cells.means.groupby(FAMILY, sort=True):
        if fixed_synthetic(rows):
            for _, own in rows.groupby("generator", sort=True):
                own = own.sort_values("n_base")
                found += cells.over(own, own.index[0])
    return found


class _Cells:
    """The cells of a table as `means`, the lines of `cell_means`, and what makes their
    intervals.
    """

    def __init__(self, table: pd.DataFrame, metric: str, level: float):
        self.level, self.means = level, cell_means(table, metric=metric, level=level)
        self._frame = check_table(table, metric).frame.drop_duplicates([*_KEYS, "trial_id"])
        self._places = self._frame.groupby(_KEYS).indices

    def over(self, rows: pd.DataFrame, reference: int) -> Compared:
        """Some lines of `means`, each with its gain over the line labelled `reference`."""
        theirs = self._repetitions(rows.loc[[reference]].iloc[0])
        return [
            (
                row,
                None if i == reference else _difference(self._repetitions(row), theirs, self.level),
            )
            for i, row in rows.iterrows()
        ]

    def _repetitions(self, row: pd.Series) -> pd.Series:
        """The means of the cell's subset seeds, or the trials of a single one."""
        own = self._frame.iloc[self._places[tuple(row[_KEYS])]]
        by = "subset_seed" if own["subset_seed"].nunique() > 1 else "trial_id"
        return own.groupby(by)["accuracy"].mean()


def _difference(mine: pd.Series, theirs: pd.Series, level: float) -> Estimate:
    """Of two means with Student's interval: paired where both have the same subset seeds, else
    Welch's.
    """
    if mine.index.name == "subset_seed" and mine.index.equals(theirs.index):
        return student_estimate((mine - theirs).to_numpy(), level)
    value = float(mine.mean() - theirs.mean())
    parts = [side.var() / len(side) for side in (mine, theirs)]
    if min(len(mine), len(theirs)) < 2 or not sum(parts):
        return Estimate(value, None, None, level)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (mine, theirs))
    )
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * sum(parts) ** 0.5
    return Estimate(value, value - half, value + half, level)
