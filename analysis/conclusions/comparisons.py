"""Cells against others than their own base: recipes of one base (Table 6), real beside synthetic
(Table 20).
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from equigrid.analysis.conclusions.contrasts import Contrasts, Gain, Repeated, repeated
from equigrid.analysis.data.checks import CELL, FAMILY, RIVAL, check_table
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
        self._repeated: dict[Any, Repeated] = {}  # by a line's label

    def trials(self, row: pd.Series) -> list[str]:
        """The ids of a line's trainings."""
        return list(self._of(row)["trial_id"])

    def over(self, rows: pd.DataFrame, reference: int, level: float | None = None) -> Compared:
        """Some lines of `means`, each with its gain over the line labelled `reference`; level: of
        the intervals, in place of the table's.

        Paired by subset seed, on those that both have; the docstring of `contrasts` says what
        makes the intervals.
        """
        level = level or self.level
        cells = [self._cell(row) for _, row in rows.iterrows()]
        at = list(rows.index).index(reference)
        contrasts = Contrasts(cells, at)
        return [
            (row, None if place == at else _estimate(contrasts.gain(place), level))
            for place, (_, row) in enumerate(rows.iterrows())
        ]

    def _of(self, row: pd.Series) -> pd.DataFrame:
        return self._frame.iloc[self._places[tuple(row[_KEYS])]]

    def _cell(self, row: pd.Series) -> Repeated:
        if row.name not in self._repeated:
            own = source(row["arm"], row["generator"])
            self._repeated[row.name] = repeated(own, self._of(row))
        return self._repeated[row.name]


def source(arm: str, generator: str) -> str:
    """What a cell's images are, see `contrasts`: the base's alone, or others too."""
    return "base" if arm in ("base", "copies", RIVAL) else f"{arm} {generator}"


def _estimate(gain: Gain, level: float) -> Estimate:
    """No interval where nothing was repeated, or no spread was seen."""
    if not gain.variance > 0:
        return Estimate(gain.value, None, None, level)
    half = float(stats.t.ppf(0.5 + level / 2, gain.df) * np.sqrt(gain.variance))
    low, high = max(gain.value - half, -100.0), min(gain.value + half, 100.0)
    return Estimate(gain.value, low, high, level)
