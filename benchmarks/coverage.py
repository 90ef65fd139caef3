"""The coverage study: what the intervals contain, scored against the planted truth.

    python study.py [--tables 300] [--reduced] [--only WORD] [--first-seed 0] [--out study.json]

One line per design × noise × shape. Scored are the equivalent amounts (every base size, every
measured real amount, and half and 1.5 times the base), w, the gains of all synthetic cells, the
extra worth beyond copies; and how often an answer is claimed that is not there."""

import argparse
import datetime
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from equigrid.analysis.conclusions import amounts
from equigrid.analysis.data.trials import COPIES, Layout, Values
from equigrid.analysis.fitting import effective_samples as model
from equigrid.analysis.fitting import variance as noise_model
from equigrid.analysis.fitting import worlds as sim

_CHUNK = 12  # tables side by side: large enough to hide Python, small enough for the cache
CLEAR = 5.0  # a gain is clear if it is this many of its (true) standard errors


@dataclass(frozen=True)
class Line:
    """One condition. `label` says what is special about it."""

    simulation: sim.Simulation
    levels: sim.NoiseLevels
    label: str = ""

    @property
    def name(self) -> str:
        """'CIFAR-10, 0.3 points, saturating'."""
        special = f", {self.label}" if self.label else ""
        design, shape = self.simulation.design.name, self.simulation.shape.name
        return f"{design}{special}, {self.levels.trial:g} points, {shape}"


PLAIN = (
    (sim.CIFAR10, 0.1),
    (sim.CIFAR10, 0.3),
    (sim.BLOODMNIST, 0.1),
    (sim.DIGITS, 0.3),
    (sim.DIGITS_SMALL, 0.6),
)
HELD_OUT = ((sim.CIFAR10, 0.1), (sim.BLOODMNIST, 0.1), (sim.DIGITS_SMALL, 0.6))
NOISY = (
    (sim.CIFAR10, 0.8),
    (sim.CIFAR10, 1.5),
    (sim.BLOODMNIST, 0.3),
    (sim.DIGITS, 1.0),
    (sim.DIGITS_SMALL, 1.5),
)
FEW = ("Eq. 13", "saturating", "copies explain all")


def lines() -> Iterator[Line]:
    """All conditions of the full study."""
    for designs, wanted in (
        (PLAIN, [s for s in sim.SHAPES if not s.held_out]),
        (HELD_OUT, [s for s in sim.SHAPES if s.held_out]),
        (NOISY, [s for s in sim.SHAPES if s.name in FEW]),
    ):
        for design, trial in designs:
            yield from (
                Line(sim.Simulation(design, shape), sim.NoiseLevels(trial)) for shape in wanted
            )
    yield from special_lines()


def special_lines() -> Iterator[Line]:
    """Designs and noise out of the ordinary, with three shapes each."""
    cifar, quiet = sim.CIFAR10, sim.NoiseLevels(0.3)
    few = {s.name: s for s in sim.SHAPES}
    one = replace(cifar, subset_seeds=1, seeds=3)
    published = replace(cifar, subset_seeds=1, seeds=1, copies=())
    cases = (
        (one, quiet, "one subset seed, three trials"),
        (one, replace(quiet, generator=2.0), "one subset seed, generator 2 × trial"),
        (published, replace(quiet, generator=0.3), "one training per cell"),
        (
            cifar,
            replace(quiet, generator=0.0, tilt=0.0, subset=0.0, subset_trend=0.0),
            "no cluster noise",
        ),
        (cifar, replace(quiet, generator=2.0, tilt=0.66), "generator 2 × trial"),
        (replace(cifar, noise=(2.0, 1.0, 0.3)), quiet, "uneven noise"),
        (replace(cifar, drop=0.3), quiet, "30% of the groups missing"),
        (replace(cifar, subset_seeds=5, seeds=1), quiet, "five subset seeds"),
        (replace(cifar, mixes=((1.0, 2.0),)), quiet, "with mixes"),
        (
            replace(
                cifar,
                n_base=(5_000,),
                real=((1, 2, 3),),
                syn=((1.0, 2.0, 3.0, 4.0, 5.0),),
                copies=((1, 3),),
            ),
            quiet,
            "one base",
        ),
        (
            replace(sim.DIGITS, real=((1,),) * 2, syn=((1, 4),) * 2, copies=((1,),) * 2),
            quiet,
            "few amounts",
        ),
    )
    for design, levels, label in cases:
        for name in FEW:
            yield Line(sim.Simulation(design, few[name]), levels, label)


