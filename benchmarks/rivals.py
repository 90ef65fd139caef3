"""What the intervals of `analysis/conclusions/rivals.py` cover: gains over the base, and over a
generator's images, of tables whose effects are planted.

    python benchmarks/rivals.py [--tables 500] [--reduced] [--out rivals.json]

Each line is a design and its noise, in standard deviations of one trial: what a subset does to all
cells alike, what is left of cell and subset, and the luck of a generator, which all of its amounts
share. With one subset seed the truth is that of this subset. Beside ours stand the older way, which
pooled the pairs of all lines, and each line's own pairs alone."""

import argparse
import datetime
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from equigrid.analysis.conclusions.comparisons import source
from equigrid.analysis.conclusions.contrasts import Contrasts, Gain, Repeated

GENERATORS = {"closed": (1.0, 4.0), "open": (1.0,)}  # amounts, in base sizes
N = 100
Cell = tuple[str, str, int]  # arm, name, amount


@dataclass(frozen=True)
class Line:
    """One condition. trials: of each cell on each subset; with `base_trials` the base has others;
    uneven: their number differs from cell to cell and subset to subset, from 1 up to this. missing:
    the part of cells and subsets that was not trained.
    """

    subsets: int
    trials: int = 2
    augmentations: int = 8
    base_trials: int | None = None
    uneven: bool = False
    missing: float = 0.0
    subset: float = 3.0
    left: float = 0.5
    luck: float = 1.0

    @property
    def name(self) -> str:
        """'3 subsets × 2 trials, 8 augmentations, left 0.5, luck 1'."""
        trials = f"1 to {self.trials}" if self.uneven else f"{self.trials}"
        base = f" (base {self.base_trials})" if self.base_trials else ""
        missing = f", {self.missing:.0%} missing" if self.missing else ""
        return (
            f"{self.subsets} subsets × {trials} trials{base}, {self.augmentations} augmentations, "
            f"left {self.left:g}, luck {self.luck:g}{missing}"
        )

    def number(self, arm: str, rng: np.random.Generator) -> int:
        """Of the trials of a cell on a subset."""
        if self.uneven:
            return int(rng.integers(1, self.trials + 1))
        return (self.base_trials or self.trials) if arm == "base" else self.trials

    def cells(self) -> dict[Cell, float]:
        """Their planted effects, in points over the base."""
        effects: dict[Cell, float] = {("base", "base", 0): 0.0, ("copies", "copies", N): 0.3}
        for i in range(self.augmentations):
            effects["augmentation", f"a{i}", 0] = 0.4 * i
        for k, (name, amounts) in enumerate(GENERATORS.items()):
            effects |= {("syn", name, int(N * m)): 1.0 + k + 0.2 * m for m in amounts}
        return effects


def lines() -> list[Line]:
    """All conditions."""
    plain = [Line(s, t) for s in (1, 2, 3, 4, 5) for t in (1, 2, 3) if s * t > 1]
    three = Line(3)
    return [
        *plain,
        *(replace(line, augmentations=2) for line in plain if line.trials == 2),
        *(Line(s, left=left) for s in (2, 3, 5) for left in (0.0, 2.0)),
        *(Line(s, luck=luck) for s in (2, 3, 5) for luck in (0.0, 3.0)),
        *(Line(s, trials=3, uneven=True) for s in (1, 2, 3, 5)),
        *(Line(s, trials=3, base_trials=1) for s in (2, 3, 5)),
        *(Line(s, trials=1, base_trials=3) for s in (2, 3, 5)),
        replace(three, missing=0.1),
        replace(three, subsets=5, missing=0.1),
        replace(three, subset=0.0, left=0.0, luck=0.0),
    ]


def reduced() -> list[Line]:
    """Some of each kind, for the slow tests."""
    return [
        Line(1, 3), Line(2, 1), Line(2, 2, luck=3.0), Line(3, 2), Line(3, 2, luck=3.0),
        Line(3, 3, uneven=True), Line(3, 3, base_trials=1, augmentations=2), Line(5, 1, left=2.0),
        Line(5, 2, missing=0.1),
    ]  # fmt: skip


