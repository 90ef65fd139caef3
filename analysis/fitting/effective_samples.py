"""The effective-sample-size model: one curve's cells of all base sizes and sources, fitted in one
stage.

    acc_b = α_b + β_b φ_{c_b}(1 + r + Σ_j E_bj(x_j)) + δ_b(r) + Σ_j δ_bj(x_j)

r: real images added, x_j: images of source j added (a generator, or copies of the base), as
multiples of n_base. φ_c(u) = (1 - u^-c) / c: a power law that saturates at β / c above α for c > 0,
the logarithm for c = 0. E_bj(x) = w_bj B_q(1 + x/k) / B_q(1 + 1/k), B_q Box and Cox's power: the
effective number of real images, linear for q = 1, logarithmic for q = 0 (Eq. 13 of the paper,
inverted), saturating for q < 0, starting slowly for q > 1. The first n_base images of source j are
worth w_bj n_base real ones; w < 0 is harm. δ: the model's own misfit, a Gaussian process in log(1 +
amount) that is zero where nothing is added (Matérn 5/2, length 1). Its size relative to the base's
range of accuracies is averaged over, by marginal likelihood: with a good form the answer is the
parametric one, with a bad one it tends to smooth interpolation (Kennedy and O'Hagan 2001).

Estimation: penalised generalised least squares (Gauss, Newton, Levenberg, Marquardt), hierarchical
over base sizes. Draws: randomise, then optimise (Bardsley et al. 2014): the same fit to redrawn
means, misfits and prior means. Everything is vectorised over tables (T) and draws (D)."""

from dataclasses import dataclass, field, replace

import numpy as np

from equigrid.analysis.data.trials import Floats, Layout
from equigrid.analysis.fitting.variance import Noise

_U_LEAST = 0.02  # effective images never fall below this share of the base
_FEATURES = 12
_T_MOST = 5.0  # log(1 + amount) beyond which the misfit stays as it is
# The misfit's arms: more real images, fewer than the base, then the sources.
_REAL = 0
_FEWER = 1
_SOURCES = 2


@dataclass(frozen=True)
class Prior:
    """Normal priors: mean, sd common to all base sizes, sd of one base size. `rise`: β as a share
    of the error (100 - accuracy of the base). `misfit`: sd of δ as a share of the base's range of
    accuracies, with weights; `real_misfit`: the real curve's relative to the sources'. Sensitivity:
    `study.py` varies them."""

    rise: tuple[float, float, float] = (0.4, 0.3, 0.25)
    c: tuple[float, float, float] = (0.5, 0.6, 0.3)
    w: tuple[float, float, float] = (0.3, 0.7, 0.7)
    log_k: tuple[float, float, float] = (0.7, 1.5, 0.7)
    q: tuple[float, float] = (0.1, 0.9)
    misfit: tuple[float, ...] = (0.004, 0.012, 0.036, 0.11, 0.33)
    misfit_weight: tuple[float, ...] = (0.05, 0.15, 0.35, 0.3, 0.15)
    real_misfit: float = 0.5
    # Used where repetitions are too few to tell.
    noise_factor: tuple[float, ...] = (0.3, 0.55, 1.0, 1.8, 3.3)
    # Beyond a source's largest measured amount: the probability that it soon brings no more, and
    # the sd of the log factor by which its growth departs from the form's, at once and again per
    # unit of log(1 + amount).
    levels_off: float = 0.15
    levels_off_unseen: float = 0.4  # with fewer than three amounts, which cannot show a bend
    drift: float = 0.25


_BOUNDS = {"c": (-1.5, 4.0), "w": (-3.0, 8.0), "log_k": (-6.0, 5.0), "q": (-3.0, 3.0)}


def phi(u: Floats, c: Floats) -> Floats:
    """(1 - u^-c) / c, continuous at c = 0."""
    log_u = np.log(u)
    small = np.abs(c) < 1e-6
    return np.where(small, log_u, -np.expm1(-c * log_u) / np.where(small, 1.0, c))


