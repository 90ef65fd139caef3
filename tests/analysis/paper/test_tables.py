"""The paper's tables as data: against the paper's text where it is at hand, and against themselves
always.
"""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from equigrid.analysis.paper import published
from equigrid.analysis.schema import SCHEMA

TEXT = Path(os.environ.get("EQUIGRID_PAPER_TEXT", ""))
needs_text = pytest.mark.skipif(
    not TEXT.is_file(), reason="the paper's text is not here (EQUIGRID_PAPER_TEXT)"
)
NUMBER = r"\d[\d,]*"
ACCURACY = r"(\d+\.\d\d)(?: \(([+-]\d+\.\d\d)\))?"
ROW = re.compile(
    rf"({NUMBER}) ({NUMBER}) (1:[\d.]+|base only|real only|syn only) {ACCURACY}(?: {ACCURACY})?"
)


def section(table: int) -> str:
    """The text of one table, blanks collapsed, from its caption to the next."""
    text = TEXT.read_text()
    start = text.index(f"\nTable {table}:")
    end = text.find("\nTable ", start + 5)
    return re.sub(r"\s+", " ", text[start : end if end > 0 else None])


def value(text: str | None) -> float:
    return np.nan if text is None else float(text.replace(",", ""))


@needs_text
@pytest.mark.parametrize("table", range(9, 22))
def test_every_number_of_the_accuracy_tables_is_printed_in_the_paper(table):
    body = section(table)
    printed = [
        (added, total, ratio, value(top1), value(gain1), value(top5), value(gain5))
        for added, total, ratio, top1, gain1, top5, gain5 in ROW.findall(
            body[body.index("Top-1") + 5 :].replace("()", "")
        )
        for top1, gain1, top5, gain5 in [(top1 or None, gain1 or None, top5 or None, gain5 or None)]
    ]
    rows = published.read_table("accuracy").query("table == @table")
    assert len(printed) == len(rows) > 0
    for (added, total, ratio, *numbers), row in zip(printed, rows.to_dict("records")):
        assert value(total) == row["printed_total"]
        assert ratio == row["printed_ratio"]
        if not ratio.endswith("only"):
            assert value(added) == row["printed_added"]
        names = ("top1", "printed_gain_top1", "top5", "printed_gain_top5")
        np.testing.assert_array_equal(numbers, [float(row[name]) for name in names])


@needs_text
def test_small_tables_are_printed_in_the_paper():
    for row in published.read_table("traditional").to_dict("records"):
        assert f"{row['top1']:.2f}" in section(6)
    for row in published.read_table("quality").to_dict("records"):
        body = section(row["table"])
        assert f"{row['fid']:.2f}" in body
        assert f"{row['inception_score']:.2f}" in body
        assert re.search(f"{row['n_images']:,}|130k", body)
    for row in published.read_table("costs").to_dict("records"):
        parts = f"{row['sampling_steps']} {row['batch_size']} {row['memory_mb']:,} MB {row['seconds_per_image']}s"
        assert parts in section(8)
    text = TEXT.read_text()
    for row in published.read_table("equations").to_dict("records"):
        found = re.search(
            rf"\\simeq {row['c1']:.2f}\^.*?{row['c2']:.2f}\^.*?\({row['equation']}\)",
            text,
            re.DOTALL,
        )
        assert found, row
        assert f"{row['inverse_tau']:,}" in found.group(0).replace("{", "").replace("}", "")


def test_totals_ratios_and_gains_agree_but_for_the_known_slips():
    rows = published.read_table("accuracy")
    added = rows["n_real_added"] + rows["n_syn"]
    total = rows["n_base"] + added
    assert (total == rows["printed_total"]).all()
    off = rows[(added != rows["printed_added"]) & (rows["table"] != 20)]
    assert off[["table", "n_base", "printed_added", "n_real_added"]].to_numpy().tolist() == [
        [9, 25_000, 15_000, 20_000]
    ]
    with_ratio = rows[rows["printed_ratio"].str.startswith("1:") & (rows["table"] != 20)]
    ratio = with_ratio["printed_ratio"].str.removeprefix("1:").astype(float)
    np.testing.assert_allclose(
        (with_ratio["n_real_added"] + with_ratio["n_syn"]) / with_ratio["n_base"], ratio
    )
    disagree, count = gain_slips(rows)
    assert count == 190
    assert disagree == [(14, 26_000, "1:1", "top5"), (21, 6_500, "1:10", "top1")]


def gain_slips(rows: pd.DataFrame) -> tuple[list, int]:
    reference, count, disagree = {}, 0, []
    for row in rows.to_dict("records"):
        group = (
            row["table"],
            row["dataset"],
            row["generator"] if row["table"] == 20 else row["n_base"],
        )
        if row["printed_ratio"].endswith("only"):
            reference[group] = row
            continue
        for metric in ("top1", "top5"):
            if not np.isnan(row[f"printed_gain_{metric}"]):
                count += 1
                if (
                    abs(row[metric] - reference[group][metric] - row[f"printed_gain_{metric}"])
                    > 0.0051
                ):
                    disagree.append((row["table"], row["n_base"], row["printed_ratio"], metric))
    return disagree, count


def test_results_fit_the_schema_and_hold_each_cell_once():
    results = published.results()
    table = pa.Table.from_pandas(results, schema=SCHEMA, preserve_index=False)
    assert table.num_rows == len(results) == results["trial_id"].nunique()
    counts = results.groupby(["dataset", "classifier", "recipe", "arm"]).size()
    assert counts["cifar10", "resnet110", "paper/cifar10", "base"] == 4
    assert counts["cifar10", "resnet110", "paper/cifar10", "real"] == 9
    assert counts["cifar10", "resnet110", "paper/cifar10", "syn"] == 20 + 17
    assert counts["imagenet100", "vit_b32", "paper/imagenet", "syn"] == 26
    row = results.query("arm == 'real' and n_base == 25000 and top1 == 93.04").iloc[0]
    assert (row["n_real_added"], row["n_total"]) == (20_000, 45_000)
    printed = (
        published.results(as_printed=True)
        .query("arm == 'real' and n_base == 25000 and top1 == 93.04")
        .iloc[0]
    )
    assert printed["n_real_added"] == 15_000


def test_notes_list_the_slips():
    notes = published.read_table("notes")
    assert len(notes) >= 10
    assert notes["where"].str.contains("Table 9").any()
    with pytest.raises(ValueError, match="no table 'nothing'"):
        published.read_table("nothing")
