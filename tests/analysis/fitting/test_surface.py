"""The 31 regressions of Appendix A and the criteria that choose among them."""

import numpy as np
import pytest
from scipy import stats

from equigrid.analysis.fitting.surface import (
    EQ11,
    SUBSETS,
    TERMS,
    candidates,
    design,
    fit_surfaces,
    rank,
)

REAL = np.array([500, 1000, 1500, 2000, 500, 500, 500, 500, 500], dtype=float)
SYN = np.array([0, 0, 0, 0, 500, 1000, 1500, 2000, 2500], dtype=float)
EPSILON = 1e-6


def planted(rng=None, sd=0.0):
    accuracy = (
        8 * np.log(REAL + EPSILON)
        + 0.05 * np.log(SYN + EPSILON)
        + 6 * np.log(REAL + SYN + EPSILON)
        - 60
    )
    return accuracy if rng is None else accuracy + rng.normal(size=len(REAL)) * sd


def test_there_are_31_distinct_subsets():
    assert len(SUBSETS) == len({frozenset(s) for s in SUBSETS}) == 31
    assert EQ11 in SUBSETS
    assert {term for subset in SUBSETS for term in subset} == set(TERMS)


def test_criteria_match_brute_force():
    accuracy = planted(np.random.default_rng(1), 0.5)
    for candidate in candidates(REAL, SYN, accuracy, EPSILON):
        x = design(REAL, SYN, candidate.terms, EPSILON)
        fitted = x @ np.linalg.lstsq(x, accuracy, rcond=None)[0]
        n, p = x.shape
        rss = ((accuracy - fitted) ** 2).sum()
        total = ((accuracy - accuracy.mean()) ** 2).sum()
        assert candidate.r2 == pytest.approx(1 - rss / total, abs=1e-7)
        assert candidate.adjusted_r2 == pytest.approx(
            1 - rss / (n - p) / (total / (n - 1)), abs=1e-6
        )
        # AICc from the Gaussian likelihood, with the variance as a parameter, up to terms common to
        # all.
        sd = np.sqrt(rss / n)
        k = p + 1
        log_likelihood = stats.norm.logpdf(accuracy, fitted, sd).sum()
        expected = (
            2 * k - 2 * log_likelihood + 2 * k * (k + 1) / (n - k - 1) if n - k - 1 > 0 else np.nan
        )
        common = n * (np.log(2 * np.pi) + 1)
        np.testing.assert_allclose(candidate.aicc, expected - common, rtol=1e-6)


def test_leave_one_out_is_what_refitting_without_each_cell_gives():
    accuracy = planted(np.random.default_rng(2), 0.5)
    for candidate in candidates(REAL, SYN, accuracy, EPSILON):
        if not np.isfinite(candidate.loo):
            continue
        errors = []
        for i in range(len(REAL)):
            keep = np.arange(len(REAL)) != i
            x = design(REAL, SYN, candidate.terms, EPSILON)
            weights = np.linalg.lstsq(x[keep], accuracy[keep], rcond=None)[0]
            errors.append(accuracy[i] - x[i] @ weights)
        assert candidate.loo == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-4), (
            candidate.terms
        )


def test_plain_r2_prefers_the_largest_and_the_criteria_do_not():
    rng = np.random.default_rng(3)
    chosen = {"aicc": 0, "loo": 0, "adjusted_r2": 0}
    for _ in range(20):
        found = candidates(REAL, SYN, planted(rng, 0.3), EPSILON)
        assert rank(found, "r2")[0].terms == TERMS
        for criterion in chosen:
            chosen[criterion] += len(rank(found, criterion)[0].terms) < 5
    assert min(chosen.values()) >= 10


def test_eq11_recovers_planted_weights_exactly():
    surfaces, choice = fit_surfaces(REAL, SYN, planted()[None], rule="eq11", epsilon=EPSILON)
    np.testing.assert_allclose(surfaces.weights[0], [0, 0, 8, 0.05, 6, -60], atol=1e-6)
    assert SUBSETS[choice[0]] == EQ11
    np.testing.assert_allclose(
        surfaces.accuracy(REAL[:, None], SYN[:, None])[:, 0], planted(), atol=1e-9
    )


def test_linear_terms_are_per_image():
    accuracy = 50 + 0.002 * REAL + 0.0004 * SYN
    surfaces, _ = fit_surfaces(REAL, SYN, accuracy[None], rule=("n_real", "n_syn"), epsilon=EPSILON)
    np.testing.assert_allclose(surfaces.weights[0], [0.002, 0.0004, 0, 0, 0, 50], atol=1e-9)


@pytest.mark.parametrize("rule", ["aicc", "loo", "adjusted_r2"])
def test_a_rule_chooses_in_every_replicate_on_its_own(rule):
    rng = np.random.default_rng(4)
    draws = np.stack([planted(rng, 0.3) for _ in range(30)])
    surfaces, choice = fit_surfaces(REAL, SYN, draws, rule=rule, epsilon=EPSILON)
    for draw, chosen, weights in zip(draws, choice, surfaces.weights):
        best = rank(candidates(REAL, SYN, draw, EPSILON), rule)[0]
        assert SUBSETS[chosen] == best.terms
        np.testing.assert_allclose(weights, best.weights, rtol=1e-6, atol=1e-9)


def test_cells_that_do_not_identify_a_surface_give_none():
    few = slice(0, 3)
    surfaces, choice = fit_surfaces(
        REAL[few], SYN[few], planted()[None, few], rule="eq11", epsilon=EPSILON
    )
    assert choice[0] == -1
    assert np.isnan(surfaces.weights).all()
