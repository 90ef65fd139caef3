"""The report's file: self-contained, small, complete, and honest about what is missing; and the terminal's view."""

import re
from dataclasses import replace

import pytest
from rich.console import Console

from analysis.equivalence import analyse
from analysis.planted import LIKE_CIFAR10, Planted
from analysis.report import write_report
from analysis.terminal import summary_table

PLANTED = replace(Planted(LIKE_CIFAR10), copies=(1.0,), seeds=2)


def analysed(table):
    return analyse(table, settings=PLANTED.settings(replicates=100))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    table = PLANTED.table(0)
    extras = {
        "title": "A title", "spec": "name: planted", "versions": {"numpy": "2.0"}, "summary": {"seconds": 3.5},
        "failures": [{"id": "f00", "kind": "trial", "cell": "base 500", "error": "ValueError: <no>"}],
        "costs": [{"what": "generator", "seconds": 12.5}, {"what": "pool", "peak_device_bytes": 4_000}],
        "runs": [{"started": "2026-01-01", "trials": 3}], "sheets": {"edm, base 500": b"\x89PNG\r\n\x1a\nnot really"},
    }  # fmt: skip
    return write_report(table, analysed(table), tmp_path_factory.mktemp("out"), extras=extras)


def test_one_file_without_network_references_and_under_six_megabytes(written):
    html = written.read_text()
    body = re.sub(r'<script type="text/plain" id="plotly-gz">.*?</script>', "", html, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)="(?!data:|#)', body)
    assert "url(" not in body
    assert written.stat().st_size < 6_000_000


def test_everything_handed_in_is_shown(written):
    html = written.read_text()
    for text in ("A title", "name: planted", "ValueError: &lt;no&gt;", "12.5", "4,000", "2026-01-01", "edm, base 500",
                 "the equivalence is determined", "&#34;numpy&#34;: &#34;2.0&#34;"):  # fmt: skip
        assert text in html, text
    for section in ("summary", "figures", "cells", "curves", "tuples", "gains", "surfaces", "narrowing", "missing",
                    "failures", "sheets", "settings"):  # fmt: skip
        assert f'id="{section}"' in html, section
        assert f'href="#{section}"' in html, section


def test_figures_lie_beside_it(written):
    names = {path.name for path in written.parent.iterdir()}
    for stem in ("accuracy-0", "contours-0", "equivalence-0", "residuals-0"):
        assert {f"{stem}.png", f"{stem}.svg", f"{stem}.pdf"} <= names


def test_without_results_there_is_still_a_report(tmp_path):
    table = PLANTED.table(0)
    path = write_report(table.iloc[:0], analysed(table.iloc[:0]), tmp_path / "empty", extras={})
    html = path.read_text()
    assert "the table has no rows" in html
    assert "There is no curve yet" in html
    failed = table.assign(status="failed")
    html = write_report(failed, analysed(failed), tmp_path / "failed", extras={}).read_text()
    assert "243" not in html or "failed" in html


def test_unknown_extras_are_refused(tmp_path):
    table = PLANTED.table(0)
    with pytest.raises(ValueError, match="extras has \\['colour'\\]"):
        write_report(table, analysed(table), tmp_path, extras={"colour": "red"})


def test_terminal_shows_the_table_and_the_sentence():
    table = PLANTED.table(0)
    analysis = analysed(table)
    console = Console(width=160, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table(table, analysis))
    text = console.export_text()
    assert analysis.curves[0].sentence[:60] in text.replace("\n", "")
    assert "gain of synthetic over copies" in text
    mean = table.query("arm == 'base' and n_base == 500")["top1"].mean()
    assert f"{mean:.2f}" in text
    console.print(summary_table(table.iloc[:0], analysed(table.iloc[:0])))
    assert "no rows" in console.export_text()
