"""Cell means with their intervals: what a curve of a figure or a line of a table shows."""

import numpy as np
import pandas as pd
from scipy import stats

from equigrid.analysis.data.checks import CELL, FAMILY, check_table

_KEYS = [*FAMILY, *CELL]


def families(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(dataset, classifier, recipe) triples in the table, sorted."""
    return sorted(set(table[FAMILY].itertuples(index=False, name=None)))


def cell_means(
    table: pd.DataFrame,
    *,
    metric: str = "top1",
    level: float = 0.95,
    test_sizes: dict[str, int] | None = None,
    rivals: bool = False,
) -> pd.DataFrame:
    """One line per cell of the usable rows.

    test_sizes: images in the test set, by dataset, where rows do not tell. rivals: with lines for
    augmented bases too, see `check_table`.

    Columns: dataset, classifier, recipe, arm, generator (''), setting (of `SETTINGS`, or None),
    n_base, n_nominal, n_real_added, n_syn, n_copies, `scale` (added images / n_nominal, NaN for
    an empty base), `mean`, `low`, `high` (percent), `trials` (distinct trainings), `clusters`
    (distinct subset seeds that were trained). The interval has two parts. Repetitions: Student's t
    with the spread of the subset seeds' means (of the trials, with one subset seed), pooled over
    the cells of the base size that have as many repetitions, so that a few equal numbers do not
    look certain. Test set: Wilson's interval for its number of images, where that is known. NaN
    where nothing is repeated: half of
    the two is no interval.
    """
    checked = check_table(table, metric, rivals=rivals)
    frame = checked.frame.drop_duplicates([*_KEYS, "trial_id"])
    clusters = frame.groupby([*_KEYS, "subset_seed"], sort=True)["accuracy"].mean()
    by_cluster = clusters.groupby(level=list(range(len(_KEYS)))).agg(["mean", "std", "size"])
    by_trial = frame.groupby(_KEYS, sort=True)["accuracy"].agg(["mean", "std", "size"])
    several = by_cluster["size"] > 1
    unit = by_cluster.where(several, by_trial).assign(several=several).reset_index()
    unit["trials"], unit["clusters"] = (by["size"].to_numpy() for by in (by_trial, by_cluster))
    noise = _repetition(unit, level)
    sizes = unit["dataset"].map({**checked.test_sizes, **(test_sizes or {})})
    below, above = _of_test_set(unit["mean"], sizes, level)
    means = unit.drop(columns=["std", "size", "several"]).assign(
        low=(unit["mean"] - np.hypot(noise, below)).clip(lower=0.0),
        high=(unit["mean"] + np.hypot(noise, above)).clip(upper=100.0),
    )
    settings = frame.dropna(subset="setting").groupby("generator")["setting"].first()
    means["setting"] = [settings.get(name) for name in means["generator"]]
    added = means["n_real_added"] + means["n_syn"] + means["n_copies"]
    return means.assign(scale=added / means["n_nominal"].where(means["n_nominal"] > 0))


def _repetition(unit: pd.DataFrame, level: float) -> pd.Series:
    """Half-widths, points; NaN where a cell is not repeated or no spread was seen at all."""
    own = unit["std"].fillna(0.0) ** 2 * (unit["size"] - 1)
    freedom = unit["size"] - 1
    groups = [unit[name] for name in [*FAMILY, "n_nominal", "several"]]
    squares = own.groupby(groups).transform("sum")
    pooled_df = freedom.groupby(groups).transform("sum")
    sd = np.sqrt(squares / pooled_df.where(pooled_df > 0))
    quantile = stats.t.ppf(0.5 + level / 2, np.maximum(pooled_df, 1))
    half = quantile * sd / np.sqrt(unit["size"])
    return half.where((unit["size"] > 1) & (sd > 0))


def _of_test_set(mean: pd.Series, sizes: pd.Series, level: float) -> tuple[pd.Series, pd.Series]:
    """How far below and above the mean Wilson's (1927) interval reaches, points; 0 where the number
    of test images is not known.
    """
    z2 = stats.norm.ppf(0.5 + level / 2) ** 2
    n, p = sizes.astype(float), mean / 100
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    below, above = 100 * (p - centre + half), 100 * (centre + half - p)
    return below.fillna(0.0), above.fillna(0.0)


def fixed_synthetic(means: pd.DataFrame) -> bool:
    """Whether one family's cells fix the synthetic amount and vary the real one, as Table 20
    does.
    """
    return (
        set(means["arm"]) == {"syn"}
        and means["n_syn"].nunique() == 1
        and means["n_base"].nunique() > 1
    )
