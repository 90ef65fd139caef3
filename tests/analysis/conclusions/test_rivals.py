"""Synthetic images against augmentations, at equal steps, with planted differences."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.rivals import rivals
from equigrid.analysis.data.summary import cell_means
from equigrid.analysis.data.tidy import tidy
from equigrid.analysis.report.html import write_report
from equigrid.analysis.report.terminal import summary_table
from equigrid.analysis.schema import to_frame
from equigrid.analysis.settings import Settings

QUICK = Settings(replicates=50, details=False)


def row(arm, accuracy, *, name=None, n=100, amount=0, subset_seed=0, seed=0, steps=300, **changes):
    amounts = {"real": 0, "syn": 0, "copies": 0} | ({arm: amount} if amount else {})
    syn = arm == "syn"
    return {
        "trial_id": f"{arm} {name} {n} {amount} {subset_seed} {seed} {steps}", "attempt": "a", "status": "ok",
        "grid": "g", "dataset": "digits", "fingerprint": "f", "arm": arm, "setting": "closed" if syn else None,
        "generator": name if syn else None, "augmentation": None if syn else name,
        "classifier": "digits-cnn", "recipe": "digits", "n_total": n + amount, "n_base": n, "n_nominal": n,
        "n_real_added": amounts["real"], "n_syn": amounts["syn"], "n_copies": amounts["copies"],
        "subset_seed": subset_seed, "generator_seed": 0 if syn else None, "seed": seed, "rev": 0,
        "steps": steps, "top1": accuracy, **changes,
    }  # fmt: skip


def grid(effects: dict, *, noise=0.2, subsets=3, seeds=2, draw=0) -> list[dict]:
    """effects: (arm, name, amount) -> points over a base of 80%. Subsets shift all arms alike."""
    rng = np.random.default_rng(draw)
    shift = rng.normal(0, 3, subsets)
    return [
        row(arm, 80 + effect + shift[s] + rng.normal(0, noise), name=name, amount=amount,
            subset_seed=s, seed=k)
        for (arm, name, amount), effect in effects.items()
        for s in range(subsets) for k in range(seeds)
    ]  # fmt: skip


EFFECTS = {
    ("base", None, 0): 0.0, ("copies", None, 100): 0.1, ("syn", "edm", 100): 2.0, ("real", None, 100): 6.0,
    ("syn", "edm", 400): 3.0, ("augmentation", "mixup", 0): 4.0, ("augmentation", "flip", 0): -5.0,
}  # fmt: skip


def one(rows: list[dict], **options):
    (found,) = rivals(to_frame(rows), **options)
    return found


def lines(found) -> dict:
    return {(line.arm, line.name, line.added): line for line in found.contenders}


def test_gains_are_paired_by_subset_and_find_what_was_planted():
    found = one(grid(EFFECTS))
    by_cell = lines(found)
    assert list(by_cell) == [
        ("base", "base", 0), ("copies", "copies", 100), ("syn", "edm", 100), ("syn", "edm", 400),
        ("augmentation", "flip", 0), ("augmentation", "mixup", 0),
    ]  # fmt: skip
    assert by_cell["base", "base", 0].over_base is None
    assert by_cell["syn", "edm", 100].over["edm"] is None, "the amount nearest to 1:1 is compared"
    for (arm, name, amount), effect in EFFECTS.items():
        if arm == "real" or arm == "base":
            continue
        line = by_cell[arm, name or arm, amount]
        assert abs(line.over_base.value - effect) < 0.35, "three of its standard errors"
        # Subsets shift by 3 points, which pairs take away.
        assert line.over_base.high - line.over_base.low < 1.5
        assert line.steps == 300
    ahead = by_cell["augmentation", "mixup", 0].over["edm"]
    assert ahead.low < 2.0 < ahead.high


def test_the_intervals_are_those_of_what_is_left_of_cells_and_subsets():
    """By hand, over the base: base, copies and augmentations, with (cells - 1)(subsets - 1) degrees
    of freedom; the generator's images, whose luck is their own, are not among them.
    """
    rows = to_frame(grid(EFFECTS))
    means = rows.groupby(["arm", "augmentation", "n_syn", "subset_seed"], dropna=False)["top1"]
    by_subset = means.mean().unstack("subset_seed")
    arms = by_subset.index.get_level_values("arm")
    y = by_subset[arms.isin(["base", "copies", "augmentation"])].to_numpy()
    assert y.shape == (4, 3)
    left = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    half = stats.t.ppf(0.95, 3 * 2) * np.sqrt((left**2).sum() / (3 * 2) * 2 / 3)
    gain = lines(one(grid(EFFECTS), level=0.9))["augmentation", "mixup", 0].over_base
    mixup = by_subset.xs("mixup", level="augmentation").to_numpy()[0] - by_subset[arms == "base"]
    value = float(mixup.to_numpy().mean())
    assert (gain.value, gain.low, gain.high) == pytest.approx((value, value - half, value + half))


@pytest.mark.parametrize(
    ("mixup", "status", "said"),
    [
        (4.0, "beaten", r"what is free does better than the 100 images of edm \(.*%\): mixup"),
        (2.0, "not told apart", r"the 100 images of edm \(.*%\) are not told apart from"),
        (0.0, "ahead", r"the 100 images of edm \(.*%\) do better than all that is free"),
    ],
)
def test_the_verdict_names_the_best_that_is_free(mixup, status, said):
    effects = {**EFFECTS, ("augmentation", "mixup", 0): mixup}
    (found,) = one(grid(effects)).verdicts
    assert (found.status, found.best, found.n_syn) == (status, "mixup", 100)
    assert re.match(f"At a base of 100 and as many steps, {said}", found.text)
    assert "mixup" in found.text
    assert ("corrected for 2 augmentations" in found.text) == (status != "ahead")
    if status == "ahead":
        return
    wide = found.difference
    narrow = lines(one(grid(effects)))["augmentation", "mixup", 0].over["edm"]
    assert wide.high - wide.low > narrow.high - narrow.low


@pytest.mark.slow
def test_chance_seldom_beats_synthetic_images():
    """Eight augmentations that do as well as the images: of 200 tables some 2.5% may say that one
    is better; twice that, and what 200 tables can vary, is the bound.
    """
    effects = {("base", None, 0): 0.0, ("syn", "edm", 100): 1.0}
    effects |= {("augmentation", f"a{i}", 0): 1.0 for i in range(8)}
    beaten = sum(
        one(grid(effects, draw=i, noise=1.0, subsets=3, seeds=1)).verdicts[0].status == "beaten"
        for i in range(200)
    )
    assert beaten <= 18


def test_only_what_trains_for_as_many_steps_is_compared():
    rows = grid(EFFECTS)
    longer = [
        {**r, "steps": 900, "trial_id": r["trial_id"] + "+"} for r in rows if r["n_syn"] == 400
    ]
    rows = [r for r in rows if r["n_syn"] != 400] + longer
    assert ("syn", "edm", 400) not in lines(one(rows))
    unknown = [{**r, "steps": None} for r in rows]
    assert ("syn", "edm", 400) in lines(one(unknown)), "where no row says, all are shown"
    assert all(line.steps is None for line in one(unknown).contenders)


def test_a_single_training_of_each_has_no_interval():
    found = one(grid(EFFECTS, subsets=1, seeds=1))
    (verdict,) = found.verdicts
    assert verdict.status == "open"
    assert "nothing was repeated" in verdict.text
    assert one(grid({k: v for k, v in EFFECTS.items() if k[0] == "augmentation"})).verdicts == ()


def test_an_augmented_base_is_never_taken_for_a_base():
    """All else of an analysis is that of the same rows without them."""
    rows = grid(EFFECTS)
    without = [r for r in rows if r["arm"] != "augmentation"]
    with_them, plain = (
        analyse(to_frame(some), settings=QUICK).to_json() for some in (rows, without)
    )
    assert with_them["curves"] == plain["curves"]
    assert with_them["problems"] == plain["problems"]
    assert (len(with_them["augmentations"]), plain["augmentations"]) == (1, [])
    columns = ["arm", "n_syn", "mean", "low", "high"]
    assert cell_means(to_frame(rows))[columns].equals(cell_means(to_frame(without))[columns])


@pytest.mark.long
def test_the_report_and_the_terminal_show_them(tmp_path):
    table = to_frame(grid(EFFECTS))
    analysis = analyse(table, settings=QUICK)
    page = write_report(table, analysis, tmp_path, extras={}).read_text()
    assert "Against what is free" in page
    assert "what is free does better than the 100 images of edm (82" in page
    assert 'id="augmentations"' in page
    from rich.console import Console

    console = Console(width=200, record=True)
    console.print(summary_table(table, analysis))
    text = console.export_text()
    assert "Synthetic images against what is free: base 100" in text
    assert "over edm" in text


def test_tables_of_others_name_their_augmentations():
    frame = pd.DataFrame(
        {"n_base": 100, "arm": ["base", "augmented", "syn"], "amount": [0, 0, 100],
         "augmentation": [None, "mixup", None], "accuracy": [80.0, 84.0, 82.0]}
    )  # fmt: skip
    (of_base,) = rivals(tidy(frame))
    found = lines(of_base)
    assert found["augmentation", "mixup", 0].mean == 84
    with pytest.raises(ValueError, match="arm of row 2 is augmentation: name it"):
        tidy(frame.drop(columns="augmentation"))
    with pytest.raises(ValueError, match="amounts say 'syn'"):
        tidy(frame.assign(n_syn=[0, 5, 100]).drop(columns="amount"))
