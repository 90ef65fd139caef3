"""From rows to cells: the measurements of one base size as a cells x clusters table of means."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from equigrid.analysis.data.checks import FAMILY, NO_GENERATOR

_CELL = ["n_real", "n_syn", "n_copies", "arm"]


@dataclass(frozen=True)
class CurveKey:
    """What one equivalence curve belongs to."""

    dataset: str
    classifier: str
    recipe: str
    generator: str  # '' where there are no synthetic rows

    def __str__(self) -> str:
        names = (self.dataset, self.classifier, self.recipe, self.generator or "no generator")
        return " / ".join(names)

    def rows_of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of the curve: its generator's and those that have none."""
        return frame[
            (frame["dataset"] == self.dataset)
            & (frame["classifier"] == self.classifier)
            & (frame["recipe"] == self.recipe)
            & frame["generator"].isin([self.generator, NO_GENERATOR])
        ]


@dataclass(frozen=True)
class BaseData:
    """All cells of one base size that enter one curve: base, real, this generator's syn, and
    copies.

    Arrays over K cells: `n_real`, `n_syn`, `n_copies` (K,) float64 in images (`n_real` includes the
    base set); `arm` (K,) str; `mean` (K,) float64 percent, over clusters of means over trials;
    `trials` (K,) distinct trials. `table` (K, C) float64: cluster means, NaN where a cluster lacks
    the cell; `clusters`: C labels, a subset seed or, with one subset seed and several generator
    seeds, a generator seed. `within_ss`, `within_df`: sum of squares and degrees of freedom of the
    trials about their cluster means. `trial_keys`: cells of equal key are one set of trainings
    (shared between base sizes).
    """

    n_base: float
    n_nominal: float
    arm: np.ndarray
    n_real: np.ndarray
    n_syn: np.ndarray
    n_copies: np.ndarray
    mean: np.ndarray
    trials: np.ndarray
    table: np.ndarray
    clusters: tuple[int, ...]
    clusters_are: str
    within_ss: float
    within_df: int
    trial_keys: tuple[int, ...]

    @property
    def in_surface(self) -> np.ndarray:
        """Boolean (K,): cells of the accuracy surface, that is, all arms but the copies."""
        return self.arm != "copies"

    @property
    def base_accuracy(self) -> float | None:
        """Mean accuracy of the base arm in percent, None where it was not measured."""
        found = self.mean[self.arm == "base"]
        return float(found[0]) if len(found) else None

    @property
    def real_ratios(self) -> tuple[float, ...]:
        """Measured n_real_added / n_nominal, ascending."""
        added = self.n_real[self.arm == "real"] - self.n_base
        return tuple(sorted(float(a) for a in added / self.n_nominal))

    @property
    def scale(self) -> np.ndarray:
        """(K,) added images of any kind / n_nominal; NaN where the base set is empty."""
        added = (self.n_real - self.n_base) + self.n_syn + self.n_copies
        return added / self.n_nominal if self.n_nominal else np.full(len(added), np.nan)


def curve_keys(frame: pd.DataFrame) -> list[CurveKey]:
    """One key per (dataset, classifier, recipe, generator); families without synthetic rows give
    generator ''.
    """
    keys = []
    for family, rows in frame.groupby(FAMILY, sort=True):
        generators = sorted(set(rows["generator"]) - {NO_GENERATOR}) or [NO_GENERATOR]
        dataset, classifier, recipe = map(str, family)
        keys += [CurveKey(dataset, classifier, recipe, generator) for generator in generators]
    return keys


def gather(frame: pd.DataFrame, key: CurveKey) -> list[BaseData]:
    """The base sizes of one curve, ascending. `frame` is `Checked.frame`."""
    rows = key.rows_of(frame)
    return [_base_data(part) for _, part in rows.groupby("n_nominal", sort=True)]


def _base_data(rows: pd.DataFrame) -> BaseData:
    cluster_by = _cluster_column(rows)
    rows = rows.assign(n_real=rows["n_base"] + rows["n_real_added"])
    rows = rows.drop_duplicates([*_CELL, "trial_id"]).sort_values(_CELL, kind="stable")
    grouped = rows.groupby(_CELL, sort=False)
    cell = grouped.ngroup().to_numpy()
    first = rows.iloc[np.unique(cell, return_index=True)[1]]
    clusters, cluster = np.unique(rows[cluster_by].to_numpy(), return_inverse=True)
    accuracy = rows["accuracy"].to_numpy(dtype=float)
    shape = (len(first), len(clusters))
    count, total = np.zeros(shape), np.zeros(shape)
    np.add.at(count, (cell, cluster), 1.0)
    np.add.at(total, (cell, cluster), accuracy)
    table = np.where(count > 0, total / np.maximum(count, 1.0), np.nan)
    trial_ids = rows["trial_id"].to_numpy()
    return BaseData(
        n_base=float(rows["n_base"].mean()),
        n_nominal=float(rows["n_nominal"].iloc[0]),
        arm=first["arm"].to_numpy(dtype=str),
        n_real=first["n_real"].to_numpy(dtype=float),
        n_syn=first["n_syn"].to_numpy(dtype=float),
        n_copies=first["n_copies"].to_numpy(dtype=float),
        mean=np.nanmean(table, axis=1),
        trials=np.bincount(cell),
        table=table,
        clusters=tuple(int(c) for c in clusters),
        clusters_are=cluster_by,
        within_ss=float(((accuracy - table[cell, cluster]) ** 2).sum()),
        within_df=int(np.maximum(count - 1, 0).sum()),
        trial_keys=tuple(hash(tuple(sorted(trial_ids[cell == k]))) for k in range(len(first))),
    )


def _cluster_column(rows: pd.DataFrame) -> str:
    """Subset seeds are the outermost repetition; with one of them, the generator's seed is."""
    if rows["subset_seed"].nunique() > 1:
        return "subset_seed"
    generators = rows.loc[rows["arm"] == "syn", "generator_seed"]
    return "generator_seed" if generators.nunique() > 1 else "subset_seed"
