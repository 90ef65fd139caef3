"""Eq. 13: the fit of c1 and c2."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from equigrid.analysis.fitting.curve import FORMS, equivalent_ratio, fit_curves

TAU_N = np.repeat([0.1, 1.0, 5.0], 3)
REAL = np.tile([1.0, 2.0, 3.0], 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("c1", "c2"), [(0.72, 3.88), (1.67, 2.93), (0.94, 37.84), (1.51, 1.68), (0.06, 6448.0)]
)
def test_exact_tuples_give_the_parameters_back(form, c1, c2):
    ratio = equivalent_ratio(c1, c2, TAU_N, REAL)
    fit = fit_curves(TAU_N, REAL, ratio[None], form)
    assert fit.c1[0] == pytest.approx(c1, rel=1e-5)
    assert fit.c2[0] == pytest.approx(c2, rel=1e-5)
    assert fit.verified[0]


@pytest.mark.parametrize("form", ["paper", "log", "relative"])
def test_the_optimum_is_the_one_that_many_scipy_starts_find(form):
    rng = np.random.default_rng(7)
    ratios = equivalent_ratio(0.9, 3.0, TAU_N, REAL) * np.exp(rng.normal(size=(12, 9)) * 0.4)
    fits = fit_curves(TAU_N, REAL, ratios, form)
    for b, ratio in enumerate(ratios):

        def residual(p, ratio=ratio):
            model = equivalent_ratio(np.exp(p[0]), np.exp(p[1]), TAU_N, REAL)
            return {
                "paper": model - ratio,
                "log": np.log(model) - np.log(ratio),
                "relative": model / ratio - 1,
            }[form]

        starts = [(a, g) for a in (-2, 0, 1) for g in (0.3, 1.0, 3.0)]
        solutions = [least_squares(residual, s, bounds=([-20, 1e-3], [20, 20])) for s in starts]
        best = min(solutions, key=lambda s: s.cost)
        np.testing.assert_allclose(np.log([fits.c1[b], fits.c2[b]]), best.x, atol=2e-4)
        assert fits.verified[b]


def test_replicates_do_not_influence_each_other():
    rng = np.random.default_rng(8)
    ratios = equivalent_ratio(1.2, 2.0, TAU_N, REAL) * np.exp(rng.normal(size=(20, 9)) * 0.3)
    ratios[3, 2:5] = np.nan
    together = fit_curves(TAU_N, REAL, ratios, "paper")
    for b in range(20):
        alone = fit_curves(TAU_N, REAL, ratios[b : b + 1], "paper")
        assert together.c1[b] == pytest.approx(alone.c1[0], rel=1e-7)
        assert together.c2[b] == pytest.approx(alone.c2[0], rel=1e-7)


def test_too_few_tuples_or_one_base_size_give_nothing():
    ratio = equivalent_ratio(0.9, 3.0, TAU_N, REAL)
    two = np.where(np.isin(np.arange(9), [0, 8]), ratio, np.nan)
    one_size = np.where(TAU_N == 1.0, ratio, np.nan)
    fits = fit_curves(TAU_N, REAL, np.stack([two, one_size]), "paper")
    assert np.isnan(fits.c1).all()
    assert not fits.verified.any()
    empty = fit_curves(np.zeros(0), np.zeros(0), np.zeros((4, 0)), "paper")
    assert np.isnan(empty.c2).all()


def test_robust_fit_shrugs_at_one_wild_tuple_and_the_papers_does_not():
    ratio = equivalent_ratio(0.9, 3.0, TAU_N, REAL)
    ratio[5] *= 3.0
    robust, plain = (fit_curves(TAU_N, REAL, ratio[None], form) for form in ("robust", "paper"))
    assert robust.c2[0] == pytest.approx(3.0, rel=0.02)
    assert abs(plain.c2[0] - 3.0) > 3 * abs(robust.c2[0] - 3.0)


def test_a_fit_that_runs_into_its_bounds_is_not_verified():
    # Proportional to the real ratio at two base sizes that hardly differ: c2 goes to one while c1
    # grows for ever.
    tau_n = np.repeat([1.0, 1.0 + 1e-6], 3)
    fit = fit_curves(tau_n, REAL[:6], (10.0 * REAL[:6])[None], "paper")
    assert not fit.verified[0]


def test_unknown_form():
    with pytest.raises(ValueError, match="form is 'cubic'"):
        fit_curves(TAU_N, REAL, np.ones((1, 9)), "cubic")
