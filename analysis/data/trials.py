"""Trials of one curve as arrays: what was measured (`Layout`) apart from what came out (`Values`).

A curve is one dataset, classifier and recipe; it may hold several generators ("sources"), which
share the real images' cells. Copies of the base are a source too. Many tables of one layout can be
analysed at once (simulation)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from equigrid.analysis.data.checks import amounts_by_class

Floats = NDArray[Any]  # float64 throughout
Ints = NDArray[Any]
Numbers = Floats | float

COPIES = "copies"
CHANCE_FREE_MAX = 100.0  # every metric here is in percent


@dataclass(frozen=True, eq=False)
class Layout:
    """What was measured. M cells (base size × amounts), N groups of trainings that differ in their
    trial seed alone.

    n_base: (B,) nominal images of each base size, ascending. Per cell: `base` (M,) index of its
    base size, `real` (M,) added real images and `amount` (M, J) images of each source, as multiples
    of n_base. Per group: `cell` (N,), `subset` (N,) index of the subset seed, `generator` (N, J)
    index of the generator's training (unique per base size, subset and generator seed), -1 where
    the cell has none of it; `count` (N,) trainings."""

    n_base: Floats
    sources: tuple[str, ...]
    base: Ints
    real: Floats
    amount: Floats
    cell: Ints
    subset: Ints
    generator: Ints
    count: Floats

    @property
    def cells(self) -> int:
        """M."""
        return len(self.base)

    def rows_of(self, b: int) -> Ints:
        """Groups (indices) of base size b."""
        return np.flatnonzero(self.base[self.cell] == b)

    def cells_of(self, b: int) -> Ints:
        """Cells (indices) of base size b."""
        return np.flatnonzero(self.base == b)

    def pure(self, b: int, source: int) -> Ints:
        """Cells of base size b with images of `source` alone added, by amount; source -1: real
        images alone."""
        added = np.concatenate([self.real[:, None], self.amount], axis=1) > 0
        wanted = np.zeros(added.shape[1], dtype=bool)
        wanted[source + 1] = True
        found = np.flatnonzero((self.base == b) & (added == wanted).all(axis=1))
        order = self.real[found] if source < 0 else self.amount[found, source]
        return found[np.argsort(order)]

    def base_cell(self, b: int) -> int | None:
        """The cell to which nothing was added."""
        found = np.flatnonzero((self.base == b) & (self.real == 0) & (self.amount == 0).all(axis=1))
        return int(found[0]) if len(found) else None

    def name(self, m: int) -> str:
        """'5,000 + 5,000 real + 10,000 edm'."""
        n = self.n_base[self.base[m]]
        parts = [f"{n:,.0f}"]
        if self.real[m] > 0:
            parts.append(f"{self.real[m] * n:,.0f} real")
        parts += [f"{x * n:,.0f} {s}" for x, s in zip(self.amount[m], self.sources) if x > 0]
        return " + ".join(parts)


@dataclass(frozen=True, eq=False)
class Values:
    """Results of T tables of one layout. `mean` (T, N): each group's mean, percent. `within_ss` (T,
    B), `within_df` (B,): squares about the group means, per base size."""

    mean: Floats
    within_ss: Floats
    within_df: Floats


@dataclass(frozen=True)
class Outlier:
    """A training that was left out: where, its accuracy, and how far it lies from its like, in
    points and in robust standard deviations."""

    where: str
    trial: str
    accuracy: float
    distance: float
    deviations: float

    @property
    def text(self) -> str:
        """One line."""
        side = "below" if self.distance < 0 else "above"
        how = f" ({self.deviations:.0f} robust deviations)" if self.deviations > 0 else ""
        return (
            f"left out: {self.where}, {self.trial}: {self.accuracy:.2f}, "
            f"{abs(self.distance):.1f} points {side} its like{how}"
        )


@dataclass(frozen=True, eq=False)
class Observed:
    """A tidy table, arranged: its layout and values (T = 1), and what was left out and why.

    subset_seeds: of each subset index of the layout. generators: of each generator index its base
    size (nominal images), subset seed and generator seed. used: the trial seeds that each cell has
    had, by its index, subset seed and generator seed.
    """

    layout: Layout
    values: Values
    subset_seeds: tuple[int, ...]
    generators: tuple[tuple[int, int, int], ...]
    used: dict[tuple[int, int, int], frozenset[int]]
    outliers: tuple[Outlier, ...]
    notes: tuple[str, ...]


NEEDED = ("n_base", "n_real_added", "accuracy")


def arrange(table: pd.DataFrame, *, robust: bool = True) -> Observed:
    """From trials to arrays.

    table: one row per training (or per published mean), columns `n_base`, `n_real_added`,
    `accuracy` (percent); optional: `n_nominal`, `n_syn`, `generator`, `n_copies`, `subset_seed`,
    `generator_seed`, `seed`, `trial_id`. A table of several synthetic sources in one training is
    not supported: `generator` names the only one. Raises ValueError for missing columns and
    accuracies outside 0 to 100."""
    rows, notes = _prepared(table)
    outliers: tuple[Outlier, ...] = ()
    if robust and len(rows):
        outliers, rows = _without_outliers(rows)
    layout, values, labels = _arrays(rows)
    return Observed(layout, values, *labels, outliers, tuple(notes))


def _prepared(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise ValueError(f"the table lacks {missing}; needed are {list(NEEDED)}")
    rows = table.copy()
    for name in ("n_syn", "n_copies", "subset_seed", "generator_seed", "seed"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce").fillna(0) if name in rows else 0
    rows["n_nominal"] = (
        rows["n_nominal"].fillna(rows["n_base"]) if "n_nominal" in rows else rows["n_base"]
    )
    rows["source"] = _source(rows)
    notes = []
    by_class = amounts_by_class(rows) != ""
    if by_class.any():
        notes.append(
            f"{by_class.sum()} trainings have amounts by class, and are no part of a curve"
        )
        rows = rows[~by_class]
    known = np.isfinite(pd.to_numeric(rows["accuracy"], errors="coerce").to_numpy(dtype=float))
    if not known.all():
        notes.append(f"{(~known).sum()} of {len(rows)} trainings have no accuracy")
    no_base = ~(rows["n_nominal"].to_numpy(dtype=float) > 0)
    if no_base.any():
        notes.append(
            f"{no_base.sum()} trainings without a real image are not used: "
            "amounts are multiples of the base"
        )
    rows = rows[known & ~no_base].reset_index(drop=True)
    wrong = rows[(rows["accuracy"] < 0) | (rows["accuracy"] > CHANCE_FREE_MAX)]
    if len(wrong):
        raise ValueError(f"accuracy {wrong['accuracy'].iloc[0]} is outside 0 to 100 percent")
    if "trial_id" in rows:
        rows = rows.drop_duplicates(
            ["n_nominal", "n_real_added", "n_syn", "n_copies", "source", "trial_id"]
        )
    return rows, notes


def _source(rows: pd.DataFrame) -> Ints:
    names = (
        rows["generator"].fillna("synthetic")
        if "generator" in rows
        else pd.Series("synthetic", rows.index)
    )
    return np.where(rows["n_syn"] > 0, names.astype(str), "")


_CELL = ["n_nominal", "n_real_added", "n_syn", "n_copies", "source"]
_GROUP = [*_CELL, "subset_seed", "generator_seed"]
_FAR = 8.0  # robust deviations: subsets and generators shift groups of trainings by several
_FAR_POINTS = 2.0  # never name a training that differs by less
_COLLAPSE = 0.6


def _without_outliers(rows: pd.DataFrame) -> tuple[tuple[Outlier, ...], pd.DataFrame]:
    """Trainings that lie far from their like, named, and the rest.

    Their like are the trainings of the same cell, after each subset's median shift; the scale is
    pooled over the base size. Cells with fewer than three trainings cannot say which of theirs is
    odd; there only a collapse is named: an accuracy far below all others of the base size."""
    deviation, scale = _deviations(rows)
    far = np.abs(deviation) / scale
    size = rows.groupby(_CELL)["accuracy"].transform("size").to_numpy()
    odd = (far > _FAR) & (np.abs(deviation) > _FAR_POINTS) & (size >= 3)
    # A cell of which a third or more would go is spread, not struck: two modes are noise that must
    # stay visible.
    share = pd.Series(odd).groupby([rows[c].to_numpy() for c in _CELL]).transform("mean").to_numpy()
    odd &= share <= 0.34
    collapsed, drop = _collapsed(rows, size)
    deviation, odd = np.where(collapsed, drop, deviation), odd | collapsed
    found = [_named(rows.iloc[i], deviation[i], far[i]) for i in np.flatnonzero(odd)]
    return tuple(found), rows[~odd].reset_index(drop=True)


def _collapsed(rows: pd.DataFrame, size: Ints) -> tuple[Ints, Floats]:
    """(R,) whether a training is the only one of its base size below `_COLLAPSE` of the median
    accuracy there, in a cell of fewer than three; and its distance to that median, points. Several
    are a finding (harm), not an accident."""
    by_base = rows.groupby("n_nominal")["accuracy"]
    median = by_base.transform("median").to_numpy()
    low = rows["accuracy"].to_numpy(dtype=float) < _COLLAPSE * median
    alone = pd.Series(low).groupby(rows["n_nominal"].to_numpy()).transform("sum").to_numpy() == 1
    enough = by_base.transform("size").to_numpy() >= 5
    base_cell = (rows[["n_real_added", "n_syn", "n_copies"]] == 0).all(axis=1).to_numpy()
    return low & alone & enough & (size < 3) & ~base_cell, rows["accuracy"].to_numpy(
        dtype=float
    ) - median


def _deviations(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    accuracy = rows["accuracy"].astype(float)
    deviation = accuracy - accuracy.groupby([rows[c] for c in _CELL]).transform("median")
    size = accuracy.groupby([rows[c] for c in _CELL]).transform("size")
    shift = deviation.groupby([rows["n_nominal"], rows["subset_seed"]]).transform("median")
    deviation = deviation - shift.where(size > 1, 0.0)
    # The median of an odd number of trainings is one of them: its zero says nothing about the
    # scale.
    telling = deviation.abs().where((size > 1) & (deviation != 0))
    scale = telling.groupby(rows["n_nominal"]).transform("median") * 1.5  # 1.44 to 2.1 for 3 to 9
    return deviation.to_numpy(), np.maximum(scale.fillna(np.inf).to_numpy(), 0.02)


def _named(row: pd.Series, distance: float, deviations: float) -> Outlier:
    added = [
        f"{row[c]:,.0f} {w}"
        for c, w in (("n_real_added", "real"), ("n_syn", row["source"]))
        if row[c] > 0
    ]
    added += [f"{row['n_copies']:,.0f} copies"] if row["n_copies"] > 0 else []
    where = " + ".join([f"{row['n_nominal']:,.0f}", *added])
    trial = f"subset seed {row['subset_seed']:.0f}, seed {row['seed']:.0f}"
    return Outlier(where, trial, float(row["accuracy"]), float(distance), float(deviations))


Labels = tuple[
    tuple[int, ...], tuple[tuple[int, int, int], ...], dict[tuple[int, int, int], frozenset[int]]
]


def _arrays(rows: pd.DataFrame) -> tuple[Layout, Values, Labels]:
    rows = rows.sort_values(_GROUP, kind="stable").reset_index(drop=True)
    groups = rows.groupby(_GROUP, sort=True)
    table = groups["accuracy"].agg(["mean", "size"]).reset_index()
    table["ss"] = (
        ((rows["accuracy"] - groups["accuracy"].transform("mean")) ** 2)
        .groupby(groups.ngroup())
        .sum()
    )
    n_base = np.unique(table["n_nominal"].to_numpy(dtype=float))
    copies = [COPIES] if (table["n_copies"] > 0).any() else []
    sources = (*sorted(set(table["source"]) - {""}), *copies)
    cell = table.groupby(_CELL, sort=True).ngroup().to_numpy()
    first = table.iloc[np.unique(cell, return_index=True)[1]]
    base = np.searchsorted(n_base, first["n_nominal"].to_numpy(dtype=float))
    amount = np.zeros((len(first), len(sources)))
    for j, source in enumerate(sources):
        images = (
            first["n_copies"]
            if source == COPIES
            else first["n_syn"].where(first["source"] == source, 0.0)
        )
        amount[:, j] = images.to_numpy(dtype=float) / n_base[base]
    subset, subset_seeds = pd.factorize(table["subset_seed"])
    trained, generators = pd.factorize(
        pd.MultiIndex.from_frame(table[["n_nominal", "subset_seed", "generator_seed"]])
    )
    layout = Layout(
        n_base,
        sources,
        base,
        first["n_real_added"].to_numpy(dtype=float) / n_base[base],
        amount,
        cell,
        subset,
        _generators(trained, amount[cell], sources),
        table["size"].to_numpy(dtype=float),
    )
    of_base = base[cell]
    ss = np.bincount(of_base, weights=table["ss"], minlength=len(n_base))
    df = np.bincount(of_base, weights=layout.count - 1, minlength=len(n_base))
    values = Values(table["mean"].to_numpy(dtype=float)[None], ss[None], df)
    used: dict[tuple[int, int, int], set[int]] = {}
    places = zip(cell[groups.ngroup()], rows["subset_seed"], rows["generator_seed"], rows["seed"])
    for m, subset_seed, generator_seed, seed in places:
        used.setdefault((int(m), int(subset_seed), int(generator_seed)), set()).add(int(seed))
    return (
        layout,
        values,
        (
            tuple(int(seed) for seed in subset_seeds),
            tuple((round(n), int(s), int(g)) for n, s, g in generators),
            {place: frozenset(seeds) for place, seeds in used.items()},
        ),
    )


def _generators(trained: Ints, amount: Floats, sources: tuple[str, ...]) -> Ints:
    """(N, J). Copies have no generator."""
    has = (amount > 0) & (np.array(sources, dtype=object) != COPIES)[None, :]
    return np.where(has, trained[:, None], -1)
