"""What the report's page answers from: the amounts of `equiv`, row by row; and what to do next."""

import json
from dataclasses import replace

import pytest

from equigrid.analysis.answer.next_steps import Spending, what_next
from equigrid.analysis.answer.next_trials import Costs
from equigrid.analysis.answer.page_table import page_table
from equigrid.analysis.conclusions.amounts import MATCHED
from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.phrasing import GENERATE, OPEN, fill, verdict
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted

PLANTED = replace(Planted(LIKE_CIFAR10), copies=(1.0, 3.0))


@pytest.fixture(scope="module")
def analysis():
    return analyse(PLANTED.table(3), settings=PLANTED.settings(replicates=50))


def test_every_row_is_what_equiv_computes(analysis):
    (curve,) = page_table(analysis)["curves"]
    worth = analysis.curves[0].worth
    checked = 0
    for base in curve["bases"]:
        assert {n * base["n_base"] for n in PLANTED.real} <= set(base["n_real"])
        assert base["n_real"] == sorted(base["n_real"])
        for i in range(0, len(base["n_real"]), 4):
            one = worth.amount(base["n_base"], base["n_real"][i])
            assert base["never"][i] == pytest.approx(one.probability["no amount does"], abs=1e-6)
            if one.kind == MATCHED:
                checked += 1
                for name, told in (("low", one.low), ("middle", one.value), ("high", one.high)):
                    assert base[name][i] == pytest.approx(told, rel=1e-5), name
    assert checked >= 5


def test_it_is_plain_json_and_says_why_there_is_nothing(analysis):
    json.dumps(page_table(analysis), allow_nan=False)
    table = PLANTED.table(3)
    without = table[table["arm"].isin(["base", "real"])]
    (curve,) = page_table(analyse(without, settings=PLANTED.settings(replicates=50)))["curves"]
    assert curve["bases"] == []
    assert curve["nothing"].startswith("No answer: there are no synthetic images")


def test_a_word_that_looks_like_a_place_is_not_filled_again():
    assert fill("{name} and {low}", {"name": "{low}", "low": "3"}) == "{low} and 3"


def test_what_to_do_next_has_its_cost(analysis):
    worth = analysis.curves[0].worth
    spending = Spending(Costs(trial=60.0), {worth.generator: 100.0}, {worth.generator: 0.5})
    texts = {base.n_base: (verdict(base), what_next(worth, base, spending)) for base in worth.bases}
    assert all(text for _, text in texts.values())
    made = [(base, text) for base, (found, text) in texts.items() if found.kind == GENERATE]
    assert made
    for base, text in made:
        main = next(one.main for one in worth.bases if one.n_base == base)
        seconds = 100 + 0.5 * (main.value if main.kind == MATCHED else main.high)
        minutes = f"about {seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
        assert minutes in text
    none = Spending()
    assert all("device time" not in what_next(worth, base, none) for base in worth.bases
               if verdict(base).kind != OPEN)  # fmt: skip
