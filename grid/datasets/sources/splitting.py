"""Splits that an owner asks for or names: a part of the images held back by class, groups
(patients) on one side, and the refusal of what would put one group on two.
"""

import math
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import regex

from equigrid.generators.common.parquet_files import SPLITS as SPLIT_NAMES
from equigrid.generators.common.rng import permutation
from equigrid.grid.datasets.sources.base import whole
from equigrid.grid.errors import UserError

_GROUP_WORDS = (
    "patient|subject|participant|volunteer|person|donor|animal|mouse|lesion|specimen|pid|case|study"
    "|slide|scan|video|scene"
)
_GROUP_COLUMN = re.compile(
    rf"(.*_)?(group|{_GROUP_WORDS})(_?(id|no|num|nr|number|name|uid))?", re.I
)
_GROUP_IN_NAME = re.compile(rf"(?:^|[^a-z])(?:{_GROUP_WORDS}|pat|subj|sub)[-_ ]?\d+", re.I)
_PART_OF_SERIES = re.compile(
    r"(.+?)[-_ ]?(?:[-_ ]|slice|frame|image|img|view|crop|tile|patch)[-_ ]?\d+", re.I
)
# What a pattern of a user's may take: some need exponentially long for names that they do not
# match. The `re` of Python cannot be stopped, `regex` can.
_PATTERN_S, _PATTERN_NAME_S = 5.0, 1e-3
# `regex` writes out what is repeated by a count, and then nothing stops it: 100,000 take 0.1 GB.
_COUNT, _MOST_COUNTED = re.compile(r"(\)?)\{(\d+)"), 100_000
_LARGEST_SERIES = 0.5  # of a class: a beginning that most names share says nothing of groups


class Wish(NamedTuple):
    """The options `test`, `val`, `split_seed` and `group`; a part of None: no split is made."""

    test: float | None = None
    val: float | None = None
    seed: int = 0
    group: str | None = None

    @property
    def any(self) -> bool:
        return self.test is not None or self.val is not None

    @property
    def wanted_group(self) -> str | None:
        """A column or a pattern; None where none is named, or `none` is."""
        return None if self.group == "none" else self.group

    def state(self) -> dict:
        """What tells one split from another; nothing where none is made."""
        made = {"test": self.test, "val": self.val, "group": self.group}
        made |= {"seed": self.seed} if self.any else {}
        return {name: value for name, value in made.items() if value is not None}


def checked_wish(test: object, val: object, split_seed: object, group: object) -> Wish:
    """The options of a spec. Raises UserError."""
    of_test, of_val, seed = _part("test", test), _part("val", val), whole(split_seed)
    if (of_test or 0) + (of_val or 0) >= 1:
        raise UserError(f"dataset: test {test} and val {val} leave nothing to train on; lower them")
    if seed is None or seed < 0:
        raise UserError(f"dataset.split_seed: {split_seed!r}; write a whole number from 0 up")
    if group is not None and (not isinstance(group, str) or not group):
        raise UserError(f"dataset.group: {group!r}; name a column, a pattern, or none")
    return Wish(of_test, of_val, seed, group)


def _part(name: str, part: object) -> float | None:
    if part is None or (isinstance(part, float) and 0 < part < 1):
        return part
    raise UserError(
        f"dataset.{name}: {part!r}; write the part of the images to hold back, such as 0.2"
    )


def split_named(value: object, where: str) -> str:
    """The split that a cell of a table names. Raises UserError."""
    word = str(value).strip().lower()
    for split, names in SPLIT_NAMES.items():
        if word in names:
            return split
    raise UserError(f"{where}: {value!r} is no split; write train, val or test")


def splits_named(values: Iterable[object]) -> bool:
    """Whether every value names a split, and more than one is named."""
    words = {str(value).strip().lower() for value in values}
    named = {split for split, names in SPLIT_NAMES.items() if words & set(names)}
    return len(named) > 1 and words <= {name for names in SPLIT_NAMES.values() for name in names}


# Groups -------------------------------------------------------------------------------------------


