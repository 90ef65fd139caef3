"""What is wrong with a results table, in plain sentences, and the part of it that can be used."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from equigrid.analysis.data.metrics import metric_values

CELL = ["arm", "generator", "n_base", "n_nominal", "n_real_added", "n_syn", "n_copies"]
FAMILY = ["dataset", "classifier", "recipe"]
SEEDS = ["subset_seed", "generator_seed", "seed"]
_NEEDED = [*FAMILY, *CELL, *SEEDS, "trial_id", "status", "setting"]
NO_GENERATOR = ""
RIVAL = "augmentation"  # the arm of augmented bases: no images are added, and they are no base
_NO_SEED = -1  # a generator seed in arms that have no generator, so that groupings keep those rows


@dataclass(frozen=True)
class Checked:
    """`frame`: usable rows, one per trial and cell, accuracy in column `accuracy` (percent);
    `problems`: sentences; `test_sizes`: images in
    the test set, by dataset, where rows tell; `pretrained`: classifiers that started from
    pre-trained weights, by name, and these weights in the rows' words.
    """

    frame: pd.DataFrame
    problems: tuple[str, ...]
    failed: pd.DataFrame
    test_sizes: dict[str, int]
    pretrained: dict[str, str] = field(default_factory=dict)


def check_table(
    table: pd.DataFrame, metric: str = "top1", *, by_class: bool = False, rivals: bool = False
) -> Checked:
    """Separate usable rows from unusable ones. Raises ValueError only where a column of the schema
    is absent.

    Rows whose amounts are by class are left out: they are no points between those of balanced
    amounts. by_class: they are there too, told apart by a column `by_class`, their amounts as text,
    "" in all other rows. rivals: whether rows of augmented bases are among them, with the
    augmentation's name in `generator`; else they are left out, so that nothing takes them for a
    base.
    """
    absent = [name for name in _NEEDED if name not in table.columns]
    if absent:
        raise ValueError(
            f"the table lacks the columns {absent}; "
            "equigrid.analysis.schema.SCHEMA names all of them"
        )
    table = _of_rivals(table, kept=rivals).reset_index(drop=True)  # concatenations repeat labels
    cell = [*CELL, "by_class"] if by_class else CELL
    table = table.assign(by_class=amounts_by_class(table))
    table = table if by_class else table[table["by_class"] == ""].reset_index(drop=True)
    problems: list[str] = []
    if table.empty:
        problems.append("the table has no rows: nothing can be fitted before trials have finished")
    failed = table.loc[table["status"] == "failed", _NEEDED].fillna({"generator": NO_GENERATOR})
    needed = [*_NEEDED, "by_class"] if by_class else _NEEDED
    frame = table.loc[table["status"] == "ok", needed].copy()
    unknown = sorted(set(table["status"]) - {"ok", "failed"})
    if unknown:
        problems.append(f"status {unknown} is neither 'ok' nor 'failed': those rows are left out")
    frame["accuracy"] = metric_values(table.loc[frame.index], metric)
    frame["generator"] = (
        frame["generator"].astype(object).where(frame["generator"].notna(), NO_GENERATOR)
    )
    frame = _without_missing(frame, metric, problems)
    frame = _without_impossible(frame, metric, problems)
    frame = _without_fractions(frame, metric, problems)
    frame["generator_seed"] = frame["generator_seed"].fillna(_NO_SEED).astype("int64")
    frame = _without_duplicates(frame, cell, problems)
    pretrained = _pretrained(table, problems)
    mixed = _mixed(frame, table, pretrained)
    if mixed.any():
        problems.append(
            f"{int(mixed.sum())} rows from scratch bear the name of a pre-trained classifier: they "
            "are left out; give them another"
        )
    frame = frame[~mixed]
    return Checked(
        frame.reset_index(drop=True), tuple(problems), failed, _test_sizes(table), pretrained
    )


def _pretrained(table: pd.DataFrame, problems: list[str]) -> dict[str, str]:
    """By classifier, and told: a sentence says whose data every arm begins with."""
    if "pretrained" not in table:
        return {}
    known = table[table["pretrained"].notna()].drop_duplicates("classifier")
    found = {str(r["classifier"]): str(r["pretrained"]) for r in known.to_dict("records")}
    problems += [
        f"{name}: all arms, base, real and synthetic, start from pre-trained weights "
        f"({weights.partition(' ')[0][:19]}… {weights.partition(' ')[2]}): other people's data "
        "enter through the classifier, an open set whatever the generator"
        for name, weights in found.items()
    ]
    return found


def _mixed(frame: pd.DataFrame, table: pd.DataFrame, pretrained: dict[str, str]) -> pd.Series:
    """Rows from scratch under the name of a classifier that is pre-trained elsewhere in the table:
    one curve never holds both.
    """
    if not pretrained:
        return pd.Series(False, frame.index)
    return frame["classifier"].isin(pretrained) & table.loc[frame.index, "pretrained"].isna()


def amounts_by_class(table: pd.DataFrame) -> pd.Series:
    """Of each row the images of each class that were added, as text ("0,0,25"), where that was said
    by class; else "".
    """
    if "by_class" not in table:
        return pd.Series("", table.index, dtype=object)
    given = table["by_class"]
    texts = [",".join(str(int(n)) for n in one) if _is_listed(one) else "" for one in given]
    return pd.Series(texts, table.index, dtype=object)


def _is_listed(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _of_rivals(table: pd.DataFrame, *, kept: bool) -> pd.DataFrame:
    augmented = table["arm"] == RIVAL
    if not kept or not augmented.any():
        return table[~augmented]
    names = table["augmentation"].fillna(RIVAL)
    return table.assign(generator=table["generator"].astype(object).where(~augmented, names))


def _test_sizes(table: pd.DataFrame) -> dict[str, int]:
    """Images in the test set, by dataset, as the confusion matrices count them."""
    if "confusion" not in table:
        return {}
    counted = table[table["confusion"].notna()].drop_duplicates("dataset")
    sizes = {str(name): int(sum(n)) for name, n in zip(counted["dataset"], counted["confusion"])}
    return {dataset: n for dataset, n in sizes.items() if n > 0}


def _without_missing(frame: pd.DataFrame, metric: str, problems: list[str]) -> pd.DataFrame:
    for name in ("subset_seed", "seed"):
        missing = frame[name].isna()
        if missing.any():
            problems.append(
                f"{int(missing.sum())} rows have no {name}: without it they can be neither paired "
                "nor counted as repetitions, so they are left out"
            )
            frame = frame[~missing]
    missing = frame["accuracy"].isna()
    if missing.any():
        problems.append(f"{int(missing.sum())} finished rows have no {metric}: they are left out")
    return frame[~missing]


def _without_impossible(frame: pd.DataFrame, metric: str, problems: list[str]) -> pd.DataFrame:
    wrong = ~frame["accuracy"].between(0.0, 100.0)
    if wrong.any():
        first = frame[wrong].iloc[0]
        problems.append(
            f"{int(wrong.sum())} rows have a {metric} outside 0 to 100 (first: "
            f"{first['accuracy']:g} in trial {first['trial_id']}): accuracies are in percent; "
            "those rows are left out"
        )
    return frame[~wrong]


def _without_fractions(frame: pd.DataFrame, metric: str, problems: list[str]) -> pd.DataFrame:
    """Rows at or below 1 % are below chance for 100 classes: they are asked about, never
    rescaled.
    """
    low = frame["accuracy"] <= 1.0
    for dataset, rows in frame[low].groupby("dataset"):
        whole = len(rows) == int((frame["dataset"] == dataset).sum())
        many = (
            f"every {metric} of {dataset} is"
            if whole
            else f"{len(rows)} rows with a {metric} of {dataset} are"
        )
        problems.append(
            f"{many} at most 1: are these fractions? The schema wants percent; multiply "
            "by 100 if so. They are left out, not rescaled"
        )
    return frame[~low]


def _without_duplicates(frame: pd.DataFrame, cell: list[str], problems: list[str]) -> pd.DataFrame:
    frame = frame.drop_duplicates([*FAMILY, *cell, *SEEDS, "trial_id"])
    again = frame.duplicated([*FAMILY, *cell, *SEEDS])
    if again.any():
        first = frame[again].iloc[0]
        problems.append(
            f"{int(again.sum())} cells occur more than once with the same seeds but another "
            f"trial_id (first: trial {first['trial_id']}, {describe_cell(first)}): the first of "
            "each is used. Two revisions or two versions of the dataset in one table would do this"
        )
    return frame[~again]


def describe_cell(row: pd.Series) -> str:
    """A cell in words, for sentences: 'base 5,000 + 10,000 synthetic (edm)'."""
    text = f"base {int(row['n_nominal']):,}"
    if row["arm"] == "real":
        return f"{text} + {int(row['n_real_added']):,} real"
    if row["arm"] == "syn":
        return f"{text} + {int(row['n_syn']):,} synthetic ({row['generator']})"
    if row["arm"] == "mix":
        added = f"{int(row['n_real_added']):,} real + {int(row['n_syn']):,} synthetic"
        return f"{text} + {added} ({row['generator']})"
    if row["arm"] == RIVAL:
        return f"{text} with {row['generator']}"
    if row["arm"] == "copies":
        return f"{text} + {int(row['n_copies']):,} copies"
    return text
