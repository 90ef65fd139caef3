"""`--metric` of fit, report and equiv: which numbers are fitted, and what is refused."""

import json

import numpy as np
import pytest

from equigrid.grid.cli import entry
from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.errors import UserError
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import results


@pytest.fixture
def filled(store, mini):
    """The small grid with made-up results: top-1 falls with copies, balanced accuracy rises."""
    spec = load(mini)
    store.put_json("grids/mini/spec.json", spec.model_dump(mode="json"))
    ingest.ingest(store, catalogue.source("digits"))
    the_plan = plan(resolve(spec, store))
    for number, (trial, cells) in enumerate(the_plan.cells_by_trial().items()):
        cell = cells[0]._asdict()
        row = {key: value for key, value in cell.items() if key in results.SCHEMA.names}
        grows = 5 * np.log(sum(cell[n] for n in ("n_base", "n_real_added", "n_syn", "n_copies")))
        sign = -1 if cell["arm"] == "copies" else 1
        facts = {
            "attempt": "a", "status": "ok", "grid": "mini", "dataset": "digits", "rev": 1,
            "fingerprint": "f", "trial_id": trial, "n_total": 60,
            "top1": 40 + sign * grows + 0.1 * (number % 3),
            "balanced_accuracy": 30 + grows + 0.1 * (number % 3),
        }  # fmt: skip
        results.write_part(store, {**row, **facts})
    return store


def command(store, *arguments) -> None:
    entry.app([*map(str, arguments), "--store", store.uri], standalone_mode=False)


def fitted(store, capsys, *arguments) -> dict:
    command(store, "fit", "mini", "--json", *arguments)
    return json.loads(capsys.readouterr().out)


def test_the_metric_is_what_is_fitted(filled, capsys):
    top1 = fitted(filled, capsys)
    balanced = fitted(filled, capsys, "--metric", "balanced_accuracy")
    assert top1["settings"]["metric"] == "top1"
    assert balanced["settings"]["metric"] == "balanced_accuracy"
    assert gain(top1, "copies") < 0 < gain(balanced, "copies")


def gain(analysis: dict, arm: str) -> float:
    return next(
        one["gain"]["value"]
        for curve in analysis["curves"]
        for one in curve["gains"]
        if one["arm"] == arm
    )


def test_curves_of_another_metric_do_not_replace_those_of_top1(filled, capsys):
    fitted(filled, capsys)
    before = filled.get("grids/mini/analysis/curves.json")
    fitted(filled, capsys, "--metric", "balanced_accuracy")
    assert filled.get("grids/mini/analysis/curves.json") == before
    other = filled.get_json("grids/mini/analysis/curves-balanced_accuracy.json")
    assert other["settings"]["metric"] == "balanced_accuracy"


def test_the_answer_says_by_what(filled, capsys):
    asked = ("equiv", "mini", "--n-base", 60, "--n-real", 60)
    command(filled, *asked, "--metric", "balanced_accuracy")
    assert "by balanced accuracy" in capsys.readouterr().out
    command(filled, *asked, "--metric", "balanced_accuracy", "--json")
    assert json.loads(capsys.readouterr().out)["metric"] == "balanced_accuracy"
    command(filled, *asked)
    assert "by balanced" not in capsys.readouterr().out


@pytest.mark.long
def test_the_report_is_of_the_metric(filled, tmp_path, capsys):
    command(filled, "report", "mini", "--out", tmp_path / "out", "--metric", "balanced_accuracy")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("balanced accuracy %") < page.index("top-1 accuracy %")


def test_metrics_that_are_not_there_are_refused(filled):
    with pytest.raises(UserError, match="did you mean 'balanced_accuracy'"):
        command(filled, "fit", "mini", "--metric", "balanced")
    with pytest.raises(UserError, match="no result has sensitivity"):
        command(filled, "fit", "mini", "--metric", "sensitivity")
    with pytest.raises(UserError, match="top3"):
        entry.app(
            ["equiv", "--paper", "--n-base", "5000", "--n-real", "100", "--metric", "top3"],
            standalone_mode=False,
        )
