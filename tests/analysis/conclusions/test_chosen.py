"""Amounts by class: apart from the curves, and what each class gains from them."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from equigrid.analysis.conclusions.chosen import chosen_classes, sentences
from equigrid.analysis.conclusions.classes import class_gains
from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.data.checks import check_table
from equigrid.analysis.data.summary import cell_means
from equigrid.analysis.data.trials import arrange
from equigrid.analysis.report.tables import report_tables
from equigrid.analysis.report.terminal import summary_table
from equigrid.analysis.schema import to_frame
from equigrid.analysis.settings import Settings

RARE = [0, 0, 25]
BASE = np.array([90.0, 80.0, 30.0])
FAST = Settings(replicates=50)


def row(arm, per_class, *, subset, seed=0, by_class=None, n=100, real=0):
    syn, copies = (n if arm == name else 0 for name in ("syn", "copies"))
    if by_class:
        syn, copies = (sum(by_class) if arm in names else 0 for names in (("syn", "mix"), "copies"))
    generator = "edm" if syn else None
    what = f"{arm} {by_class} {syn + copies + real} {subset} {seed}"
    return {
        "trial_id": what, "attempt": "a", "status": "ok", "grid": "g", "dataset": "d", "rev": 0,
        "fingerprint": "f", "arm": arm, "generator": generator, "classifier": "c", "recipe": "r",
        "setting": generator and "closed", "n_total": 100 + syn + copies + real, "n_base": 100,
        "n_nominal": 100, "n_real_added": real, "n_syn": syn, "n_copies": copies,
        "subset_seed": subset, "generator_seed": 0 if syn else None, "seed": seed,
        "top1": float(per_class[0] * 0.8 + per_class[1] * 0.15 + per_class[2] * 0.05),
        "per_class": list(per_class), "by_class": by_class,
    }  # fmt: skip


def table(gain=(-2.0, 0.0, 20.0), of_copies=(0.0, 0.0, 8.0), subsets=5, more=()):
    """The rare class gains 20 points by synthetic images and 8 by copies; another loses 2."""
    rng, rows = np.random.default_rng(0), []
    for subset in range(subsets):
        shift = rng.normal(0, 5, 3)  # of the subset, which pairing takes out
        for seed in (0, 1):
            at = BASE + shift + rng.normal(0, 0.1, 3)
            rows += [
                row("base", at, subset=subset, seed=seed),
                row("syn", at + 5 + rng.normal(0, 0.1, 3), subset=subset, seed=seed),
                row("real", at + 6, subset=subset, seed=seed, real=100, n=0),
            ]
            for arm, planted in (("syn", gain), ("copies", of_copies)):
                own = at + planted + rng.normal(0, 0.3, 3)
                rows.append(row(arm, own, subset=subset, seed=seed, by_class=RARE))
    return to_frame([*rows, *more])


def test_what_is_planted_is_found_class_by_class():
    syn, copies = sorted(chosen_classes(table()), key=lambda one: one.arm, reverse=True)
    assert (syn.arm, copies.arm) == ("syn", "copies") and syn.by_class == (0, 0, 25)
    rare, other = syn.classes[2], syn.classes[0]
    assert rare.over_base.value == pytest.approx(20, abs=0.5) and rare.added == 25
    assert rare.over_copies.value == pytest.approx(12, abs=0.6)
    assert rare.surely and other.surely and not syn.classes[1].surely
    assert other.over_base.value == pytest.approx(-2, abs=0.5)
    assert syn.balanced.value == pytest.approx(6, abs=0.3)
    assert syn.balanced_over_copies.value == pytest.approx(6 - 8 / 3, abs=0.4)
    assert syn.top1.value == pytest.approx(-2 * 0.8 + 20 * 0.05, abs=0.4)
    assert copies.balanced_over_copies is None and syn.pairs == 5
    assert rare.base == pytest.approx(table().query("arm == 'base'")["per_class"].str[2].mean())


def test_the_interval_is_students_of_the_pairs():
    rows = table()
    rows = rows[~((rows["arm"] == "copies") & rows["by_class"].notna())]  # nothing is pooled
    (syn,) = chosen_classes(rows)

    def means(mask):
        return rows[mask].groupby("subset_seed")["per_class"].apply(lambda x: np.mean([*x], axis=0))

    pairs = means((rows["arm"] == "syn") & rows["by_class"].notna()) - means(rows["arm"] == "base")
    ends = stats.ttest_1samp(np.stack(pairs)[:, 2], 0).confidence_interval(0.95)
    assert syn.classes[2].over_base.interval == pytest.approx((ends.low, ends.high))


def test_no_fit_and_no_mean_has_these_rows():
    rows = table()
    without = rows[rows["by_class"].isna()]
    for read in (cell_means, class_gains, lambda t: check_table(t).frame):
        assert read(rows).equals(read(without))
    with_them, alone = analyse(rows, settings=FAST), analyse(without, settings=FAST)
    assert [c.to_json() for c in with_them.curves] == [c.to_json() for c in alone.curves]
    assert with_them.chosen and not alone.chosen
    seen = arrange(rows.assign(accuracy=rows["top1"]))
    assert seen.layout.cells == 3 and "amounts by class" in seen.notes[0]


def test_a_mix_is_compared_with_the_base_and_no_copies():
    mixes = [row("mix", BASE + 9, subset=s, by_class=RARE, real=50) for s in range(5)]
    rows = table(more=mixes)
    (mix,) = [one for one in chosen_classes(rows) if one.arm == "mix"]
    assert mix.n_real_added == 50 and mix.balanced_over_copies is None and mix.pairs == 5


def test_the_sentence_leads_with_balanced_accuracy_and_names_the_classes():
    (said,) = sentences(chosen_classes(table()), ["cat", "dog", "lynx"])
    assert said.startswith("d, c, base 100, edm for chosen classes (25 of lynx): balanced accuracy")
    assert "over as many copies; class lynx gains 2" in said and "class cat loses" in said
    assert "dog" not in said
    (nothing,) = sentences(chosen_classes(table(gain=(0, 0, 0))))
    assert "no class surely gains or loses" in nothing and "(25 of 2)" in nothing


def test_by_chance_hardly_any_class_is_said_to_gain():
    """Of 40 tables with nothing in them, a class is named in some 5%, not in 3 × 5%."""
    rng, named = np.random.default_rng(1), 0
    for _ in range(40):
        rows = []
        for subset in range(4):
            rows.append(row("base", rng.normal(50, 2, 3), subset=subset))
            rows.append(row("syn", rng.normal(50, 2, 3), subset=subset, by_class=RARE))
        named += any(one.surely for one in chosen_classes(to_frame(rows))[0].classes)
    assert named <= 5


def test_a_single_repetition_has_no_interval():
    (syn, _) = sorted(
        chosen_classes(table(subsets=1).query("seed == 0")), key=lambda o: -len(o.arm)
    )[::-1]
    assert syn.balanced.value is not None and not syn.balanced.bounded
    assert not any(change.surely for change in syn.classes)
    assert sentences([syn])


def test_where_nothing_can_be_compared_nothing_is_said():
    rows = table()
    assert chosen_classes(rows[rows["by_class"].isna()]) == ()
    assert chosen_classes(rows.drop(columns="by_class")) == ()
    assert chosen_classes(rows[rows["arm"] != "base"]) == ()
    assert chosen_classes(rows.assign(per_class=None)) == ()


def test_report_and_terminal_show_them():
    rows = table()
    analysis = analyse(rows, settings=FAST)
    found = {one["id"]: one for one in report_tables(rows, analysis, {"class_names": [*"abc"]})}
    assert len(found["chosen"]["rows"]) == 2 and len(found["chosen-gains"]["rows"]) == 6
    texts = [cell["text"] for cells in found["chosen-gains"]["rows"] for cell in cells]
    assert "c" in texts and "25 of c" in texts and "yes" in texts
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary_table(rows, analysis, class_names=[*"abc"]))
    assert "class c gains 2" in console.export_text()
    alone = rows[rows["by_class"].notna() | (rows["arm"] == "base")]
    console.print(summary_table(alone, analyse(alone, settings=FAST)))
    assert "all synthetic images are of chosen classes" in console.export_text()
