"""The procedure of Appendix A as one function of the cell means: choose surfaces, solve tuples,
discard, fit.

The point estimate, every bootstrap draw, every variant and every perturbation run through it, so
that an interval contains all of it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.fitting.curve import CurveFits, fit_curves
from equigrid.analysis.fitting.solve import (
    BELOW_ONE,
    NEVER,
    NO_GAIN,
    OK,
    Solutions,
    solve_for_synthetic,
)
from equigrid.analysis.fitting.surface import SUBSETS, Surfaces, fit_surfaces
from equigrid.analysis.settings import Settings


@dataclass(frozen=True)
class Solved:
    """All T tuples of a curve (Eq. 12) for B replicates.

    `base_index`, `tau_n_base`, `real_ratio`: (T,). `ratio` (B, T): n_syn / n_nominal; 0 where the
    real images bring nothing, inf where no amount suffices, NaN without a surface. `usable` (B, T):
    NaN where discarded. `state` (B, T): codes of `solve`. `roots` (B, T, 3): all roots, as ratios.
    """

    base_index: np.ndarray
    tau_n_base: np.ndarray
    real_ratio: np.ndarray
    ratio: np.ndarray
    usable: np.ndarray
    state: np.ndarray
    roots: np.ndarray


@dataclass(frozen=True)
class Procedure:
    """What stays fixed while cell means vary. `real_ratios`: per base size, where tuples are
    solved.
    """

    data: tuple[BaseData, ...]
    real_ratios: tuple[tuple[float, ...], ...]
    tau: float
    settings: Settings

    def changed(self, **fields: Any) -> "Procedure":
        """The same with other settings."""
        return replace(self, settings=self.settings.model_copy(update=fields))

    def surfaces(self, means: list[np.ndarray]) -> list[Surfaces | None]:
        """Per base size the surfaces of B replicates, None where its cells cannot give one. means:
        (B, K) percent.
        """
        fitted: list[Surfaces | None] = []
        for base, mean in zip(self.data, means):
            if why_no_surface(base, self.settings):
                fitted.append(None)
                continue
            cells = base.in_surface
            surfaces, _ = fit_surfaces(
                base.n_real[cells], base.n_syn[cells], mean[:, cells],
                rule=self.settings.surface, epsilon=self.settings.epsilon,
            )  # fmt: skip
            fitted.append(surfaces)
        return fitted

    def solve(self, surfaces: list[Surfaces | None], replicates: int) -> Solved:
        """Eq. 12 at every base size and real ratio."""
        index, ratios, solutions = [], [], []
        for i, (base, surface, wanted) in enumerate(zip(self.data, surfaces, self.real_ratios)):
            if surface is not None:
                for ratio in wanted:
                    index.append(i)
                    ratios.append(ratio)
                    solutions.append(self._solve_one(base, surface, ratio))
        if not solutions:
            none = np.zeros((replicates, 0))
            return Solved(
                np.zeros(0, int),
                np.zeros(0),
                np.zeros(0),
                none,
                none,
                none.astype(int),
                none[..., None],
            )
        n_nominal = np.array([self.data[i].n_nominal for i in index])
        state = np.stack([s.state for s in solutions], axis=1)
        ratio = np.stack([s.n_syn for s in solutions], axis=1) / n_nominal
        return Solved(
            base_index=np.array(index),
            tau_n_base=self.tau * n_nominal,
            real_ratio=np.array(ratios),
            ratio=np.select(
                [np.isin(state, (NO_GAIN, BELOW_ONE)), state == NEVER], [0.0, np.inf], ratio
            ),
            usable=np.where(state == OK, ratio, np.nan),
            state=state,
            roots=np.stack([s.roots for s in solutions], axis=1) / n_nominal[:, None],
        )

    def fit(self, means: list[np.ndarray]) -> tuple[list[Surfaces | None], Solved, CurveFits]:
        """The whole procedure for B replicates of all cell means."""
        surfaces = self.surfaces(means)
        solved = self.solve(surfaces, len(means[0]) if means else 0)
        return surfaces, solved, self.fit_tuples(solved)

    def fit_tuples(self, solved: Solved) -> CurveFits:
        """Eq. 13 from the tuples that are not discarded."""
        return fit_curves(solved.tau_n_base, solved.real_ratio, solved.usable, self.settings.form)

    def _solve_one(self, base: BaseData, surfaces: Surfaces, real_ratio: float) -> Solutions:
        # Eq. 12, left side.
        target = surfaces.accuracy(base.n_base + real_ratio * base.n_nominal, 0.0)
        return solve_for_synthetic(
            surfaces,
            base.n_base,
            target,
            n_nominal=base.n_nominal,
            ratio_limit=self.settings.ratio_limit,
        )


def make_procedure(data: list[BaseData], dataset: str, tau: float, settings: Settings) -> Procedure:
    """Real ratios as the settings say, or those measured at each base size."""
    bases = settings.tuple_bases.get(dataset)
    ratios = [
        () if bases is not None and round(base.n_nominal) not in bases
        else settings.real_ratios.get(dataset, base.real_ratios)
        for base in data
    ]  # fmt: skip
    return Procedure(tuple(data), tuple(ratios), tau, settings)


def why_no_surface(base: BaseData, settings: Settings) -> str | None:
    """In words, why the cells of a base size give no accuracy surface; None where they do."""
    arms = (("base rows", "base"), ("real-augmentation rows", "real"), ("synthetic rows", "syn"))
    absent = [name for name, arm in arms if not (base.arm == arm).any()]
    if absent:
        return "no " + " and no ".join(absent)
    cells = base.in_surface
    _, choice = fit_surfaces(
        base.n_real[cells],
        base.n_syn[cells],
        base.mean[None, cells],
        rule=settings.surface,
        epsilon=settings.epsilon,
    )
    if choice[0] >= 0:
        return None
    if isinstance(settings.surface, str) and settings.surface != "eq11":
        return f"{cells.sum()} cells are too few for {settings.surface} to choose a surface"
    return f"{cells.sum()} cells that do not determine the surface's parameters"


def fitted_terms(base: BaseData, settings: Settings) -> tuple[str, ...]:
    """The terms of the surface at the cell means themselves."""
    cells = base.in_surface
    _, choice = fit_surfaces(
        base.n_real[cells],
        base.n_syn[cells],
        base.mean[None, cells],
        rule=settings.surface,
        epsilon=settings.epsilon,
    )
    return SUBSETS[choice[0]] if choice[0] >= 0 else ()