def random_lines(first_seed: int, shapes: int = 8) -> Iterator[Line]:
    """Shapes drawn at random, none of which was looked at while the procedure was made."""
    for design, trial in HELD_OUT:
        for seed in range(first_seed, first_seed + shapes):
            yield Line(sim.Simulation(design, sim.random_shape(seed)), sim.NoiseLevels(trial))


@dataclass
class Score:
    """Sums over tables of what one line found; shares are made in `row`."""

    amount: dict[str, list[bool]] = field(default_factory=dict)
    free: dict[str, list[bool]] = field(default_factory=dict)
    w: dict[str, list[bool]] = field(default_factory=dict)
    gain: dict[str, list[bool]] = field(default_factory=dict)
    extra: dict[str, list[bool]] = field(default_factory=dict)
    claimed: list[bool] = field(default_factory=list)  # an upper end where no amount does
    false_gain: list[bool] = field(default_factory=list)  # a sign of the worth that is not there
    false_extra: list[bool] = field(default_factory=list)
    clear: list[bool] = field(default_factory=list)  # recognised, where it is clear
    log_width: list[float] = field(default_factory=list)  # (both bounded) of the model's interval
    free_log_width: list[float] = field(default_factory=list)
    bounded: list[bool] = field(default_factory=list)


def run_line(
    line: Line, tables: int, *, draws: int = 200, seed: int = 0, **options: Any
) -> dict[str, Any]:
    """Simulate, fit and score one line; plain values."""
    started, score = time.perf_counter(), Score()
    layout = line.simulation.layout()
    rng = np.random.default_rng([seed, *line.name.encode()])
    truth = _truths(line.simulation, layout)
    values = line.simulation.values(layout, tables, line.levels, rng)
    for first in range(0, tables, _CHUNK):
        part = slice(first, min(first + _CHUNK, tables))
        some = Values(values.mean[part], values.within_ss[part], values.within_df)
        noise = noise_model.estimate(layout, some, n_test=line.simulation.design.n_test)
        fit = model.fit(layout, noise, draws=draws, seed=int(rng.integers(2**31)), **options)
        _score(line, fit, truth, score)
    return _row(line, score, tables, time.perf_counter() - started)


def asked(layout: Layout, b: int) -> list[float]:
    """Real amounts that a line asks about at base size b: the measured ones, half and 1.5 times the
    base."""
    measured = [float(r) for r in layout.real[layout.pure(b, -1)]]
    return sorted({*measured, *(r for r in (0.5, 1.5) if measured and r <= max(measured))})


def _truths(simulation: sim.Simulation, layout: Layout) -> dict[str, Any]:
    bases = range(len(layout.n_base))
    return {
        "amount": [[simulation.amount(b, r) for r in asked(layout, b)] for b in bases],
        "w": [simulation.true_worth(b, 1.0) for b in bases],
        "cells": simulation.truth(layout),
    }


def _score(line: Line, fit: model.Fit, truth: dict[str, Any], score: Score) -> None:
    layout = fit.layout
    for b in range(len(layout.n_base)):
        _score_amounts(fit, b, truth["amount"][b], score)
        _score_worth(line, fit, b, truth, score)
        _score_extra(line, fit, b, score)


