"""The report's file: self-contained, small, complete, and honest about what is missing; and the
terminal's view.
"""

import base64
import errno
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.data.summary import cell_means
from equigrid.analysis.report.html import write_report
from equigrid.analysis.report.terminal import summary_table

PLANTED = replace(Planted(LIKE_CIFAR10), copies=(1.0,), seeds=2)


def analysed(table):
    return analyse(table, settings=PLANTED.settings(replicates=100))


def sheets() -> dict:
    """What cannot be compressed, at the largest size that the grid hands over: real, five pools of
    noise in all.
    """
    rng = np.random.default_rng(0)
    pools = [(None, None), ("edm", 500), ("edm", 5_000), ("edm", 25_000), ("cifake", None)]
    labels = np.repeat(np.arange(12), 8)
    sets = [
        {"generator": name, "setting": name and "closed", "base": base, "labels": labels,
         "images": rng.integers(0, 256, (96, 64, 64, 3), dtype=np.uint8)}
        for name, base in pools
    ]  # fmt: skip
    return {"classes": [f"class {i}" for i in range(12)], "sets": sets}


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ).save(buffer, "png")
    return buffer.getvalue()


def quality(pool: str, n_base: int, fid: float) -> dict:
    return {
        "pool": pool, "dataset": "planted", "generator": "planted", "setting": "closed", "n_base": n_base,
        "n_images": 1_000, "n_real": 50_000, "fid": fid, "inception_score": 6.23, "inception_score_std": 0.1,
        "diversity": 1.17, "diversity_real": 2.09, "feature_distance": None, "feature_diversity": None,
        "feature_diversity_real": None, "neighbour_distance": 20.5, "neighbour_distance_real": 21.5,
        "memorised": 0.03, "note": "", "seconds": 12.0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    table = PLANTED.table(0)
    extras = {
        "title": "A title", "spec": "name: planted", "versions": {"numpy": "2.0"},
        "failures": [{"id": "f00", "kind": "trial", "cell": "base 500", "error": "ValueError: <no>"}],
        "costs": [{"what": "generator", "seconds": 12.5}, {"what": "pool", "peak_device_bytes": 4_000}],
        "runs": [{"started": "2026-01-01", "trials": 3}], "recipe": "planted",
        "sheets": sheets(), "neighbours": {"edm, base 500": png(5_000, 200)},
        "generators": [{"generator": "edm", "steps": 18, "prompt": None, "filter": None},
                       {"generator": "sd2", "steps": 50, "prompt": "High-quality photo of {a} {c}.", "filter": None}],
        "quality": [quality("edm, base 500", 500, 8.33), quality("edm, base 5,000", 5_000, 4.25)],
        "zero_shot": [{"classifier": "cnn", "generator": None, "n_base": 500, "n_nominal": 500, "n_syn": 0,
                       "trial_id": "t", "among_unseen": 21.37, "among_all": 2.0, "seen_among_all": 97.0}],
        "domain": [{"pool": "edm, base 500", "patch_px": 8, "accuracy": 91.25, "low": 88.0, "high": 93.5, "real": 90.0,
                    "synthetic": 92.5, "per_class": [91.0, None], "n_train": 800, "n_test": 200}],
    }  # fmt: skip
    return write_report(table, analysed(table), tmp_path_factory.mktemp("out"), extras=extras)


@pytest.mark.long
def test_one_file_without_network_references_and_under_six_megabytes(written):
    html = written.read_text()
    body = re.sub(
        r'<script type="text/plain" id="plotly-gz">.*?</script>', "", html, flags=re.DOTALL
    )
    assert not re.search(r'(?:src|href)="(?!data:|#)', body)
    assert "url(" not in body
    assert written.stat().st_size < 6_000_000


@pytest.mark.long
def test_everything_handed_in_is_shown(written):
    html = written.read_text()
    for text in ("A title", "name: planted", "ValueError: &lt;no&gt;", "12.5", "4,000", "2026-01-01", "edm, base 500",
                 "c1 and c2 are determined", "&#34;numpy&#34;: &#34;2.0&#34;"):  # fmt: skip
        assert text in html, text
    for section in ("answer", "amounts", "worth", "paper", "figures", "cells", "curves", "tuples", "gains", "surfaces", "narrowing", "missing",
                    "failures", "generators", "quality", "domain-gap", "zero-shot", "costs-0", "sheets", "settings"):  # fmt: skip
        assert f'id="{section}"' in html, section
    for section in ("answer", "ask", "figures", "sheets", "failures", "details", "paper"):
        assert f'href="#{section}"' in html, section


def table_of(html: str, section: str) -> list[list[str]]:
    part = html.split(f'id="{section}"><summary>')[1].split("</details>")[0]
    return [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)
        for line in re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)
    ]


