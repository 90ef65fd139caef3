"""Ray Tune: a `Tuner` that tries candidates with ASHA and a searcher, on the cluster that the
process is connected to.

Ray keeps no truth. Each candidate says in the store what became of it (`grid/jobs/candidate.py`);
a search that is run again asks for the known ones first, in their order. They tell Ray Tune what
they told before, without training, so that searcher and scheduler know what they knew.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from equigrid.grid.jobs import candidate as candidates
from equigrid.grid.jobs.request import Request
from equigrid.grid.running import cluster
from equigrid.grid.running.budget import Budget
from equigrid.grid.spec import Execution
from equigrid.grid.store import Store, documents, layout
from equigrid.grid.tuning.generator_study import GeneratorStudy
from equigrid.grid.tuning.study import Study, decoded, encoded, suggesting
from equigrid.grid.tuning.told import Told

NUMBER = "number"  # of a confirmation, in what Ray Tune hands to its trainable
METRIC, TIME = "value", "progress"
STARTUP = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # what it would write is in the store
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt is ours to handle
    "TUNE_WARN_THRESHOLD_S": "1000",
    "RAY_AIR_NEW_OUTPUT": "0",
}
Requests = tuple[Request[Any], ...]
AnyStudy = Study | GeneratorStudy


@dataclass(frozen=True)
class Task:
    """What each trainable is told: the store, the study, and a request for each training."""

    store: Store
    study: AnyStudy
    requests: Requests


@dataclass(frozen=True)
class Ended:
    """How a round of candidates ended."""

    budget_reached: bool
    failures: tuple[str, ...]


def search(task: Task, execution: Execution, budget: Budget, told: Told) -> Ended:
    """Tries as many candidates as the study wishes; those that the store knows count, and are not
    trained again.
    """
    study, records = task.study, known(task.store, task.study.id)
    first = [found for record in records if (found := encoded(study.space, record.values))]
    own = encoded(study.space, study.own) if study.own is not None else None
    if own is not None and not first:
        first = [own]  # so that what is found is never worse by chance of the draw
    wish = study.wish
    done = [record for record in records if record.status in candidates.ENDED]
    if len(done) >= wish.trials:
        return Ended(False, ())
    # Drawn anew, since a searcher that starts again would draw what it drew before.
    search_alg = _searcher(study, first[: wish.trials], wish.seed + len(records))
    scheduler = ASHAScheduler(
        time_attr=TIME, max_t=study.most_progress, grace_period=1,
        reduction_factor=wish.reduction,
    )  # fmt: skip
    return _fit(
        task, _drawn, execution, budget, told, samples=wish.trials,
        search_alg=search_alg, scheduler=scheduler,
    )  # fmt: skip


def confirm(
    task: Task,
    recipes: Sequence[dict[str, Any] | None],
    execution: Execution,
    budget: Budget,
    told: Told,
) -> Ended:
    """Trains some recipes (values of the space; None: the grid's own) with fresh seeds, to their
    end.
    """
    rounds = [
        (values, replicate)
        for replicate in range(1, task.study.wish.confirm + 1)
        for values in recipes
        if not _is_known(task, values, replicate)
    ]
    if not rounds:
        return Ended(False, ())
    return _fit(
        task, _listed, execution, budget, told, samples=1, listed=rounds,
        param_space={NUMBER: tune.grid_search(list(range(len(rounds))))},
        scheduler=FIFOScheduler(),
    )  # fmt: skip


def _is_known(task: Task, values: dict[str, Any] | None, replicate: int) -> bool:
    """Whether the store has the end of a confirmation."""
    name = task.study.candidate(values, task.requests, replicate).place
    record = documents.readable(task.store, name, documents.CandidateRecord)
    return record is not None and record.status in candidates.ENDED


def known(store: Store, study_id: str) -> list[documents.CandidateRecord]:
    """What the store knows of a study's own candidates, in their order; not of confirmations."""
    return [record for record in records_of(store, study_id) if record.replicate == 0]


def records_of(store: Store, study_id: str) -> list[documents.CandidateRecord]:
    """All that the store knows of a study's candidates, in their order."""
    names = sorted(filter(layout.is_candidate, store.list(layout.study(study_id))))
    found = documents.read_all(store, names, documents.CandidateRecord)
    return sorted((one for one in found if one is not None), key=lambda one: one.started_at)


# What Ray Tune runs -------------------------------------------------------------------------------


def _drawn(config: dict[str, Any], task: Task) -> None:
    """One candidate of the search."""
    _train(task, decoded(task.study.space, config), 0)


def _listed(config: dict[str, Any], task: Task, listed: Sequence[tuple]) -> None:
    """One confirmation."""
    _train(task, *listed[config[NUMBER]])


def _train(task: Task, values: dict[str, Any] | None, replicate: int) -> None:
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    one = task.study.candidate(values, task.requests, replicate)
    candidates.train(
        task.store,
        one,
        lambda look: tune.report({**look, "candidate": one.id}),
        task.study.train_part,
    )


def _searcher(study: AnyStudy, first: list[dict[str, Any]], seed: int) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(
        space=suggesting(study.space), metric=METRIC, mode="max", seed=seed,
        points_to_evaluate=first or None,
    )  # fmt: skip


def _fit(
    task: Task,
    body: Callable[..., None],
    execution: Execution,
    budget: Budget,
    told: Told,
    *,
    samples: int,
    scheduler: Any,
    search_alg: Any = None,
    param_space: dict[str, Any] | None = None,
    listed: Sequence[tuple] | None = None,
) -> Ended:
    os.environ.update({k: v for k, v in STARTUP.items() if k not in os.environ})
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    gpus = cluster.gpus_of_a_slot(execution)
    room = cluster.Room(execution.cpus).slots(gpus)
    given = {"task": task} | ({"listed": listed} if listed is not None else {})
    trainable = tune.with_resources(
        tune.with_parameters(body, **given), {"cpu": execution.cpus, "gpu": gpus}
    )
    watching = Watching(task, budget, told, devices=gpus or 1)
    # Nothing of ours is kept where Ray Tune writes.
    with tempfile.TemporaryDirectory(prefix="equigrid-tune-") as scratch:
        tuner = tune.Tuner(
            trainable,
            param_space=param_space,
            tune_config=tune.TuneConfig(
                metric=METRIC, mode="max", num_samples=samples, search_alg=search_alg,
                scheduler=scheduler, max_concurrent_trials=max(1, execution.slots or room),
                reuse_actors=True, trial_name_creator=_Named(told.stage),
            ),
            run_config=tune.RunConfig(
                name="search", storage_path=scratch, verbose=0, callbacks=[watching],
                stop=watching.stopper,
                failure_config=tune.FailureConfig(max_failures=execution.retries),
            ),
        )  # fmt: skip
        with told:
            tuner.fit()
    return Ended(budget.is_reached(None, 0.0), tuple(watching.failures))


@dataclass(frozen=True)
class _Named:
    """What Ray's dashboard calls a candidate: by its stage, not by itself."""

    stage: str

    def __call__(self, trial: Trial) -> str:
        return f"tune:{self.stage}_{trial.trial_id}"


class _OfThisProcess:
    """What Ray Tune may copy, or pickle to go on with in another process, where we begin anew from
    the store: it is one and the same here, and nothing there.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Watching(_OfThisProcess, tune.Callback):
    """Counts what is held, notes in the store which candidates the search itself ended, and tells
    of all that ends.
    """

    def __init__(self, task: Task, budget: Budget, told: Told, devices: float) -> None:
        self._task, self._budget, self._told, self._devices = task, budget, told, devices
        self.stopper = _OverBudget(budget)
        self.failures: list[str] = []

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        running = sum(trial.status == Trial.RUNNING for trial in trials)
        self._budget.count(running * self._devices)
        self._told.running(running, time.monotonic())

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        result = trial.last_result or {}
        if self._budget.is_reached(None, 0.0) or "candidate" not in result:
            return  # it was not the search that ended it
        record = _ended(self._task, result["candidate"])
        if record is not None:
            if record.status == candidates.FAILED:
                self.failures.append(record.error or "it ended without a word")
            known = record.status in (candidates.FINISHED, candidates.STOPPED)
            value = self._task.study.sign * result[METRIC] if known else None
            self._told.ended(record.status, value)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        text = str(trial.get_error() or "it ended without a word").strip().splitlines()[-1]
        self.failures.append(text)
        self._told.ended(candidates.FAILED, None)


def _ended(task: Task, candidate_id: str) -> documents.CandidateRecord | None:
    """The record of a candidate that will not go on; one that was not trained to its end was
    stopped by the scheduler, and that is noted.
    """
    name = layout.candidate(task.study.id, candidate_id)
    record = documents.readable(task.store, name, documents.CandidateRecord)
    if record is not None and record.status == candidates.RUNNING:
        record = record.model_copy(update={"status": candidates.STOPPED})
        task.store.put_json(name, record.model_dump(mode="json"))
    return record


class _OverBudget(_OfThisProcess, tune.Stopper):
    """Ends all candidates once the budget is reached."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._budget.is_reached(None, 0.0)
