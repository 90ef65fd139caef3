"""Trials of one mix that share a request: each comes out as if it had been alone."""

import importlib
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from equigrid.grid import jobs
from equigrid.grid.ids import new_attempt
from equigrid.grid.jobs import trial
from equigrid.grid.jobs.checkpoints import Checkpoints, Leaving, leaving
from equigrid.grid.jobs.job import Stream
from equigrid.grid.store import layout, results

NEVER = 1e9
STEPS = 15
OF_THE_ATTEMPT = ("attempt", "seconds", "images_per_s", "started_at", "finished_at")


class Killed(BaseException):
    """Stands for the process's end: nothing may catch it."""


@pytest.fixture
def validated() -> bool:
    """Whether trainings look at a validation split; a test may ask for it by its parameters."""
    return True


@pytest.fixture
def three(mini, planned, request_of, validated):
    """Makes a store, and requests for the trials of three seeds on one mix."""

    def make(name: str, **options):
        mini["seeds"], mini["blocks"] = [0, 1, 2], [{"n_base": [60]}]
        if validated:
            mini["validation"] = {"images": 100, "every_epochs": 5}
        store, the_plan = planned(mini, name)
        every = [request_of(store, the_plan, job, **options) for job in the_plan.of_kind("trial")]
        return store, [replace(r, row={**r.row, "seed": r.payload.seed}) for r in every]

    return make


@pytest.fixture
def alone(three):
    """What the three come to one after another."""
    store, requests = three("alone", checkpoint_every_s=NEVER)
    assert [jobs.run(store, request)["status"] for request in requests] == ["ok"] * 3
    return rows(store)


def rows(store) -> dict[str, dict]:
    """By trial, without what no two attempts share."""
    return {
        row["trial_id"]: {key: row[key] for key in row if key not in OF_THE_ATTEMPT}
        for row in results.read(store).to_pylist()
    }


def kept(store) -> list[str]:
    return [name for name in store.list("checkpoints") if name.endswith(".pt")]


def statuses(outcomes: list[dict]) -> list[str]:
    return [outcome["status"] for outcome in outcomes]


def test_rows_are_those_of_trials_alone_and_add_up_to_the_time_that_went_by(three, alone):
    store, requests = three("together", checkpoint_every_s=NEVER)
    outcomes = jobs.run_together(store, requests)
    assert statuses(outcomes) == ["ok"] * 3
    assert [outcome["id"] for outcome in outcomes] == [request.id for request in requests]
    assert {outcome["together"] for outcome in outcomes} == {3}
    assert rows(store) == alone
    assert len({row["loss"] for row in alone.values()}) == 3  # three seeds, three trainings
    assert all(row["val_top1"] > 0 for row in alone.values())
    found = results.read(store).to_pylist()
    wall = (found[0]["finished_at"] - found[0]["started_at"]).total_seconds()
    assert sum(row["seconds"] for row in found) == pytest.approx(wall, rel=0.1)
    assert all(0 < o["training_s"] < o["seconds"] for o in outcomes)


@pytest.mark.long
@pytest.mark.parametrize("last", [0, 1, 2])
def test_killed_between_two_states_they_go_on_and_repeat_nothing(three, alone, monkeypatch, last):
    """After step 7 of the first `last + 1` of them, the other states are those of step 6."""
    store, requests = three("killed", checkpoint_every_s=0)
    save, saved = Checkpoints.save, []

    def save_and_die(self, step, state):
        save(self, step, state)
        saved.append((self.prefix, step))
        if self.prefix.endswith(requests[last].id) and step == STEPS // 2:
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        jobs.run_together(store, requests)
    assert len(kept(store)) == 6
    saved.clear()
    monkeypatch.setattr(
        Checkpoints,
        "save",
        lambda self, step, state: (saved.append((self.prefix, step)), save(self, step, state)),
    )
    again = [replace(request, attempt=new_attempt()) for request in requests]
    assert statuses(jobs.run_together(store, again)) == ["ok"] * 3
    for i, request in enumerate(requests):
        done = STEPS // 2 - (i > last)
        own = [step for prefix, step in saved if prefix.endswith(request.id)]
        assert own == list(range(done + 1, STEPS + 1))
    assert rows(store) == alone
    assert not kept(store)


def test_one_goes_on_alone_from_where_all_were_killed_and_two_from_where_it_was(
    three, alone, monkeypatch
):
    """A state is its trial's, whoever shared the request."""
    store, requests = three("apart", checkpoint_every_s=0)
    save = Checkpoints.save

    def die_at(last: int):
        def save_and_die(self, step, state):
            save(self, step, state)
            if self.prefix.endswith(requests[-1].id) and step == last:
                raise Killed

        return save_and_die

    monkeypatch.setattr(Checkpoints, "save", die_at(4))
    with pytest.raises(Killed):
        jobs.run_together(store, requests)
    monkeypatch.setattr(Checkpoints, "save", die_at(9))
    with pytest.raises(Killed):
        jobs.run(store, requests[-1])
    monkeypatch.setattr(Checkpoints, "save", save)
    assert statuses(jobs.run_together(store, requests)) == ["ok"] * 3
    assert rows(store) == alone


def test_told_to_leave_all_of_them_save_and_come_back(three, alone):
    store, requests = three("leaving", checkpoint_every_s=NEVER)
    leaving.set()
    try:
        outcomes = jobs.run_together(store, requests)
    finally:
        leaving.clear()
    assert statuses(outcomes) == ["retry"] * 3
    assert {(o["lost"], o["fresh_slot"], o["out_of_memory"]) for o in outcomes} == {
        (True, True, False)
    }
    assert all(Leaving.__name__ in outcome["error"] for outcome in outcomes)
    assert {name.split("/")[1] for name in kept(store)} == {request.id for request in requests}
    assert statuses(jobs.run_together(store, requests)) == ["ok"] * 3
    assert rows(store) == alone


