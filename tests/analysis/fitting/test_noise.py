"""Noise: directions, draws, and that intervals of a linear quantity are Student's."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.data.cells import CurveKey, gather
from equigrid.analysis.data.checks import check_table
from equigrid.analysis.fitting.noise import (
    CLUSTERED,
    NONE,
    RESIDUAL,
    TRIALS,
    draw_means,
    estimate_noise,
)
from equigrid.analysis.settings import Settings

KEY = CurveKey("planted", "planted", "planted", "planted")
NO_RESIDUAL = (np.nan, 0)


def bases_of(planted, seed):
    return gather(check_table(planted.table(seed)).frame, KEY)


def test_which_noise_is_known():
    planted = Planted(LIKE_CIFAR10)
    cases = [
        (replace(planted, subset_seeds=3, seeds=1), NO_RESIDUAL, CLUSTERED),
        (replace(planted, subset_seeds=1, seeds=3), NO_RESIDUAL, TRIALS),
        (replace(planted, subset_seeds=1, seeds=1), (0.4, 5), RESIDUAL),
        (replace(planted, subset_seeds=1, seeds=1), NO_RESIDUAL, NONE),
    ]
    for case, residual, model in cases:
        bases = bases_of(case, 0)
        noises = estimate_noise(bases, [residual] * 3, Settings())
        assert {noise.model for noise in noises} == {model}


def test_directions_are_orthonormal_and_the_residual_is_what_was_planted():
    planted = Planted(LIKE_CIFAR10, subset_seeds=60, seeds=1, generator_sd=0.5, subset_sd=1.0, trial_sd=0.2,
                      generator_tilt_sd=0.0, copies=(1.0, 2.0))  # fmt: skip
    for noise in estimate_noise(bases_of(planted, 1), [NO_RESIDUAL] * 3, Settings()):
        q = noise.directions
        np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=1e-12)
        assert noise.sd == pytest.approx(0.2, rel=0.1)
        # The generator's direction: variance 0.5^2 times the squared norm of its part along the
        # contrast.
        syn = 5
        others = 1 + 3 + 2
        along = 0.5**2 * syn * others / (syn + others) + 0.2**2
        assert noise.ratio[1] * noise.sd**2 == pytest.approx(along, rel=0.25)


@pytest.mark.parametrize(("subset_seeds", "pool"), [(3, True), (3, False), (5, True)])
def test_intervals_of_the_gain_cover_as_they_say(subset_seeds, pool):
    """The gain of the first synthetic cell is linear in the means: 95 % intervals must cover 95 %,
    with planted generator variance, where percentiles over three seeds would cover about 73 %.
    """
    planted = Planted(
        LIKE_CIFAR10, subset_seeds=subset_seeds, seeds=2, generator_sd=0.5, generator_tilt_sd=0.0
    )
    clean = bases_of(planted.without_noise(), 0)
    inside = total = 0
    for seed in range(40):
        bases = bases_of(planted, seed)
        noises = estimate_noise(bases, [NO_RESIDUAL] * 3, Settings(pool_generators=pool))
        draws = draw_means(bases, noises, 250, np.random.default_rng(seed))
        for base, drawn, exact in zip(bases, draws, clean):
            k, z = (int(np.nonzero(base.arm == arm)[0][0]) for arm in ("syn", "base"))
            low, high = np.quantile(drawn[:, k] - drawn[:, z], [0.025, 0.975])
            inside += low <= exact.mean[k] - exact.mean[z] <= high
            total += 1
    # Without pooling each trend has two degrees of freedom of its own: wider than need be, never
    # too narrow.
    assert 0.90 <= inside / total <= (0.99 if pool else 1.0)


def test_draws_are_students_where_only_trials_repeat():
    planted = Planted(
        LIKE_CIFAR10,
        subset_seeds=1,
        seeds=2,
        generator_sd=0.0,
        subset_sd=0.0,
        generator_tilt_sd=0.0,
    )
    bases = bases_of(planted, 5)
    noises = estimate_noise(bases, [NO_RESIDUAL] * 3, Settings())
    drawn = draw_means(bases, noises, 40_000, np.random.default_rng(0))[0]
    noise = noises[0]
    standard = (drawn[:, 2] - bases[0].mean[2]) / (noise.sd / np.sqrt(2))
    assert stats.kstest(standard, stats.t(noise.df).cdf).pvalue > 0.001
    assert noise.df == bases[0].within_df == 9


def test_cells_of_the_same_trainings_share_their_draw():
    table = Planted(LIKE_CIFAR10, subset_seeds=1, seeds=3).table(0)
    # 5,000 + 20,000 real is declared to be the same trainings as base 25,000.
    shared = (table["n_base"] == 5_000) & (table["n_real_added"] == 15_000)
    base = (table["n_base"] == 25_000) & (table["arm"] == "base")
    table.loc[shared, "trial_id"] = table.loc[base, "trial_id"].to_numpy()
    bases = gather(check_table(table).frame, KEY)
    noises = estimate_noise(bases, [NO_RESIDUAL] * 3, Settings())
    drawn = draw_means(bases, noises, 2000, np.random.default_rng(0))
    a = drawn[1][:, bases[1].n_real == 20_000][:, 0]
    b = drawn[2][:, bases[2].arm == "base"][:, 0]
    other = drawn[2][:, bases[2].arm == "syn"][:, 0]
    assert np.corrcoef(a, b)[0, 1] > 0.9
    assert abs(np.corrcoef(a, other)[0, 1]) < 0.1
