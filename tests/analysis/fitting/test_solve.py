"""Eq. 12: all roots of the fitted surface, the one that is used, and why others are not."""

import numpy as np
import pytest
from scipy.optimize import brentq

from equigrid.analysis.fitting.solve import (
    ABOVE_LIMIT,
    BELOW_ONE,
    NEVER,
    NO_GAIN,
    NO_SURFACE,
    OK,
    solve_for_synthetic,
)
from equigrid.analysis.fitting.surface import Surfaces

EPSILON = 1e-6
N = 1000.0


def surface(*rows):
    return Surfaces(np.array(rows, dtype=float), EPSILON)


def solve(surfaces, target, limit=100.0):
    return solve_for_synthetic(
        surfaces, N, np.atleast_1d(np.array(target, float)), n_nominal=N, ratio_limit=limit
    )


def test_roots_match_a_dense_scan_on_random_surfaces():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(400, 6)) * [0, 2e-5, 3, 0.5, 4, 20]
    surfaces = Surfaces(weights, EPSILON)
    at = np.exp(rng.uniform(np.log(10), np.log(50 * N), size=400))
    target = surfaces.accuracy(N, at)  # so that each has a root at a known place
    found = solve(surfaces, target, limit=np.inf)
    grid = np.concatenate([[0.0], np.geomspace(1e-7, 1e6 * N, 20_000)])
    for b in range(400):
        one = Surfaces(weights[b : b + 1], EPSILON)

        def height(s, one=one, b=b):
            return float(one.accuracy(N, s)[0] - target[b])

        values = one.accuracy(N, grid[:, None])[:, 0] - target[b]
        crossings = np.nonzero(np.sign(values[1:]) != np.sign(values[:-1]))[0]
        expected = sorted(brentq(height, grid[i], grid[i + 1], xtol=1e-9) for i in crossings)
        roots = np.sort(found.roots[b][np.isfinite(found.roots[b])])
        # A double root, or one beyond the grid's ends, may be missed by the scan: all that it finds
        # must be there.
        for root in expected:
            assert np.isclose(roots, root, rtol=1e-6, atol=1e-6).any(), (b, expected, roots)
        assert np.isclose(roots, at[b], rtol=1e-6).any()


def test_the_smallest_rising_root_of_three_is_used():
    # Rises, falls, rises: stationary at about 210 and 23,800 images.
    s = surface([0, 2e-4, 0, 1.0, -6.0, 0])
    target = 0.9 * s.accuracy(N, 210.0)[0] + 0.1 * s.accuracy(N, 23_800.0)[0]
    found = solve(s, target, limit=np.inf)
    roots = found.roots[0]
    assert np.isfinite(roots).all()
    assert 1 < roots[0] < 210 < roots[1] < 23_800 < roots[2]
    np.testing.assert_allclose(s.accuracy(N, roots[:, None])[:, 0], target, atol=1e-9)
    assert found.n_syn[0] == roots[0]


def test_a_root_below_one_image_is_passed_over_for_a_later_one():
    s = surface([0, 2e-4, 0, 1.0, -6.0, 0])
    found = solve(s, s.accuracy(N, 0.5)[0], limit=np.inf)
    assert found.roots[0, 0] == pytest.approx(0.5)
    assert found.n_syn[0] == found.roots[0, 2] > 23_800


def test_states():
    rising = surface([0, 0, 0, 0, 5.0, 0])  # 5 log(n_total)
    base = float(rising.accuracy(N, 0)[0])
    assert solve(rising, base + 5 * np.log(3.0)).n_syn[0] == pytest.approx(2 * N)
    assert solve(rising, base + 5 * np.log(3.0)).state[0] == OK
    assert solve(rising, base - 1).state[0] == NO_GAIN
    assert solve(rising, base + 5 * np.log(201.0)).state[0] == ABOVE_LIMIT
    assert solve(rising, base + 5 * np.log(201.0)).n_syn[0] == pytest.approx(200 * N)
    assert solve(rising, base + 1000).state[0] == NEVER
    assert solve(surface([np.nan] * 6), 10.0).state[0] == NO_SURFACE
    # log_syn alone: 14 of its points are the step from none to one image, made by epsilon.
    jump = surface([0, 0, 0, 1.0, 0, 0])
    assert solve(jump, np.log(EPSILON) + 10).state[0] == BELOW_ONE
    assert solve(jump, np.log(50.0)).n_syn[0] == pytest.approx(50.0)


def test_flat_and_linear_surfaces():
    assert solve(surface([0, 0, 0, 0, 0, 80.0]), 81.0).state[0] == NEVER
    linear = solve(surface([0, 1e-3, 0, 0, 0, 80.0]), 81.0)
    assert linear.n_syn[0] == pytest.approx(1000.0)
