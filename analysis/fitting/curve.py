"""Eq. 13: n_syn / n_base = c1^(tau n_base) (c2^(n_real / n_base) - 1), fitted to the tuples of Eq.
12.
"""

from copy import copy
from dataclasses import dataclass
from typing import overload

import numpy as np

FORMS = ("paper", "robust", "log", "relative")
_LOG_C1 = (-30.0, 30.0)
_LOG_C2 = (1e-4, 25.0)
# Lowest and highest (log c1, log c2).
_BOUNDS = tuple(np.array(ends) for ends in zip(_LOG_C1, _LOG_C2))
_STILL = 1e-10  # steps in log c below this end a descent
_GRID_LOG_C1 = np.linspace(-6.0, 6.0, 33)
_GRID_LOG_C2 = np.geomspace(0.01, 15.0, 32)
_STARTS = 3
_STEPS = 60
_REWEIGHTINGS = 60
_HUBER = 1.345  # residuals above this many robust standard deviations count linearly


@dataclass(frozen=True)
class CurveFits:
    """Fits of B replicates: `c1`, `c2` (B,), NaN where the tuples do not determine them; `cost`
    (B,) the minimised mean of squares (of ratios, or of their logs); `verified` (B,) bool: a
    stationary minimum inside the bounds that no point of the starting grid undercuts.
    """

    c1: np.ndarray
    c2: np.ndarray
    cost: np.ndarray
    verified: np.ndarray


@overload
def equivalent_ratio(c1: float, c2: float, tau_n_base: float, real_ratio: float) -> float: ...
@overload
def equivalent_ratio(
    c1: float, c2: float, tau_n_base: float, real_ratio: np.ndarray
) -> np.ndarray: ...
@overload
def equivalent_ratio(
    c1: np.ndarray, c2: np.ndarray, tau_n_base: float | np.ndarray, real_ratio: float | np.ndarray
) -> np.ndarray: ...
def equivalent_ratio(
    c1: float | np.ndarray,
    c2: float | np.ndarray,
    tau_n_base: float | np.ndarray,
    real_ratio: float | np.ndarray,
) -> float | np.ndarray:
    """Eq. 13; arrays broadcast. Ratios are multiples of n_base."""
    return np.exp(np.log(c1) * tau_n_base) * np.expm1(np.log(c2) * real_ratio)