def box_cox(log_v: Floats, q: Floats) -> Floats:
    """(v^q - 1) / q, continuous at q = 0, from log v."""
    small = np.abs(q) < 1e-6
    return np.where(small, log_v, np.expm1(q * log_v) / np.where(small, 1.0, q))


def effective(x: Floats, w: Floats, log_k: Floats, q: Floats) -> Floats:
    """E(x), in multiples of n_base."""
    inverse_k = np.exp(-log_k)
    return w * box_cox(np.log1p(x * inverse_k), q) / box_cox(np.log1p(inverse_k), q)


# ---- misfit ----


def _matern(d: Floats) -> Floats:
    s = np.sqrt(5.0) * np.abs(d)
    return (1 + s + s**2 / 3) * np.exp(-s)


def _misfit_basis() -> tuple[Floats, Floats]:
    """Nodes (G,) and features (G, F) at them, so that features @ features.T is the kernel given
    zero at zero."""
    nodes = np.linspace(0.0, _T_MOST, 101)
    kernel = _matern(nodes[:, None] - nodes) - np.outer(_matern(nodes), _matern(nodes))
    values, vectors = np.linalg.eigh(kernel)
    top = np.argsort(values)[::-1][:_FEATURES]
    features = vectors[:, top] * np.sqrt(np.maximum(values[top], 0.0))
    features[0] = 0.0
    return nodes, features


_NODES, _AT_NODES = _misfit_basis()


def misfit_features(amount: Floats) -> Floats:
    """(..., F) features of amounts (multiples of n_base), linear between the nodes."""
    t = np.log1p(np.maximum(amount, 0.0))
    place = np.clip(t, 0, _T_MOST) / _NODES[1]
    low = np.minimum(place.astype(int), len(_NODES) - 2)
    share = (place - low)[..., None]
    return _AT_NODES[low] * (1 - share) + _AT_NODES[low + 1] * share


# ---- the parametric surface ----


