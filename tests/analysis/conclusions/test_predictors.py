"""Does a measure of the pools predict their gain: ranks by hand, and tables of known order."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr

from equigrid.analysis.conclusions.controls import Gain
from equigrid.analysis.conclusions.predictors import (
    MEASURES,
    pool_points,
    predictors,
    rank_correlation,
    scale_near_one,
)
from equigrid.analysis.data.estimates import Estimate
from equigrid.analysis.report.tables import _metric_tables


def analysis_of(gains: dict[str, dict[int, float]], scale: float = 1.0):
    """An analysis whose generators have these gains by base size: what the points read of it."""

    def curve(name: str, by_base: dict[int, float]) -> SimpleNamespace:
        key = SimpleNamespace(dataset="d", classifier="cnn", recipe="r", generator=name)
        found = [
            Gain("syn", over, base, amount, Estimate(gain + shift, gain - 1, gain + 1, 0.95), 4)
            for base, gain in by_base.items()
            for over, amount, shift in (("base", scale, 0), ("copies", scale, 9), ("base", 4.0, 7))
        ]
        return SimpleNamespace(key=key, gains=found, setting="closed")

    return SimpleNamespace(curves=[curve(*one) for one in gains.items()])


def row(generator: str, n_base: int | None, **measures) -> dict:
    return {"pool": generator, "dataset": "d", "generator": generator, "n_base": n_base,
            "n_images": 9, "n_real": 9, **dict.fromkeys(MEASURES), **measures}  # fmt: skip


class TestPoints:
    def test_gain_over_the_base_nearest_to_one(self):
        analysis = analysis_of({"a": {50: 2.0}})
        (point,) = pool_points(analysis, [row("a", 50, fd=3.0, fd_low=2.0, fd_high=5.0)])
        assert (point.gain.value, point.scale, point.n_base) == (2.0, 1.0, 50)
        assert point.measures == {"fd": Estimate(3.0, 2.0, 5.0, 0.95)}
        assert scale_near_one(analysis_of({"a": {50: 1}}, scale=2.0)) == 2.0
        assert scale_near_one(analysis_of({})) is None

    def test_several_pools_are_averaged(self):
        rows = [row("a", 50, fd=value, fd_low=value - 3, fd_high=value + 3) for value in (4.0, 8.0)]
        (point,) = pool_points(analysis_of({"a": {50: 2.0}}), rows)
        half = 3 / np.sqrt(2)
        assert point.measures["fd"] == Estimate(6.0, 6 - half, 6 + half, 0.95)

    def test_a_pool_counts_at_its_own_base(self):
        analysis = analysis_of({"a": {50: 2.0, 100: 3.0}, "open": {50: 5.0, 100: 6.0}})
        rows = [row("a", 50, kid=1.0), row("a", 100, kid=2.0), row("open", None, kid=9.0)]
        found = {
            (p.generator, p.n_base): p.measures["kid"].value for p in pool_points(analysis, rows)
        }
        assert found == {("a", 50): 1, ("a", 100): 2, ("open", 50): 9, ("open", 100): 9}


class TestRankCorrelation:
    def test_value_and_interval(self):
        one, other = np.array([1, 2, 3, 4, 5.0]), np.array([2, 1, 4, 3, 7.0])
        found = rank_correlation(one, other)
        assert found.value == pytest.approx(1 - 6 * 4 / (5 * 24))
        half = 1.959964 * np.sqrt((1 + found.value**2 / 2) / 2)
        assert found.low == pytest.approx(np.tanh(np.arctanh(found.value) - half), abs=1e-5)
        assert found.high == pytest.approx(np.tanh(np.arctanh(found.value) + half), abs=1e-5)

    def test_a_perfect_order_is_no_proof(self):
        four = rank_correlation(np.arange(4.0), np.arange(4.0))
        assert four.value == four.high == 1 and four.low < 0
        assert rank_correlation(np.arange(8.0), -np.arange(8.0)).high < -0.5

    def test_none(self):
        assert rank_correlation(np.arange(3.0), np.arange(3.0)) is None
        assert rank_correlation(np.ones(5), np.arange(5.0)) is None

    def test_the_interval_covers(self):
        """Normal pairs of correlation 0.6, ten of them: near 95% (within 4 points, 600 draws)."""
        rng, rho = np.random.default_rng(0), 0.6
        long = rng.normal(size=(2, 200_000))
        truth = spearmanr(long[0], rho * long[0] + np.sqrt(1 - rho**2) * long[1]).statistic
        inside = 0
        for _ in range(600):
            x, e = rng.normal(size=(2, 10))
            found = rank_correlation(x, rho * x + np.sqrt(1 - rho**2) * e)
            inside += found.low <= truth <= found.high
        assert 0.91 <= inside / 600 <= 0.99


class TestPredictors:
    def gains(self, n: int) -> dict[str, dict[int, float]]:
        return {f"g{i}": {50: float(i)} for i in range(n)}

    def found(self, n: int, **measures) -> dict:
        """measures: from the number of the generator, which is its gain."""
        rows = [row(f"g{i}", 50, **{k: float(f(i)) for k, f in measures.items()}) for i in range(n)]
        return {
            each.measure: each for each in predictors(pool_points(analysis_of(self.gains(n)), rows))
        }

    def test_lower_is_better_turns_the_sign(self):
        found = self.found(8, fd=lambda i: 10 - i, coverage=lambda i: i, near_copies=lambda i: -i,
                           precision=lambda i: -i, kid=lambda i: (i * 5) % 8)  # fmt: skip
        assert found["fd"].correlation.value == found["coverage"].correlation.value == 1
        assert found["fd"].reading() == "better pools bring more"
        assert found["precision"].reading() == "better pools bring less"
        assert found["near_copies"].reading() == "the higher, the smaller"
        assert found["kid"].reading() == "undecided: the interval holds 0"

    def test_too_few_pools(self):
        found = self.found(3, fd=lambda i: -i)["fd"]
        assert found.correlation is None
        assert found.reading() == "3 pools: too few to say, 4 at least"
        assert self.found(5, fd=lambda i: 1)["fd"].reading() == "all pools are equal in it"

    def test_within_a_base_size_too(self):
        """Over both base sizes the better pool seems to bring less; within each it brings more."""
        gains = {f"g{i}": {50: 20.0 + i, 100: 5.0 + i} for i in range(4)}
        rows = [
            row(f"g{i}", base, coverage=(base / 100 + i / 100))
            for i in range(4)
            for base in (50, 100)
        ]
        found = {each.base: each for each in predictors(pool_points(analysis_of(gains), rows))}
        assert set(found) == {None, 50, 100}
        assert found[None].correlation.value < 0 < found[50].correlation.value
        assert (found[None].pools, found[50].pools) == (8, 4)


class TestTables:
    def test_metrics_beside_gains(self):
        n = 5
        gains = {f"g{i}": {50: float(i)} for i in range(n)}
        rows = [
            row(f"g{i}", 50, fd=9.0 - i, fd_low=8.0 - i, fd_high=10.0 - i, recall=i / 10, extractor="mine",
                copying_z=-1.5, n_held_out=70)
            for i in range(n)
        ]  # fmt: skip
        metrics, beside, told = _metric_tables(analysis_of(gains), rows)
        assert metrics["columns"] == ["pool", "network", "images", "real images", "FD", "recall", "C_T",
                                      "held-out images"]  # fmt: skip
        assert [cell["text"] for cell in metrics["rows"][0][4:6]] == ["9 [8,\u00a010]", "0"]
        assert "What these cannot tell" in metrics["intro"]
        second = [cell["text"] for cell in beside["rows"][1]]
        first = dict(zip(beside["columns"], second))
        assert (first["gain, points"], first["FD"]) == ("1.00 [0.00, 2.00]", "8 [7,\u00a09]")
        assert [line[-1]["text"] for line in told["rows"]] == ["better pools bring more"] * 2

    def test_large_numbers_are_written_out(self):
        """FD on DINOv2's features is in hundreds."""
        rows = [row("a", 50, fd=1043.6, fd_low=99.7, fd_high=12000.0, kid=0.00123)]
        metrics, *_ = _metric_tables(analysis_of({"a": {50: 1.0}}), rows)
        assert [cell["text"] for cell in metrics["rows"][0]][3:] == [
            "1,044 [100,\u00a012,000]",
            "0.00123",
        ]

    def test_nothing_where_none_was_measured(self):
        assert list(_metric_tables(analysis_of({"a": {50: 1.0}}), [row("a", 50, fid=3.0)])) == []


def test_points_without_a_gain_are_left_out():
    analysis = analysis_of({"a": {50: 2.0}})
    gain = analysis.curves[0].gains[0]
    analysis.curves[0].gains = [replace(gain, gain=Estimate(None, None, None, 0.95))]
    assert pool_points(analysis, [row("a", 50, fd=1.0)]) == []
