"""Eq. 12: how many synthetic images reach the accuracy of a given number of real ones, on a fitted
surface.
"""

from dataclasses import dataclass

import numpy as np

from equigrid.analysis.fitting.surface import Surfaces

SEARCH_LIMIT = (
    1e6  # roots are looked for up to this multiple of the base size, to be listed if not used
)
SMALLEST = 1.0  # images; a root below one image is made by epsilon, not by data
# halving alone would bring an interval of log(n_syn) at most 45 wide to rounding in 56 steps
_MOST_STEPS = 60
_CLOSE = 1e-13  # of log(n_syn): the root to rounding

OK, NO_GAIN, NEVER, ABOVE_LIMIT, BELOW_ONE, NO_SURFACE = range(6)
WHY = {
    NO_GAIN: "on the surface, the added real images bring no gain",
    NEVER: "no amount of synthetic images reaches this accuracy on the surface",
    ABOVE_LIMIT: "n_syn / n_base is above the ratio limit",
    BELOW_ONE: "reached with less than one synthetic image: an artefact of epsilon",
    NO_SURFACE: "there is no accuracy surface at this base size",
}


@dataclass(frozen=True)
class Solutions:
    """For B replicates: `n_syn` (B,) images, NaN without one; `state` (B,) int codes; `roots` (B,
    3) images, all roots ascending by piece, NaN where a piece has none (`n_syn` is one of them).
    """

    n_syn: np.ndarray
    state: np.ndarray
    roots: np.ndarray


def solve_for_synthetic(
    surfaces: Surfaces, n_base: float, target: np.ndarray, *, n_nominal: float, ratio_limit: float
) -> Solutions:
    """Smallest n_syn at which Acc(n_base, n_syn) rises through `target` (B,) percent.

    The surface has at most two stationary points in n_syn, so its monotone pieces, and with them
    all roots, are found exactly. Of several roots the smallest at which accuracy *rises* is used,
    if it is at least one image.
    """
    breaks = _monotone_pieces(surfaces, n_base, SEARCH_LIMIT * n_nominal)
    heights = np.stack([surfaces.accuracy(n_base, at) - target for at in breaks.T], axis=1)
    rises = (heights[:, :-1] < 0) & (heights[:, 1:] >= 0)
    falls = (heights[:, :-1] >= 0) & (heights[:, 1:] < 0)
    roots = np.full(rises.shape, np.nan)
    for piece in range(rises.shape[1]):
        rows = np.nonzero(rises[:, piece] | falls[:, piece])[0]
        if len(rows):
            part = Surfaces(surfaces.weights[rows], surfaces.epsilon)
            bracket = breaks[rows, piece], breaks[rows, piece + 1]
            roots[rows, piece] = _root(part, n_base, target[rows], *bracket, rises[rows, piece])
    rising = np.where(rises & (roots >= SMALLEST), roots, np.inf)
    n_syn = rising.min(axis=1)
    found = np.isfinite(n_syn)
    state = np.where(found, OK, NEVER)
    state[~found & (rises & (roots < SMALLEST)).any(axis=1)] = BELOW_ONE
    state[found & (n_syn > ratio_limit * n_nominal)] = ABOVE_LIMIT
    state[heights[:, 0] >= 0] = NO_GAIN
    state[~np.isfinite(heights[:, 0])] = NO_SURFACE
    usable = found & np.isin(state, (OK, ABOVE_LIMIT))
    return Solutions(np.where(usable, n_syn, np.nan), state, roots)


def _monotone_pieces(surfaces: Surfaces, n_base: float, n_max: float) -> np.ndarray:
    """(B, 4) ascending n_syn: 0, the stationary points clipped to the range, n_max.

    dAcc/dv = w1 + w3/v + w4/(v + n_base), v = n_syn + epsilon; times v (v + n_base) it is a
    quadratic in v.
    """
    w = surfaces.weights
    square, linear, constant = w[:, 1], w[:, 1] * n_base + w[:, 3] + w[:, 4], w[:, 3] * n_base
    with np.errstate(all="ignore"):
        root = np.sqrt(linear**2 - 4 * square * constant)
        # The form without cancellation; with square = 0 the first gives the only root and the
        # second is infinite.
        q = -0.5 * (linear + np.where(linear >= 0, 1.0, -1.0) * root)
        stationary = np.stack([constant / q, q / square], axis=1) - surfaces.epsilon
    inside = np.where((stationary > 0) & (stationary < n_max), stationary, 0.0)
    ends = np.zeros((len(w), 1))
    return np.concatenate([ends, np.sort(inside, axis=1), ends + n_max], axis=1)


def _root(
    surfaces: Surfaces,
    n_base: float,
    target: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    rising: np.ndarray,
) -> np.ndarray:
    """Newton's method in log v, v = n_syn + epsilon, kept inside the bracket by halving; (R,)
    images.
    """
    w, epsilon = surfaces.weights, surfaces.epsilon
    constant = (
        w[:, 0] * n_base + w[:, 2] * np.log(n_base + epsilon) + w[:, 5] - w[:, 1] * epsilon - target
    )
    log_low, log_high = np.log(low + epsilon), np.log(high + epsilon)
    at = 0.5 * (log_low + log_high)
    for _ in range(_MOST_STEPS):
        v = np.exp(at)
        height = constant + w[:, 1] * v + w[:, 3] * at + w[:, 4] * np.log(v + n_base)
        go_right = (height < 0) == rising
        log_low, log_high = np.where(go_right, at, log_low), np.where(go_right, log_high, at)
        with np.errstate(all="ignore"):
            newton = at - height / (w[:, 1] * v + w[:, 3] + w[:, 4] * v / (v + n_base))
        inside = (newton > log_low) & (newton < log_high)
        moved = np.where(inside, newton, 0.5 * (log_low + log_high))
        step = np.abs(moved - at).max()
        at = moved
        if step < _CLOSE:
            break
    return np.exp(at) - epsilon