@dataclass(frozen=True)
class Surface:
    """Accuracies and derivatives of P parameters: α, β, c (B each), then per source w, log k (B
    each) and q."""

    layout: Layout

    @property
    def size(self) -> int:
        """P."""
        n = len(self.layout.n_base)
        return 3 * n + len(self.layout.sources) * (2 * n + 1)

    def at(self, name: str, b: int | slice = slice(None), source: int = 0) -> slice | int:
        """Where a parameter of base size b (or all of them) stands."""
        n = len(self.layout.n_base)
        own = 3 * n + source * (2 * n + 1)
        start = {"alpha": 0, "beta": n, "c": 2 * n, "w": own, "log_k": own + n, "q": own + 2 * n}[
            name
        ]
        if name == "q":
            return start
        return slice(start, start + n) if isinstance(b, slice) else start + b

    def clip(self, theta: Floats) -> None:
        """Inside the bounds, in place."""
        np.clip(theta[..., self.at("c")], *_BOUNDS["c"], out=theta[..., self.at("c")])
        for j in range(len(self.layout.sources)):
            for name in ("w", "log_k"):
                part = theta[..., self.at(name, source=j)]
                np.clip(part, *_BOUNDS[name], out=part)
            theta[..., self.at("q", source=j)] = np.clip(
                theta[..., self.at("q", source=j)], *_BOUNDS["q"]
            )

    def effective_images(self, theta: Floats, b: int, j: int, x: Floats) -> Floats:
        """E_bj(x): theta (..., P), x (G,) -> (..., G)."""
        w, log_k, q = (theta[..., self.at(name, b, j), None] for name in ("w", "log_k", "q"))
        return effective(x, w, log_k, q)

    def accuracy(self, theta: Floats, b: int, u: Floats) -> Floats:
        """α + β φ_c(u): theta (..., P), u (..., G) -> (..., G)."""
        alpha, beta, c = (theta[..., self.at(name, b), None] for name in ("alpha", "beta", "c"))
        return alpha + beta * phi(np.maximum(u, _U_LEAST), c)

    def columns(self, b: int) -> np.ndarray:
        """(p,) the parameters that base size b's cells depend on, in the order of `local`'s
        derivatives."""
        own = [self.at(name, b) for name in ("alpha", "beta", "c")]
        for j in range(len(self.layout.sources)):
            own += [self.at(name, b, j) for name in ("w", "log_k", "q")]
        return np.array(own)

    def evaluate(self, theta: Floats) -> tuple[Floats, Floats]:
        """At all cells: accuracies (N, M) and derivatives (N, M, P), for theta (N, P)."""
        value = np.empty((len(theta), self.layout.cells))
        jacobian = np.zeros((len(theta), self.layout.cells, self.size))
        for b in range(len(self.layout.n_base)):
            cells = self.layout.cells_of(b)
            value[:, cells], slopes = self.local(theta, b)
            jacobian[:, cells[:, None], self.columns(b)] = slopes
        return value, jacobian

    def local(self, theta: Floats, b: int, *, slopes: bool = True) -> tuple[Floats, Floats]:
        """At the cells of base size b: accuracies (N, M_b) and derivatives (N, M_b, p) by `columns`
        (empty if not asked for)."""
        layout, cells = self.layout, self.layout.cells_of(b)
        u = np.repeat(1.0 + layout.real[None, cells], len(theta), axis=0)
        parts = []
        for j in range(len(layout.sources)):
            has = np.flatnonzero(layout.amount[cells, j] > 0)
            if len(has):
                e, by = _effective_slopes(
                    layout.amount[cells[has], j], *self._source(theta, b, j), slopes=slopes
                )
                u[:, has] += e
                parts.append((j, has, by))
        alpha, beta, c = (theta[:, self.at(name, b), None] for name in ("alpha", "beta", "c"))
        inside = u > _U_LEAST
        log_u = np.log(np.where(inside, u, _U_LEAST))
        small = np.abs(c) < 1e-4
        divisor = np.where(small, 1.0, c)
        power = np.exp(-c * log_u)
        curve = np.where(small, log_u * (1 - 0.5 * c * log_u), (1 - power) / divisor)
        value = alpha + beta * curve
        if not slopes:
            return value, np.empty(0)
        jacobian = np.zeros((len(theta), len(cells), 3 + 3 * len(layout.sources)))
        jacobian[:, :, 0], jacobian[:, :, 1] = 1.0, curve
        jacobian[:, :, 2] = beta * np.where(
            small, -0.5 * log_u**2, (log_u * power - curve) / divisor
        )
        by_u = beta * power * np.exp(-log_u) * inside
        for j, has, by in parts:
            jacobian[:, has, 3 + 3 * j : 6 + 3 * j] = by * by_u[:, has, None]
        return value, jacobian

    def _source(self, theta: Floats, b: int, j: int) -> tuple[Floats, Floats, Floats]:
        w, log_k, q = (theta[:, self.at(name, b, j), None] for name in ("w", "log_k", "q"))
        return w, log_k, q


def _effective_slopes(
    x: Floats, w: Floats, log_k: Floats, q: Floats, *, slopes: bool
) -> tuple[Floats, Floats]:
    """E (N, K) and its derivatives (N, K, 3) by w, log k and q; x (K,), the others (N, 1). The last
    column of the joint arrays is x = 1, by which E is normalised."""
    scaled = np.append(x, 1.0) * np.exp(-log_k)
    log_v = np.log1p(scaled)
    small = np.abs(q) < 1e-5
    divisor = np.where(small, 1.0, q)
    power = np.exp(q * log_v)
    transformed = np.where(small, log_v * (1 + 0.5 * q * log_v), (power - 1) / divisor)
    unit = transformed[:, :-1] / transformed[:, -1:]
    if not slopes:
        return w * unit, np.empty(0)
    by_k = -power * scaled / (1 + scaled)
    by_q = np.where(small, 0.5 * log_v**2, (log_v * power - transformed) / divisor)
    out = np.empty((*unit.shape, 3))
    out[:, :, 0] = unit
    for i, by in ((1, by_k), (2, by_q)):
        out[:, :, i] = w * (by[:, :-1] - unit * by[:, -1:]) / transformed[:, -1:]
    return w * unit, out


