"""One search from its lock to its outcome: what the command line and Python both do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from equigrid.grid.errors import UserError
from equigrid.grid.ids import new_attempt
from equigrid.grid.jobs import Request
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.jobs.request import Images
from equigrid.grid.planning import planner
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting.summary import Summary
from equigrid.grid.running import cluster
from equigrid.grid.running.budget import Budget
from equigrid.grid.running.dispatch import queue_of
from equigrid.grid.running.driver import Driver
from equigrid.grid.running.interrupts import terminating_signals_interrupt
from equigrid.grid.running.outputs import Outputs
from equigrid.grid.running.preparation import prepared
from equigrid.grid.running.shard_cache import ShardCache, lanes_of
from equigrid.grid.spec import GridSpec
from equigrid.grid.spec.tuning import Tune
from equigrid.grid.store import Store, layout, lock
from equigrid.grid.tuning import search
from equigrid.grid.tuning.generator_study import (
    Aim,
    GeneratorStudy,
    GeneratorTraining,
    generator_study,
)
from equigrid.grid.tuning.outcome import Outcome
from equigrid.grid.tuning.study import Study, Training, check, check_validation, needed, studies_of
from equigrid.grid.tuning.told import Told

AnyStudy = Study | GeneratorStudy


@dataclass(frozen=True)
class Tuned:
    """What a session did. summary: of the grid's jobs that had to run before; None where none had
    to. failures: of candidates, a line each, and of those jobs. interrupted: by a signal.
    """

    plan: Plan
    outcomes: tuple[Outcome, ...]
    summary: Summary | None
    failures: tuple[str, ...] = ()
    budget_reached: bool = False
    interrupted: bool = False
    device_s: float = 0.0


def tune(
    spec: GridSpec,
    store: Store,
    *,
    console: Console,
    tell: Callable[[str], None],
    address: str | None = None,
    dashboard: bool = True,
    max_device_hours: float | None = None,
    takeover: bool = False,
    last_word: Callable[[str], None] | None = None,
    aim: Aim | None = None,
) -> Tuned:
    """Searches what the spec's `tune` says, under the grid's lock: first the grid's jobs that its
    trainings read, then the candidates, then the best again with fresh seeds. What the store knows
    of an earlier session is not done again. aim: a generator in place of a recipe.

    An interrupt ends it early. Raises UserError, StoreError, ClusterError; UnavailableError if
    another driver runs the grid.
    """
    wish = spec.tune or Tune()
    spec = spec.model_copy(update={"tune": wish})
    early_check(spec, wish, store, aim)
    with (
        terminating_signals_interrupt(),
        lock.acquire(store, spec.name, takeover=takeover, tell=tell) as held,
        cluster.connected(address, dashboard=dashboard, last_word=last_word),
    ):
        the_plan = prepared(spec, store, console)
        session = _Session(the_plan, store, wish, console, max_device_hours, held, aim)
        try:
            session.run()
        except KeyboardInterrupt:
            session.interrupted = True
        return session.tuned()


def early_check(spec: GridSpec, wish: Tune, store: Store, aim: Aim | None) -> None:
    """What is wrong with a search is said before Ray starts. Raises UserError."""
    resolved = resolve(spec, store)
    check(spec, wish, resolved)
    if resolved.shape is not None:
        _studies(planner.plan(resolved), wish, aim)


def _studies(the_plan: Plan, wish: Tune, aim: Aim | None) -> list[AnyStudy]:
    """The searches of a grid whose dataset's shape is known. Raises UserError."""
    resolved = the_plan.resolved
    assert resolved.shape is not None, "its shape is known"
    check_validation(the_plan, len(resolved.shape.classes))
    facts = planner.facts(resolved)
    if aim is None:
        return [*studies_of(resolved.spec, wish, the_plan, facts.n_train)]
    if wish.per_arm:
        raise UserError("--generator: a generator is searched once, not per arm; leave that out")
    return [generator_study(resolved.spec, wish, aim.generator, the_plan, facts, aim.space)]