def _score_amounts(fit: model.Fit, b: int, truth: list[float], score: Score) -> None:
    layout, r = fit.layout, np.array(asked(fit.layout, b))
    if not len(r):
        return
    syn = layout.amount[layout.pure(b, 0), 0]
    found, free = (
        amounts.equivalent(fit.draws, b, 0, r),
        amounts.interpolated(layout, fit.raw, b, 0, r),
    )
    for k, true in enumerate(truth):
        name = f"{layout.n_base[b]:g} + {r[k]:g}"
        s = amounts.summarise(found[:, :, k], syn.min(), syn.max())
        f = amounts.summarise(free[:, :, k], syn.min(), syn.max())
        score.amount.setdefault(name, []).extend((s.low <= true) & (true <= s.high))
        bounded = (s.low > 0) & np.isfinite(s.high)
        score.bounded.extend(bounded)
        if (
            true > 200
        ):  # what needs so much is as good as never: an upper end below half of it is a false claim
            score.claimed.extend(s.high < min(true, 400) / 2)
        if true <= syn.max():
            score.free.setdefault(name, []).extend((f.low <= true) & (true <= f.high))
            both = bounded & (f.low > 0) & np.isfinite(f.high)
            score.log_width.extend(np.log(s.high[both] / s.low[both]))
            score.free_log_width.extend(np.log(f.high[both] / f.low[both]))


def _score_worth(line: Line, fit: model.Fit, b: int, truth: dict[str, Any], score: Score) -> None:
    layout = fit.layout
    name, w = f"{layout.n_base[b]:g}", amounts.worth(fit.draws, b, 0, np.ones(1))[:, :, 0]
    low, high = np.quantile(w, [0.025, 0.975], axis=1, method="inverted_cdf")
    score.w.setdefault(name, []).extend((low <= truth["w"][b]) & (truth["w"][b] <= high))
    syn = layout.pure(b, 0)
    x = layout.amount[syn, 0]
    at = layout.base_cell(b)
    levels = fit.draws.source(b, 0, np.concatenate([[0.0], x]))
    gains = levels[:, :, 1:] - levels[:, :, :1]
    true = truth["cells"][syn] - truth["cells"][at]
    ends = np.quantile(gains, [0.025, 0.975], axis=1, method="inverted_cdf")
    inside = (ends[0] <= true) & (true <= ends[1])
    for k, amount in enumerate(x):
        score.gain.setdefault(f"{name} x {amount:g}", []).extend(inside[:, k])
    positive = (gains[:, :, -1] > 0).mean(axis=1)
    decided = np.maximum(positive, 1 - positive) >= amounts.SIGN
    if true[-1] == 0:
        score.false_gain.extend(decided)
    else:
        right = (positive > 0.5) == (true[-1] > 0)
        score.false_gain.extend(decided & ~right)
        if abs(true[-1]) > CLEAR * _gain_sd(line, layout, b, float(x[-1])):
            score.clear.extend(decided & right)


def _gain_sd(line: Line, layout: Layout, b: int, x: float) -> float:
    """The true standard error of a gain at amount x from the two cell means alone, test set
    included, points."""
    v, d = line.levels, line.simulation.design
    scale = v.trial * (d.noise or (1.0,) * len(d.n_base))[b]
    growth, log_x = np.log1p(x), np.log(x)
    one = v.subset_trend**2 * growth**2 + v.generator**2 + v.tilt**2 * log_x**2
    one += 2 * v.interaction**2 + 2 / d.seeds
    p = np.sort(line.simulation.accuracy(b, 0.0, np.array([0.0, x])) / 100)
    on_test_set = (
        1e4 / (d.n_test or np.inf) * (np.diff(p)[0] * (1 - np.diff(p)[0]) + 0.1 * p[0] * (1 - p[0]))
    )
    return float(np.sqrt(scale**2 * one / d.subset_seeds + on_test_set))


def _score_extra(line: Line, fit: model.Fit, b: int, score: Score) -> None:
    layout, s = fit.layout, line.simulation
    if COPIES not in layout.sources:
        return
    copies = layout.sources.index(COPIES)
    x = amounts.common_amount(layout, b, 0, copies)
    draws = amounts.extra_draws(fit.draws, b, 0, copies, x)
    true = s.true_worth(b, x) - s.true_worth(b, x, 1)
    low, high = np.quantile(draws, [0.025, 0.975], axis=1, method="inverted_cdf")
    score.extra.setdefault(f"{layout.n_base[b]:g}", []).extend((low <= true) & (true <= high))
    positive = (draws > 0).mean(axis=1)
    decided = np.maximum(positive, 1 - positive) >= amounts.SIGN
    wrong = decided if abs(true) < 1e-9 else decided & ((positive > 0.5) != (true > 0))
    score.false_extra.extend(wrong)


