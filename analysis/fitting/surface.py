"""The accuracy surface Acc(n_real, n_syn) of Appendix A: 31 candidates, linear regression, criteria
that choose.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

TERMS = ("n_real", "n_syn", "log_real", "log_syn", "log_total")  # Eq. 10, in the paper's order
EQ11 = ("log_real", "log_syn", "log_total")
SUBSETS: tuple[tuple[str, ...], ...] = tuple(
    subset for size in range(1, len(TERMS) + 1) for subset in combinations(TERMS, size)
)
# the linear terms count in tens of thousands of images, so that designs are well conditioned
_PER_IMAGES = 1e4


def design(
    n_real: np.ndarray, n_syn: np.ndarray, terms: tuple[str, ...], epsilon: float
) -> np.ndarray:
    """Columns of Eq. 10 and a constant. n_real, n_syn: (K,) images -> (K, len(terms) + 1)
    float64.
    """
    columns = {
        "n_real": n_real / _PER_IMAGES,
        "n_syn": n_syn / _PER_IMAGES,
        "log_real": np.log(n_real + epsilon),
        "log_syn": np.log(n_syn + epsilon),
        "log_total": np.log(n_real + n_syn + epsilon),
    }
    return np.stack(
        [*(columns[term] for term in terms), np.ones_like(n_real, dtype=float)], axis=-1
    )


@dataclass(frozen=True)
class Surfaces:
    """Fitted surfaces of one base size, one per replicate.

    `weights` (B, 6) float64: coefficients in the order of TERMS (per image for the linear terms),
    then the constant; zero for terms not in the surface. NaN rows: that replicate has no surface.
    """

    weights: np.ndarray
    epsilon: float

    def accuracy(self, n_real: float | np.ndarray, n_syn: float | np.ndarray) -> np.ndarray:
        """Percent. n_real, n_syn broadcast against (B,)."""
        w = self.weights
        real, syn = np.asarray(n_real, dtype=float), np.asarray(n_syn, dtype=float)
        return (
            w[:, 0] * real
            + w[:, 1] * syn
            + w[:, 2] * np.log(real + self.epsilon)
            + w[:, 3] * np.log(syn + self.epsilon)
            + w[:, 4] * np.log(real + syn + self.epsilon)
            + w[:, 5]
        )


@dataclass(frozen=True)
class Candidate:
    """One of the 31 regressions at one base size, with the criteria; NaN where a criterion is not
    defined.
    """

    terms: tuple[str, ...]
    weights: tuple[float, ...]  # as a row of Surfaces.weights
    n_cells: int
    r2: float
    adjusted_r2: float
    aicc: float
    loo: float  # root mean square of the leave-one-out errors, points
    residual_sd: float  # points, with n_cells - n_parameters degrees of freedom
    identified: bool  # False: the columns are linearly dependent on these cells

    def to_json(self) -> dict:
        """Plain values."""
        return {
            **self.__dict__,
            "terms": list(self.terms),
            "weights": dict(zip([*TERMS, "constant"], self.weights)),
        }


def _full_weights(terms: tuple[str, ...], fitted: np.ndarray) -> np.ndarray:
    """(B, len(terms) + 1) in design units -> (B, 6) per image."""
    full = np.zeros((len(fitted), len(TERMS) + 1))
    for column, term in enumerate(terms):
        scale = _PER_IMAGES if term in ("n_real", "n_syn") else 1.0
        full[:, TERMS.index(term)] = fitted[:, column] / scale
    full[:, -1] = fitted[:, -1]
    return full


@dataclass(frozen=True)
class _Regression:
    """What a linear regression of fixed design needs, computed once for all replicates."""

    terms: tuple[str, ...]
    solve: np.ndarray  # (p, K) pseudo-inverse
    residual: np.ndarray  # (K, K) I - H
    leverage: np.ndarray  # (K,)
    identified: bool


def _regression(
    n_real: np.ndarray, n_syn: np.ndarray, terms: tuple[str, ...], epsilon: float
) -> _Regression:
    matrix = design(n_real, n_syn, terms, epsilon)
    solve = np.linalg.pinv(matrix, rcond=1e-11)
    hat = matrix @ solve
    identified = (
        np.linalg.matrix_rank(matrix / np.linalg.norm(matrix, axis=0), tol=1e-9) == matrix.shape[1]
    )
    return _Regression(terms, solve, np.eye(len(hat)) - hat, np.diag(hat).copy(), bool(identified))


@cache
def _regressions_cached(real: tuple, syn: tuple, epsilon: float) -> tuple[_Regression, ...]:
    n_real, n_syn = np.array(real), np.array(syn)
    return tuple(_regression(n_real, n_syn, terms, epsilon) for terms in SUBSETS)


def _criteria(regression: _Regression, accuracy: np.ndarray) -> dict[str, np.ndarray]:
    """Each criterion (B,) for accuracies (B, K). `score_*` are to be minimised."""
    n_cells, n_par = accuracy.shape[1], len(regression.terms) + 1
    residual = accuracy @ regression.residual.T
    rss = np.maximum((residual**2).sum(axis=1), 1e-300)
    total = np.maximum(((accuracy - accuracy.mean(axis=1, keepdims=True)) ** 2).sum(axis=1), 1e-300)
    nan = np.full(len(accuracy), np.nan)
    free = n_cells - n_par
    k_aic = n_par + 1  # the residual variance is a parameter too
    aicc = nan
    if n_cells - k_aic - 1 > 0:
        aicc = (
            n_cells * np.log(rss / n_cells)
            + 2 * k_aic
            + 2 * k_aic * (k_aic + 1) / (n_cells - k_aic - 1)
        )
    left_out = 1.0 - regression.leverage
    loo = np.sqrt(((residual / left_out) ** 2).mean(axis=1)) if left_out.min() > 1e-9 else nan
    return {
        "r2": 1 - rss / total,
        "adjusted_r2": 1 - (rss / free) / (total / (n_cells - 1)) if free > 0 else nan,
        "aicc": aicc,
        "loo": loo,
        "residual_sd": np.sqrt(rss / free) if free > 0 else nan,
    }


def candidates(
    n_real: np.ndarray, n_syn: np.ndarray, accuracy: np.ndarray, epsilon: float
) -> list[Candidate]:
    """All 31 regressions of Appendix A at one base size. Arrays (K,): images, images, percent."""
    found = []
    for regression in _regressions_cached(tuple(n_real), tuple(n_syn), epsilon):
        values = {
            name: float(value[0]) for name, value in _criteria(regression, accuracy[None]).items()
        }
        weights = _full_weights(regression.terms, (regression.solve @ accuracy)[None])[0]
        found.append(
            Candidate(
                regression.terms,
                tuple(weights),
                len(accuracy),
                identified=regression.identified,
                **values,
            )
        )
    return found


def rank(found: list[Candidate], criterion: str) -> list[Candidate]:
    """Best first by 'adjusted_r2', 'aicc' or 'loo'; candidates for which it is not defined go
    last.
    """
    sign = -1.0 if criterion in ("adjusted_r2", "r2") else 1.0

    def order(candidate: Candidate) -> float:
        value = sign * getattr(candidate, criterion)
        return value if candidate.identified and np.isfinite(value) else np.inf

    return sorted(found, key=order)


def place(found: list[Candidate], terms: tuple[str, ...], criterion: str) -> int | None:
    """Rank of one subset of the terms among the candidates, 1 the best; None where these cells do
    not identify it or the criterion is not defined.
    """
    for number, candidate in enumerate(rank(found, criterion), start=1):
        if candidate.terms == terms:
            known = candidate.identified and np.isfinite(getattr(candidate, criterion))
            return number if known else None
    return None


def fit_surfaces(
    n_real: np.ndarray,
    n_syn: np.ndarray,
    accuracy: np.ndarray,
    *,
    rule: str | tuple[str, ...],
    epsilon: float,
) -> tuple[Surfaces, np.ndarray]:
    """Fit one base size for B replicates of its cell means, choosing the terms anew in each.

    n_real, n_syn: (K,) images; accuracy: (B, K) percent; rule: 'eq11', a tuple of TERMS, or a
    criterion that chooses. Returns the surfaces and (B,) indices into SUBSETS (-1 where nothing is
    identified by these cells).
    """
    if rule == "eq11" or isinstance(rule, tuple):
        terms = EQ11 if rule == "eq11" else tuple(term for term in TERMS if term in rule)
        regression = _regression(n_real, n_syn, terms, epsilon)
        if not regression.identified:
            return _no_surface(len(accuracy), epsilon)
        weights = _full_weights(terms, accuracy @ regression.solve.T)
        return Surfaces(weights, epsilon), np.full(len(accuracy), SUBSETS.index(terms))
    sign = -1.0 if rule == "adjusted_r2" else 1.0
    regressions = _regressions_cached(tuple(n_real), tuple(n_syn), epsilon)
    scores = np.full((len(regressions), len(accuracy)), np.inf)
    for i, regression in enumerate(regressions):
        if regression.identified:
            score = sign * _criteria(regression, accuracy)[rule]
            scores[i] = np.where(np.isfinite(score), score, np.inf)
    choice = np.where(np.isfinite(scores.min(axis=0)), scores.argmin(axis=0), -1)
    weights = np.full((len(accuracy), len(TERMS) + 1), np.nan)
    for i in np.unique(choice[choice >= 0]):
        rows = choice == i
        weights[rows] = _full_weights(regressions[i].terms, accuracy[rows] @ regressions[i].solve.T)
    return Surfaces(weights, epsilon), choice


def _no_surface(replicates: int, epsilon: float) -> tuple[Surfaces, np.ndarray]:
    return Surfaces(np.full((replicates, len(TERMS) + 1), np.nan), epsilon), np.full(replicates, -1)
