"""Classifiers that start from pre-trained weights: never in one curve with others, and said."""

import io
from dataclasses import replace

import pandas as pd
from rich.console import Console

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.data.checks import check_table
from equigrid.analysis.report.first_screen import first_screen
from equigrid.analysis.report.terminal import summary_table

PLANTED = replace(Planted(LIKE_CIFAR10), seeds=2)
NAME, TOLD = "net (pretrained 0123abcd: head)", f"sha256:{'ab' * 32} (net, hf-hub:timm/net.tag)"


def tuned() -> pd.DataFrame:
    table = PLANTED.table(1)
    ids = table["trial_id"] + "-tuned"
    return table.assign(classifier=NAME, trial_id=ids, pretrained=TOLD)


def test_fits_are_apart_and_what_everything_starts_from_is_said(tmp_path):
    scratch = PLANTED.table(0)
    both = pd.concat([scratch, tuned()], ignore_index=True)
    analysis = analyse(both, settings=PLANTED.settings(replicates=20))
    by_name = {curve.key.classifier: curve for curve in analysis.curves}
    assert by_name[NAME].pretrained == TOLD
    assert by_name["planted"].pretrained is None
    alone = analyse(scratch, settings=PLANTED.settings(replicates=20)).curves[0]
    assert by_name["planted"].to_json() == alone.to_json(), "as if the others were not there"
    (line,) = [line for line in analysis.problems if "pre-trained" in line]
    assert line.startswith(f"{NAME}: all arms, base, real and synthetic, start from")
    assert "sha256:abababababab… (net, hf-hub:timm/net.tag)" in line
    screen = first_screen(analysis, {}, tmp_path, ("png",))
    abouts = {card["about"] for card in screen.cards}
    assert any("closed-set generator, pre-trained classifier: open set" in a for a in abouts)
    assert any(about.endswith("closed set") for about in abouts)
    assert line in screen.problems
    out = io.StringIO()
    Console(file=out, width=400).print(summary_table(both, analysis))
    assert line in out.getvalue()


def test_rows_from_scratch_under_a_pretrained_name_are_left_out():
    """A table put together by hand: one curve never holds both."""
    own = tuned()
    mixed = own.assign(trial_id=own["trial_id"] + "-b", seed=own["seed"] + 50, pretrained=None)
    checked = check_table(pd.concat([own, mixed], ignore_index=True))
    assert set(checked.frame["trial_id"]) == set(own["trial_id"])
    before = check_table(own.drop(columns="pretrained"))
    assert before.pretrained == {}
    assert len(before.frame) == len(own)