def planted(line: Line, rng: np.random.Generator) -> tuple[list[Repeated], np.ndarray]:
    """A table's cells, and their true accuracies."""
    cells, shape = line.cells(), (len(line.cells()), line.subsets)
    luck = {name: rng.normal(0, line.luck, line.subsets) for name in GENERATORS}
    own = rng.normal(0, line.left, shape)
    for place, (arm, name, _) in enumerate(cells):
        own[place] += luck[name] if arm == "syn" else 0.0
    effects = np.array(list(cells.values()))
    each = effects[:, None] + own + rng.normal(0, line.subset, line.subsets)
    found = []
    for (arm, name, _), accuracies in zip(cells, each):
        trials = {
            subset: accuracies[subset] + rng.normal(0, 1, line.number(arm, rng))
            for subset in range(line.subsets)
            if arm == "base" or rng.random() >= line.missing
        }
        trials = trials or {0: accuracies[0] + rng.normal(0, 1, 1)}
        found.append(Repeated(source(arm, name if arm == "syn" else ""), trials))
    return found, effects + (own[:, 0] if line.subsets == 1 else 0.0)


WAYS = ("ours", "pooled pairs", "own pairs")


def run_line(line: Line, tables: int, seed: int = 0) -> dict[str, Any]:
    """Plants, analyses and scores one line; plain values."""
    rng = np.random.default_rng([seed, *line.name.encode()])
    names = list(line.cells())
    over = {"base": [names.index(("base", "base", 0))]}
    over["generator"] = [names.index(("syn", name, N)) for name in GENERATORS]
    inside: dict[tuple[str, str], list[bool]] = {}
    width: dict[tuple[str, str], list[float]] = {}
    started = time.perf_counter()
    for _ in range(tables):
        cells, truth = planted(line, rng)
        for what, references in over.items():
            for reference in references:
                for way, (middle, half) in _ways(cells, reference).items():
                    kept = np.isfinite(half) & (np.arange(len(cells)) != reference)
                    miss = np.abs(middle - (truth - truth[reference]))
                    inside.setdefault((what, way), []).extend((miss <= half)[kept])
                    width.setdefault((what, way), []).extend(2 * half[kept])
    row: dict[str, Any] = {"line": line.name, "tables": tables}
    for what in over:
        for way in WAYS:
            covered = inside.get((what, way))
            row[f"over {what}, {way}"] = covered and round(100 * float(np.mean(covered)), 1)
            mean = float(np.mean(width[what, way])) if covered else None
            row[f"width over {what}, {way}"] = mean and round(mean, 2)
    return {**row, "seconds": round(time.perf_counter() - started, 1)}


def _ways(cells: list[Repeated], reference: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each way the gains over a cell, and half of their intervals; NaN without one."""
    contrasts = Contrasts(cells, reference)
    gains = [
        contrasts.gain(place) if place != reference else Gain(0.0, np.nan, 1.0)
        for place in range(len(cells))
    ]
    value, variance, df = (np.array(one, float) for one in zip(*gains))
    with np.errstate(invalid="ignore"):
        found = {"ours": (value, stats.t.ppf(0.975, df) * np.sqrt(variance))}
    subsets = cells[reference].subsets
    if len(subsets) < 2 or any(cell.subsets != subsets for cell in cells):
        return found
    pairs = np.array([cell.means(subsets) for cell in cells]) - cells[reference].means(subsets)
    own, n, others = pairs.var(1, ddof=1), len(subsets), len(cells) - 1
    pooled = np.full(len(cells), own.sum() / others)
    found["pooled pairs"] = value, stats.t.ppf(0.975, others * (n - 1)) * np.sqrt(pooled / n)
    found["own pairs"] = value, stats.t.ppf(0.975, n - 1) * np.sqrt(own / n)
    return found


def text(row: dict[str, Any]) -> str:
    """One line of a table: covered in percent, and widths, over the base, then over images."""

    def one(what: str, way: str) -> str:
        covered, width = row[f"over {what}, {way}"], row[f"width over {what}, {way}"]
        return "      -      " if covered is None else f"{covered:5.1f} {width:7.2f}"

    parts = " | ".join(" ".join(one(what, way) for way in WAYS) for what in ("base", "generator"))
    return f"{parts} | {row['line']} {row['seconds']}s"


def main(arguments: list[str] | None = None) -> None:
    """Run and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=500)
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    print(f"covered (%) and width (points), {', '.join(WAYS)}; over the base | over images")
    for line in reduced() if options.reduced else lines():
        rows.append(run_line(line, options.tables))
        print(text(rows[-1]), flush=True)
        if options.out:
            content = {"date": datetime.date.today().isoformat(), "lines": rows}
            options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
