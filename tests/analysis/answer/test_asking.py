"""Questions: what narrows an answer, as trainings that a grid can run; and when it is answered."""

from dataclasses import replace

import pandas as pd
import pytest

from equigrid.analysis.answer.asking import Question, suggestions, why_open
from equigrid.analysis.conclusions.amounts import Amount
from equigrid.analysis.conclusions.worth import synthetic_worth
from equigrid.analysis.fitting import worlds as sim

SHAPES = {shape.name: shape for shape in sim.SHAPES}


def table(shape: str = "constant fraction", seed: int = 0, trial: float = 0.3) -> pd.DataFrame:
    simulation = sim.Simulation(sim.CIFAR10, SHAPES[shape])
    rows = simulation.table(seed, sim.NoiseLevels(trial))
    labels = {"dataset": "d", "classifier": "c", "recipe": "r", "setting": "closed"}
    rows = rows.assign(**labels)
    rows["arm"] = "base"
    for arm, column in (("real", "n_real_added"), ("syn", "n_syn"), ("copies", "n_copies")):
        rows.loc[rows.get(column, 0) > 0, "arm"] = arm
    if "trial_id" not in rows:
        rows["trial_id"] = [f"t{i}" for i in range(len(rows))]
    if "n_nominal" not in rows:
        rows["n_nominal"] = rows["n_base"]
    return rows.reset_index(drop=True)


def places(rows: pd.DataFrame) -> set[tuple]:
    columns = ["n_base", "n_real_added", "n_syn", "n_copies", "subset_seed", "seed"]
    return {tuple(int(value) for value in row) for row in rows[columns].fillna(0).to_numpy()}


def test_suggested_trainings_are_new_and_of_the_asked_base():
    rows = table()
    worth = synthetic_worth(rows, draws=200)["generator"]
    n_base = int(sorted(set(rows.n_base))[1])
    found = suggestions(worth, Question(n_base, n_base), steps=6)
    assert len(found) >= 3
    trainings = [one for suggested in found for one in suggested.trainings]
    had = places(rows)
    keys = [
        (t.n_base, t.n_real_added, t.n_syn, t.n_copies, t.subset_seed, t.seed) for t in trainings
    ]
    seeds = [(*key, t.generator_seed) for key, t in zip(keys, trainings)]
    assert len(set(seeds)) == len(seeds)  # none is asked for twice
    new_generators = {t.generator_seed for t in trainings} - {None, *rows.generator_seed.dropna()}
    assert not {k for k, t in zip(keys, trainings) if t.generator_seed not in new_generators} & had
    assert {t.n_base for t in trainings} == {n_base}
    cells = {key[:4] for key in had}
    assert {key[:4] for key in keys} <= cells  # only the grid's own places are repeated
    for one in found:
        assert 1 <= one.after < one.now
    assert [one.after for one in found] == sorted((one.after for one in found), reverse=True)


@pytest.mark.long
def test_trainings_with_images_have_a_generator_and_others_none():
    worth = synthetic_worth(table(), draws=200)["generator"]
    found = suggestions(worth, Question(5000, 5000), steps=8)
    for one in (t for suggested in found for t in suggested.trainings):
        assert (one.generator == "generator") == (one.n_syn > 0)
        assert (one.generator_seed is None) == (one.n_syn == 0)


def test_a_base_that_was_not_measured_is_named():
    worth = synthetic_worth(table(), draws=100)["generator"]
    with pytest.raises(ValueError, match="base 777 was not measured"):
        suggestions(worth, Question(777, 10))


def test_answered_means_narrow_enough_or_surely_never():
    question = Question(100, 50, within=1.5)
    known = Amount(100, 50, "g", "matched", 80, 60, 110, 0.95, 1.35, {}, False, None, False, (), ())
    assert question.is_answered(known)
    assert not question.is_answered(replace(known, factor=1.6))
    assert not Question(100, 50).is_answered(known)  # nothing was asked for: more is always better
    never = replace(known, kind="no amount does", value=None, high=None, factor=None)
    assert question.is_answered(replace(never, probability={"no amount does": 0.99}))
    assert not question.is_answered(replace(never, probability={"no amount does": 0.9}))
    assert why_open(replace(known, factor=1.6), question) == "known within ×1.6, asked for ×1.5"