@pytest.mark.long
def test_metrics_stand_beside_the_gain_with_their_correlation(tmp_path):
    table = PLANTED.table(0)
    bases = sorted(table["n_nominal"].unique())
    rows = []
    for i, base in enumerate(bases):
        measured = {"fd": 9.0 - i, "fd_low": 8.5 - i, "fd_high": 9.5 - i, "coverage": 0.5 + i / 10,
                    "coverage_low": 0.4, "coverage_high": 0.99, "extractor": "mine"}  # fmt: skip
        rows.append({**quality(f"planted, base {base}", int(base), 5.0), **measured})
    html = write_report(table, analysed(table), tmp_path, extras={"quality": rows}).read_text()
    for section in ("quality", "metrics", "metrics-gain", "predictors"):
        assert f'id="{section}"' in html, section
    assert "8 [7.5,\u00a08.5]" in html and "What these cannot tell" in html
    assert "pools: too few to say, 4 at least" in html
    assert (tmp_path / "predictors-0.png").exists() == (len(bases) > 1)
    # The columns of the old table are the old ones.
    assert "fd low" not in html and "extractor" not in table_of(html, "quality")[0]


def test_quality_has_a_row_of_real_images_and_no_empty_columns(written):
    head, real, *pools = (dict(enumerate(row)) for row in table_of(written.read_text(), "quality"))
    names = list(head.values())
    assert "feature distance" not in names and "note" not in names
    real, *pools = (dict(zip(names, row.values())) for row in (real, *pools))
    assert (real["pool"], real["n images"], real["diversity"], real["fid"]) == (
        "real images",
        "50,000",
        "2.09",
        "",
    )
    assert [(row["pool"], row["fid"], row["diversity"]) for row in pools] == [
        ("edm, base 500", "8.33", "1.17"), ("edm, base 5,000", "4.25", "1.17")]  # fmt: skip


def test_generators_have_their_settings_and_no_empty_columns(written):
    assert table_of(written.read_text(), "generators") == [
        ["generator", "steps", "prompt"], ["edm", "18", ""], ["sd2", "50", "High-quality photo of {a} {c}."]]  # fmt: skip


def test_sample_images_are_small_jpegs(written):
    html = written.read_text()
    part = html.split('id="sheets"><summary>')[1].split("</details>")[0]
    pictures = [
        base64.b64decode(data) for data in re.findall(r"data:image/jpeg;base64,([^\"]*)", part)
    ]
    sizes = [Image.open(io.BytesIO(data)).size for data in pictures]
    assert len(sizes) == 3  # one sheet per generator, one of neighbours
    assert max(width for width, _ in sizes) <= 1_600
    assert sizes[2] == (1_600, 64)
    assert "edm (closed set, trained on 500 and on 5,000 and on 25,000 of them)" in part
    assert "each above the training image that it is nearest to" in part


def test_figures_lie_beside_it(written):
    names = {path.name for path in written.parent.iterdir()}
    for stem in ("accuracy-0", "contours-0", "equivalence-0", "residuals-0", "quality-fid", "domain", "zero-shot-0",
                 "images-0", "images-1"):  # fmt: skip
        assert {f"{stem}.png", f"{stem}.svg", f"{stem}.pdf"} <= names


def test_without_results_there_is_still_a_report(tmp_path):
    table = PLANTED.table(0)
    path = write_report(table.iloc[:0], analysed(table.iloc[:0]), tmp_path / "empty", extras={})
    html = path.read_text()
    assert "the table has no rows" in html
    assert "There is no answer yet" in html
    failed = table.assign(status="failed")
    html = write_report(failed, analysed(failed), tmp_path / "failed", extras={}).read_text()
    assert f"{len(table):,} result rows, {len(table):,} of them failed attempts." in html
    assert "There is no answer yet" in html


def test_unknown_extras_are_refused(tmp_path):
    table = PLANTED.table(0)
    with pytest.raises(ValueError, match="extras has \\['colour'\\]"):
        write_report(table, analysed(table), tmp_path, extras={"colour": "red"})


def test_terminal_shows_the_table_and_the_sentence():
    table = PLANTED.table(0)
    analysis = analysed(table)
    console = Console(width=160, record=True, quiet=False, file=io.StringIO())
    console.print(summary_table(table, analysis))
    text = console.export_text()
    assert text.splitlines()[1].strip().startswith("Generate: at a base of 500, ")
    assert "synthetic over copies: " in text
    assert "Eq. 11's rank among the 31 surfaces" in text
    assert "images of planted that do the same" in text
    mean = table.query("arm == 'base' and n_base == 500")["top1"].mean()
    assert f"{mean:.2f}" in text
    console.print(summary_table(table.iloc[:0], analysed(table.iloc[:0])))
    assert "no rows" in console.export_text()