def fit_curves(
    tau_n_base: np.ndarray, real_ratio: np.ndarray, syn_ratio: np.ndarray, form: str
) -> CurveFits:
    """Fit B replicates at once.

    tau_n_base, real_ratio: (T,); syn_ratio: (B, T), NaN for discarded tuples. `form`: 'paper',
    unweighted least squares in the ratios; 'log', in their logarithms; 'relative', in the ratios
    over their values; 'robust', as the paper's with Huber's loss, its scale from the median
    absolute residual. Replicates with fewer than three tuples, or tuples from fewer than two base
    sizes, give NaN.
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}, must be one of {FORMS}")
    used = np.isfinite(syn_ratio) & (syn_ratio > 0)
    enough = (used.sum(axis=1) >= 3) & _spread(used, tau_n_base)
    replicates = len(syn_ratio)
    c1, c2, cost = (np.full(replicates, np.nan) for _ in range(3))
    verified = np.zeros(replicates, dtype=bool)
    if enough.any():
        problem = _Problem(tau_n_base, real_ratio, syn_ratio[enough], used[enough], form)
        start, grid_cost = _grid_starts(problem)
        parameters, final, gradient = _descend(problem, start, robust=form == "robust")
        c1[enough], c2[enough] = np.exp(parameters[:, 0]), np.exp(parameters[:, 1])
        cost[enough] = final
        inside = (np.abs(parameters[:, 0]) < 0.99 * _LOG_C1[1]) & (
            parameters[:, 1] < 0.99 * _LOG_C2[1]
        )
        inside &= parameters[:, 1] > 2 * _LOG_C2[0]
        lowest = np.ones_like(inside) if form == "robust" else final <= grid_cost * (1 + 1e-9)
        verified[enough] = inside & lowest & (gradient < 1e-4)
    return CurveFits(c1, c2, cost, verified)


def _spread(used: np.ndarray, tau_n_base: np.ndarray) -> np.ndarray:
    """(B,) whether the used tuples come from at least two base sizes."""
    low = np.where(used, tau_n_base, np.inf).min(axis=1, initial=np.inf)
    return np.where(used, tau_n_base, -np.inf).max(axis=1, initial=-np.inf) > low


class _Problem:
    """Residuals and derivatives of B fits in p = (log c1, log c2)."""

    def __init__(
        self,
        tau_n_base: np.ndarray,
        real_ratio: np.ndarray,
        syn_ratio: np.ndarray,
        used: np.ndarray,
        form: str,
    ):
        log = form == "log"
        self.tau_n_base, self.real_ratio, self.log = tau_n_base, real_ratio, log
        safe = np.where(used, syn_ratio, 1.0)
        self.weight = used / safe**2 if form == "relative" else used.astype(float)
        self.target = np.log(safe) if log else safe
        # Relative to the size of the targets, so that tolerances mean the same for every replicate.
        self.scale = (
            np.ones(len(safe))
            if log
            else np.sqrt((self.weight * safe**2).sum(1) / self.weight.sum(1))
        )

    def repeated(self, count: int) -> "_Problem":
        """Each replicate `count` times in a row."""
        many = copy(self)
        many.weight, many.target, many.scale = (
            np.repeat(a, count, axis=0) for a in (self.weight, self.target, self.scale)
        )
        return many

    def model(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Model (B, T) and its derivatives by log c1 and log c2, for p (B, 2)."""
        growth = np.exp(p[:, 1:] * self.real_ratio)
        with np.errstate(over="ignore"):
            value = np.exp(p[:, :1] * self.tau_n_base) * np.expm1(p[:, 1:] * self.real_ratio)
            by_c1 = self.tau_n_base * value
            by_c2 = np.exp(p[:, :1] * self.tau_n_base) * self.real_ratio * growth
        if self.log:
            return np.log(value), by_c1 / value, by_c2 / value
        return value, by_c1, by_c2


def _grid_starts(problem: _Problem) -> tuple[np.ndarray, np.ndarray]:
    """The best points of a grid as starts (B, _STARTS, 2), and the grid's lowest cost (B,).

    The sum of squares over the grid is three matrix products, whatever the number of replicates.
    """
    a, g = np.meshgrid(_GRID_LOG_C1, _GRID_LOG_C2, indexing="ij")
    points = np.stack([a.ravel(), g.ravel()], axis=1)
    value, _, _ = problem.model(points)  # (G, T)
    value = np.minimum(value, 1e150)
    w, y = problem.weight, problem.target
    cost = (w @ (value**2).T) - 2 * (w * y) @ value.T + (w * y**2).sum(1, keepdims=True)
    cost = cost / w.sum(1, keepdims=True)
    best = np.argpartition(cost, _STARTS, axis=1)[:, :_STARTS]
    return points[best], np.take_along_axis(cost, best, axis=1).min(axis=1)