# ---- priors and covariances of T tables ----


@dataclass(frozen=True, eq=False)
class _Problem:
    """T tables under H hypotheses (size of the misfit × factor of the noise). `mean` (T, M);
    `prior_mean` (T, P), `prior_root` (T, P, P) with root @ root.T = prior covariance; `scale` (T,
    B) points: range of accuracies of each base size; `misfit` (H,), `factor` (H,), `log_weight` (T,
    H); `unit` (M, M, B): misfit covariance at unit size."""

    surface: Surface
    noise: Noise
    prior_mean: Floats
    prior_root: Floats
    scale: Floats
    misfit: Floats
    factor: Floats
    log_weight: Floats
    # (M, B, A, F): response of each cell to the misfit's coefficients, A = real and J sources
    features: Floats
    mixed: Floats  # (M,) variance of a mixed cell's own misfit, at unit size
    prior: Prior

    def weights(self, t: np.ndarray, h: np.ndarray) -> tuple[Floats, ...]:
        """Per base size (N, M_b, M_b): inverse covariances of tables t (N,) under hypotheses h
        (N,)."""
        found = []
        for b in range(len(self.surface.layout.n_base)):
            cells = self.surface.layout.cells_of(b)
            flat = self.features[cells].reshape(len(cells), -1)
            unit = flat @ flat.T + np.diag(self.mixed[cells])
            noise = self.noise.cov[:, cells[:, None], cells][t] * self.factor[h][:, None, None] ** 2
            size = self.misfit[h] * self.scale[t, b]
            found.append(np.linalg.inv(noise + size[:, None, None] ** 2 * unit))
        return tuple(found)


def _prior_terms(surface: Surface, prior: Prior, noise: Noise) -> tuple[Floats, Floats, Floats]:
    layout, n = surface.layout, len(surface.layout.n_base)
    tables = len(noise.mean)
    mean, root = np.zeros((tables, surface.size)), np.zeros((tables, surface.size, surface.size))
    scale = np.empty((tables, n))
    for b in range(n):
        cells = noise.mean[:, layout.cells_of(b)]
        at = layout.base_cell(b)
        start = cells.min(axis=1) if at is None else noise.mean[:, at]
        error = np.maximum(100 - start, 1.0)
        scale[:, b] = np.maximum(np.ptp(cells, axis=1), 0.05 * error)
        mean[:, surface.at("alpha", b)] = start
        mean[:, surface.at("beta", b)] = prior.rise[0] * error
        root[:, surface.at("alpha", b), surface.at("alpha", b)] = 30.0
        root[:, surface.at("beta", b), surface.at("beta")] = (
            _shared_root(n, *prior.rise[1:])[b] * error[:, None]
        )
    mean[:, surface.at("c")] = prior.c[0]
    root[:, surface.at("c"), surface.at("c")] = _shared_root(n, *prior.c[1:])
    for j in range(len(layout.sources)):
        for name, terms in (("w", prior.w), ("log_k", prior.log_k)):
            at_j = surface.at(name, source=j)
            mean[:, at_j], root[:, at_j, at_j] = terms[0], _shared_root(n, *terms[1:])
        q = surface.at("q", source=j)
        mean[:, q], root[:, q, q] = prior.q
    return mean, root, scale


def _shared_root(n: int, common: float, own: float) -> Floats:
    return np.linalg.cholesky(common**2 * np.ones((n, n)) + own**2 * np.eye(n))


