"""Results made elsewhere: what must be there, what follows, and what is refused."""

import pandas as pd
import pytest

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.data.checks import check_table
from equigrid.analysis.data.tidy import read_table, tidy
from equigrid.analysis.schema import SCHEMA

CSV = """Base, arm, added, accuracy
500, baseline, 0, 55.0
500, baseline, , 56.0
500, real, 500, 63.1
500, real, 500, 62.9
500, synthetic, "1,000", 60.5
500, copies, 500, 55.5
"""


def test_a_small_csv_becomes_a_whole_table(tmp_path):
    (tmp_path / "mine.csv").write_text(CSV)
    found = read_table(tmp_path / "mine.csv")
    assert list(found.columns) == SCHEMA.names
    assert list(found.arm) == ["base", "base", "real", "real", "syn", "copies"]
    assert list(found.n_real_added) == [0, 0, 500, 500, 0, 0]
    assert list(found.n_syn) == [0, 0, 0, 0, 1000, 0]
    assert list(found.n_total) == [500, 500, 1000, 1000, 1500, 1000]
    assert list(found.seed) == [0, 1, 0, 1, 0, 0]  # equal rows are repetitions
    assert list(found.generator) == [None, None, None, None, "synthetic", None]
    checked = check_table(found)
    assert (len(checked.frame), checked.problems) == (6, ())


def test_the_analysis_of_a_stripped_table_is_that_of_the_whole():
    table = Planted(LIKE_CIFAR10).table(0)
    needed = ["dataset", "n_base", "n_real_added", "n_syn", "n_copies", "generator", "classifier",
              "recipe", "subset_seed", "generator_seed", "seed", "top1"]  # fmt: skip
    whole, stripped = analyse(table), analyse(tidy(table[needed]))
    for one, other in zip(whole.curves, stripped.curves, strict=True):
        assert (one.c1, one.c2, one.gain_over_base) == (other.c1, other.c2, other.gain_over_base)


def test_a_parquet_table_and_seeds_in_words(tmp_path):
    frame = pd.DataFrame({"n_base": [100] * 4, "n_syn": [0, 0, 100, 100], "fold": list("abab"),
                          "Accuracy": [70.0, 71.0, 75.0, 76.0]})  # fmt: skip
    frame.to_parquet(tmp_path / "mine.parquet")
    found = read_table(tmp_path / "mine.parquet")
    assert list(found.subset_seed) == [0, 1, 0, 1]
    assert list(found.seed) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"n_base": [1], "n_syn": [2]}, "no column top1 .*accuracies, in percent.*n_base, n_syn"),
        ({"top1": [1.0], "n_syn": [2]}, "no column n_base"),
        ({"top1": [1.0], "n_base": [2]}, "no added amounts: give n_real_added, n_syn and n_copies"),
        ({"top1": [1.0], "n_base": [2], "amount": [3]}, "needs a column arm"),
        ({"top1": [], "n_base": [], "n_syn": []}, "no rows"),
        ({"top1": [1.0], "acc": [1.0], "n_base": [1], "n_syn": [1]}, "'top1' and 'acc' both mean"),
        ({"top1": [1.0], "n_base": ["x"], "n_syn": [1]}, "n_base of row 1 is x; write a whole"),
        ({"top1": [1, 2], "n_base": [1, 1], "n_syn": [1, -2]}, "n_syn of row 2 is -2"),
        ({"top1": [1.0], "n_base": [1], "n_syn": [1.5]}, "n_syn of row 1 is 1.5"),
        ({"top1": [1.0], "n_base": [1], "n_syn": [1], "arm": ["real"]}, "amounts say 'syn'"),
        ({"top1": [1.0], "n_base": [1], "n_syn": [1], "arm": ["magic"]}, "arm 'magic' is unknown"),
        ({"top1": [1.0], "n_base": [1], "n_syn": [1], "n_copies": [1]}, "copies and other images"),
    ],
)
def test_what_is_missing_or_wrong_is_named(frame, message):
    with pytest.raises(ValueError, match=message):
        tidy(pd.DataFrame(frame))


def test_a_file_that_is_no_table_is_one_line(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"nonsense")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "c.csv").write_text("")
    for name in ("a.parquet", "b.csv", "c.csv", "d.csv", "e.xlsx"):
        with pytest.raises(ValueError, match=f"^.*{name}: [^\n]*$"):
            read_table(tmp_path / name)
