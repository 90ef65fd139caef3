"""How uncertain the cell means are: a mixed model of one curve's trainings, by restricted maximum
likelihood.

Random effects per base size: the trial; the cell within a subset (its other additional images); the
subset, on all cells (`level`) and growing with the amount (`trend`); the generator, on its cells
(`shift`) and growing with its amount (`tilt`). Any pattern of missing groups is allowed: cell means
are generalised least squares. Log variances are hierarchical: each component's ratio to the trial
variance is pooled over base sizes, so that a base size (or a design with a single subset seed)
borrows what it cannot estimate, and where nothing estimates it the prior stands in and is named
(`unmeasured`). Draws also draw the variances, with the tails of a scaled inverse chi-square, so
that linear quantities get Student's t.

REML scoring: Searle, Casella, McCulloch, "Variance Components", ch. 6 (average over nothing:
expected information)."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from equigrid.analysis.data.trials import COPIES, Floats, Ints, Layout, Values

TRIAL, INTERACTION, LEVEL, TREND, SHIFT, TILT = range(6)
COMPONENTS = (
    "trial",
    "cell within subset",
    "subset",
    "subset trend",
    "generator",
    "generator trend",
)


@dataclass(frozen=True)
class NoisePrior:
    """Beliefs about log variances before any repetition is seen, each a normal: centre, sd common
    to all base sizes, sd of one base size about the common value.

    Trial: sd about `trial_sd` × sqrt(p (1 - p)), i.e. 0.6 points at 90% accuracy. The others
    relative to the trial variance; a generator's shift about 0.85 trial sd, within a factor of
    three either way. An sd of 1.1 of a log variance has the tails of Student's t with 1.6 degrees
    of freedom: one generator alone says little, and that is meant. `discordance`: share of p (1 -
    p) / n_test that does *not* cancel between arms on one test set."""

    trial_sd: float = 0.02
    trial: tuple[float, float] = (2.0, 0.7)
    interaction: tuple[float, float, float] = (np.log(0.1), 0.8, 0.4)
    level: tuple[float, float, float] = (np.log(0.5), 1.0, 0.5)
    trend: tuple[float, float, float] = (np.log(0.1), 0.8, 0.5)
    shift: tuple[float, float, float] = (np.log(0.7), 1.0, 0.5)
    tilt: tuple[float, float, float] = (np.log(0.1), 0.8, 0.5)
    discordance: float = 0.1


# For answers that are about one trained generator and no other: its effect is then part of the
# truth.
GIVEN_GENERATOR = NoisePrior(shift=(np.log(1e-4), 0.05, 0.05), tilt=(np.log(1e-4), 0.05, 0.05))


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise of T tables. `mean` (T, M) cell means, percent; `cov` (T, M, M) their covariance at the
    most probable variances, given the images of the test set (`draw` adds their choice: as a weight
    it would let the prior decide what the test set shows); `log_var` (T, B, 6) those, `log_var_cov`
    (T, 6B, 6B) their uncertainty; `loadings` (T, M, K): the cell means' response to each of the K
    unit random effects, `owner` (K,) their position in B × 6; `fixed` (T, M, F) loadings of the
    test set's effects, whose variance is known; `unmeasured` names components that the prior alone
    supplies; `df` degrees of freedom of the trial variance."""

    mean: Floats
    cov: Floats
    log_var: Floats
    log_var_cov: Floats
    loadings: Floats
    owner: np.ndarray
    fixed: Floats
    df: float
    unmeasured: tuple[str, ...]
    n_test: int | None

    def draw(self, draws: int, rng: np.random.Generator, *, given_size: bool = False) -> Floats:
        """(T, D, M) errors of the cell means, the variances drawn as well; `given_size`: given the
        overall size of the trial noise, which the caller then varies."""
        tables, _, k = self.loadings.shape
        sd = np.exp(0.5 * self._log_variances(draws, rng, given_size))
        effects = sd[..., self.owner] * rng.standard_normal((tables, draws, k))
        error = effects @ self.loadings.transpose(0, 2, 1)
        error += rng.standard_normal((tables, draws, self.fixed.shape[2])) @ self.fixed.transpose(
            0, 2, 1
        )
        seen = np.repeat(self.mean[:, None], draws, axis=1)
        return error + sampled_on_test_set(seen, self.n_test, rng)

    def _log_variances(self, draws: int, rng: np.random.Generator, given_size: bool) -> Floats:
        """(T, D, 6B): Gaussian copula of the joint posterior, each margin a scaled inverse
        chi-square of the same mode and curvature (the posterior of a variance under a flat prior of
        its logarithm)."""
        tables, size = self.log_var_cov.shape[:2]
        cov = self.log_var_cov + 1e-6 * np.eye(size)
        if given_size:
            with_mean = cov[:, :, TRIAL::6].mean(axis=2)  # (T, 6B)
            variance = with_mean[:, TRIAL::6].mean(axis=1)
            cov = (
                cov
                - 0.999 * with_mean[:, :, None] * with_mean[:, None, :] / variance[:, None, None]
            )
        root = np.linalg.cholesky(cov)
        sd = np.sqrt(np.einsum("tkk->tk", cov))[:, None]
        z = (rng.standard_normal((tables, draws, size)) @ root.transpose(0, 2, 1)) / sd
        df = 2.0 / sd**2
        wide = sd > 0.2  # above 50 degrees of freedom normal and chi-square agree
        tail = np.clip(special.ndtr(-z), 1e-6, 1 - 1e-6)
        with np.errstate(divide="ignore"):
            skewed = np.log(df / np.maximum(2 * special.gammaincinv(df / 2, tail), 1e-12))
        return self.log_var.reshape(tables, 1, -1) + np.where(wide, np.minimum(skewed, 7.0), sd * z)