def _hypotheses(prior: Prior, noise: Noise) -> tuple[Floats, Floats, Floats]:
    """(H,) sizes of the misfit, factors of the noise, log weights. With enough repetitions the
    noise is as estimated; with few, its size is judged by the scatter about the curves too."""
    weight = np.log(np.asarray(prior.misfit_weight) / np.sum(prior.misfit_weight))
    if noise.df >= 10:
        return np.asarray(prior.misfit), np.ones(len(weight)), weight
    sd = 1.0 / np.sqrt(1.0 + noise.df)  # of the logarithm of the noise's sd
    factor = np.asarray(prior.noise_factor)
    on_factor = -0.5 * (np.log(factor) / sd) ** 2
    on_factor -= np.log(np.exp(on_factor).sum())
    size = np.repeat(np.asarray(prior.misfit), len(factor))
    return size, np.tile(factor, len(weight)), (weight[:, None] + on_factor).ravel()


def _cell_features(layout: Layout, prior: Prior) -> tuple[Floats, Floats]:
    n, arms = len(layout.n_base), _SOURCES + len(layout.sources)
    features = np.zeros((layout.cells, n, arms, _FEATURES))
    at = np.arange(layout.cells)
    features[at, layout.base, _REAL] = prior.real_misfit * misfit_features(layout.real)
    for j in range(len(layout.sources)):
        features[at, layout.base, _SOURCES + j] = misfit_features(layout.amount[:, j])
    strength = (features**2).sum(axis=-1)[at, layout.base]  # (M, A)
    several = (strength > 0).sum(axis=1) > 1
    return features, np.where(several, strength.sum(axis=1), 0.0) * 0.5


# ---- the solver ----


@dataclass(frozen=True, eq=False)
class _Solution:
    """N fits: `theta` (N, P), `cost` (N,) twice the negative log posterior, `residual` (N, M)."""

    theta: Floats
    cost: Floats
    residual: Floats


@dataclass(frozen=True, eq=False)
class _Data:
    """N problems: `y` (N, M); `weight` per base size (N, M_b, M_b) inverse covariances (base sizes
    are independent); `centre` (N, P), `prior` (N, P, P) precision."""

    y: Floats
    weight: tuple[Floats, ...]
    centre: Floats
    prior: Floats

    def of(self, rows: np.ndarray) -> "_Data":
        """Some of them, in that order."""
        return _Data(
            self.y[rows], tuple(w[rows] for w in self.weight), self.centre[rows], self.prior[rows]
        )


def _solve(
    surface: Surface, data: _Data, start: Floats, steps: int, enough: float = 5e-3
) -> _Solution:
    """Levenberg-Marquardt on all problems side by side. Those that no longer gain drop out."""
    theta = start.copy()
    surface.clip(theta)
    cost = _cost(surface, theta, data)
    damping = np.full(len(theta), 1e-3)
    active, left = np.arange(len(theta)), data
    for _ in range(steps):
        slope, precision = _newton(surface, theta[active], left)
        diagonal = np.einsum("npp->np", precision)
        diagonal += damping[active, None] * (diagonal + 1e-9)
        trial = theta[active] + np.linalg.solve(precision, slope[:, :, None])[:, :, 0]
        surface.clip(trial)
        found = _cost(surface, trial, left)
        gain = cost[active] - found
        better = gain >= 0
        theta[active[better]], cost[active[better]] = trial[better], found[better]
        damping[active] = np.clip(
            np.where(better, damping[active] * 0.2, damping[active] * 8), 1e-8, 1e8
        )
        on = np.flatnonzero(~(better & (gain < enough)) & (damping[active] < 1e6))
        if not len(on):
            break
        if len(on) < len(active):
            active, left = active[on], left.of(on)
    return _Solution(theta, cost, data.y - _values(surface, theta))


def _values(surface: Surface, theta: Floats) -> Floats:
    value = np.empty((len(theta), surface.layout.cells))
    for b in range(len(surface.layout.n_base)):
        value[:, surface.layout.cells_of(b)] = surface.local(theta, b, slopes=False)[0]
    return value


