"""Answers: kinds, crossing, isotonic means, worth, and the next step."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from equigrid.analysis.answer import next_trials as design
from equigrid.analysis.conclusions import amounts
from equigrid.analysis.data.trials import arrange
from equigrid.analysis.fitting import effective_samples as model
from equigrid.analysis.fitting import variance as noise_model
from equigrid.analysis.fitting import worlds as sim

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SHAPES = {shape.name: shape for shape in sim.SHAPES}


def fit_of(
    shape: str, base: sim.Design = sim.CIFAR10, trial: float = 0.3, seed: int = 0
) -> tuple[sim.Simulation, model.Fit]:
    simulation = sim.Simulation(base, SHAPES[shape])
    seen = arrange(simulation.table(seed, sim.NoiseLevels(trial)))
    noise = noise_model.estimate(seen.layout, seen.values, n_test=base.n_test)
    return simulation, model.fit(seen.layout, noise, draws=400)


def source(fit: model.Fit) -> int:
    return fit.layout.sources.index("generator")


def test_kinds() -> None:
    _, good = fit_of("as good as real")
    matched = amounts.amount(good, 1, source(good), 10_000)
    assert (
        matched.kind == amounts.MATCHED
        and matched.low < 10_000 < matched.high
        and not matched.extrapolated
    )
    assert amounts.amount(good, 1, source(good), 1_000).kind == amounts.FEWER
    _, harmful = fit_of("harmful")
    assert amounts.amount(harmful, 1, source(harmful), 5_000).kind == amounts.NEVER
    _, saturating = fit_of("saturating")
    assert amounts.amount(saturating, 1, source(saturating), 15_000).kind in (
        amounts.NEVER,
        amounts.AT_LEAST,
    )


def test_interpolation_agrees_inside_the_range() -> None:
    _, fit = fit_of("constant fraction")
    answer = amounts.amount(fit, 1, source(fit), 5_000)
    assert answer.interpolation is not None and answer.interpolation[1] is not None
    assert answer.value == pytest.approx(answer.interpolation[1], rel=0.15) and not answer.disagrees


def test_exchange_and_worth() -> None:
    _, fit = fit_of("as good as real")
    k = amounts.exchange(fit, 1, source(fit))
    assert k.first.low < 1 < k.first.high and k.following.low < 1 < k.following.high
    w = amounts.first_worth(fit, 1, source(fit))
    assert w.low < 1 < w.high
    assert amounts.extra_worth(fit, 1, source(fit)).determined
    _, same = fit_of("copies explain all")
    assert not amounts.extra_worth(same, 1, source(same)).determined


def test_without_copies_information_is_not_claimed() -> None:
    _, fit = fit_of("as good as real", sim.Design(**{**sim.CIFAR10.__dict__, "copies": ()}))
    extra = amounts.extra_worth(fit, 0, source(fit))
    assert not extra.determined and "copies" in extra.reasons[0]


def test_isotonic_means() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(50, 7))
    found = amounts._pooled(y)
    assert (np.diff(found, axis=-1) >= -1e-12).all()
    np.testing.assert_allclose(found.mean(-1), y.mean(-1))
    np.testing.assert_allclose(amounts._pooled(np.sort(y)), np.sort(y))


def test_first_crossing() -> None:
    path = np.array([0.0, 1.0, 0.5, 3.0])
    found = amounts._first_crossing(path, np.array([-1.0, 0.5, 2.0, 4.0]), np.arange(4.0))
    np.testing.assert_allclose(found, [0.0, 0.5, 2.6, np.inf])


def test_the_next_step_narrows_and_more_of_it_less() -> None:
    _, fit = fit_of("Eq. 13")
    j = source(fit)
    ranked = design.rank(fit, 1, j, 1.0)
    assert ranked and all(s.sd_after <= s.sd_now for s in ranked)
    assert [s.gain for s in ranked] == sorted((s.gain for s in ranked), reverse=True)
    assert all(fit.layout.base[m] == 1 for m in ranked[0].step.cells)
    dear = design.rank(fit, 1, j, 1.0, design.Costs(generator=1000.0))
    assert dear[0].step.kind == design.TRIAL


@pytest.mark.slow
def test_reduced_study() -> None:
    spec = importlib.util.spec_from_file_location("coverage_study", BENCHMARKS / "coverage.py")
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    for line in study.reduced():
        row = study.run_line(line, 40, draws=150)
        # 40 tables × several points: at a coverage of 0.95 a mean below 0.88 is a fault, not
        # chance.
        for name in ("amount", "w", "gain", "extra"):
            assert row[name] is None or row[name] >= 0.88, row
        assert (row["claimed"] or 0) <= 0.05 and (row["false_extra"] or 0) <= 0.05, row