def estimate(
    layout: Layout,
    values: Values,
    prior: NoisePrior | None = None,
    n_test: int | None = None,
    steps: int = 14,
) -> Noise:
    """The noise of T tables. n_test: images in the test set, if known. Never raises for lack of
    repetitions."""
    prior = prior or NoisePrior()
    effects = [_effects(layout, b) for b in range(len(layout.n_base))]
    centre = _centres(layout, values.mean, prior)
    log_var = centre.copy()
    prior_precision = np.linalg.inv(_prior_cov(len(layout.n_base), prior))
    for _ in range(steps):
        score, information = _scores(layout, values, effects, log_var)
        gradient = score - (log_var - centre) @ prior_precision
        move = np.linalg.solve(information + prior_precision, gradient[..., None])[..., 0]
        log_var = log_var + np.clip(move, -1.0, 1.0)
        if np.abs(move).max() < 1e-2:
            break
    log_var[:, TRIAL::6] = np.maximum(log_var[:, TRIAL::6], 2 * np.log(_least_sd(n_test)))
    _, information = _scores(layout, values, effects, log_var)
    cov_of_logs = np.linalg.inv(information + prior_precision)
    gls = _cell_means(layout, values, effects, log_var)
    share = np.einsum("tkk->tk", information).mean(axis=0).reshape(-1, 6).sum(axis=0)
    fixed = _test_set(layout, gls.mean, prior, n_test)
    variance = np.exp(log_var)[:, gls.owner]
    cov = (gls.loadings * variance[:, None, :]) @ gls.loadings.transpose(
        0, 2, 1
    ) + fixed @ fixed.transpose(0, 2, 1)
    tables = len(values.mean)
    return Noise(
        gls.mean,
        cov,
        log_var.reshape(tables, -1, 6),
        cov_of_logs,
        gls.loadings,
        gls.owner,
        fixed,
        _trial_df(layout, values),
        _unmeasured(layout, share),
        n_test,
    )


def _least_sd(n_test: int | None) -> float:
    """Points. Accuracies are counts over a test set: equal ones may differ by a rounding."""
    return max(100 / n_test / np.sqrt(12.0), 0.01) if n_test else 0.03


def _trial_df(layout: Layout, values: Values) -> float:
    return float(
        values.within_df.sum() + max(len(layout.cell) - layout.cells - _clusters(layout), 0)
    )


def _clusters(layout: Layout) -> int:
    """Cluster effects that use up degrees of freedom: a subset's on all cells, a generator's on its
    own."""
    base = layout.base[layout.cell]
    subsets = len(set(zip(base, layout.subset))) - len(set(base))
    trained = layout.generator[layout.generator >= 0]
    sources = {(base[i], j) for i, j in zip(*np.nonzero(layout.generator >= 0))}
    return subsets + len(set(trained)) - len(sources)


def _unmeasured(layout: Layout, information: Floats) -> tuple[str, ...]:
    """Components about whose variance the data say less than one degree of freedom does."""
    relevant = np.ones(6, dtype=bool)
    relevant[[SHIFT, TILT]] = (layout.generator >= 0).any()
    return tuple(
        COMPONENTS[k] for k in (TRIAL, LEVEL, SHIFT) if relevant[k] and information[k] < 0.4
    )


# ---- the model's parts ----


