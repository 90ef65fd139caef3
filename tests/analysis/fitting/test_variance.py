"""The noise model: components recovered, unequal groups, test set, outliers."""

import numpy as np
import pandas as pd
import pytest

from equigrid.analysis.data.trials import arrange
from equigrid.analysis.fitting import variance as noise_model
from equigrid.analysis.fitting import worlds as sim

SHAPE = sim.SHAPES[1]


def test_draws_have_the_stated_covariance() -> None:
    simulation = sim.Simulation(sim.CIFAR10, SHAPE)
    layout = simulation.layout()
    values = simulation.values(layout, 1, sim.NoiseLevels(0.3), np.random.default_rng(0))
    noise = noise_model.estimate(layout, values)
    quiet = noise_model.Noise(**{**noise.__dict__, "log_var_cov": noise.log_var_cov * 1e-8})
    errors = quiet.draw(6000, np.random.default_rng(1))[0]
    np.testing.assert_allclose(np.cov(errors.T), noise.cov[0], atol=0.06 * noise.cov[0].max())


@pytest.mark.long
def test_variances_are_recovered_with_many_seeds() -> None:
    design = sim.Design(**{**sim.DIGITS.__dict__, "subset_seeds": 20, "seeds": 4, "n_test": None})
    levels = sim.NoiseLevels(0.5, subset=1.0, generator=1.5, tilt=0.5, interaction=0.5)
    simulation = sim.Simulation(design, SHAPE)
    layout = simulation.layout()
    noise = noise_model.estimate(
        layout, simulation.values(layout, 12, levels, np.random.default_rng(0))
    )
    sd = np.exp(0.5 * noise.log_var).mean(axis=(0, 1)) / 0.5
    found = [
        sd[k]
        for k in (noise_model.TRIAL, noise_model.LEVEL, noise_model.SHIFT, noise_model.INTERACTION)
    ]
    np.testing.assert_allclose(found, [1.0, 1.0, 1.5, 0.5], rtol=0.2)


def test_missing_groups_do_not_break_the_pairing() -> None:
    """A subset that lacks half of its cells must not shift the means of the others: its level is an
    effect."""
    design = sim.Design(**{**sim.DIGITS.__dict__, "n_test": None})
    levels = sim.NoiseLevels(0.05, generator=0.0, tilt=0.0, subset_trend=0.0)
    truth = sim.Simulation(design, SHAPE)
    table = truth.table(0, levels)
    third = table["subset_seed"] == 2
    table = table.assign(accuracy=(table["accuracy"] + np.where(third, 1.5, 0.0)).clip(upper=100))
    found = arrange(table[~(third & (table["n_syn"] > 0))])
    lay = found.layout
    noise = noise_model.estimate(lay, found.values)
    syn = lay.pure(0, lay.sources.index("generator"))
    gain = noise.mean[0, syn] - noise.mean[0, lay.base_cell(0)]
    true = truth.accuracy(0, 0.0, lay.amount[syn, 0]) - truth.accuracy(0, 0.0, 0.0)
    # Means over the trainings there are would be off by 0.5; the noise of a gain is about 0.04.
    assert np.abs(gain - true).max() < 0.2


def test_one_subset_names_what_it_cannot_see() -> None:
    table = (
        sim.Simulation(sim.CIFAR10, SHAPE).table(0, sim.NoiseLevels(0.3)).query("subset_seed == 0")
    )
    found = arrange(table)
    assert "generator" in noise_model.estimate(found.layout, found.values).unmeasured


def test_equal_repeats_are_not_certainty() -> None:
    rows = [
        {"n_base": 50, "n_real_added": r, "n_syn": s, "accuracy": a, "seed": t}
        for r, s, a in ((0, 0, 90.0), (50, 0, 95.0), (0, 50, 93.0))
        for t in range(2)
    ]
    found = arrange(pd.DataFrame(rows))
    noise = noise_model.estimate(found.layout, found.values, n_test=12)
    assert np.sqrt(np.diag(noise.cov[0])).min() > 0.05
    # Sqrt(.9 × .1 / 12) is 8.7 points.
    assert np.std(noise.draw(2000, np.random.default_rng(0))[0, :, 0]) > 3.0


def test_a_test_set_shifts_equal_accuracies_alike() -> None:
    accuracy = np.repeat([[80.0, 90.0, 80.0, 95.0]], 4000, axis=0)
    error = noise_model.sampled_on_test_set(accuracy, 1000, np.random.default_rng(0))
    np.testing.assert_array_equal(error[:, 0], error[:, 2])
    p = accuracy[0] / 100
    expected = 1e4 * (np.minimum(p[:, None], p) - np.outer(p, p)) / 1000
    np.testing.assert_allclose(np.cov(error.T), expected, atol=0.1)


def test_a_diverged_training_is_named_and_left_out() -> None:
    table = sim.Simulation(sim.CIFAR10, SHAPE).table(0, sim.NoiseLevels(0.3))
    odd = int(table.query("n_syn == 10000 and n_base == 5000").index[1])
    spoilt = table.assign(accuracy=table["accuracy"].where(table.index != odd, 10.0))
    found = arrange(spoilt)
    assert len(found.outliers) == 1
    assert found.outliers[0].accuracy == 10.0 and "10,000 generator" in found.outliers[0].text
    clean, kept = (noise_model.estimate(f.layout, f.values).mean for f in (arrange(table), found))
    assert np.abs(clean - kept).max() < 0.7


def test_a_collapse_without_repetitions_is_named() -> None:
    table = (
        sim.Simulation(sim.CIFAR10, SHAPE).table(0, sim.NoiseLevels(0.3)).query("subset_seed == 0")
    )
    odd = int(table.query("n_syn == 10000 and n_base == 5000").index[0])
    found = arrange(table.assign(accuracy=table["accuracy"].where(table.index != odd, 10.0)))
    assert [o.accuracy for o in found.outliers] == [10.0]


def test_ordinary_noise_has_no_outliers() -> None:
    for seed in range(30):
        table = sim.Simulation(sim.CIFAR10, SHAPE).table(seed, sim.NoiseLevels(0.3))
        assert not arrange(table).outliers


@pytest.mark.parametrize("column", ["n_base", "accuracy"])
def test_a_missing_column_is_said(column: str) -> None:
    table = sim.Simulation(sim.DIGITS, SHAPE).table(0, sim.NoiseLevels(0.3)).drop(columns=column)
    with pytest.raises(ValueError, match=column):
        arrange(table)
