"""Runs in rounds: what they add, what they leave in the store, and that they go on after a stop."""

import io

import pytest
from rich.console import Console

from equigrid.analysis.answer.asking import Question
from equigrid.grid.errors import UserError
from equigrid.grid.planning.growth import start
from equigrid.grid.planning.pending import pending
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.recorded import recorded_spec
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting.analysis_bridge import read_table
from equigrid.grid.reporting.questions import costs, first_grid, worth_of
from equigrid.grid.running.rounds import run_until
from equigrid.grid.spec import GridSpec, load

ASKED = Question(60, 60, within=1.05)


@pytest.fixture
def small(mini, one_slot) -> GridSpec:
    return load(mini | {"blocks": [{"n_base": 60, "real": [1, 2], "syn": {"edm": [1, 2]}}]})


@pytest.mark.long
def test_rounds_add_trainings_to_an_ordinary_grid_that_goes_on(ray_here, small, store):
    said = io.StringIO()
    console = Console(file=said, width=200)
    one = run_until(small, store, ASKED, console=console, max_rounds=1)
    begun = plan(resolve(start(small), store))
    assert (one.rounds, one.known, one.trainings) == (1, False, len(begun.cells_by_trial()))
    assert one.suggested and one.amount is not None
    assert "round 1:" in said.getvalue()
    costs_and_worth_follow_from_what_ran(store, one.plan)
    two = run_until(small, store, ASKED, console=console, max_rounds=2)
    # the first round of the second call found its trainings done, and the second added to them
    assert two.trainings > one.trainings
    assert set(one.plan.cells) < set(two.plan.cells)
    recorded = recorded_spec(store, small.name)
    again = plan(resolve(recorded, store))
    assert set(again.jobs) == set(two.plan.jobs)
    assert pending(store, again)[0] == []  # an ordinary grid, finished
    assert first_grid(small, store, ASKED).blocks == recorded.blocks
    third = run_until(small, store, ASKED, console=console, max_device_hours=0.0)
    assert third.stopped in ("the budget is spent", "nothing that the grid could add narrows the "
                             "answer: " + third.stopped.partition("answer: ")[2])  # fmt: skip


def costs_and_worth_follow_from_what_ran(store, the_plan) -> None:
    table = read_table(store, the_plan)
    assert worth_of(table, ASKED).generator == "edm"
    spent = costs(store, the_plan)
    assert spent.trial > 0
    assert spent.generator > 0
    with pytest.raises(UserError, match="no training with synthetic images"):
        worth_of(table[table["arm"] == "base"], ASKED)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question(61, 60, 1.5), "n_base 61 is no base size of the grid; it has 60"),
        (Question(60, 60, 1.5, generator="sd3"), "generator 'sd3': the grid adds images of edm"),
        (Question(60, 60, 1.5, classifier="x"), "classifier 'x': the grid has digits-cnn"),
    ],
)
def test_what_the_grid_does_not_have_is_named(small, store, question, message):
    with pytest.raises(UserError, match=message):
        first_grid(small, store, question)


def test_how_narrow_is_enough_must_be_said(small, store):
    with pytest.raises(UserError, match=r"within=FACTOR is missing"):
        run_until(small, store, Question(60, 60), console=Console(file=io.StringIO()))
