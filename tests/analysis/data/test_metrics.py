"""Metrics that older rows leave to be worked out, against scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from equigrid.analysis.data.metrics import metric_values
from equigrid.analysis.settings import METRICS, Settings

TRUE = np.array([0] * 11 + [1] * 4 + [2] * 3)
PREDICTED = np.array([0] * 10 + [1] + [0, 1, 1, 1] + [0, 0, 0])


def row(**columns) -> pd.DataFrame:
    confusion = metrics.confusion_matrix(TRUE, PREDICTED, labels=[0, 1, 2])
    per_class = [100 * confusion[c, c] / confusion[c].sum() for c in range(3)]
    base = {"per_class": [per_class], "confusion": [confusion.ravel().tolist()]}
    return pd.DataFrame({**base, **columns})


def test_what_follows_from_other_columns():
    found = {name: metric_values(row(), name)[0] for name in ("balanced_accuracy", "macro_f1")}
    assert found["balanced_accuracy"] == pytest.approx(
        100 * metrics.balanced_accuracy_score(TRUE, PREDICTED)
    )
    assert found["macro_f1"] == pytest.approx(
        100 * metrics.f1_score(TRUE, PREDICTED, average="macro", zero_division=0)
    )
    assert np.isnan(metric_values(row(), "sensitivity")[0])  # three classes have none


def test_of_two_classes():
    frame = pd.DataFrame({"per_class": [[90.0, 40.0], [80.0, None], None]})
    assert metric_values(frame, "sensitivity").tolist()[:1] == [40.0]
    assert metric_values(frame, "specificity").tolist()[:2] == [90.0, 80.0]
    assert metric_values(frame, "sensitivity").isna().tolist() == [False, True, True]


def test_a_column_that_is_there_is_taken_and_only_its_gaps_are_filled():
    assert metric_values(row(balanced_accuracy=[12.0]), "balanced_accuracy")[0] == 12.0
    assert metric_values(row(balanced_accuracy=[None]), "balanced_accuracy")[0] > 50


def test_a_metric_that_cannot_be_had_is_named():
    with pytest.raises(ValueError, match="no column auc"):
        metric_values(row(), "auc")
    for name in METRICS:
        assert Settings(metric=name).metric == name
