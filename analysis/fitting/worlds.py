"""Simulated results with a known answer: shapes of what synthetic images are worth, designs, and
noise.

The real curves are shifted power laws (and others), not the model's own; worth is given as a
function of the amount, or, for Eq. 11, as the surface itself. For tests and for the coverage study:
nothing of it enters a result."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from equigrid.analysis.data.trials import COPIES, Floats, Layout, Numbers, Values

# (n_base, x, n_base relative to the design's largest) -> E(x)
WorthOf = Callable[[float, Floats, float], Floats]


@dataclass(frozen=True)
class RealCurve:
    """Accuracy of n real images, percent: 100 - error (1 + n / shift)^-power - floor; `form` 'log':
    linear in log n, equal to that at both ends of `straight` (images); 'exponential': approaches
    its floor exponentially in n^0.3."""

    shift: float
    power: float
    floor: float = 0.0
    form: str = "power"
    straight: tuple[float, float] = (1.0, 2.0)

    def __call__(self, n: Numbers) -> Floats:
        """Percent."""
        n = np.maximum(np.asarray(n, dtype=float), 1e-3)
        if self.form == "log":
            a, b = self.straight
            at = [RealCurve(self.shift, self.power, self.floor)(np.array(v)) for v in (a, b)]
            return at[0] + (at[1] - at[0]) * np.log(n / a) / np.log(b / a)
        if self.form == "exponential":
            return (100 - self.floor) - 100 * np.exp(-self.power * (n / self.shift) ** 0.3)
        return (100 - self.floor) - (100 - self.floor) * (1 + n / self.shift) ** -self.power


@dataclass(frozen=True)
class Shape:
    """`worth`: E(x) of the generator; `copies`: E(x) of copies of the base; `jump`: accuracy points
    that the first synthetic image brings, per natural logarithm of its amount (Eq. 11's b2 with its
    ε); `curve`: form of the real curve. `held_out`: not looked at while the procedure was made."""

    name: str
    worth: WorthOf
    copies: WorthOf = lambda n, x, s: 0.1 * np.log1p(x)
    jump: float = 0.0
    curve: str = "power"
    held_out: bool = False

    @property
    def informative(self) -> bool:
        """Whether its synthetic images are worth more than copies."""
        return not self.name.startswith(("useless", "copies", "harmful"))


def _eq13(n: float, x: Floats, s: float) -> Floats:
    # C1 = 0.9, c2 = 3, τ n_base = 10 n_base / n_total.
    return np.log1p(x * 0.9 ** (-10 * s)) / np.log(3.0)


SHAPES = (
    Shape("Eq. 11", lambda n, x, s: 0.35 * x, jump=0.05, curve="log"),
    Shape("Eq. 13", _eq13),
    Shape("constant fraction", lambda n, x, s: 0.35 * x),
    Shape(
        "concave, falling with base",
        lambda n, x, s: 0.7 * (0.02 / np.maximum(s, 0.005)) ** 0.2 * np.log1p(x),
    ),
    Shape("as good as real", lambda n, x, s: x),
    Shape("saturating", lambda n, x, s: 0.9 * -np.expm1(-x / 1.2)),
    Shape("harmful", lambda n, x, s: -0.15 * np.log1p(x)),
    Shape("useless", lambda n, x, s: 0 * x, copies=lambda n, x, s: 0 * x),
    Shape(
        "copies explain all",
        lambda n, x, s: 0.3 * np.log1p(x),
        copies=lambda n, x, s: 0.3 * np.log1p(x),
    ),
    Shape("slow start", lambda n, x, s: 0.6 * x**2 / (1.5 + x)),
    Shape("helps, then harms", lambda n, x, s: 0.8 * x * np.exp(-x / 3), held_out=True),
    Shape("hyperbola", lambda n, x, s: 2.2 * x / (2.0 + x), curve="exponential", held_out=True),
    Shape("root", lambda n, x, s: 0.5 * np.sqrt(x), curve="log", held_out=True),
    Shape("sigmoid", lambda n, x, s: 1.6 / (1 + (2.5 / np.maximum(x, 1e-9)) ** 2.5), held_out=True),
)


def random_shape(seed: int, roughness: float = 0.5) -> Shape:
    """A shape that nobody chose: monotone, with random increments between knots (`roughness` is
    their sd over their mean: 1 makes plateaus and bursts between measured amounts), over one of the
    three real curves."""
    rng = np.random.default_rng([seed, 77])
    t = np.array([0.0, 0.35, np.log(2.0), 1.2, 1.8, 2.4, 3.2, 4.5, 7.0])
    rise = np.concatenate([[0.0], np.cumsum(rng.gamma(1 / roughness**2, size=8) * np.diff(t))])
    law = PchipInterpolator(t, rise / rise[2] * rng.uniform(0.15, 0.9))
    copies = rng.uniform(0.0, 0.2)
    return Shape(
        f"random {seed}",
        lambda n, x, s: law(np.log1p(np.minimum(x, 1000.0))),
        lambda n, x, s: copies * np.log1p(x),
        curve=("power", "log", "exponential")[int(rng.integers(3))],
        held_out=True,
    )


@dataclass(frozen=True)
class Design:
    """What is trained: per base size the added amounts (multiples), seeds, and which real curve.
    `noise`: factor of all noise per base size."""

    name: str
    n_base: tuple[float, ...]
    real: tuple[tuple[float, ...], ...]
    syn: tuple[tuple[float, ...], ...]
    curve: RealCurve
    copies: tuple[tuple[float, ...], ...] = ()
    subset_seeds: int = 3
    seeds: int = 1
    noise: tuple[float, ...] = ()
    n_test: int | None = 10_000  # None: as if it were endless
    mixes: tuple[tuple[float, float], ...] = ()
    drop: float = 0.0  # share of groups that are missing, the same in every table of a study's line


_FIVE = (1.0, 2.0, 3.0, 4.0, 5.0)
CIFAR10 = Design(
    "CIFAR-10",
    (500, 5_000, 25_000),
    ((1, 2, 3), (1, 2, 3), (0.4, 0.8, 1)),
    (_FIVE,) * 3,
    RealCurve(550, 0.6),
    copies=((1, 3),) * 3,
)
BLOODMNIST = Design(
    "BloodMNIST",
    (1_200, 6_000, 12_000),
    ((1, 2, 3), (0.5, 1), ()),
    (_FIVE,) * 3,
    RealCurve(18, 0.6),
    copies=((1, 3),) * 3,
    n_test=3_421,
)
DIGITS = Design(
    "digits",
    (100, 300),
    ((1, 2, 3),) * 2,
    ((1, 2, 3, 5),) * 2,
    RealCurve(7, 0.7),
    copies=((1, 3),) * 2,
    seeds=2,
    n_test=500,
)
DIGITS_SMALL = Design(
    "digits small",
    (30, 60, 120),
    ((1, 2, 3),) * 3,
    ((1, 2, 4, 8, 16),) * 3,
    RealCurve(7, 0.7),
    copies=((1, 4, 16),) * 3,
    seeds=2,
    n_test=500,
)


@dataclass(frozen=True)
class NoiseLevels:
    """Standard deviations in points: trial; the others relative to it."""

    trial: float
    subset: float = 0.7
    subset_trend: float = 0.2
    generator: float = 1.0
    tilt: float = 0.33
    interaction: float = 0.2


@dataclass(frozen=True, eq=False)
class Simulation:
    """One design with one shape."""

    design: Design
    shape: Shape

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, as `observations.arrange` orders them."""
        return ("generator", COPIES) if any(self.design.copies) else ("generator",)

    def worth(self, b: int, source: int, x: Numbers) -> Floats:
        """E(x), multiples of n_base."""
        n = self.design.n_base[b]
        law = self.shape.worth if source == 0 else self.shape.copies
        return law(n, np.asarray(x, dtype=float), n / (2 * max(self.design.n_base)))

    def accuracy(self, b: int, r: Numbers, x: Numbers, source: int = 0) -> Floats:
        """The truth, percent."""
        n = self.design.n_base[b]
        ends = min(self.design.n_base), 6 * max(self.design.n_base)
        curve = replace(self.design.curve, form=self.shape.curve, straight=ends)
        x = np.asarray(x, dtype=float)
        value = curve(n * (1 + r + self.worth(b, source, x)))
        if self.shape.jump and source == 0:
            rise = curve(np.array(2 * n)) - curve(np.array(n))
            value = value + np.where(
                x > 0, self.shape.jump * rise * np.log(np.maximum(x, 1e-12) * 50 + 1), 0.0
            )
        return value

    def amount(self, b: int, r: float, source: int = 0) -> float:
        """The true equivalent amount: the smallest x that reaches the accuracy of r; inf where none
        up to 1,000."""
        goal = float(self.accuracy(b, r, 0.0))
        grid = np.expm1(np.linspace(0, np.log1p(1000.0), 4000))
        reached = np.flatnonzero(self.accuracy(b, 0.0, grid, source) >= goal - 1e-12)
        if not len(reached):
            return np.inf
        if reached[0] == 0:
            return 0.0
        ends = grid[reached[0] - 1], grid[reached[0]]
        return float(
            brentq(lambda x: float(self.accuracy(b, 0.0, x, source)) - goal, *ends, xtol=1e-10)
        )

    def true_worth(self, b: int, x: float, source: int = 0) -> float:
        """Real images that do what x synthetic ones do: E(x), or solved for where the shape has a
        jump."""
        if not (self.shape.jump and source == 0):
            return float(self.worth(b, source, x))
        goal = float(self.accuracy(b, 0.0, x, source))
        return float(brentq(lambda r: float(self.accuracy(b, r, 0.0)) - goal, -0.99, 1e6))

    def layout(self) -> Layout:
        """Cells and groups, as `observations.arrange` would make them from `table`."""
        cells = [
            (b, r, x, z)
            for b in range(len(self.design.n_base))
            for r, x, z in sorted(self._cells(b))
        ]
        groups = [(m, s) for m in range(len(cells)) for s in range(self.design.subset_seeds)]
        if self.design.drop:
            keep = np.random.default_rng(5).random(len(groups)) >= self.design.drop
            keep |= [cells[m][1:] == (0, 0, 0) for m, _ in groups]
            keep |= [s == 0 for _, s in groups]
            groups = [g for g, k in zip(groups, keep) if k]
        base = np.array([c[0] for c in cells])
        cell, subset = np.array(groups).T
        amount = np.array([c[2:] for c in cells], dtype=float)[:, : len(self.sources)]
        trained = np.where(amount[cell, 0] > 0, base[cell] * self.design.subset_seeds + subset, -1)
        generator = np.full((len(cell), len(self.sources)), -1)
        generator[:, 0] = trained
        return Layout(
            np.array(self.design.n_base, dtype=float),
            self.sources,
            base,
            np.array([c[1] for c in cells], dtype=float),
            amount,
            cell,
            subset,
            generator,
            np.full(len(cell), float(self.design.seeds)),
        )

    def _cells(self, b: int) -> list[tuple[float, float, float]]:
        copies = self.design.copies[b] if self.design.copies else ()
        return [
            (0.0, 0.0, 0.0),
            *((float(r), 0.0, 0.0) for r in self.design.real[b]),
            *((0.0, float(x), 0.0) for x in self.design.syn[b]),
            *((0.0, 0.0, float(z)) for z in copies),
            *((float(r), float(x), 0.0) for r, x in self.design.mixes),
        ]

    def truth(self, layout: Layout) -> Floats:
        """(M,) percent."""
        value = np.empty(layout.cells)
        for m in range(layout.cells):
            copies = layout.amount.shape[1] > 1 and layout.amount[m, 1] > 0
            x = layout.amount[m, 1 if copies else 0]
            value[m] = self.accuracy(int(layout.base[m]), layout.real[m], x, 1 if copies else 0)
        return value

    def values(
        self, layout: Layout, tables: int, levels: NoiseLevels, rng: np.random.Generator
    ) -> Values:
        """Random results of `tables` tables."""
        cell, base = layout.cell, layout.base[layout.cell]
        scale = np.array(self.design.noise or (1.0,) * len(self.design.n_base)) * levels.trial
        of_subset = base * (layout.subset.max() + 1) + layout.subset
        growth = np.log1p(layout.real[cell] + layout.amount[cell].sum(axis=1))
        x = layout.amount[cell, 0]
        effects = [rng.standard_normal((tables, of_subset.max() + 1)) for _ in range(4)]
        level, trend, shift, tilt = (e[:, of_subset] for e in effects)
        relative = levels.subset * level + levels.subset_trend * trend * growth
        relative += np.where(
            x > 0, levels.generator * shift + levels.tilt * tilt * np.log(np.maximum(x, 1e-9)), 0.0
        )
        relative += levels.interaction * rng.standard_normal((tables, len(cell)))
        relative += rng.standard_normal((tables, len(cell))) / np.sqrt(layout.count)
        df = np.bincount(base, weights=layout.count - 1, minlength=len(scale))
        ss = scale**2 * rng.chisquare(np.maximum(df, 1e-9), (tables, len(scale))) * (df > 0)
        seen = self._on_test_sets(layout, tables, rng)
        return Values(
            seen[:, cell] + self._discordance(layout, tables, rng) + scale[base] * relative, ss, df
        )

    def _on_test_sets(self, layout: Layout, tables: int, rng: np.random.Generator) -> Floats:
        """(T, M) percent: the truth as one test set of images of random difficulty sees it; a model
        of accuracy p gets the easiest share p of all images right."""
        p = self.truth(layout) / 100
        if not self.design.n_test:
            return np.repeat(100 * p[None], tables, axis=0)
        difficulty = np.sort(rng.random((tables, self.design.n_test)), axis=1)
        return 100 * np.stack([np.searchsorted(d, p) for d in difficulty]) / self.design.n_test

    def _discordance(self, layout: Layout, tables: int, rng: np.random.Generator) -> Floats:
        """(T, N) points: images that models trained on synthetic ones find harder or easier than
        their accuracy says: a tenth of the test set's variance."""
        cell, base = layout.cell, layout.base[layout.cell]
        p = np.clip(self.truth(layout)[cell] / 100, 0.0, 1.0)
        arm = rng.standard_normal((tables, len(self.design.n_base)))[:, base] * (
            layout.amount[cell, 0] > 0
        )
        return 100 * np.sqrt(0.1 * p * (1 - p) / (self.design.n_test or np.inf)) * arm

    def table(self, seed: int, levels: NoiseLevels) -> pd.DataFrame:
        """One tidy table, a row per training."""
        rng = np.random.default_rng([seed, 20_261_129])
        layout = self.layout()
        single = Layout(**{**layout.__dict__, "count": np.ones(len(layout.cell))})
        quiet = NoiseLevels(
            levels.trial,
            levels.subset,
            levels.subset_trend,
            levels.generator,
            levels.tilt,
            levels.interaction,
        )
        common = self.values(
            Layout(**{**layout.__dict__, "count": np.full(len(layout.cell), 1e12)}), 1, quiet, rng
        )
        rows = []
        for g, (m, s) in enumerate(zip(single.cell, single.subset)):
            n, has = layout.n_base[layout.base[m]], layout.amount[m]
            scale = (
                levels.trial * (self.design.noise or (1.0,) * len(layout.n_base))[layout.base[m]]
            )
            for t in range(self.design.seeds):
                rows.append(
                    {
                        "n_base": n,
                        "n_real_added": layout.real[m] * n,
                        "n_syn": has[0] * n,
                        "n_copies": has[1] * n if len(has) > 1 else 0.0,
                        "generator": "generator" if has[0] else None,
                        "subset_seed": s,
                        "generator_seed": 0 if has[0] else None,
                        "seed": t,
                        "accuracy": float(
                            np.clip(common.mean[0, g] + rng.normal() * scale, 0, 100)
                        ),
                    }
                )
        return pd.DataFrame(rows)