def _cost(surface: Surface, theta: Floats, data: _Data) -> Floats:
    off = (theta - data.centre)[:, :, None]
    cost = (off * (data.prior @ off)).sum(axis=(1, 2))
    residual = data.y - _values(surface, theta)
    for b, weight in enumerate(data.weight):
        part = residual[:, surface.layout.cells_of(b), None]
        cost += (part * (weight @ part)).sum(axis=(1, 2))
    return np.nan_to_num(cost, nan=1e30, posinf=1e30)


def _newton(surface: Surface, theta: Floats, data: _Data) -> tuple[Floats, Floats]:
    """Downhill slope (N, P) and Gauss-Newton precision (N, P, P)."""
    precision = data.prior.copy()
    slope = -(data.prior @ (theta - data.centre)[:, :, None])[:, :, 0]
    for b, weight in enumerate(data.weight):
        columns = surface.columns(b)
        value, jacobian = surface.local(theta, b)
        weighted = jacobian.transpose(0, 2, 1) @ weight  # (N, p, M_b)
        precision[:, columns[:, None], columns] += weighted @ jacobian
        residual = data.y[:, surface.layout.cells_of(b)] - value
        slope[:, columns] += (weighted @ residual[:, :, None])[:, :, 0]
    return slope, precision


# ---- the fit ----


@dataclass(frozen=True, eq=False)
class Curves:
    """T × D surfaces: parameters `theta` (T, D, P), the misfit's coefficients `zeta` (T, D, B, A,
    F), points, `drift` (T, D, B, J): how growth beyond the largest measured amount departs from the
    form (logarithm of a factor, at once and again per unit of log amount), and `room` (T, D, B, J):
    how far a source's effective images can still grow beyond its largest measured amount, as a
    multiple of what its last measured doubling brought; inf: as the form says. No data can exclude
    that a curve levels off where it was last measured, so some draws do."""

    surface: Surface
    theta: Floats
    zeta: Floats
    drift: Floats
    room: Floats

    def real(self, b: int, r: Floats) -> Floats:
        """(T, D, G) accuracy with r (G,) real images added, as multiples of n_base; r > -1."""
        r = np.asarray(r, dtype=float)
        value = (
            self.surface.accuracy(self.theta, b, 1.0 + r)
            + self.zeta[:, :, b, _REAL] @ misfit_features(r).T
        )
        if (r < 0).any():
            value = (
                value
                + self.zeta[:, :, b, _FEWER] @ misfit_features(1 / (1.0 + np.minimum(r, 0.0)) - 1).T
            )
        return value

    def source(self, b: int, j: int, x: Floats, r: float = 0.0) -> Floats:
        """(T, D, G) accuracy with x (G,) images of source j (and r real ones) added, as multiples
        of n_base."""
        x = np.asarray(x, dtype=float)
        off = self.zeta[:, :, b, _SOURCES + j] @ misfit_features(x).T
        if r:
            off = off + self.zeta[:, :, b, _REAL] @ misfit_features(np.array([r])).T
        return self.surface.accuracy(self.theta, b, 1.0 + r + self.effective(b, j, x)) + off

    def effective(self, b: int, j: int, x: Floats) -> Floats:
        """(T, D, G) E_bj(x), levelling off beyond the measured range in those draws that do."""
        e = self.surface.effective_images(self.theta, b, j, x)
        most = _largest(self.surface.layout, b, j)
        beyond = x > most
        if not beyond.any():
            return e
        ends = self.surface.effective_images(self.theta, b, j, np.array([most / 2, most]))
        # A rise that is estimated as zero or less leaves the room of a hundredth of an image per
        # image.
        room = self.room[:, :, b, j, None] * np.maximum(ends[:, :, 1:] - ends[:, :, :1], 1e-3)
        bend = np.exp(self.drift[:, :, b, j, None] * (1 + np.log((1 + x[beyond]) / (1 + most))))
        more = np.maximum(e[:, :, beyond] - ends[:, :, 1:], 0.0) * bend
        left = np.where(np.isfinite(room), room, 1.0)
        capped = ends[:, :, 1:] + np.where(np.isfinite(room), -left * np.expm1(-more / left), more)
        e[:, :, beyond] = np.where(e[:, :, beyond] > ends[:, :, 1:], capped, e[:, :, beyond])
        return e


