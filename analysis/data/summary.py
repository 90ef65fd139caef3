"""Cell means with Student intervals: what a curve of a figure or a line of a table shows."""

import numpy as np
import pandas as pd
from scipy import stats

from equigrid.analysis.data.checks import CELL, FAMILY, check_table


def families(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(dataset, classifier, recipe) triples in the table, sorted."""
    return sorted(set(table[FAMILY].itertuples(index=False, name=None)))


def cell_means(table: pd.DataFrame, *, metric: str = "top1", level: float = 0.95) -> pd.DataFrame:
    """One line per cell of the usable rows.

    Columns: dataset, classifier, recipe, arm, generator (''), n_base, n_nominal, n_real_added,
    n_syn, n_copies, `scale` (added images / n_nominal, NaN for an empty base), `mean`, `low`,
    `high` (percent), `trials` (distinct trainings), `clusters` (distinct subset seeds that were
    trained). The interval is Student's t over the means of the subset seeds, or over the trials
    where there is one subset seed, cut at 0 and 100; NaN with a single repetition.
    """
    frame = check_table(table, metric).frame
    keys = [*FAMILY, *CELL]
    frame = frame.drop_duplicates([*keys, "trial_id"])
    clusters = frame.groupby([*keys, "subset_seed"], sort=True)["accuracy"].mean()
    by_cluster = clusters.groupby(level=list(range(len(keys)))).agg(["mean", "std", "size"])
    by_trial = frame.groupby(keys, sort=True)["accuracy"].agg(["mean", "std", "size"])
    several = by_cluster["size"] > 1
    unit = by_cluster.where(several, by_trial)
    quantile = stats.t.ppf(0.5 + level / 2, np.maximum(unit["size"] - 1, 1))
    half = np.where(unit["size"] > 1, quantile * unit["std"] / np.sqrt(unit["size"]), np.nan)
    means = unit[["mean"]].assign(
        low=(unit["mean"] - half).clip(lower=0), high=(unit["mean"] + half).clip(upper=100)
    )
    means["trials"] = by_trial["size"]
    means["clusters"] = by_cluster["size"]
    means = means.reset_index()
    added = means["n_real_added"] + means["n_syn"] + means["n_copies"]
    return means.assign(scale=added / means["n_nominal"].where(means["n_nominal"] > 0))


def fixed_synthetic(means: pd.DataFrame) -> bool:
    """Whether one family's cells fix the synthetic amount and vary the real one, as Table 20
    does.
    """
    return (
        set(means["arm"]) == {"syn"}
        and means["n_syn"].nunique() == 1
        and means["n_base"].nunique() > 1
    )