def _huber_weights(residual: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(B, T) weights of iteratively reweighted least squares."""
    size = np.where(used > 0, np.abs(residual), np.nan)
    scale = 1.4826 * np.nanmedian(size, axis=1, keepdims=True)
    limit = _HUBER * np.maximum(scale, 1e-9 * np.nanmax(size, axis=1, keepdims=True) + 1e-300)
    return used * np.where(
        np.abs(residual) > limit, limit / np.maximum(np.abs(residual), 1e-300), 1.0
    )


def _descend(
    problem: _Problem, starts: np.ndarray, *, robust: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levenberg-Marquardt from each start (B, S, 2), the best kept: (B, 2) log c, (B,) cost, (B,)
    relative gradient.
    """
    replicates, count, _ = starts.shape
    many = problem.repeated(count)  # all starts of all replicates side by side
    parameters, cost, gradient = _marquardt(many, starts.reshape(-1, 2), many.weight)
    cost = cost.reshape(replicates, count)
    best = np.arange(replicates) * count + cost.argmin(axis=1)
    if robust:
        return _reweighted(problem, parameters[best])
    return parameters[best], cost.min(axis=1), gradient[best]


def _reweighted(
    problem: _Problem, parameters: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Huber's loss by reweighting, from the least-squares fit, until the weights settle."""
    for _ in range(_REWEIGHTINGS):
        weight = _huber_weights(problem.model(parameters)[0] - problem.target, problem.weight)
        before = parameters
        parameters, cost, gradient = _marquardt(problem, parameters, weight, steps=8)
        if np.abs(parameters - before).max() < 1e-8:
            break
    return parameters, cost, gradient


def _marquardt(
    problem: _Problem, p: np.ndarray, weight: np.ndarray, steps: int = _STEPS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectorised over replicates, each until it no longer moves: (B, 2) log c, (B,) cost, (B,)
    relative gradient.
    """
    p = p.copy()
    cost = _cost(problem, p, weight, problem.target)
    damping = np.full(len(p), 1e-2)
    moving = np.arange(len(p))
    for _ in range(steps):
        w, y = weight[moving], problem.target[moving]
        trial = np.clip(p[moving] - _step(problem, p[moving], w, y, damping[moving]), *_BOUNDS)
        trial_cost = _cost(problem, trial, w, y)
        better = trial_cost <= cost[moving]
        moved = np.abs(trial - p[moving]).max(axis=1)
        p[moving] = np.where(better[:, None], trial, p[moving])
        cost[moving] = np.where(better, trial_cost, cost[moving])
        damping[moving] = np.clip(
            np.where(better, damping[moving] * 0.3, damping[moving] * 6.0), 1e-12, 1e12
        )
        moving = moving[moved >= _STILL]
        if not len(moving):
            break
    gradient, _ = _gradient(problem, p, weight, problem.target)
    return p, cost, np.linalg.norm(gradient, axis=1) / weight.sum(axis=1) / problem.scale**2


def _cost(problem: _Problem, p: np.ndarray, weight: np.ndarray, target: np.ndarray) -> np.ndarray:
    residual = problem.model(p)[0] - target
    return np.nan_to_num(
        (weight * residual**2).sum(axis=1) / weight.sum(axis=1), nan=1e300, posinf=1e300
    )


def _gradient(
    problem: _Problem, p: np.ndarray, weight: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Half the gradient (B, 2) of the weighted squares, and Gauss-Newton's (h11, h22, h12), each
    (B,).
    """
    value, d1, d2 = problem.model(p)
    residual = weight * (value - target)
    curvature = (
        (weight * d1 * d1).sum(axis=1),
        (weight * d2 * d2).sum(axis=1),
        (weight * d1 * d2).sum(axis=1),
    )
    return np.stack([(d1 * residual).sum(axis=1), (d2 * residual).sum(axis=1)], axis=1), curvature


def _step(
    problem: _Problem, p: np.ndarray, weight: np.ndarray, target: np.ndarray, damping: np.ndarray
) -> np.ndarray:
    """Levenberg and Marquardt's step (B, 2), from the two-by-two normal equations."""
    gradient, (h11, h22, h12) = _gradient(problem, p, weight, target)
    m11, m22 = h11 * (1 + damping), h22 * (1 + damping)
    determinant = np.maximum(m11 * m22 - h12**2, 1e-300)
    step = np.stack(
        [m22 * gradient[:, 0] - h12 * gradient[:, 1], m11 * gradient[:, 1] - h12 * gradient[:, 0]],
        axis=1,
    )
    return np.clip(np.nan_to_num(step / determinant[:, None]), -2.0, 2.0)