def _levels_off(layout: Layout, prior: Prior) -> Floats:
    """(B, J) probability that a source soon brings no more beyond its largest measured amount."""
    few = np.zeros((len(layout.n_base), len(layout.sources)), dtype=bool)
    for b, j in np.ndindex(*few.shape):
        few[b, j] = len(layout.pure(b, j)) < 3
    return np.where(few, prior.levels_off_unseen, prior.levels_off)


def _largest(layout: Layout, b: int, j: int) -> float:
    measured = layout.amount[layout.cells_of(b), j]
    return float(measured.max()) if measured.any() else 1.0


@dataclass(frozen=True, eq=False)
class Fit:
    """`best` (D = 1): under the most probable hypothesis; `draws`. `precision` (T, P, P) at the
    best. `misfit_share` (T,): posterior mean of the misfit's size, relative to the range of
    accuracies; `noise_factor` (T,) likewise. `raw` (T, D, M): redrawn cell means, without any
    model. `hypothesis` (T, H) posterior weights; `prior_cov` (T, P, P) of the parameters; `scale`
    (T, B) points, the unit of the misfit."""

    layout: Layout
    noise: Noise
    best: Curves
    draws: Curves
    raw: Floats
    precision: Floats
    misfit_share: Floats
    noise_factor: Floats
    hypothesis: Floats
    scale: Floats
    prior_cov: Floats
    prior: Prior = field(default_factory=Prior)


def fit(
    layout: Layout, noise: Noise, *, draws: int = 1000, seed: int = 0, prior: Prior | None = None
) -> Fit:
    """Fit T tables and draw `draws` surfaces of each."""
    prior, rng = prior or Prior(), np.random.default_rng(seed)
    problem = _problem(layout, noise, prior)
    tables, hypotheses = len(noise.mean), len(problem.misfit)
    t, h = (a.ravel() for a in np.meshgrid(np.arange(tables), np.arange(hypotheses), indexing="ij"))
    precision0 = np.linalg.inv(problem.prior_root @ problem.prior_root.transpose(0, 2, 1))
    data = _Data(noise.mean[t], problem.weights(t, h), problem.prior_mean[t], precision0[t])
    solved = _solve(problem.surface, data, _start(problem, prior)[t], steps=40)
    precision = _newton(problem.surface, solved.theta, data)[1]
    evidence = -0.5 * (solved.cost + np.linalg.slogdet(precision)[1])
    evidence += 0.5 * sum(np.linalg.slogdet(weight)[1] for weight in data.weight)
    log_post = evidence.reshape(tables, hypotheses) + problem.log_weight
    post = np.exp(log_post - log_post.max(axis=1, keepdims=True))
    post /= post.sum(axis=1, keepdims=True)
    top = np.arange(tables) * hypotheses + post.argmax(axis=1)
    best = _curves(
        problem, solved.theta[top], solved.residual[top], data.of(top).weight, h[top], None, 1
    )
    drawn, raw = _draw(problem, solved, data, post, draws, rng)
    return Fit(
        layout,
        noise,
        best,
        drawn,
        raw,
        precision[top],
        post @ problem.misfit,
        post @ problem.factor,
        post,
        problem.scale,
        problem.prior_root @ problem.prior_root.transpose(0, 2, 1),
        prior,
    )


def _problem(layout: Layout, noise: Noise, prior: Prior) -> _Problem:
    surface = Surface(layout)
    mean, root, scale = _prior_terms(surface, prior, noise)
    return _Problem(
        surface,
        noise,
        mean,
        root,
        scale,
        *_hypotheses(prior, noise),
        *_cell_features(layout, prior),
        prior,
    )