def groups_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    """The group of each image, by a regular expression over its name: its first bracket, or all
    that it matches. Raises UserError for a name that it does not match, and for an expression that
    takes too long.
    """
    compiled = _compiled(pattern)
    found = []
    end_s = time.monotonic() + _PATTERN_S + _PATTERN_NAME_S * len(names)
    for name in names:
        try:
            match = compiled.search(name, timeout=max(0.0, end_s - time.monotonic()))
        except TimeoutError as error:
            raise UserError(
                f"dataset.group: {pattern!r} takes too long for {name!r}: write it without a "
                "repetition inside of a repetition"
            ) from error
        group = match and (match[1] if compiled.groups else match[0])
        if not group:
            raise UserError(
                f"dataset.group: {pattern!r} finds no group in {name!r}; every image needs one"
            )
        found.append(group)
    return found


def _compiled(pattern: str) -> "regex.Pattern[str]":
    """Raises UserError for what is none of Python's regular expressions: `regex` knows more, of
    which recursion takes all memory that there is.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern)
            if _counted(pattern) <= _MOST_COUNTED:
                return regex.compile(pattern)
    # The last two: of brackets too deep, and of flags that exclude each other.
    except (re.error, regex.error, OverflowError, RecursionError, ValueError) as error:
        raise UserError(
            f"dataset.group: {pattern!r} is no regular expression ({error}), and no column"
        ) from error
    raise UserError(
        f"dataset.group: {pattern!r} repeats by a count more than {_MOST_COUNTED:,} times; write "
        "a smaller count, * or +"
    )


def _counted(pattern: str) -> int:
    """How often something is repeated by a count, at most: counts behind brackets may multiply."""
    counts = [(bracket, int(n)) for bracket, n in _COUNT.findall(pattern) if int(n)]
    alone = max((n for bracket, n in counts if not bracket), default=1)
    return alone * math.prod(n for bracket, n in counts if bracket)


def group_columns(names: Iterable[str]) -> list[str]:
    """Columns that seem to say which patient, subject … an image is of."""
    return [name for name in names if _GROUP_COLUMN.fullmatch(name)]


def leak_told(column: str, sides: Mapping[str, set]) -> list[str]:
    """What is told of a column that seems to name groups, and of which some are on two sides."""
    test = sides.get("test", set())
    if not (both := sides.get("train", set()) & test):
        return []
    return [
        f"{len(both):,} of the {len(test):,} values of {column!r} in test are in train too: if "
        "these are patients, the test is no test of new ones"
    ]


def repeated(values: Iterable[object]) -> bool:
    """Whether a value is there twice: where none is, each image is a group of its own."""
    every = list(values)
    return len(set(every)) < len(every)


def groups_suspected(names: Sequence[str], labels: np.ndarray) -> str | None:
    """Why images seem to come in groups by their names: several of one patient, or series such as
    `a17_1.png`, `a17_2.png`; None if they do not.
    """
    told = [match for name in names if (match := _GROUP_IN_NAME.search(name))]
    if len(told) > len(names) / 2 and repeated(match[0].lower() for match in told):
        return f"{len(told):,} names tell whom they are of, such as {told[0].string!r}"
    for label in np.unique(labels):
        series: dict[str, str] = {}
        counts: dict[str, int] = {}
        own = [names[i] for i in np.flatnonzero(labels == label).tolist()]
        folders = Counter(name.rpartition("/")[0] for name in own)
        if len(own) - max(folders.values()) >= len(own) / 2:
            rarest = min(folders, key=lambda folder: folders[folder])
            return f"images of a class lie in {len(folders)} folders, such as {rarest!r}"
        for name in own:
            stem = name.rpartition("/")[2].rpartition(".")[0]
            if part := _PART_OF_SERIES.fullmatch(stem):
                counts[part[1]] = counts.get(part[1], 0) + 1
                series.setdefault(part[1], name)
        several = {stem: n for stem, n in counts.items() if n > 1}
        enough = sum(several.values()) > len(own) / 2 and len(several) > 1
        if enough and max(several.values()) <= max(2, _LARGEST_SERIES * len(own)):
            stem = max(several, key=several.__getitem__)
            return f"{several[stem]} names begin with {stem!r}, such as {series[stem]!r}"
    return None


def refuse_suspicion(where: str, why: str, right: str) -> None:
    """Raises UserError: a random split may put one patient on both sides."""
    what = f"{why}: if these are groups (one patient, one scene), a random split leaks them"
    raise UserError(f"{where}: {what}; {right}, or group: none if they are not")


def check_apart(where: str, groups: Mapping[str, Sequence[str]]) -> None:
    """Raises UserError if a group has images in two splits."""
    splits = list(groups)
    for i, one in enumerate(splits):
        for other in splits[i + 1 :]:
            if both := sorted(set(groups[one]) & set(groups[other])):
                some = ", ".join(map(repr, both[:3])) + (", …" if len(both) > 3 else "")
                what = f"{len(both)} groups, such as {some}, have images in {one} and in {other}"
                raise UserError(f"{where}: {what}; a patient's images belong to one side")


# Splits -------------------------------------------------------------------------------------------


def made(
    where: str,
    labels: np.ndarray,
    names: Sequence[str],
    wish: Wish,
    groups: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Places of each split among images with labels (n,) int64, ascending; the classes in
    proportion, each on every side, groups whole. names: the classes'. Raises UserError.
    """
    sides = {"test": wish.test, "val": wish.val}
    split = np.full(len(labels), "train", dtype="<U5")
    for side, part in sides.items():
        if part is None:
            continue
        left = np.flatnonzero(split == "train")
        of_rest = part / (1 - (wish.test or 0)) if side == "val" and wish.test else part
        if groups is None:
            chosen = _of_classes(where, labels[left], names, of_rest, wish.seed, side)
        else:
            _, own = np.unique(np.asarray(groups)[left], return_inverse=True)
            chosen = _of_groups(where, labels[left], names, of_rest, wish.seed, side, own)
        split[left[chosen]] = side
    return {
        side: places
        for side in ("train", "val", "test")
        if len(places := np.flatnonzero(split == side))
    }


