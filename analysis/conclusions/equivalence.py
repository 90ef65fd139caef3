"""The equivalence of synthetic and real data: surfaces, tuples, c1 and c2, intervals, and whether
they mean anything.

`analyse` never raises on incomplete data: what is missing for which result is said in plain
sentences, and what can be computed is computed.
"""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from equigrid.analysis.conclusions.chosen import ChosenClasses, chosen_classes
from equigrid.analysis.conclusions.classes import never_right
from equigrid.analysis.conclusions.controls import Gain, cell_gains, pooled_gain
from equigrid.analysis.conclusions.noisy_cells import CellNoise, cell_noise, with_noise
from equigrid.analysis.conclusions.phrasing import sentence
from equigrid.analysis.conclusions.rivals import Rivals, rivals
from equigrid.analysis.conclusions.verdict import notes_on, reasons_against
from equigrid.analysis.conclusions.worth import SyntheticWorth, synthetic_worth
from equigrid.analysis.data.cells import BaseData, CurveKey, curve_keys, gather
from equigrid.analysis.data.checks import FAMILY, Checked, check_table
from equigrid.analysis.data.estimates import Estimate, finite, percentile_estimate
from equigrid.analysis.data.missing import missing_cells
from equigrid.analysis.fitting.curve import FORMS, equivalent_ratio
from equigrid.analysis.fitting.noise import BaseNoise, draw_means, estimate_noise
from equigrid.analysis.fitting.procedure import (
    Procedure,
    fitted_terms,
    make_procedure,
    why_no_surface,
)
from equigrid.analysis.fitting.sensitivity import Narrowing, narrowing
from equigrid.analysis.fitting.surface import Candidate, Surfaces, candidates
from equigrid.analysis.fitting.tuples import EquivalenceTuple, list_tuples
from equigrid.analysis.settings import DEFAULTS, Settings

DETERMINED, UNDETERMINED = "determined", "undetermined"
EPSILONS = (1e-6, 1e-3, 1.0)  # whose effect on c1 and c2 is reported beside the one in use


@dataclass(frozen=True)
class BaseFit:
    """One base size's part in a curve: data, noise, and the surfaces of the point estimate and of
    all draws.
    """

    data: BaseData
    noise: BaseNoise
    surface: Surfaces | None  # one replicate: the cell means themselves
    terms: tuple[str, ...]
    residual_sd: float  # points, about the surface; NaN without degrees of freedom
    residual_df: int
    draws: np.ndarray = field(repr=False)  # (B, K) percent
    drawn_surfaces: Surfaces | None = field(repr=False)
    missing: str | None  # why there is no surface

    def candidates(self, epsilon: float) -> list[Candidate]:
        """The 31 regressions of Appendix A on these cells, unranked (see `surface.rank`)."""
        cells = self.data.in_surface
        return candidates(
            self.data.n_real[cells], self.data.n_syn[cells], self.data.mean[cells], epsilon
        )

    def to_json(self) -> dict:
        """Plain values; the draws stay behind."""
        data = self.data
        cells = [
            {
                "arm": str(data.arm[k]),
                "n_real": float(data.n_real[k]),
                "n_syn": float(data.n_syn[k]),
                "n_copies": float(data.n_copies[k]),
                "accuracy": float(data.mean[k]),
                "trials": int(data.trials[k]),
            }
            for k in range(len(data.mean))
        ]
        weights = None if self.surface is None else self.surface.weights[0].tolist()
        return {
            "n_base": data.n_base,
            "n_nominal": data.n_nominal,
            "terms": list(self.terms),
            "weights": weights,
            "residual_sd_points": finite(self.residual_sd),
            "noise": self.noise.to_json(),
            "cells": cells,
            "missing": self.missing,
        }


