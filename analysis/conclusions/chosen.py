"""Images added to chosen classes: what each class gains from them, and what as many copies bring.

Such arms are no points of an equivalence curve: their amounts say of which classes images are, and
so no fit takes them in. They are compared with the base, and with copies of the same classes.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from equigrid.analysis.data.checks import CELL, FAMILY, check_table
from equigrid.analysis.data.estimates import Estimate, finite
from equigrid.analysis.data.metrics import metric_values

BALANCED, TOP1 = "balanced_accuracy", "top1"
Pairs = dict[Hashable, np.ndarray]  # by repetition: (classes + 2,) percent


@dataclass(frozen=True)
class ClassChange:
    """What became of one class (counted from 0, as in `per_class`): `added` images of it, the mean
    accuracy of the base on it (percent), gains in points over the base and over copies of the same
    amounts (None without them). surely: whether the gain over the base is one, or a loss, at the
    level for all classes together (Bonferroni).
    """

    label: int
    added: int
    base: float
    over_base: Estimate
    over_copies: Estimate | None
    surely: bool

    def to_json(self) -> dict:
        """Plain values."""
        copies = self.over_copies and self.over_copies.to_json()
        return {
            "class": self.label, "added": self.added, "base": finite(self.base),
            "over_base": self.over_base.to_json(), "over_copies": copies, "surely": self.surely,
        }  # fmt: skip


@dataclass(frozen=True)
class ChosenClasses:
    """One arm with amounts by class, at one base size. balanced, top1: gains in points over the
    base; balanced_over_copies: over copies of the same amounts, at equal steps (None without them).
    pairs: repetitions that both sides have.
    """

    dataset: str
    classifier: str
    recipe: str
    arm: str
    generator: str
    n_nominal: int
    n_real_added: int
    by_class: tuple[int, ...]
    balanced: Estimate
    balanced_over_copies: Estimate | None
    top1: Estimate
    classes: tuple[ClassChange, ...]
    pairs: int

    def to_json(self) -> dict:
        """Plain values."""
        copies = self.balanced_over_copies and self.balanced_over_copies.to_json()
        names = ("dataset", "classifier", "recipe", "arm", "generator", "n_nominal", "n_real_added")
        return {
            **{name: getattr(self, name) for name in names}, "by_class": list(self.by_class),
            "balanced_accuracy": self.balanced.to_json(), "balanced_over_copies": copies,
            "top1": self.top1.to_json(), "classes": [one.to_json() for one in self.classes],
            "pairs": self.pairs,
        }  # fmt: skip


def chosen_classes(table: pd.DataFrame, *, level: float = 0.95) -> tuple[ChosenClasses, ...]:
    """Of every arm whose amounts are by class, in the order of base sizes.

    Differences are paired by subset seed (by trial seed where there is one subset), with Student's
    interval; each class's spread of the pairs is pooled over the arms of its base size. Intervals
    of classes are per class, not corrected for their number. Empty where no row has amounts by
    class and `per_class`.
    """
    if "by_class" not in table or "per_class" not in table:
        return ()
    frame = check_table(table, by_class=True).frame
    outcomes = table.drop_duplicates("trial_id").set_index("trial_id")
    outcomes = outcomes[outcomes["per_class"].notna()]
    frame = frame[frame["trial_id"].isin(outcomes.index)]
    frame = frame.drop_duplicates([*FAMILY, *CELL, "by_class", "trial_id"])
    values = _values(outcomes.loc[frame["trial_id"].unique()])
    found: list[ChosenClasses] = []
    for _, rows in frame.groupby([*FAMILY, "n_nominal"], sort=True):
        found += _of_base(rows, values, level)
    return tuple(found)


def _values(outcomes: pd.DataFrame) -> pd.Series:
    """By trial: (classes + 2,) percent, the accuracy of each class, balanced accuracy, top-1."""
    both = [metric_values(outcomes, name).to_numpy() for name in (BALANCED, TOP1)]
    stacked = [
        np.append([np.nan if one is None else one for one in per_class], pair).astype(float)
        for per_class, pair in zip(outcomes["per_class"], np.transpose(both))
    ]
    return pd.Series(stacked, index=outcomes.index, dtype=object)


def _of_base(rows: pd.DataFrame, values: pd.Series, level: float) -> list[ChosenClasses]:
    repeated = "subset_seed" if rows["subset_seed"].nunique() > 1 else "seed"
    base = _means(rows[rows["arm"] == "base"], values, repeated)
    arms = rows[rows["by_class"] != ""]
    cells = [
        (own.iloc[0], _means(own, values, repeated))
        for _, own in arms.groupby([*CELL, "by_class"], sort=True)
    ]
    cells = [(row, means) for row, means in cells if means.keys() & base.keys()]
    if not cells:
        return []
    copies = {row["by_class"]: means for row, means in cells if row["arm"] == "copies"}
    over_base = [_differences(means, base) for _, means in cells]
    over_copies = [
        _differences(means, copies.get(row["by_class"], {})) if row["arm"] == "syn" else None
        for row, means in cells
    ]
    against = [None if one is None or not len(one) else one for one in over_copies]
    spread, spread_copies = _pooled(over_base), _pooled([one for one in against if one is not None])
    start = np.mean(list(base.values()), axis=0)
    return [
        _found(row, start, (gains, spread), (other, spread_copies), level)
        for (row, _), gains, other in zip(cells, over_base, against)
    ]


def _means(rows: pd.DataFrame, values: pd.Series, repeated: str) -> Pairs:
    """By repetition, the mean over its trainings."""
    return {
        key: np.mean([values[trial] for trial in own["trial_id"]], axis=0)
        for key, own in rows.groupby(repeated)
    }


def _differences(means: Pairs, reference: Pairs) -> np.ndarray:
    """(pairs, classes + 2) points, of the repetitions that both have."""
    common = [key for key in means if key in reference]
    return np.array([means[key] - reference[key] for key in common])


def _pooled(groups: Sequence[np.ndarray]) -> tuple[np.ndarray | float, int]:
    """The standard deviation of one pair within groups, (classes + 2,), and its degrees of
    freedom.
    """
    df = sum(len(gains) - 1 for gains in groups)
    if df < 1:
        return np.nan, 0
    squares = sum(((gains - gains.mean(axis=0)) ** 2).sum(axis=0) for gains in groups)
    return np.sqrt(squares / df), df


def _found(
    row: pd.Series,
    start: np.ndarray,
    over_base: tuple[np.ndarray, tuple[np.ndarray | float, int]],
    over_copies: tuple[np.ndarray | None, tuple[np.ndarray | float, int]],
    level: float,
) -> ChosenClasses:
    (gains, spread), (others, other_spread) = over_base, over_copies
    by_class = tuple(int(n) for n in row["by_class"].split(","))
    own = _estimates(gains, spread, level)
    # Among ten classes one of 95% intervals would exclude 0 by chance in four of ten grids.
    strict = _estimates(gains, spread, 1 - (1 - level) / len(by_class))
    rival = None if others is None else _estimates(others, other_spread, level)
    changes = tuple(
        ClassChange(
            label, added, float(start[label]), own[label], rival[label] if rival else None,
            strict[label].excludes(0.0),
        )
        for label, added in enumerate(by_class)
    )  # fmt: skip
    return ChosenClasses(
        **{name: str(row[name]) for name in (*FAMILY, "arm", "generator")},
        n_nominal=int(row["n_nominal"]), n_real_added=int(row["n_real_added"]), by_class=by_class,
        balanced=own[-2], balanced_over_copies=rival[-2] if rival else None, top1=own[-1],
        classes=changes, pairs=len(gains),
    )  # fmt: skip


def _estimates(
    gains: np.ndarray, spread: tuple[np.ndarray | float, int], level: float
) -> list[Estimate]:
    """Of each column; without an interval where there is one pair, or no spread was seen."""
    sd, df = spread
    mean = gains.mean(axis=0)
    half = np.full(len(mean), np.nan)
    if df and len(gains) > 1:
        half = stats.t.ppf(0.5 + level / 2, df) * np.asarray(sd) / np.sqrt(len(gains))
        half = np.where(np.asarray(sd) > 0, half, np.nan)
    low, high = np.maximum(mean - half, -100.0), np.minimum(mean + half, 100.0)
    return [
        Estimate(finite(m), finite(a), finite(b), level)
        for m, a, b in zip(mean, low, high, strict=True)
    ]


NO_BALANCED = "all synthetic images are of chosen classes, which no curve has; see there"

# In words -----------------------------------------------------------------------------------------

_SHOWN = 4  # classes in a sentence


def sentences(
    found: Sequence[ChosenClasses], class_names: Sequence[str] | None = None
) -> list[str]:
    """A sentence for each arm with synthetic images: balanced accuracy first, then the classes that
    surely gain or lose.
    """
    return [_sentence(one, class_names) for one in found if one.arm != "copies"]


def added_words(one: ChosenClasses, class_names: Sequence[str] | None = None) -> str:
    """What was added, class by class, the largest amounts first: `25 of 9, 10 of 8, …`."""
    named = [(n, _name(label, class_names)) for label, n in enumerate(one.by_class) if n]
    named.sort(key=lambda pair: -pair[0])
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    text = ", ".join(f"{n:,} of {name}" for n, name in named[:_SHOWN]) + more
    return f"{one.n_real_added:,} real, {text}" if one.n_real_added else text


def _sentence(one: ChosenClasses, class_names: Sequence[str] | None) -> str:
    where = f"{one.dataset}, {one.classifier}, base {one.n_nominal:,}"
    what = f"{one.generator} for chosen classes ({added_words(one, class_names)})"
    told = f"balanced accuracy {one.balanced.text(1)} points over the base"
    if one.balanced_over_copies:
        told += f", {one.balanced_over_copies.text(1)} over as many copies"
    return f"{where}, {what}: {told}; {_changes(one, class_names)}."


def _changes(one: ChosenClasses, class_names: Sequence[str] | None) -> str:
    sure = [(change, change.over_base.value or 0.0) for change in one.classes if change.surely]
    gained = [change for change, value in sure if value > 0]
    lost = [change for change, value in sure if value < 0]
    if not gained and not lost:
        return "no class surely gains or loses"
    parts = []
    for word, changes in (("gains", gained), ("loses", lost)):
        changes = sorted(changes, key=lambda change: -abs(change.over_base.value or 0))
        for change in changes[:_SHOWN]:
            name = _name(change.label, class_names)
            parts.append(f"class {name} {word} {_points(change.over_base)}")
        if len(changes) > _SHOWN:
            parts.append(f"{len(changes) - _SHOWN} more {word.removesuffix('s')}")
    return ", ".join(parts)


def _points(gain: Estimate) -> str:
    sign = -1 if (gain.value or 0) < 0 else 1
    low, high = sorted(sign * (end or 0.0) for end in (gain.low, gain.high))
    return f"{abs(gain.value or 0):.1f} points [{low:.1f}, {high:.1f}]"


def _name(label: int, class_names: Sequence[str] | None) -> str:
    return class_names[label] if class_names else str(label)
