"""Synthetic images against what is free: augmentations of the base that train for as many steps
(the paper's Table 6, continued).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from equigrid.analysis.conclusions.comparisons import Cells, Compared
from equigrid.analysis.data.checks import FAMILY, RIVAL
from equigrid.analysis.data.estimates import Estimate

BEATEN, NOT_TOLD_APART, AHEAD, OPEN = "beaten", "not told apart", "ahead", "open"


@dataclass(frozen=True)
class Contender:
    """One cell at a base: the base alone, an augmentation of it, or images added to it.

    name: of the augmentation or the generator, else the arm's. setting: a generator's. over_base,
    over: gains in points over the base alone, and by the generator's name over its images; None for
    a cell itself, and where that was not trained. steps: None where the rows do not say.
    """

    arm: str
    name: str
    setting: str | None
    added: int
    steps: int | None
    mean: float
    low: float
    high: float
    over_base: Estimate | None
    over: dict[str, Estimate | None]
    trials: int

    def to_json(self) -> dict:
        """Plain values."""
        over = {name: gain and gain.to_json() for name, gain in self.over.items()}
        return {
            **self.__dict__, "over_base": self.over_base and self.over_base.to_json(), "over": over,
            "low": _known(self.low), "high": _known(self.high),
        }  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What the images of one generator are beside the augmentations.

    status: `beaten` by an augmentation, `not told apart` from the best of them, `ahead` of all, or
    `open` without repetitions. difference: of the best augmentation over the images; but where the
    images are ahead, corrected for the number of augmentations (Bonferroni).
    """

    generator: str
    n_syn: int
    status: str
    best: str
    difference: Estimate
    text: str

    def to_json(self) -> dict:
        """Plain values."""
        return {**self.__dict__, "difference": self.difference.to_json()}


@dataclass(frozen=True)
class Rivals:
    """All that was compared at one base size, at equal steps."""

    dataset: str
    classifier: str
    recipe: str
    n_base: int  # nominal
    contenders: tuple[Contender, ...]
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict:
        """Plain values."""
        return {
            **self.__dict__, "contenders": [one.to_json() for one in self.contenders],
            "verdicts": [one.to_json() for one in self.verdicts],
        }  # fmt: skip


def rivals(table: pd.DataFrame, *, metric: str = "top1", level: float = 0.95) -> list[Rivals]:
    """One for each base size, and number of steps, at which the base was augmented.

    Beside the augmentations stand the base alone, and the copies and synthetic images whose
    trainings make as many steps (or do not say how many). A generator's images are those of the
    amount nearest to 1:1. Gains are paired by subset seed, as in `comparisons.recipe_gains`.
    """
    if not (table["arm"] == RIVAL).any():
        return []
    cells = Cells(table, metric, level, rivals=True)
    means = cells.means.assign(steps=_steps(cells, table))
    found = []
    for family, rows in means.groupby([*FAMILY, "n_nominal"], sort=True):
        own = rows[rows["arm"] == RIVAL]
        for steps in sorted(own["steps"].unique()):
            augmented = own[own["steps"] == steps]
            added = rows["arm"].isin(["copies", "syn"]) & rows["steps"].isin([steps, 0])
            beside = rows[(rows["arm"] == "base") | added]
            found.append(_compared(cells, family, augmented, beside, level))
    return found


def _steps(cells: Cells, table: pd.DataFrame) -> list[int]:
    """Of each line of `cells.means`; 0 where its rows do not say."""
    if "steps" not in table:
        return [0] * len(cells.means)
    by_trial = table.drop_duplicates("trial_id").set_index("trial_id")["steps"].astype(float)
    found = (np.nanmax([0.0, *by_trial[cells.trials(row)]]) for _, row in cells.means.iterrows())
    return [int(steps) for steps in found]


