"""How sure a difference is: against textbooks' tests, and planted effects."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from equigrid.analysis.conclusions.contrasts import Contrasts, Repeated

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def half(gain, level=0.95) -> float:
    return float(stats.t.ppf(0.5 + level / 2, gain.df) * np.sqrt(gain.variance))


def cells(accuracies: np.ndarray, sources: list[str]) -> list[Repeated]:
    """accuracies: (cells, subsets, trials)."""
    return [Repeated(source, dict(enumerate(own))) for source, own in zip(sources, accuracies)]


@pytest.fixture
def table() -> np.ndarray:
    """Five cells, four subsets that differ by points, two trials."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (5, 4, 2)) + rng.normal(80, 5, (1, 4, 1))


def test_two_cells_of_one_source_are_a_paired_t_test(table):
    gain = Contrasts(cells(table[:2], ["base", "base"]), 0).gain(1)
    means = table.mean(2)
    expected = stats.ttest_rel(means[1], means[0]).confidence_interval(0.95)
    assert (gain.value - half(gain), gain.value + half(gain)) == pytest.approx(tuple(expected))


def test_of_one_source_the_residual_of_two_ways_counts(table):
    """Against least squares with a dummy for each cell and each subset."""
    gain = Contrasts(cells(table, ["base"] * 5), 0).gain(3)
    y, (L, S) = table.mean(2), (5, 4)
    design = np.hstack([np.kron(np.eye(L), np.ones((S, 1))), np.tile(np.eye(S)[:, 1:], (L, 1))])
    solved, squares, rank, _ = np.linalg.lstsq(design, y.ravel(), rcond=None)
    df = L * S - rank
    at = np.zeros(rank)
    at[[3, 0]] = 1, -1
    variance = squares[0] / df * at @ np.linalg.inv(design.T @ design) @ at
    assert df == (L - 1) * (S - 1)
    assert gain == pytest.approx((at @ solved, variance, df))


def test_between_sources_the_luck_that_amounts_share_is_not_averaged_away(table):
    """Three cells of the base, two of a generator: what they share with each other, subset by
    subset, counts whole; by hand.
    """
    luck = np.array([4.0, -4.0, 3.0, -3.0])
    table[3:] += luck[:, None]
    y = table.mean(2)
    gain = Contrasts(cells(table, ["base"] * 3 + ["syn edm"] * 2), 0).gain(4)
    shared = (y[3:].mean(0) - y[:3].mean(0)).var(ddof=1) / 4

    def left(rows: np.ndarray) -> tuple[float, int]:
        out = rows - rows.mean(0) - rows.mean(1, keepdims=True) + rows.mean()
        df = (len(rows) - 1) * 3
        return (out**2).sum() / df, df

    (of_base, df_base), (of_syn, df_syn) = left(y[:3]), left(y[3:])
    parts = [(shared, 3), (of_base * 2 / 3 / 4, df_base), (of_syn / 2 / 4, df_syn)]
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / of for part, of in parts)
    assert gain == pytest.approx((y[4].mean() - y[0].mean(), variance, df))
    alike = Contrasts(cells(table, ["base"] * 3 + ["syn edm"] * 2), 3).gain(4)
    assert alike.variance < gain.variance / 5, "amounts of one generator share their luck"


def test_of_two_subsets_another_source_has_its_own_pairs_alone(table):
    own = table[:, :2]
    gain = Contrasts(cells(own, ["base"] * 4 + ["syn edm"]), 0).gain(4)
    expected = stats.ttest_rel(own[4].mean(1), own[0].mean(1)).confidence_interval(0.95)
    assert (gain.value - half(gain), gain.value + half(gain)) == pytest.approx(tuple(expected))
    assert gain.df == 1


def test_a_subset_that_is_missing_is_no_gain(table):
    """Subsets differ by points: a cell that lacks one is compared on the others."""
    made = cells(table, ["base"] * 5)
    shifted = table.copy()
    shifted[:, 0] += 1_000  # in all cells alike
    del made[2].accuracies[0]
    again = cells(shifted, ["base"] * 5)
    del again[2].accuracies[0]
    one, other = Contrasts(made, 0).gain(2), Contrasts(again, 0).gain(2)
    assert one == pytest.approx(other)
    assert one.value == pytest.approx((table[2, 1:] - table[0, 1:]).mean())
    assert one.df == 2


def test_fewer_trials_make_wider_intervals(table):
    """The base was trained once, all others five times: its share of the noise is larger than an
    average cell's.
    """
    rng = np.random.default_rng(1)
    made = [Repeated("base", {s: rng.normal(80, 1, n) for s in range(4)}) for n in (1, 5, 5, 5, 5)]
    even = Contrasts(made, 1).gain(2)
    uneven = Contrasts(made, 0).gain(2)
    assert even.variance < uneven.variance
    trials = np.concatenate([v - v.mean() for cell in made for v in cell.accuracies.values()])
    of_trial = (trials**2).sum() / 64
    assert uneven.variance - even.variance == pytest.approx(of_trial * (1.2 - 2 * 0.36) / 4)


def test_of_one_subset_the_trials_count(table):
    made = [Repeated("base", {7: table[0].ravel()}), Repeated("syn edm", {7: table[1].ravel()[:3]})]
    gain = Contrasts(made, 0).gain(1)
    one, other = table[1].ravel()[:3], table[0].ravel()
    expected = stats.ttest_ind(one, other).confidence_interval(0.95)
    assert (gain.value - half(gain), gain.value + half(gain)) == pytest.approx(tuple(expected))
    alone = Contrasts([Repeated("base", {7: one[:1]}), Repeated("base", {7: other})], 0).gain(1)
    assert np.isnan(alone.variance)


@pytest.fixture
def study():
    spec = importlib.util.spec_from_file_location("rivals_study", BENCHMARKS / "rivals.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_intervals_cover_what_is_planted(study):
    """Nine designs of benchmarks/rivals.py. Of 300 tables, whose gains share a reference, a share
    varies by some 1.3 points.
    """
    for line in study.reduced():
        row = study.run_line(line, 300)
        for what in ("base", "generator"):
            assert 91.5 <= row[f"over {what}, ours"] <= 98.5, study.text(row)