@pytest.mark.long
def test_the_answer_comes_first_and_a_pool_of_noise_is_on_the_first_screen(tmp_path):
    table = PLANTED.table(0)
    noise = {**quality("edm, base 500", 500, 8.33), "neighbour_distance": 96.0,
             "neighbour_distance_real": 31.0}  # fmt: skip
    fine = {**quality("edm, base 5,000", 5_000, 4.2), "neighbour_distance": 30.0,
            "neighbour_distance_real": 31.0}  # fmt: skip
    path = write_report(table, analysed(table), tmp_path, extras={"quality": [noise, fine]})
    first = path.read_text().split('<section id="answer">')[1].split('<section id="ask">')[0]
    answer = re.sub(r"<[^>]+>", "", first)
    assert "the images of edm, base 500 may be noise: they lie 96 grey levels" in answer
    assert "base 5,000 may be noise" not in answer
    assert answer.index("Generate: at a base of 500") < answer.index("one real image is worth")
    assert "c1" not in answer


def test_intervals_of_accuracies_hold_the_test_set_and_are_never_of_no_width():
    table = PLANTED.table(0)
    small = {PLANTED.dataset: 100}
    means = cell_means(table)
    wide = cell_means(table, test_sizes=small)
    assert (wide["high"] - wide["low"] > means["high"] - means["low"]).all()
    p = wide["mean"].between(40, 60)
    # Wilson at 100 images and one half: 9.6 points either way.
    assert (wide[p]["mean"] - wide[p]["low"]).between(9, 11).all()
    few = table[table["subset_seed"] == 0].assign(top1=100.0)
    assert cell_means(few)[["low", "high"]].isna().all(axis=None)
    assert cell_means(few, test_sizes={PLANTED.dataset: 12})[["low", "high"]].isna().all(axis=None)
    mostly = few.assign(top1=few["top1"] - 8.4 * (few["arm"] == "base") * few["seed"])
    perfect = cell_means(mostly, test_sizes={PLANTED.dataset: 12})
    perfect = perfect[perfect["mean"] == 100]
    assert (perfect["low"] < 76).all()  # Wilson of 12 of 12: from 75.7
    assert (perfect["high"] == 100).all()


def test_a_report_is_not_replaced_by_one_that_shows_less(tmp_path):
    """As many results, but pools are gone from the store, or what was measured of them."""
    table = PLANTED.table(0)
    found, said = analysed(table), []
    one = {"classes": ["a"], "sets": sheets()["sets"][:1]}
    one["sets"][0] |= {"labels": np.zeros(8, int), "images": one["sets"][0]["images"][:8]}
    whole = {"sheets": one, "quality": [quality("edm, base 500", 500, 8.33)]}

    def write(**extras):
        write_report(table, found, tmp_path, extras=extras, tell=said.append)
        return contents(tmp_path)

    first = write(**whole)
    assert {"report.html", "images-0.png", "answer-0.pdf"} <= first.keys()
    assert write(**whole).keys() == first.keys()
    assert not said
    second = write(sheets=one)
    kept = tmp_path / f"report-{(table.status == 'ok').sum()}-results"
    assert said == [f"the report that was there has more measures: it is kept in {kept}"]
    assert contents(kept)["report.html"] == first["report.html"]
    # Each figure of before is there still: beside it, or where it was if nothing took its place.
    assert {**contents(tmp_path), **contents(kept)} == {**second, **first}
    third = write()
    other = kept.with_name(f"{kept.name}-2")
    assert said[1:] == [f"the report that was there has more pictures: it is kept in {other}"]
    assert contents(other)["report.html"] == second["report.html"]
    assert third["images-0.png"] == second["images-0.png"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_report_that_cannot_be_written_whole_changes_nothing(tmp_path, monkeypatch):
    table = PLANTED.table(0)
    found = analysed(table)
    write_report(table, found, tmp_path, extras={})
    before = contents(tmp_path)

    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "residuals-0.svg").unlink()
    (tmp_path / "residuals-0.svg").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_report(table[table["seed"] == 0], found, tmp_path, extras={})
    assert caught.value.filename == str(tmp_path / "residuals-0.svg")
    (tmp_path / "residuals-0.svg").rmdir()
    (tmp_path / "residuals-0.svg").write_bytes(before["residuals-0.svg"])
    assert contents(tmp_path) == before

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_report(table[table["seed"] == 0], found, tmp_path, extras={})
    assert caught.value.filename == str(tmp_path / "report.html")
    assert contents(tmp_path) == before
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
