"""What to run next: how much each further training narrows the interval of one asked amount, for
its cost.

Preposterior analysis, linear and Gaussian about the fit: the asked amount x solves S(x) = R(r), so
its logarithm moves with T = R(r) - S(x) over the slope of S. T's posterior variance needs no
outcomes, only what would be measured: prior covariance of the surface (parameters and misfit), and
the noise of the trainings there would then be. Where the answer lies beyond the measured range, T
is taken at the largest measured amount: whether it is reached is what can be learnt."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from equigrid.analysis.conclusions.amounts import X_MOST, equivalent
from equigrid.analysis.data.trials import COPIES, Floats, Layout
from equigrid.analysis.fitting.effective_samples import Fit, Surface, _cell_features
from equigrid.analysis.fitting.variance import _covariance, _effects

TRIAL, SUBSET, GENERATOR = "trial", "subset seed", "generator"


@dataclass(frozen=True)
class Costs:
    """In any one currency (GPU-hours): a training is `trial` + `per_image` × its images;
    `generator` once for each new subset seed or generator seed that needs one."""

    trial: float = 1.0
    per_image: float = 0.0
    generator: float = 0.0

    def of(self, layout: Layout, m: int) -> float:
        """One training of cell m."""
        images = layout.n_base[layout.base[m]] * (1 + layout.real[m] + layout.amount[m].sum())
        return self.trial + self.per_image * float(images)


@dataclass(frozen=True)
class Step:
    """One thing to run: trainings of `cells` under subset `subset` (an index; a new one if `kind`
    says so)."""

    kind: str
    cells: tuple[int, ...]
    subset: int
    generator: int  # index of the training that the cells with images use; -1 without
    cost: float


@dataclass(frozen=True)
class Suggestion:
    """A step and what it does: `sd` of the logarithm of the asked amount now and after; `gain`:
    variance removed, as a share, per unit of cost."""

    step: Step
    text: str
    sd_now: float
    sd_after: float
    gain: float


@dataclass(frozen=True, eq=False)
class _Question:
    """Prior covariance of the surface at the cells and of T: `cells` (M, M), `target` (M,),
    `variance`; `slope` of S in log amount, points."""

    cells: Floats
    target: Floats
    variance: float
    slope: float


def rank(
    fit: Fit, b: int, j: int, r: float, costs: Costs | None = None, *, most: int = 12
) -> list[Suggestion]:
    """Steps that narrow the amount of source j matching r (multiples of n_base) at base b most for
    their cost, the best first. T = 1. Empty where the question has no answer to narrow (no cells of
    the source, say)."""
    costs, layout = costs or Costs(), fit.layout
    if layout.base_cell(b) is None or not len(layout.pure(b, j)):
        return []
    x = _asked_amount(fit, b, j, r)
    question = _question(fit, b, j, r, x)
    before = _variance(fit, layout, question)
    found = []
    for step in _steps(layout, b, j, r, x, costs):
        after = _variance(fit, extended(layout, step), question)
        share = max(1 - after / before, 0.0)
        sd = [float(np.sqrt(v)) / question.slope for v in (before, after)]
        found.append(Suggestion(step, _words(layout, step), sd[0], sd[1], share / step.cost))
    return sorted(found, key=lambda s: -s.gain)[:most]


def _asked_amount(fit: Fit, b: int, j: int, r: float) -> float:
    """The best estimate, inside the measured range (its ends where it lies outside)."""
    measured = fit.layout.amount[fit.layout.pure(b, j), j]
    drawn = equivalent(fit.draws, b, j, np.array([r]))[0, :, 0]
    x = float(np.median(np.where(np.isfinite(drawn), drawn, X_MOST)))
    return float(np.clip(x, measured.min(), measured.max()))


def _question(fit: Fit, b: int, j: int, r: float, x: float) -> _Question:
    layout, surface, theta = fit.layout, Surface(fit.layout), fit.best.theta[0]
    points = _with_points(layout, b, j, r, x)
    _, jacobian = Surface(points).evaluate(theta)
    size = fit.misfit_share[0] * fit.scale[0][points.base]
    features, mixed = _cell_features(points, fit.prior)
    flat = features.reshape(len(features), -1)
    prior_cov = fit.prior_cov[0]
    cov = (
        jacobian[0] @ prior_cov @ jacobian[0].T
        + size[:, None] * (flat @ flat.T + np.diag(mixed)) * size
    )
    m = layout.cells
    difference = cov[:, m] - cov[:, m + 1]
    near = x * np.array([0.98, 1.02])
    rise = np.diff(fit.best.source(b, j, near)[0, 0])[0] / np.log(1.02 / 0.98)
    assert surface.size == len(prior_cov)
    return _Question(
        cov[:m, :m],
        difference[:m],
        float(difference[m] - difference[m + 1]),
        max(float(rise), 1e-3),
    )


def _with_points(layout: Layout, b: int, j: int, r: float, x: float) -> Layout:
    """The cells and two more: r real images at base b, and x images of source j."""
    amount = np.zeros((2, len(layout.sources)))
    amount[1, j] = x
    return replace(
        layout,
        base=np.append(layout.base, [b, b]),
        real=np.append(layout.real, [r, 0.0]),
        amount=np.concatenate([layout.amount, amount]),
    )


def _variance(fit: Fit, layout: Layout, question: _Question) -> float:
    """Posterior variance of T, points², after the trainings of `layout`."""
    noise = np.zeros((len(layout.cell), len(layout.cell)))
    for b in range(len(layout.n_base)):
        part = _effects(layout, b)
        noise[np.ix_(part.groups, part.groups)] = _covariance(part, fit.noise.log_var[:1, b])[0]
    noise *= fit.noise_factor[0] ** 2
    total = question.cells[np.ix_(layout.cell, layout.cell)] + noise
    pull = question.target[layout.cell]
    return max(question.variance - float(pull @ np.linalg.solve(total, pull)), 1e-12)


# ---- candidates ----


def _steps(layout: Layout, b: int, j: int, r: float, x: float, costs: Costs) -> Iterable[Step]:
    """One more training of each cell of the base (in the subset that has fewest of it), the cells
    that bracket the question under a new subset seed, and those of the source with a new
    generator."""
    at_base = layout.cells_of(b)
    subsets = np.unique(layout.subset[layout.rows_of(b)])
    for m in at_base:
        counts = {s: layout.count[(layout.cell == m) & (layout.subset == s)].sum() for s in subsets}
        s = min(counts, key=lambda name: counts[name])
        fresh = _lacks_generator(layout, m, s)
        cost = costs.of(layout, m) + (costs.generator if fresh else 0.0)
        yield Step(TRIAL, (int(m),), int(s), _generator_of(layout, b, m, s), cost)
    bracket, base_cell = _bracket(layout, b, j, r, x), layout.base_cell(b)
    assert base_cell is not None  # `rank` has seen to it
    new = int(layout.subset.max()) + 1
    trained = int(layout.generator.max(initial=-1)) + 1
    for cells in {tuple(bracket), tuple(int(m) for m in [base_cell, *bracket])}:
        cost = sum(costs.of(layout, m) for m in cells) + costs.generator
        yield Step(SUBSET, cells, new, trained, cost)
    ours = tuple(m for m in bracket if layout.amount[m, j] > 0)
    if layout.sources[j] != COPIES and ours:
        cost = sum(costs.of(layout, m) for m in ours) + costs.generator
        yield Step(GENERATOR, ours, int(subsets[0]), trained, cost)


def _bracket(layout: Layout, b: int, j: int, r: float, x: float) -> list[int]:
    """The measured real amounts on both sides of r, and the source's on both sides of x."""
    found: list[int] = []
    for cells, amount, at in (
        (layout.pure(b, -1), layout.real, r),
        (layout.pure(b, j), layout.amount[:, j], x),
    ):
        if not len(cells):
            continue
        i = int(np.clip(np.searchsorted(amount[cells], at * (1 - 1e-9)), 0, len(cells) - 1))
        exact = abs(amount[cells[i]] - at) < 0.05 * at
        found += [int(m) for m in (cells[i : i + 1] if exact or i == 0 else cells[i - 1 : i + 1])]
    return found