class World:
    """A simulated laboratory: any training of any cell can be had, and is the same whenever it is
    asked for.

    Truth, subsets, generators and test set are those of `Simulation.values`, drawn once per
    seed."""

    def __init__(self, simulation: Simulation, levels: NoiseLevels, seed: int):
        self.simulation, self.levels, self.seed = simulation, levels, seed
        self.layout = simulation.layout()
        rng = np.random.default_rng([seed, 1])
        self.truth = simulation.truth(self.layout)
        self.seen = simulation._on_test_sets(self.layout, 1, rng)[0]
        p = np.clip(self.truth / 100, 0, 1)
        arm = rng.standard_normal(len(self.layout.n_base))[self.layout.base] * (
            self.layout.amount[:, 0] > 0
        )
        self.seen = (
            self.seen
            + 100 * np.sqrt(0.1 * p * (1 - p) / (simulation.design.n_test or np.inf)) * arm
        )

    def train(
        self, m: int, subset: int, generator: int, trial: int
    ) -> dict[str, float | str | None]:
        """One training of cell m as a row of a tidy table."""
        layout, v = self.layout, self.levels
        b, x = int(layout.base[m]), layout.amount[m]
        growth = np.log1p(layout.real[m] + x.sum())
        level, trend = self._normal(2, b, subset, size=2)
        error = (
            v.subset * level
            + v.subset_trend * trend * growth
            + v.interaction * self._normal(3, m, subset)[0]
        )
        if x[0] > 0:
            shift, tilt = self._normal(4, b, subset, generator, size=2)
            error += v.generator * shift + v.tilt * tilt * np.log(x[0])
        error += self._normal(5, m, subset, generator, trial)[0]
        scale = v.trial * (self.simulation.design.noise or (1.0,) * len(layout.n_base))[b]
        n = layout.n_base[b]
        return {
            "n_base": n,
            "n_real_added": layout.real[m] * n,
            "n_syn": x[0] * n,
            "n_copies": x[1] * n if len(x) > 1 else 0.0,
            "generator": "generator" if x[0] else None,
            "subset_seed": subset,
            "generator_seed": generator if x[0] else None,
            "seed": trial,
            "accuracy": float(np.clip(self.seen[m] + scale * error, 0, 100)),
        }

    def _normal(self, *key: int, size: int = 1) -> Floats:
        return np.random.default_rng([self.seed, *key]).standard_normal(size)