def _of_classes(
    where: str, labels: np.ndarray, names: Sequence[str], part: float, seed: int, side: str
) -> np.ndarray:
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise _too_few(where, names[label], side, "has one image")
        n = min(max(1, round(part * len(members))), len(members) - 1)
        order = permutation(seed, f"split {side}", int(label), len(members))
        chosen.append(members[order[:n]])
    return np.sort(np.concatenate(chosen))


def _of_groups(
    where: str,
    labels: np.ndarray,
    names: Sequence[str],
    part: float,
    seed: int,
    side: str,
    groups: np.ndarray,
) -> np.ndarray:
    """Whole groups, in a random order, each taken if the classes' numbers come nearer to their part
    by it; then, for a class without any, the group that adds least to the others.
    """
    size = int(labels.max()) + 1
    table = np.zeros((int(groups.max()) + 1, size), np.int64)  # images by group and class
    np.add.at(table, (groups, labels), 1)
    every = table.sum(axis=0)
    scale = np.maximum(every, 1)
    target, has = part * every, np.zeros(size)
    taken = np.zeros(len(table), bool)
    order = permutation(seed, f"split {side}", 0, len(table))
    for group in order[np.argsort(-table[order].sum(axis=1), kind="stable")]:
        with_it = has + table[group]
        gain = np.square((has - target) / scale).sum() - np.square((with_it - target) / scale).sum()
        if gain > 0 and ((every - with_it > 0) | (every == 0)).all():
            has, taken[group] = with_it, True
    for label in np.flatnonzero((every > 0) & (has == 0)):
        fit = [
            group
            for group in order
            if not taken[group]
            and table[group, label]
            and ((every - has - table[group] > 0) | (every == 0)).all()
        ]
        if not fit:
            n = int((table[:, label] > 0).sum())
            raise _too_few(where, names[int(label)], side, f"has images of {n} groups")
        least = min(fit, key=lambda group: int(table[group].sum()))
        has, taken[least] = has + table[least], True
    return np.flatnonzero(taken[groups])


def _too_few(where: str, name: str, side: str, has: str) -> UserError:
    what = f"class {name!r} {has}, which cannot be both in train and in {side}"
    return UserError(f"{where}: {what}; add some, remove the class, or bring a {side} split")


def summary(split: dict[str, np.ndarray], wish: Wish, groups: Sequence[str] | None) -> str:
    """One line on a split that was made."""
    sizes = ", ".join(f"{len(places):,} {side}" for side, places in split.items())
    how = f"groups by {wish.group!r} kept together" if groups is not None else "by class"
    if groups is not None:
        apart = ", ".join(
            f"{len({groups[i] for i in places}):,} {side}" for side, places in split.items()
        )
        how += f" (groups: {apart})"
    return f"split here with seed {wish.seed}, {how}: {sizes} images"