def _lacks_generator(layout: Layout, m: int, s: int) -> bool:
    return (
        _has_generator(layout, m)
        and _generator_of(layout, int(layout.base[m]), m, s) > layout.generator.max()
    )


def _has_generator(layout: Layout, m: int) -> bool:
    return any(x > 0 and name != COPIES for x, name in zip(layout.amount[m], layout.sources))


def _generator_of(layout: Layout, b: int, m: int, s: int) -> int:
    """The generator that cell m uses under subset s: the one that is there, or the next free
    index."""
    if not _has_generator(layout, m):
        return -1
    j = int(np.argmax(layout.amount[m]))
    same = (layout.base[layout.cell] == b) & (layout.subset == s) & (layout.generator[:, j] >= 0)
    return int(layout.generator[same, j][0]) if same.any() else int(layout.generator.max()) + 1


def extended(layout: Layout, step: Step) -> Layout:
    """The layout with the step's trainings done."""
    cell = layout.cell
    subset = layout.subset
    generator = layout.generator
    count = layout.count.copy()
    for m in step.cells:
        row = np.where(
            (layout.amount[m] > 0) & (np.array(layout.sources) != COPIES), step.generator, -1
        )
        same = np.flatnonzero(
            (layout.cell == m)
            & (layout.subset == step.subset)
            & (layout.generator == row).all(axis=1)
        )
        if len(same):
            count[same[0]] += 1
            continue
        cell, subset = np.append(cell, m), np.append(subset, step.subset)
        generator, count = np.concatenate([generator, row[None]]), np.append(count, 1.0)
    return replace(layout, cell=cell, subset=subset, generator=generator, count=count)


def _words(layout: Layout, step: Step) -> str:
    cells = "; ".join(layout.name(m) for m in step.cells)
    return f"a new {step.kind}: {cells}" if step.kind != TRIAL else f"one more training of {cells}"