@dataclass(frozen=True)
class CurveResult:
    """The equivalence of one (dataset, classifier, recipe, generator)."""

    key: CurveKey
    setting: str | None  # of `SETTINGS`, as the rows say
    status: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    c1: Estimate
    c2: Estimate
    tau: float
    n_total_dataset: int
    n_total_source: str
    tuples: tuple[EquivalenceTuple, ...]
    discarded: tuple[EquivalenceTuple, ...]
    missing: tuple[str, ...]
    gains: tuple[Gain, ...]
    gain_over_base: Estimate | None
    gain_over_copies: Estimate | None
    copies_over_base: Estimate | None
    real_gain: Estimate | None
    variants: dict[str, tuple[float | None, float | None]]
    narrowing: tuple[Narrowing, ...]
    bases: tuple[BaseFit, ...] = field(repr=False)
    drawn_c1: np.ndarray = field(repr=False)
    drawn_c2: np.ndarray = field(repr=False)
    settings: Settings = field(repr=False)
    worth: SyntheticWorth | None = field(repr=False, default=None)
    pretrained: str | None = None  # the weights that the classifier started from, as the rows say

    @property
    def determined(self) -> bool:
        """Whether c1 and c2 may be used."""
        return self.status == DETERMINED

    @property
    def sentence(self) -> str:
        """The result in one sentence: what to do at each base size, or why that is open."""
        return sentence(self.worth, str(self.key))

    @property
    def paper_sentence(self) -> str:
        """Appendix A's result in one sentence: c1 and c2, or why they are undetermined."""
        if self.determined:
            return (
                f"{self.key}: n_syn/n_base = {self.c1.value:.3f}^(n_base/{1 / self.tau:,.0f}) x "
                f"({self.c2.value:.3f}^(n_real/n_base) - 1), c1 {self.c1.text(3)}, "
                f"c2 {self.c2.text(3)}"
            )
        return f"{self.key}: undetermined, because " + "; ".join(self.reasons)

    def equivalent_ratio(self, n_base: float, n_real: float) -> Estimate:
        """Eq. 13 with interval: n_syn / n_base for n_real added images at n_base (both in images,
        positive).
        """
        if n_base <= 0 or n_real < 0:
            raise ValueError(
                f"n_base is {n_base} and n_real {n_real}: "
                "n_base must be positive, n_real not negative"
            )
        if self.c1.value is None or self.c2.value is None:
            return Estimate(None, None, None, self.settings.level)
        at = (self.tau * n_base, n_real / n_base)
        with np.errstate(over="ignore"):
            draws = equivalent_ratio(self.drawn_c1, self.drawn_c2, *at)
        return percentile_estimate(
            equivalent_ratio(self.c1.value, self.c2.value, *at), draws, self.settings.level
        )

    def to_json(self) -> dict:
        """Plain values, without the draws."""
        optional = ("gain_over_base", "gain_over_copies", "copies_over_base", "real_gain")
        estimates = {name: getattr(self, name) for name in optional}
        return {
            **self.key.__dict__, "setting": self.setting, "pretrained": self.pretrained,
            "status": self.status,
            "reasons": list(self.reasons), "notes": list(self.notes), "c1": self.c1.to_json(),
            "c2": self.c2.to_json(), "tau": self.tau, "n_total_dataset": self.n_total_dataset,
            "n_total_source": self.n_total_source, "tuples": [t.to_json() for t in self.tuples],
            "discarded": [t.to_json() for t in self.discarded], "missing": list(self.missing),
            "gains": [g.to_json() for g in self.gains],
            **{name: None if e is None else e.to_json() for name, e in estimates.items()},
            "variants": {name: list(pair) for name, pair in self.variants.items()},
            "narrowing": [n.to_json() for n in self.narrowing],
            "bases": [b.to_json() for b in self.bases],
            "worth": self.worth and self.worth.to_json(),
        }  # fmt: skip


@dataclass(frozen=True)
class Analysis:
    """All curves of a table, what is wrong with the table, and what augmentations bring.

    chosen: what amounts by class do, which are no part of a curve.
    """

    curves: tuple[CurveResult, ...]
    problems: tuple[str, ...]
    settings: Settings
    n_rows: int
    n_failed: int
    chosen: tuple[ChosenClasses, ...] = ()
    rivals: tuple[Rivals, ...] = ()

    def to_json(self) -> dict:
        """Plain values."""
        return {
            "curves": [curve.to_json() for curve in self.curves], "problems": list(self.problems),
            "settings": self.settings.model_dump(mode="json"), "n_rows": self.n_rows,
            "n_failed": self.n_failed, "chosen_classes": [one.to_json() for one in self.chosen],
            "augmentations": [one.to_json() for one in self.rivals],
        }  # fmt: skip


