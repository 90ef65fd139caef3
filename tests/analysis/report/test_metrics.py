"""Uneven classes in the report: the other metrics beside accuracy, and classes never got right."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from equigrid.analysis.conclusions.classes import never_right
from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.report.tables import report_tables

PLANTED = replace(Planted(LIKE_CIFAR10), copies=(1.0,), seeds=2, subset_seeds=2)


def uneven(table: pd.DataFrame) -> pd.DataFrame:
    """Two classes, 90% of the first: what copies do to top-1 and to balanced accuracy differs."""
    table = table.copy()
    rare = np.where(table["arm"] == "copies", 40.0, 10.0)
    common = (table["top1"] - 0.1 * rare) / 0.9
    table["per_class"] = [list(pair) for pair in zip(common, rare)]
    table["balanced_accuracy"] = (common + rare) / 2
    table["auc"] = 71.0
    return table


def cells(table: pd.DataFrame, **settings) -> list[dict[str, str]]:
    analysis = analyse(table, settings=PLANTED.settings(replicates=0, **settings))
    found = next(one for one in report_tables(table, analysis, {}) if one["id"] == "cells")
    return [
        {name: value["text"] for name, value in zip(found["columns"], row)} for row in found["rows"]
    ]


def test_each_cell_shows_its_other_metrics():
    table = uneven(PLANTED.table(1))
    rows = cells(table)
    means = table.groupby(["arm", "n_base"])["balanced_accuracy"].mean()
    for row in rows:
        if row["arm"] in ("base", "copies"):
            base = int(row["base"].replace(",", ""))
            assert float(row["balanced accuracy %"]) == pytest.approx(
                means[row["arm"], base], abs=0.006
            )
        assert row["AUC %"] == "71.00"
        assert "macro F1 %" not in row, "no row has it, nor what it follows from"


def test_the_metric_that_is_asked_for_leads():
    table = uneven(PLANTED.table(1))
    by_top1, by_balance = cells(table), cells(table, metric="balanced_accuracy")
    assert [r["top-1 accuracy %"] for r in by_top1] == [r["top-1 accuracy %"] for r in by_balance]
    assert list(by_balance[0]).index("balanced accuracy %") < list(by_balance[0]).index("interval")
    assert list(by_top1[0]).index("top-1 accuracy %") < list(by_top1[0]).index("interval")
    assert {r["interval"] for r in by_top1} != {r["interval"] for r in by_balance}


def test_what_says_nothing_more_has_no_column():
    """Balanced accuracy is top-1 where the test set has as many images of each class."""
    table = PLANTED.table(1)
    table["per_class"] = [[value] * 3 for value in table["top1"]]
    assert all("balanced accuracy %" not in row for row in cells(table))


def test_a_class_that_the_base_never_gets_right_is_said():
    table = PLANTED.table(1)
    smallest = table["n_nominal"].min()
    last = (table["arm"] == "base") & (table["n_nominal"] == smallest)
    table["per_class"] = [
        [60.0, 0.0 if low else 1.0, float("nan")] for low in last
    ]  # the third has no test image
    (said,) = never_right(table)
    assert f"base {smallest:,}: no image of class 1 is ever" in said
    assert "4 trainings" in said
    analysis = analyse(table, settings=PLANTED.settings(replicates=0))
    assert said in analysis.problems

    once = table.copy()
    at = once.index[last][0]
    once.at[at, "per_class"] = [60.0, 0.5, float("nan")]
    assert never_right(once) == [], "one training got one right"
    added = table.copy()
    added.loc[last, "arm"] = "real"
    assert never_right(added) == [], "only the base alone counts"
    assert never_right(table.drop(columns="per_class")) == []
    failed = table.copy()
    failed.loc[last, "status"] = "failed"
    assert not [line for line in never_right(failed) if re.search(f"base {smallest:,}", line)]