@dataclass(frozen=True, eq=False)
class _Effects:
    """Random effects of one base size. `groups` (N_b,), `cells` (M_b,) indices; `design` (N_b, M_b)
    cell of each group; `own` (N_b, 2) variances of a group's own effects (trial, interaction) per
    unit; `columns` (N_b, K) unit effects that groups share, of components `component` (K,)."""

    groups: Ints
    cells: Ints
    design: Floats
    own: Floats
    columns: Floats
    component: Ints


def _effects(layout: Layout, b: int) -> _Effects:
    groups, cells = layout.rows_of(b), layout.cells_of(b)
    cell = layout.cell[groups]
    growth = np.log1p(layout.real[cell] + layout.amount[cell].sum(axis=1))
    own = np.stack([1 / layout.count[groups], np.ones(len(groups))], axis=1)
    member = _indicator(layout.subset[groups])
    trained = [_indicator(g) for g in layout.generator[groups].T]
    shift = np.concatenate(trained, axis=1) if trained else np.zeros((len(groups), 0))
    log_x = np.log(np.maximum(layout.amount[cell].max(axis=1, initial=0.0), 0.05))
    blocks = [member, member * growth[:, None], shift, shift * log_x[:, None]]
    component = np.repeat(np.arange(LEVEL, 6), [block.shape[1] for block in blocks])
    return _Effects(groups, cells, _indicator(cell), own, np.concatenate(blocks, axis=1), component)


def _indicator(labels: np.ndarray) -> Floats:
    """(N, L) of 0 and 1; labels below zero belong to nothing."""
    names = np.unique(labels[labels >= 0])
    return (labels[:, None] == names[None, :]).astype(float)


def _centres(layout: Layout, mean: Floats, prior: NoisePrior) -> Floats:
    """(T, 6B) prior centres of the log variances."""
    ratios = np.array(
        [0.0, *(getattr(prior, n)[0] for n in ("interaction", "level", "trend", "shift", "tilt"))]
    )
    found = []
    for b in range(len(layout.n_base)):
        p = np.clip(np.median(mean[:, layout.rows_of(b)], axis=1) / 100, 0.02, 0.995)
        found.append(2 * np.log(100 * prior.trial_sd * np.sqrt(p * (1 - p)))[:, None] + ratios)
    return np.concatenate(found, axis=1)


def _prior_cov(n_bases: int, prior: NoisePrior) -> Floats:
    """(6B, 6B): trial variances share a common part; every other component is a ratio to them, with
    its own."""
    ratios = (prior.interaction, prior.level, prior.trend, prior.shift, prior.tilt)
    terms = [(prior.trial, list(range(6)))]
    terms += [((common, own), [k]) for k, (_, common, own) in enumerate(ratios, start=1)]
    root = []
    for (common, own), members in terms:
        single = np.zeros((n_bases, n_bases, 6))
        for b in range(n_bases):
            single[b, b, members] = own
        root += [*single.reshape(n_bases, -1), (single.sum(axis=0) * common / own).ravel()]
    stacked = np.array(root)
    return np.asarray(stacked.T @ stacked)


def _covariance(effects: _Effects, log_var: Floats) -> Floats:
    """(T, N_b, N_b) covariance of one base size's group means."""
    variance = np.exp(log_var)
    found = (effects.columns * variance[:, None, effects.component]) @ effects.columns.T
    diagonal = np.einsum("tnn->tn", found)
    diagonal += variance[:, :LEVEL] @ effects.own.T
    return found


def _scores(
    layout: Layout, values: Values, effects: list[_Effects], log_var: Floats
) -> tuple[Floats, Floats]:
    """Gradient (T, 6B) and expected information (T, 6B, 6B) of the restricted likelihood by the log
    variances."""
    tables, size = log_var.shape
    score, information = np.zeros((tables, size)), np.zeros((tables, size, size))
    for b, part in enumerate(effects):
        s = slice(6 * b, 6 * b + 6)
        score[:, s], information[:, s, s] = _base_scores(
            part, values.mean[:, part.groups], log_var[:, s]
        )
        variance = np.exp(log_var[:, 6 * b])
        score[:, 6 * b] += 0.5 * (values.within_ss[:, b] / variance - values.within_df[b])
        information[:, 6 * b, 6 * b] += 0.5 * values.within_df[b]
    return score, information