def analyse(table: pd.DataFrame, *, settings: Settings = DEFAULTS) -> Analysis:
    """Fit every (dataset, classifier, recipe, generator) of a results table
    (`equigrid.analysis.schema.SCHEMA`).

    Raises ValueError only where a column is absent.
    """
    checked = check_table(table, settings.metric)
    worth = _worth(checked, settings)
    curves = []
    for key in curve_keys(checked.frame):
        of_family = worth[key.dataset, key.classifier, key.recipe]
        curve = _analyse_curve(checked, key, of_family.noise, settings)
        worth_of, weights = of_family.by_generator.get(key.generator), checked.pretrained
        curves.append(replace(curve, worth=worth_of, pretrained=weights.get(key.classifier)))
    problems = (*checked.problems, *never_right(table))
    failed = int((table["status"] == "failed").sum())
    chosen = tuple(chosen_classes(table, level=settings.level))
    beside = tuple(rivals(table, metric=settings.metric, level=settings.level))
    return Analysis(tuple(curves), problems, settings, len(table), failed, chosen, beside)


@dataclass(frozen=True)
class _Family:
    """One dataset, classifier and recipe: what each generator's images are worth, and the noise of
    all its cells (None where no cell has a real image).
    """

    by_generator: dict[str, SyntheticWorth]
    noise: CellNoise | None


def _worth(checked: Checked, settings: Settings) -> dict[tuple, _Family]:
    """By dataset, classifier and recipe: one model of all generators."""
    found = {}
    for family, rows in checked.frame.groupby(FAMILY, sort=True):
        dataset = str(family[0])
        n_test = settings.test_sizes.get(dataset, checked.test_sizes.get(dataset))
        worth = synthetic_worth(
            rows, level=settings.level, draws=settings.replicates, seed=settings.seed, n_test=n_test
        )
        fit = next((one.fit for one in worth.values() if one.fit is not None), None)
        noise = cell_noise(rows, fit, draws=settings.replicates, seed=settings.seed, n_test=n_test)
        found[family] = _Family(worth, noise)
    return found


def _analyse_curve(
    checked: Checked, key: CurveKey, of_cells: CellNoise | None, settings: Settings
) -> CurveResult:
    n_total, source = _dataset_size(checked, key, settings)
    data = gather(checked.frame, key)
    procedure = make_procedure(data, key.dataset, 10.0 / n_total, settings)  # tau: Appendix A
    means = [base.mean[None] for base in data]
    surfaces, point, fit = procedure.fit(means)
    residuals = [_residual(base, surface, settings) for base, surface in zip(data, surfaces)]
    noises = estimate_noise(data, residuals, settings)
    draws = draw_means(data, noises, settings.replicates, _generator(key, settings))
    drawn_surfaces, drawn, fits = procedure.fit(draws)
    drawn_c1, drawn_c2 = (np.where(fits.verified, c, np.nan) for c in (fits.c1, fits.c2))
    c1 = percentile_estimate(fit.c1[0] if data else np.nan, drawn_c1, settings.level)
    c2 = percentile_estimate(fit.c2[0] if data else np.nan, drawn_c2, settings.level)
    bases = tuple(
        BaseFit(
            data=base,
            noise=noises[i],
            surface=surfaces[i],
            terms=fitted_terms(base, settings) if surfaces[i] else (),
            residual_sd=residuals[i][0],
            residual_df=residuals[i][1],
            draws=draws[i],
            drawn_surfaces=drawn_surfaces[i],
            missing=why_no_surface(base, settings),
        )
        for i, base in enumerate(data)
    )
    # Gains by the mixed model of all cells: it covers with one subset seed, or missing ones.
    known, redrawn = with_noise(data, draws, of_cells, key.generator)
    gains = _pooled_gains(known, redrawn, settings.level)
    tuples = list_tuples(procedure, point, drawn, n_total)
    used, discarded = tuple(t for t in tuples if t.used), tuple(t for t in tuples if not t.used)
    reasons = reasons_against(
        generator=key.generator, bases=bases, used=used, discarded=discarded,
        verified=bool(fit.verified.all()), c1=c1, c2=c2, gains=gains,
    )  # fmt: skip
    notes = notes_on(
        bases=bases,
        draws=draws,
        tuples=tuples,
        gains=gains,
        c1=c1,
        c2=c2,
        tau=procedure.tau,
        level=settings.level,
    )
    return CurveResult(
        key=key,
        setting=_setting(checked, key),
        status=UNDETERMINED if reasons else DETERMINED,
        reasons=tuple(reasons),
        notes=tuple(notes),
        c1=c1,
        c2=c2,
        tau=procedure.tau,
        n_total_dataset=n_total,
        n_total_source=source,
        tuples=used,
        discarded=discarded,
        missing=tuple(missing_cells(checked, key)),
        gains=tuple(cell_gains(known, redrawn, settings.level)),
        gain_over_base=gains["gain_over_base"],
        gain_over_copies=gains["gain_over_copies"],
        copies_over_base=gains["copies_over_base"],
        real_gain=gains["real_gain"],
        variants=_variants(procedure, means) if settings.details else {},
        narrowing=tuple(narrowing(procedure, noises))
        if settings.details and fit.verified.all()
        else (),
        bases=bases,
        drawn_c1=drawn_c1,
        drawn_c2=drawn_c2,
        settings=settings,
    )