def _start(problem: _Problem, prior: Prior) -> Floats:
    """(T, P): the prior's mean, with each base size's level and rise from its real cells."""
    surface, layout, start = problem.surface, problem.surface.layout, problem.prior_mean.copy()
    for b in range(len(layout.n_base)):
        at = layout.base_cell(b)
        cells = layout.pure(b, -1)
        if at is None or not len(cells):
            continue
        rise = problem.noise.mean[:, cells] - problem.noise.mean[:, at, None]
        gain = phi(1 + layout.real[cells], np.array(prior.c[0]))
        start[:, surface.at("beta", b)] = np.maximum((rise @ gain) / (gain @ gain), 0.1)
    return start


def _draw(
    problem: _Problem,
    solved: _Solution,
    data: _Data,
    post: Floats,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Curves, Floats]:
    """Randomise, then optimise: surfaces, and the redrawn cell means (T, D, M)."""
    tables, hypotheses = post.shape
    t = np.repeat(np.arange(tables), draws)
    # Stratified: each hypothesis gets its share of the draws, to within one.
    ladder = (np.arange(draws) + rng.random((tables, 1))) / draws
    h = (ladder[:, :, None] > np.cumsum(post, axis=1)[:, None, :-1]).sum(axis=2).ravel()
    at = t * hypotheses + h
    noise, surface = problem.noise, problem.surface
    given_size = bool((problem.factor != 1).any())
    error = (
        noise.draw(draws, rng, given_size=given_size).reshape(len(t), -1) * problem.factor[h, None]
    )
    n, arms = problem.features.shape[1:3]
    zeta0 = rng.standard_normal((len(t), n * arms * _FEATURES))
    size = (problem.misfit[h, None] * problem.scale[t])[:, surface.layout.base]
    delta0 = (zeta0 @ problem.features.reshape(len(problem.features), -1).T) * size
    delta0 += rng.standard_normal(size.shape) * np.sqrt(problem.mixed) * size
    shift = (problem.prior_root[t] @ rng.standard_normal((len(t), surface.size, 1)))[:, :, 0]
    redrawn = data.of(at)
    redrawn = replace(redrawn, y=redrawn.y - error - delta0, centre=redrawn.centre + shift)
    found = _solve(problem.surface, redrawn, solved.theta[at], steps=12, enough=0.1)
    curves = _curves(problem, found.theta, found.residual, redrawn.weight, h, zeta0, draws)
    # Half of the last doubling again is likely, twice is not.
    room = np.sqrt(rng.exponential(size=curves.room.shape))
    room = np.where(
        rng.random(room.shape) < _levels_off(surface.layout, problem.prior), room, np.inf
    )
    drift = problem.prior.drift * rng.standard_normal(room.shape)
    return replace(curves, room=room, drift=drift), (noise.mean[t] - error).reshape(
        tables, draws, -1
    )


def _curves(
    problem: _Problem,
    theta: Floats,
    residual: Floats,
    weight: tuple[Floats, ...],
    h: np.ndarray,
    zeta0: Floats | None,
    draws: int,
) -> Curves:
    """With the misfit given the residuals (Matheron's rule): prior draw plus gain times
    residual."""
    tables = len(theta) // draws
    t = np.repeat(np.arange(tables), draws)
    n, arms = problem.features.shape[1:3]
    size = problem.misfit[h, None] * problem.scale[t]  # (N, B)
    pull = np.empty_like(residual)
    for b, part in enumerate(weight):
        cells = problem.surface.layout.cells_of(b)
        pull[:, cells] = (part @ residual[:, cells, None])[:, :, 0] * size[:, b, None]
    zeta = pull @ problem.features.reshape(len(problem.features), -1)
    zeta = (zeta if zeta0 is None else zeta + zeta0).reshape(len(t), n, arms, _FEATURES) * size[
        :, :, None, None
    ]
    zeta[:, :, _REAL] *= problem.prior.real_misfit
    room = np.full((tables, draws, n, arms - _SOURCES), np.inf)
    zeta = zeta.reshape(tables, draws, n, arms, -1)
    return Curves(
        problem.surface, theta.reshape(tables, draws, -1), zeta, np.zeros_like(room), room
    )