def _compared(
    cells: Cells, family: tuple, augmented: pd.DataFrame, beside: pd.DataFrame, level: float
) -> Rivals:
    order = {arm: place for place, arm in enumerate(("base", "copies", "syn", RIVAL))}
    rows = pd.concat([beside, augmented])
    rows = rows.assign(place=rows["arm"].map(order)).sort_values(["place", "generator", "scale"])
    base = rows.index[rows["arm"] == "base"]
    over_base = _by_index(cells.over(rows, int(base[0]))) if len(base) else {}
    references: dict[str, Any] = {  # labels of rows
        str(name): own["scale"].map(np.log).abs().idxmin()
        for name, own in rows[rows["arm"] == "syn"].groupby("generator", sort=True)
    }
    over = {name: _by_index(cells.over(rows, at)) for name, at in references.items()}
    contenders = [
        Contender(
            arm=row["arm"],
            name=row["generator"] or row["arm"],
            setting=row["setting"] if row["arm"] == "syn" else None,
            added=int(row["n_syn"] + row["n_copies"]),
            steps=row["steps"] or None,
            mean=row["mean"],
            low=row["low"],
            high=row["high"],
            over_base=over_base.get(i),
            over={name: gains[i] for name, gains in over.items()},
            trials=int(row["trials"]),
        )
        for i, row in rows.iterrows()
    ]
    corrected = 1 - (1 - level) / len(augmented)
    verdicts = [
        _verdict(family[-1], rows.loc[at], cells.over(rows, at), cells.over(rows, at, corrected))
        for at in references.values()
    ]
    dataset, classifier, recipe, n_base = family
    return Rivals(dataset, classifier, recipe, int(n_base), tuple(contenders), tuple(verdicts))


def _by_index(compared: Compared) -> dict[Any, Estimate | None]:
    return {row.name: gain for row, gain in compared}


def _verdict(n_base: float, syn: pd.Series, own: Compared, corrected: Compared) -> Verdict:
    """own, corrected: all cells over the synthetic images, at the table's level and at one that is
    corrected for the number of augmentations.

    One of many is better than the images where its corrected interval is above 0. The images are
    better than all where each interval alone is below 0: each of these must hold, so that no choice
    among them favours it (Berger's 1982 intersection-union test).
    """
    each, strict = _augmented(own), _augmented(corrected)
    name, best = max(strict.items(), key=lambda one: one[1][1].value or 0.0)
    better = [other for other, (_, gain) in strict.items() if gain.low is not None and gain.low > 0]
    behind = [gain for _, gain in each.values() if gain.high is not None and gain.high < 0]
    row, gain = best
    generator, n_syn, n = str(syn["generator"]), int(syn["n_syn"]), len(strict)
    status = NOT_TOLD_APART if gain.bounded else OPEN
    status = BEATEN if better else AHEAD if len(behind) == n else status
    if status == AHEAD:
        gain = each[name][1]
    images = f"the {n_syn:,} images of {generator} ({syn['mean']:.1f}%)"
    told = f"{name} ({row['mean']:.1f}%"
    many = n > 1 and status != AHEAD
    points = f"over them {gain.text(1)} points{f', corrected for {n} augmentations' * many})"
    words = {
        BEATEN: f"what is free does better than {images}: {told}; {points}",
        NOT_TOLD_APART: f"{images} are not told apart from what is free: {told}; {points}",
        AHEAD: f"{images} do better than all that is free; the nearest is {told}; {points}",
        OPEN: f"{images}, and for free {told}; over them {gain.value:+.1f} points); nothing was "
        "repeated that would tell them apart",
    }
    text = f"At a base of {n_base:,.0f} and as many steps, {words[status]}"
    if others := [other for other in better if other != name]:
        text += f"; so do{'es' * (len(others) == 1)} {', '.join(others)}"
    return Verdict(generator, n_syn, status, name, gain, f"{text}.")


def _augmented(compared: Compared) -> dict[str, tuple[pd.Series, Estimate]]:
    """The augmentations among them, by name."""
    return {
        str(row["generator"]): (row, gain)
        for row, gain in compared
        if row["arm"] == RIVAL and gain is not None
    }


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