def _base_scores(part: _Effects, y: Floats, log_var: Floats) -> tuple[Floats, Floats]:
    inverse = np.linalg.inv(_covariance(part, log_var))
    weighted = inverse @ part.design  # (T, N, M)
    project = inverse - weighted @ np.linalg.solve(
        part.design.T @ weighted, weighted.transpose(0, 2, 1)
    )
    sums = (np.arange(6)[:, None] == part.component).astype(float)  # (6, K)
    through = project @ part.columns  # (T, N, K)
    gram = part.columns.T @ through  # (T, K, K)
    pulled = (project @ y[:, :, None])[:, :, 0]
    trace = np.einsum("tkk->tk", gram) @ sums.T
    trace[:, :LEVEL] += np.einsum("tnn->tn", project) @ part.own
    square = ((pulled @ part.columns) ** 2) @ sums.T
    square[:, :LEVEL] += pulled**2 @ part.own
    products = sums @ (gram**2) @ sums.T  # (T, 6, 6) traces of P V_k P V_l
    products[:, :LEVEL, :LEVEL] += part.own.T @ project**2 @ part.own
    across = part.own.T @ (through**2 @ sums.T)  # (T, 2, 6)
    products[:, :LEVEL] += across
    products[:, :, :LEVEL] += across.transpose(0, 2, 1)
    variance = np.exp(log_var)
    information = 0.5 * variance[:, :, None] * variance[:, None, :] * products
    return 0.5 * variance * (square - trace), information


@dataclass(frozen=True, eq=False)
class _Means:
    mean: Floats
    loadings: Floats
    owner: np.ndarray


def _cell_means(layout: Layout, values: Values, effects: list[_Effects], log_var: Floats) -> _Means:
    """Generalised least squares, and what each random effect does to it."""
    tables = len(values.mean)
    total = sum(2 * len(part.groups) + part.columns.shape[1] for part in effects)
    mean, loadings = np.zeros((tables, layout.cells)), np.zeros((tables, layout.cells, total))
    owner, edge = [], 0
    for b, part in enumerate(effects):
        inverse = np.linalg.inv(_covariance(part, log_var[:, 6 * b : 6 * b + 6]))
        weighted = (inverse @ part.design).transpose(0, 2, 1)
        gls = np.linalg.solve(weighted @ part.design, weighted)  # (T, M_b, N_b)
        mean[:, part.cells] = (gls @ values.mean[:, part.groups, None])[..., 0]
        own = [gls * np.sqrt(part.own[:, k]) for k in (TRIAL, INTERACTION)]
        block = np.concatenate([*own, gls @ part.columns], axis=2)
        width = block.shape[2]
        loadings[:, part.cells, edge : edge + width] = block
        owner.append(6 * b + np.repeat([TRIAL, INTERACTION], len(part.groups)))
        owner.append(6 * b + part.component)
        edge += width
    return _Means(mean, loadings, np.concatenate(owner))


def _test_set(layout: Layout, mean: Floats, prior: NoisePrior, n_test: int | None) -> Floats:
    """Loadings (T, M, B × J) of what a finite test set does to one source's cells alone. Images
    that are harder than most shift all cells alike (`sampled_on_test_set`); only images that one
    arm gets right more often than its accuracy explains move arms against each other."""
    n_bases, sources = len(layout.n_base), len(layout.sources)
    fixed = np.zeros((len(mean), layout.cells, n_bases * sources))
    if not n_test:
        return fixed
    for b in range(n_bases):
        p = np.clip(
            np.median(mean[:, layout.cells_of(b)], axis=1) / 100, 0.5 / n_test, 1 - 0.5 / n_test
        )
        sd = 100 * np.sqrt(p * (1 - p) / n_test * prior.discordance)
        for j in range(sources):
            has = (layout.base == b) & (layout.amount[:, j] > 0)
            # Copies hold the base's own images.
            quieter = 0.5 if layout.sources[j] == COPIES else 1.0
            fixed[:, has, b * sources + j] = quieter * sd[:, None]
    return fixed


def sampled_on_test_set(accuracy: Floats, n_test: int | None, rng: np.random.Generator) -> Floats:
    """(..., K) points: errors of accuracies (..., K) percent that are measured on one random test
    set of n_test images, if a better model gets right what a worse one does (a Brownian bridge in
    the accuracy). Accuracies that are equal err alike: so amounts, at which two accuracies are
    equal, are free of it, and gains nearly."""
    if not n_test:
        return np.zeros_like(accuracy)
    p = np.clip(accuracy / 100, 0.0, 1.0)
    order = np.argsort(p, axis=-1)
    steps = np.diff(np.take_along_axis(p, order, axis=-1), axis=-1, prepend=0.0)
    walk = np.cumsum(rng.standard_normal(p.shape) * np.sqrt(steps), axis=-1)
    rest = rng.standard_normal((*p.shape[:-1], 1)) * np.sqrt(
        np.maximum(1 - p.max(axis=-1, keepdims=True), 0.0)
    )
    path = np.empty_like(p)
    np.put_along_axis(path, order, walk, axis=-1)
    return 100 * (path - p * (walk[..., -1:] + rest)) / np.sqrt(n_test)
