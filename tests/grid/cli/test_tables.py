"""Results as tables: of one's own, and a grid's written out."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.schema import SCHEMA
from equigrid.grid.cli.entry import outcome
from equigrid.grid.errors import ExitCode
from equigrid.grid.reporting.cell_table import write_table

PLANTED = replace(Planted(LIKE_CIFAR10), copies=(1.0,), subset_seeds=2, seeds=2)


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "mine.csv"
    table = PLANTED.table(3).rename(columns={"top1": "accuracy"})
    names = ["n_base", "n_real_added", "n_syn", "n_copies", "subset_seed", "seed", "accuracy"]
    table[names].to_csv(path, index=False)
    return path


def test_fit_of_a_table_says_the_verdicts_first(mine, capsys):
    assert outcome(["fit", "--table", str(mine)]) is ExitCode.DONE
    text = capsys.readouterr().out
    assert text.splitlines()[1].startswith("  Generate: at a base of 500, ")
    assert "no store" not in text
    assert outcome(["fit", "--table", str(mine), "--json"]) is ExitCode.DONE
    curve = json.loads(capsys.readouterr().out)["curves"][0]
    assert curve["worth"]["status"] == "determined"


def test_equiv_of_a_table_answers(mine, capsys):
    question = ["equiv", "--table", str(mine), "--n-base", "5000", "--n-real", "5000"]
    costs = ["--cost-real", "1", "--cost-syn", "0.01", "--cost-generator", "50", "--target", "85"]
    assert outcome([*question, *costs]) is ExitCode.DONE
    text = capsys.readouterr().out
    assert "one real image is worth" in text.splitlines()[1]
    assert ", of which 50.00 for the generator: synthetic is cheaper" in text
    assert "85% at 50% confidence: " in text
    assert "85% at 90% confidence: " in text


def test_equiv_by_another_metric_names_that_one(mine, tmp_path, capsys):
    """Nowhere does it say accuracy of what is none."""
    table = pd.read_csv(mine)
    table["macro_f1"] = table["accuracy"] - 3
    table.to_csv(tmp_path / "f1.csv", index=False)
    question = [
        "equiv",
        "--table",
        str(tmp_path / "f1.csv"),
        "--n-base",
        "5000",
        "--n-real",
        "5000",
    ]
    costs = ["--cost-real", "1", "--cost-syn", "0.01", "--target", "80", "--metric", "macro_f1"]
    assert outcome([*question, *costs]) is ExitCode.DONE
    text = capsys.readouterr().out
    assert text.startswith("by macro F1:")
    assert ": macro F1 8" in text
    assert "accuracy" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit"], "name a grid that has run, or give --table FILE"),
        (["fit", "digits", "--table", "x.csv"], "name a grid that has run, or give --table FILE"),
        (["fit", "--table", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["fit", "--table", "x.txt"], "write a table as .csv, .tsv, .parquet"),
        (["fit", "--table", "MINE", "--metric", "acuracy"], "'acuracy' is not known"),
        (["equiv", "--paper", "--table", "x.csv", "--n-base", "5", "--n-real", "5"], "not several"),
        (["table", "digits"], "give --csv FILE or --parquet FILE"),
        (["table", "digits", "--csv", "a", "--parquet", "b"], "give --csv FILE or --parquet FILE"),
    ],
)
def test_bad_requests_are_one_line(arguments, words, mine, capsys):
    given = [str(mine) if a == "MINE" else a for a in arguments]
    assert outcome(given) is ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_written_table_can_be_read_again_and_says_the_same(tmp_path):
    table = PLANTED.table(3)
    table = table.reindex(columns=SCHEMA.names)
    table["per_class"] = [[50.0, 60.0]] * len(table)
    table["versions"] = [{"torch": "2"}] * len(table)
    table["confusion"] = [[30, 20, 10, 40]] * len(table)
    write_table(table, tmp_path / "all.csv", "csv")
    write_table(table, tmp_path / "all.parquet", "parquet")
    read = pd.read_csv(tmp_path / "all.csv")
    assert len(read) == len(table)
    assert json.loads(read["per_class"][0]) == [50.0, 60.0]
    assert json.loads(read["versions"][0]) == {"torch": "2"}
    assert pq.read_schema(tmp_path / "all.parquet").names == SCHEMA.names
    for name in ("all.csv", "all.parquet"):
        assert outcome(["fit", "--table", str(tmp_path / name), "--json"]) is ExitCode.DONE