class _Session:
    """The searches of one plan, one after another."""

    def __init__(
        self,
        the_plan: Plan,
        store: Store,
        wish: Tune,
        console: Console,
        max_device_hours: float | None,
        held: lock.Lock,
        aim: Aim | None,
    ) -> None:
        self.plan, self.store, self.wish = the_plan, store, wish
        self.console, self.lock = console, held
        self.studies = _studies(the_plan, wish, aim)
        self.limit_s = None if max_device_hours is None else 3600 * max_device_hours
        self.used_s = 0.0
        self.summary: Summary | None = None
        self.failures: list[str] = []
        self.budget_reached = self.interrupted = False

    def run(self) -> None:
        """Raises KeyboardInterrupt where a signal came."""
        self._inputs()
        if self.failures or self.budget_reached:
            return
        nodes = max(1, len(cluster.alive_nodes()))
        cache = ShardCache(self.store, lanes=nodes * lanes_of(self.plan))
        outputs = Outputs(self.plan, self.store, cache, queue_of(self.plan, []))
        for study in self.studies:
            requests = tuple(
                request_of(self.plan, training, outputs, cache) for training in study.trainings
            )
            self._search(search.Task(self.store, study, requests))
            if self.budget_reached:
                return

    def _inputs(self) -> None:
        """The datasets, generators and pools that the trainings read, as the grid makes them."""
        needs = [need for study in self.studies for need in study.needs]
        others = [one.reference for one in self.studies if isinstance(one, GeneratorStudy)]
        jobs = needed(self.plan, needs, *others)
        part = replace(self.plan, jobs=jobs, cells=[], wanted=frozenset(jobs))
        left = None if self.limit_s is None else self.limit_s / 3600
        driver = Driver(part, self.store, self.console, None, left, self.lock)
        if not driver.has_work:
            driver.attempts.close()
            return
        with driver:
            driver.start(None)
            driver.loop()
        self.summary = driver.summary
        self.used_s += driver.summary.device_s
        self.budget_reached = driver.summary.budget_reached
        self.failures += [f"{one.kind} {one.id}: {one.error}" for one in driver.summary.failures]
        if driver.summary.interrupted:
            raise KeyboardInterrupt

    def _search(self, task: search.Task) -> None:
        study, execution = task.study, self.plan.resolved.spec.execution
        name = f"{self.plan.resolved.source.name}:{study.arm}"
        how: dict[str, Any] = {"metric": study.metric, "lower": study.sign < 0}
        with self._budget() as budget:
            told = Told(self.console, name, self.wish.trials, **how)
            self._took(search.search(task, execution, budget.budget, told))
        outcome = self._outcome(study)
        if self.budget_reached or outcome.best is None or not self.wish.confirm:
            return
        # The grid's own too, so that it is said what the search brought.
        recipes: list[dict[str, Any] | None] = [None, outcome.best.values]
        if outcome.best.values == study.own:
            recipes = [outcome.best.values]
        with self._budget() as budget:
            total = self.wish.confirm * len(recipes)
            told = Told(self.console, f"{name}:fresh-seeds", total, **how)
            self._took(search.confirm(task, recipes, execution, budget.budget, told))
        if not self.budget_reached:
            self.store.delete(*self.store.list(layout.study_checkpoints(study.id)))

    def _took(self, ended: search.Ended) -> None:
        self.failures += ended.failures
        self.budget_reached |= ended.budget_reached

    def _budget(self) -> "_Counted":
        left = None if self.limit_s is None else max(0.0, self.limit_s - self.used_s)
        return _Counted(self, Budget(left))

    def _outcome(self, study: AnyStudy) -> Outcome:
        return Outcome(study, tuple(search.records_of(self.store, study.id)))

    def tuned(self) -> Tuned:
        """What came of it, by the store."""
        return Tuned(
            self.plan, tuple(self._outcome(study) for study in self.studies), self.summary,
            tuple(self.failures), self.budget_reached, self.interrupted, self.used_s,
        )  # fmt: skip


class _Counted:
    """What a round used is counted, however it ends."""

    def __init__(self, session: _Session, budget: Budget) -> None:
        self._session, self.budget = session, budget

    def __enter__(self) -> "_Counted":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.used_s += self.budget.used_s


# Requests without test images ---------------------------------------------------------------------


def request_of(
    the_plan: Plan, training: Training | GeneratorTraining, outputs: Outputs, cache: ShardCache
) -> Request[Any]:
    """What a candidate's training is told: all that the grid's trial is told, but for the test
    images, which nobody who searches may see. Raises UserError where a shard is gone.
    """
    job, execution, dataset = training.job, the_plan.resolved.spec.execution, outputs.dataset
    if (absent := outputs.absent(job)) is not None:
        raise UserError(f"{absent}: a pool's shard is damaged or gone; run the search again")
    reads = KINDS[job.kind].reads(job.payload) - {"test"}
    validation = the_plan.resolved.spec.validation
    reads |= {"val"} if validation and validation.images == "own" else {"train"}
    name = the_plan.resolved.source.name

    def images(refs: Sequence[Any]) -> Images:
        handles = tuple(cache.handle(ref, name) for ref in refs)
        return Images(handles, tuple(ref.n for ref in refs))

    given = {"train": dataset.train, "syn": outputs.shards_for(job), "val": dataset.val}
    parts: dict[str, Any] = {part: images(refs) for part, refs in given.items() if part in reads}
    return Request(
        id=job.id, kind="candidate", payload=job.payload, attempt=new_attempt(),
        class_names=dataset.shape.classes, image_shape=dataset.shape.image,
        labels=cache.labels(dataset), repeated=dataset.repeated,
        gpus=cluster.gpus_of_a_slot(execution), cpus=execution.cpus, threads=execution.threads,
        checkpoint_every_s=execution.checkpoint_every_s, energy=execution.energy,
        **parts,
    )  # fmt: skip
