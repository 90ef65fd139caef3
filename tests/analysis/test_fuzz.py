"""Ragged, failing, constant and nearly empty tables: never an exception, never a NaN in JSON, never
a warning.
"""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from equigrid.analysis.answer.practical import equiv
from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.figures import interactive
from equigrid.analysis.report.tables import report_tables
from equigrid.analysis.report.terminal import summary_table

PLANTED = Planted(LIKE_CIFAR10, copies=(1.0, 2.0), generator_tilt_sd=0.0)


def ragged(seed):
    """A table as a grid may leave it, and settings somebody may ask for."""
    rng = np.random.default_rng(seed)
    planted = replace(
        PLANTED, subset_seeds=int(rng.integers(1, 4)), seeds=int(rng.integers(1, 3)),
        trial_sd=float(rng.choice([0.0, 0.3, 3.0])), generator_sd=float(rng.choice([0.0, 0.5])),
    )  # fmt: skip
    table = planted.table(seed)
    table = table[rng.random(len(table)) < rng.choice([0.05, 0.2, 0.5, 0.9, 1.0])].copy()
    if rng.random() < 0.3:
        table["top1"] = table["top1"].where(rng.random(len(table)) > 0.2)
    if rng.random() < 0.3:
        table["status"] = np.where(rng.random(len(table)) < 0.3, "failed", "ok")
    if rng.random() < 0.2:
        table["top1"] = 90.0
    if rng.random() < 0.2:
        table["n_nominal"] = table["n_base"] + rng.integers(-1, 2)
    settings = planted.settings(
        replicates=int(rng.choice([0, 1, 30])),
        surface=str(rng.choice(["eq11", "aicc", "loo", "adjusted_r2"])),
        form=str(rng.choice(["paper", "log", "robust", "relative"])),
    )
    return table, settings if rng.random() < 0.5 else settings.model_copy(
        update={"real_ratios": {}}
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", range(16))
def test_nothing_raises_or_warns(seed):
    table, settings = ragged(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analysis = analyse(table, settings=settings)
        json.dumps(analysis.to_json(), allow_nan=False)
        summary_table(table, analysis)
        list(report_tables(table, analysis, {}))
        for curve in analysis.curves:
            assert curve.determined == (not curve.reasons)
            json.dumps(
                interactive.contour_panels(curve) + interactive.equivalence_panels(curve),
                allow_nan=False,
            )
            for n_base in (500, 5_000, 9_000):
                answer = equiv(analysis, n_base, n_base, 0.1, 0.01, target_accuracy=85, budget=500)
                json.dumps(answer.to_json(), allow_nan=False)
                assert answer.text