def _dataset_size(checked: Checked, key: CurveKey, settings: Settings) -> tuple[int, str]:
    if key.dataset in settings.dataset_sizes:
        return settings.dataset_sizes[key.dataset], "given"
    rows = checked.frame[checked.frame["dataset"] == key.dataset]
    largest = int((rows["n_nominal"] + rows["n_real_added"]).max())
    return largest, "the largest real amount in the table, as the dataset's size was not given"


def _generator(key: CurveKey, settings: Settings) -> np.random.Generator:
    """Draws depend on the curve's names and the seed, not on what else is in the table."""
    digest = hashlib.sha256(
        "\0".join((key.dataset, key.classifier, key.recipe, key.generator)).encode()
    ).digest()
    return np.random.default_rng([settings.seed, int.from_bytes(digest[:8], "big")])


def _setting(checked: Checked, key: CurveKey) -> str | None:
    rows = key.rows_of(checked.frame)
    found = set(rows.loc[rows["arm"] == "syn", "setting"].dropna())
    return found.pop() if len(found) == 1 else None


def _residual(base: BaseData, surface: Surfaces | None, settings: Settings) -> tuple[float, int]:
    """Standard deviation about the surface (points) and its degrees of freedom."""
    if surface is None:
        return np.nan, 0
    cells = base.in_surface
    fitted = surface.accuracy(base.n_real[cells, None], base.n_syn[cells, None])[:, 0]
    df = int(cells.sum()) - len(fitted_terms(base, settings)) - 1
    return (
        (float(np.sqrt(((fitted - base.mean[cells]) ** 2).sum() / df)), df)
        if df > 0
        else (np.nan, 0)
    )


def _pooled_gains(
    data: list[BaseData], draws: list[np.ndarray], level: float
) -> dict[str, Estimate | None]:
    return {
        "gain_over_base": pooled_gain(data, draws, level),
        "gain_over_copies": pooled_gain(data, draws, level, over="copies"),
        "copies_over_base": pooled_gain(data, draws, level, arm="copies"),
        "real_gain": pooled_gain(data, draws, level, arm="real"),
    }


def _variants(
    procedure: Procedure, means: list[np.ndarray]
) -> dict[str, tuple[float | None, float | None]]:
    """Point estimates (c1, c2) of every form, and of other epsilons in the form in use."""
    _, solved, _ = procedure.fit(means)
    fits = {form: procedure.changed(form=form).fit_tuples(solved) for form in FORMS}
    fits |= {
        f"epsilon {epsilon:g}": procedure.changed(epsilon=epsilon).fit(means)[2]
        for epsilon in EPSILONS
    }
    return {
        name: (finite(fit.c1[0]), finite(fit.c2[0])) if len(fit.c1) else (None, None)
        for name, fit in fits.items()
    }