@pytest.fixture
def nan_in(monkeypatch):
    """One seed's weights become NaN after its fifth step."""
    from equigrid.classifiers.training.step import Step

    def plant(number: int) -> None:
        call, made, done = Step.__call__, [], []

        def planted(self, batch, step):
            loss = call(self, batch, step)
            if self not in made:
                made.append(self)
            if made.index(self) == number:
                done.append(step)
                if len(done) == 5:
                    next(self.module.parameters()).data.fill_(float("nan"))
            return loss

        monkeypatch.setattr(Step, "__call__", planted)

    return plant


@pytest.mark.parametrize(
    ("validated", "error"),
    [
        (False, "NotFinite: the loss became nan in epoch 2, step 5: lower the learning rate"),
        (
            True,  # which looks earlier than at a chunk of losses
            "FloatingPointError: evaluation: the classifier gives logits that are not finite "
            "(loss nan)",
        ),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_a_seed_whose_loss_is_not_finite_fails_alone_in_its_own_row(
    three, alone, nan_in, number, error, caplog
):
    store, requests = three("nan", checkpoint_every_s=NEVER)
    nan_in(number)
    outcomes = jobs.run_together(store, requests)
    assert statuses(outcomes) == ["failed" if i == number else "ok" for i in range(3)]
    assert outcomes[number]["error"] == error
    assert "one by one" not in caplog.text
    found = rows(store)
    failed = found.pop(requests[number].id)
    assert failed["status"] == "failed"
    assert failed["top1"] is None
    assert failed["error"].startswith("Traceback (most recent call last)")
    assert failed["error"].rstrip().endswith(error)
    assert found == {id: row for id, row in alone.items() if id != requests[number].id}


def test_an_evaluation_that_fails_is_one_trials_own(three, alone, monkeypatch):
    store, requests = three("evaluation", checkpoint_every_s=NEVER)
    evaluate, asked = trial._evaluate, []

    def fails_second(module, request, device):
        asked.append(request.id)
        if len(asked) == 2:
            raise RuntimeError("planted")
        return evaluate(module, request, device)

    monkeypatch.setattr(trial, "_evaluate", fails_second)
    outcomes = jobs.run_together(store, requests)
    assert statuses(outcomes) == ["ok", "failed", "ok"]
    found = rows(store)
    assert "RuntimeError: planted" in found.pop(requests[1].id)["error"]
    assert found == {id: row for id, row in alone.items() if id != requests[1].id}


def test_what_none_of_them_survives_is_found_out_one_by_one(three, alone, monkeypatch, caplog):
    """An error of the loop itself names no seed: each goes on alone, and fails alone if it must."""
    from equigrid.classifiers.training import loop

    store, requests = three("one by one", checkpoint_every_s=NEVER)
    real = loop.train_together

    def planted(*images, seeds, **options):
        if len(seeds) > 1:
            raise RuntimeError("planted")
        return real(*images, seeds=seeds, **options)

    monkeypatch.setattr(loop, "train_together", planted)
    with caplog.at_level(logging.WARNING):
        assert statuses(jobs.run_together(store, requests)) == ["ok"] * 3
    assert "what was to run together runs one by one: RuntimeError: planted" in caplog.messages
    assert rows(store) == alone


def test_memory_that_did_not_suffice_for_all_costs_no_trial_a_try(three, monkeypatch):
    from equigrid.classifiers.training import loop

    store, requests = three("memory")

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "train_together", full)
    advice = ("status", "out_of_memory", "lost", "fresh_slot", "together")
    for outcome in jobs.run_together(store, requests):
        assert [outcome[key] for key in advice] == ["retry", True, True, True, 3]
    assert [jobs.run(store, requests[0])[key] for key in advice] == ["retry", True, False, True, 1]
    assert not rows(store)


def test_the_sleeping_trials_of_a_benchmark_are_taken_for_trials(three, monkeypatch):
    """benchmarks/scale.py measures the driver by them."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
    scale = importlib.import_module("scale")
    monkeypatch.setattr(trial, "fit", scale._sleep)
    monkeypatch.setattr(scale.ray, "get", lambda references: references)
    store, requests = three("asleep")
    assert statuses(jobs.run_together(store, requests[:1])) == ["ok"]
    (row,) = rows(store).values()
    assert row["steps"] == requests[0].payload.recipe.steps


def test_only_trials_of_one_mix_are_alike(three):
    _, requests = three("alike")
    payloads = [request.payload for request in requests]
    assert len({trial.mix_of(payload) for payload in payloads}) == 1
    one = payloads[0]
    changed = [
        replace(one, classifier="resnet20"),
        replace(one, real=replace(one.real, n=61)),
        replace(one, copies=trial.Copies(n=60)),
        replace(one, recipe=one.recipe.model_copy(update={"lr": 0.5})),
        replace(one, validation=None),
    ]
    assert len({trial.mix_of(payload) for payload in (one, *changed)}) == 1 + len(changed)
    assert trial.mix_of(replace(one, stream=Stream(window=4))) is None
    assert trial.mix_of(replace(one, zero_shot={"unseen": (1,)})) is None


def test_checkpoints_are_named_by_trial(three):
    _, requests = three("names")
    assert len({layout.checkpoints(request.id) for request in requests}) == 3