def _share(parts: dict[str, list[bool]]) -> tuple[float | None, float | None]:
    """Over all points, and at the worst point."""
    if not parts:
        return None, None
    return float(np.mean(np.concatenate(list(parts.values())))), float(
        min(np.mean(v) for v in parts.values())
    )


def _mean(found: list[Any]) -> float | None:
    return float(np.mean(found)) if found else None


def _row(line: Line, score: Score, tables: int, seconds: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "line": line.name,
        "held_out": line.simulation.shape.held_out,
        "tables": tables,
    }
    for name in ("amount", "free", "w", "gain", "extra"):
        row[name], row[f"{name}_worst"] = _share(getattr(score, name))
    for name in ("claimed", "false_gain", "false_extra", "clear", "bounded"):
        row[name] = _mean(getattr(score, name))
    row["log_width"], row["free_log_width"] = (
        float(np.median(v)) if len(v) else None for v in (score.log_width, score.free_log_width)
    )
    row["points"] = {name: float(np.mean(v)) for name, v in score.amount.items()}
    return {**row, "levels": asdict(line.levels), "seconds": round(seconds, 1)}


def reduced() -> list[Line]:
    """A dozen lines that cover every kind of condition, for the slow tests."""
    wanted = {
        "CIFAR-10, 0.3 points, Eq. 11",
        "CIFAR-10, 0.1 points, slow start",
        "CIFAR-10, 0.3 points, saturating",
        "CIFAR-10, 0.3 points, copies explain all",
        "BloodMNIST, 0.1 points, Eq. 13",
        "BloodMNIST, 0.1 points, useless",
        "digits, 0.3 points, constant fraction",
        "digits small, 0.6 points, as good as real",
        "digits small, 0.6 points, harmful",
        "CIFAR-10, one subset seed, three trials, 0.3 points, Eq. 13",
        "digits small, 0.6 points, sigmoid",
    }
    return [line for line in lines() if line.name in wanted]


HEAD = (
    "amount worst  free |    w worst | gain worst | extra worst | "
    "claim fgain fextr clear | bnd  logw / free"
)


def text(row: dict[str, Any]) -> str:
    """One line of a table."""

    def p(name: str) -> str:
        return "   - " if row[name] is None else f"{100 * row[name]:5.1f}"

    width = " ".join(
        "  - " if row[n] is None else f"{row[n]:.2f}" for n in ("log_width", "free_log_width")
    )
    groups = (
        ("amount", "amount_worst", "free"),
        ("w", "w_worst"),
        ("gain", "gain_worst"),
        ("extra", "extra_worst"),
        ("claimed", "false_gain", "false_extra", "clear"),
        ("bounded",),
    )
    shares = " | ".join(" ".join(p(name) for name in group) for group in groups)
    held_out = " (held out)" if row["held_out"] else ""
    return f"{shares} {width} | {row['line']}{held_out} {row['seconds']}s"


def main(arguments: list[str] | None = None) -> None:
    """Run and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=300)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--skip", type=int, default=0, help="lines to skip, to go on with a study")
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--random", action="store_true", help="random shapes, by the first seed")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    chosen = (
        reduced() if options.reduced else [line for line in lines() if options.only in line.name]
    )
    chosen = list(random_lines(options.first_seed)) if options.random else chosen[options.skip :]
    started, rows = time.time(), []
    print(HEAD)
    for line in chosen:
        rows.append(run_line(line, options.tables, draws=options.draws, seed=options.first_seed))
        print(text(rows[-1]), flush=True)
        if options.out:  # after each line: a study that is cut short has said something
            options.out.write_text(
                json.dumps({**_header(options, started), "lines": rows}, indent=1) + "\n"
            )
    print(f"{len(rows)} lines in {time.time() - started:.0f} s", file=sys.stderr)


def _header(options: argparse.Namespace, started: float) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "tables": options.tables,
        "draws": options.draws,
        "seed": options.first_seed,
        "seconds": round(time.time() - started),
        "cpu_seconds": round(time.process_time()),
    }


if __name__ == "__main__":
    main()
