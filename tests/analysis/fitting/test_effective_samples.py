"""The model: derivatives, misfit, recovery without noise, degradation with little data."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from equigrid.analysis.conclusions import amounts
from equigrid.analysis.data.trials import Layout, Values, arrange
from equigrid.analysis.fitting import effective_samples as model
from equigrid.analysis.fitting import variance as noise_model
from equigrid.analysis.fitting import worlds as sim

SHAPES = {shape.name: shape for shape in sim.SHAPES}


def fitted(
    design: sim.Design, shape: str, trial: float, tables: int = 1, draws: int = 200, seed: int = 0
) -> tuple:
    simulation = sim.Simulation(design, SHAPES[shape])
    layout = simulation.layout()
    values = simulation.values(layout, tables, sim.NoiseLevels(trial), np.random.default_rng(seed))
    noise = noise_model.estimate(layout, values, n_test=design.n_test)
    return simulation, model.fit(layout, noise, draws=draws, seed=seed)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-1.4, 3.9),
    st.floats(-0.3, 3.0),
    st.floats(-3.0, 3.0),
    st.sampled_from([-2.0, -0.4, 0.0, 1e-7, 0.5, 1.0, 2.0]),
)
def test_derivatives_are_those_of_the_values(c: float, w: float, log_k: float, q: float) -> None:
    # Where a series takes over, values step by 1e-8: a difference across that tells nothing.
    assume(abs(abs(c) - 1e-4) > 1e-5)
    surface = model.Surface(sim.Simulation(sim.DIGITS, SHAPES["Eq. 13"]).layout())
    theta = np.zeros((1, surface.size))
    theta[:, surface.at("beta")], theta[:, surface.at("c")] = 10.0, c
    for j in range(2):
        theta[:, surface.at("w", source=j)], theta[:, surface.at("log_k", source=j)] = w, log_k
        theta[:, surface.at("q", source=j)] = q
    step = 1e-6 * np.eye(surface.size)
    numeric = np.stack(
        [(surface.evaluate(theta + s)[0] - surface.evaluate(theta - s)[0])[0] / 2e-6 for s in step],
        -1,
    )
    exact = surface.evaluate(theta)[1][0]
    # Central differences of values near 100 carry rounding of about 1e-8 per 1e-6; steep curves
    # have large derivatives.
    np.testing.assert_allclose(exact, numeric, rtol=2e-3, atol=2e-3)


def test_effective_images_are_w_at_one_base() -> None:
    for q in (-1.0, 0.0, 1.0, 2.0):
        assert model.effective(np.ones(1), 0.4, np.array(0.3), np.array(q))[0] == pytest.approx(0.4)


def test_misfit_is_zero_where_nothing_is_added_and_of_unit_size_far_off() -> None:
    features = model.misfit_features(np.array([0.0, 1.0, 20.0]))
    size = (features**2).sum(-1)
    assert size[0] == 0 and 0.3 < size[1] < 0.9 and 0.9 < size[2] < 1.05


@pytest.mark.parametrize("shape", ["Eq. 13", "constant fraction", "as good as real", "slow start"])
def test_the_amount_inside_the_range_is_found_with_little_noise(shape: str) -> None:
    design = sim.Design(**{**sim.CIFAR10.__dict__, "n_test": None})
    simulation, fit = fitted(design, shape, 0.02)
    for r in (0.5, 1.0):
        found = np.median(amounts.equivalent(fit.draws, 1, 0, [r])[0, :, 0])
        assert found == pytest.approx(simulation.amount(1, r), rel=0.06)


def test_same_seed_same_answer() -> None:
    first, second = (fitted(sim.DIGITS, "Eq. 13", 0.3)[1] for _ in range(2))
    np.testing.assert_array_equal(first.draws.theta, second.draws.theta)


def test_tables_side_by_side_are_tables_alone() -> None:
    simulation = sim.Simulation(sim.DIGITS, SHAPES["Eq. 13"])
    layout = simulation.layout()
    values = simulation.values(layout, 3, sim.NoiseLevels(0.5), np.random.default_rng(0))
    together = model.fit(layout, noise_model.estimate(layout, values), draws=50)
    alone = Values(values.mean[1:2], values.within_ss[1:2], values.within_df)
    single = model.fit(layout, noise_model.estimate(layout, alone), draws=50)
    # The stopping rule of the noise model looks at all tables, hence not bitwise.
    np.testing.assert_allclose(together.best.theta[1], single.best.theta[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "keep",
    [
        "n_syn == 0 and n_real_added == 0",  # base only
        "n_base == 100 and n_syn <= 100 and n_real_added <= 100 and subset_seed == 0 and seed == 0",
        "n_syn > 0",  # no base
        "n_real_added == 0",  # no real images
        "n_base == 100",
        "subset_seed == 0 and seed == 0",
    ],
)
def test_little_data_gives_an_answer_or_reasons(keep: str) -> None:
    table = sim.Simulation(sim.DIGITS, SHAPES["Eq. 13"]).table(3, sim.NoiseLevels(0.5)).query(keep)
    seen = arrange(table)
    fit = model.fit(seen.layout, noise_model.estimate(seen.layout, seen.values), draws=60)
    for b in range(len(seen.layout.n_base)):
        for j in range(len(seen.layout.sources)):
            answer = amounts.amount(fit, b, j, 100.0)
            assert answer.kind != amounts.UNDETERMINED or answer.reasons
            assert answer.text
            amounts.exchange(fit, b, j)
            amounts.extra_worth(fit, b, j)


def test_one_seed_and_two_cells_are_not_a_narrow_interval() -> None:
    table = sim.Simulation(sim.DIGITS, SHAPES["as good as real"]).table(3, sim.NoiseLevels(0.5))
    few = table.query(
        "subset_seed == 0 and seed == 0 and n_copies == 0 and n_syn <= 100 and n_real_added <= 100"
    )
    seen = arrange(few)
    fit = model.fit(seen.layout, noise_model.estimate(seen.layout, seen.values), draws=300)
    answer = amounts.amount(fit, 0, 0, 100.0)
    assert answer.high is None or answer.high > 1.5 * max(answer.low, 1.0)
    assert any("spread" in note for note in answer.notes) or answer.reasons


def test_accuracies_of_all_generators_share_the_real_curve() -> None:
    first = sim.Simulation(sim.DIGITS, SHAPES["Eq. 13"]).table(1, sim.NoiseLevels(0.3))
    other = first[first["n_syn"] > 0].assign(generator="other")
    seen = arrange(__import__("pandas").concat([first, other]))
    assert seen.layout.sources == ("generator", "other", "copies")
    fit = model.fit(seen.layout, noise_model.estimate(seen.layout, seen.values), draws=100)
    one, two = (np.median(amounts.equivalent(fit.draws, 0, j, [1.0])[0, :, 0]) for j in (0, 1))
    assert one == pytest.approx(two, rel=0.15)


def test_layout_from_a_table_is_the_simulations() -> None:
    simulation = sim.Simulation(sim.CIFAR10, SHAPES["Eq. 13"])
    ours, theirs = simulation.layout(), arrange(simulation.table(0, sim.NoiseLevels(0.3))).layout
    assert isinstance(theirs, Layout)
    order = np.lexsort((theirs.amount[:, 0], theirs.amount[:, 1], theirs.real, theirs.base))
    mine = np.lexsort((ours.amount[:, 0], ours.amount[:, 1], ours.real, ours.base))
    np.testing.assert_allclose(ours.amount[mine], theirs.amount[order])
    np.testing.assert_allclose(ours.real[mine], theirs.real[order])
