"""What a search is of: which trainings each candidate goes through, and all that determines it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from equigrid.classifiers import recipes
from equigrid.classifiers.names import canonical
from equigrid.classifiers.recipes import ARMS, Recipe
from equigrid.grid.errors import UserError, near
from equigrid.grid.ids import content_id, seed_of
from equigrid.grid.jobs import trial
from equigrid.grid.jobs.candidate import Candidate
from equigrid.grid.jobs.classifier import Classifier
from equigrid.grid.jobs.request import Request
from equigrid.grid.jobs.trial import TrialPayload
from equigrid.grid.planning.graph import Cell, Job, Plan
from equigrid.grid.planning.resolve import Resolved
from equigrid.grid.spec import GridSpec
from equigrid.grid.spec.tuning import Tune
from equigrid.grid.tuning.space import (
    Dimension,
    Values,
    applied,
    as_json,
    default_space,
    present,
    space_of,
)

WHOLE = "base"  # the arm whose recipe a grid takes as a whole


@dataclass(frozen=True)
class Training:
    """One training of each candidate: a trial of the grid, of which the recipe is the
    candidate's. classifier: the grid's, with what it does otherwise than the recipe.
    """

    cell: Cell
    job: Job
    classifier: Classifier

    @property
    def payload(self) -> TrialPayload:
        return self.job.payload


@dataclass(frozen=True)
class Study:
    """The search for the recipe of an arm. recipe: the grid's own, which it starts from. known: its
    name. n_dataset: real images that may be trained on.
    """

    arm: str
    trainings: tuple[Training, ...]
    space: tuple[Dimension, ...]
    recipe: Recipe
    known: str
    n_dataset: int
    wish: Tune

    sign = 1.0  # of what is shown
    train_part = None  # a classifier's

    @property
    def metric(self) -> str:
        """What is made large, in words."""
        return self.wish.metric.replace("_", " ")

    @property
    def id(self) -> str:
        """Of all that determines it, but the number of candidates: a search can be gone on with."""
        return content_id(
            "study",
            {
                "arm": self.arm,
                "trainings": [self._template(training) for training in self.trainings],
                "space": [as_json(dimension) for dimension in self.space],
                "recipe": self.recipe.model_dump(mode="json", exclude_none=True),
                "metric": self.wish.metric,
                "looks": self.wish.looks,
                "reduction": self.wish.reduction,
                "seed": self.wish.seed,
            },
        )

    @staticmethod
    def _template(training: Training) -> dict[str, Any]:
        return {k: v for k, v in training.payload.identity().items() if k not in ("recipe", "seed")}

    @property
    def most_progress(self) -> int:
        """Looks at a candidate that is trained to its end."""
        return self.wish.looks * len(self.trainings)

    @property
    def own(self) -> Values | None:
        """The grid's own recipe as values of the space; None where it lies outside."""
        return present(self.recipe, self.space)

    @property
    def needs(self) -> list[str]:
        """The ids of the jobs whose outputs its trainings read."""
        return [need for training in self.trainings for need in training.job.needs]

    def recipe_with(self, values: Values | None) -> Recipe:
        """The recipe with a candidate's values; None: the grid's own. Raises ValueError."""
        return self.recipe.for_arm(self.arm) if values is None else applied(self.recipe, values)

    def candidate(
        self, values: Values | None, requests: tuple[Request[TrialPayload], ...], replicate: int = 0
    ) -> Candidate:
        """The candidate of some values of the space; None: the grid's own recipe. requests: one
        for each training. replicate: the number of a fresh seed; 0 in the search. Raises ValueError
        for values that the recipe does not take.
        """
        study, recipe = self.id, self.recipe_with(values)
        identity = {"study": study, "values": values, "replicate": replicate}
        return Candidate(
            id=content_id("candidate", identity), study=study, values=values or {},
            replicate=replicate, label="own" if values is None else "tuned",
            metric=self.wish.metric, looks=self.wish.looks,
            requests=tuple(
                self._request(training, request, recipe, content_id("candidate", identity))
                for training, request in zip(self.trainings, requests, strict=True)
            ),
        )  # fmt: skip

    def _request(
        self, training: Training, request: Request[TrialPayload], recipe: Recipe, candidate: str
    ) -> Request[TrialPayload]:
        payload, cell = training.payload, training.cell
        resolved = recipes.resolve(
            recipe, n_base=cell.n_base, n_total=cell.n_total, n_dataset=self.n_dataset,
            classifier=payload.classifier,
        )  # fmt: skip
        settled = training.classifier.settled(resolved)
        own = replace(payload, recipe=settled, seed=seed_of(candidate, "seed"))
        return replace(request, id=candidate, payload=own)


def studies_of(spec: GridSpec, wish: Tune, the_plan: Plan, n_dataset: int) -> list[Study]:
    """The searches of a grid, one, or one for each arm that it has. Raises UserError."""
    check(spec, wish, the_plan.resolved)
    resolved = the_plan.resolved
    assert resolved.shape is not None, "its dataset is read"
    recipe = resolved.recipes[resolved.recipe_name]
    side = max(resolved.shape.height, resolved.shape.width)
    found = []
    for arm in _arms(the_plan) if wish.per_arm else (WHOLE,):
        trainings = _trainings(the_plan, wish, arm)
        own = recipe.for_arm(arm)
        smallest = min(training.cell.n_total for training in trainings)
        wished = default_space(own, side, smallest) if wish.space is None else wish.space
        space = space_of(wished, own, "tune.space")
        _check_settings(trainings, space)
        found.append(Study(arm, trainings, space, own, resolved.recipe_name, n_dataset, wish))
    return found


# What is refused ----------------------------------------------------------------------------------


def check(spec: GridSpec, wish: Tune, resolved: Resolved) -> None:
    """Raises UserError for a grid of which no recipe can be searched."""
    if spec.zero_shot:
        raise UserError("tune: a zero_shot grid has no validation images of its unseen classes")
    if spec.validation is None:
        raise UserError(f"tune: {spec.name} holds no validation images out; {_proposed(resolved)}")
    if spec.execution.workers_of("trial") > 1:
        raise UserError(
            "tune: execution.workers.trial: a search trains each candidate on one device; leave it "
            "out"
        )
    name, known = wish.classifier, resolved.classifiers
    if name and canonical(name) not in map(canonical, known):
        has = f"the grid has {', '.join(known)}{near(name, known)}"
        raise UserError(f"tune.classifier: {name!r} is none of the grid's; {has}")
    if wish.metric in ("sensitivity", "specificity") and resolved.shape is not None:
        classes = len(resolved.shape.classes)
        if classes != 2:
            raise UserError(f"tune.metric: {wish.metric} is of two classes, not {classes}")


def _check_settings(trainings: Iterable[Training], space: Iterable[Dimension]) -> None:
    """Raises UserError where a classifier sets by itself what the search would change."""
    searched = {one.name.partition(".")[0] for one in space}
    for training in trainings:
        if both := [name for name in training.classifier.settings if name in searched]:
            names = " and ".join(both)
            raise UserError(
                f"tune.space: {training.classifier.name} sets {names} by itself, which no search "
                f"changes; leave {names} out of its own recipe (classifiers: recipe), or write a "
                f"tune.space without {names}"
            )


def _proposed(resolved: Resolved) -> str:
    """What to write where a spec has no validation."""
    shape = resolved.shape
    if shape is not None and shape.n_val:
        return "write validation: {images: own}, the split that the dataset brings"
    n = 500 if shape is None else max(len(shape.classes), round(shape.n_train / 8))
    return f"write validation: {{images: {n}}}, which no base then has (it makes other trials)"


def check_validation(the_plan: Plan, n_classes: int) -> None:
    """Raises UserError where the validation images cannot tell recipes apart."""
    validation, shape = the_plan.resolved.spec.validation, the_plan.resolved.shape
    assert validation is not None
    assert shape is not None
    n = shape.n_val if validation.images == "own" else validation.images
    if n < 2 * n_classes:
        what = f"{n:,} images cannot tell recipes of {n_classes} classes apart"
        raise UserError(f"validation.images: {what}; write at least {10 * n_classes:,}")


# Which trainings ----------------------------------------------------------------------------------


def _arms(the_plan: Plan) -> list[str]:
    """The arms of a grid, those that a recipe can tell apart."""
    there = {cell.arm for cell in the_plan.cells}
    return [arm for arm in ARMS if arm in there]


def _trainings(the_plan: Plan, wish: Tune, arm: str) -> tuple[Training, ...]:
    """Of each base size, the smallest first, the trial of the arm that adds as much as the base
    has, or next to it; with the first of all seeds.
    """
    known = the_plan.resolved.classifiers
    classifier = wish.classifier or next(iter(known))
    cells = [
        cell
        for cell in the_plan.cells
        if cell.arm == arm
        and canonical(cell.classifier) == canonical(classifier)
        and cell.n_base
        and cell.by_class is None
    ]
    own = [cell for cell in cells if cell.recipe == the_plan.resolved.recipe_name]
    chosen: dict[int, Cell] = {}
    for cell in own or cells:
        if cell.n_base not in chosen or _apart(cell) < _apart(chosen[cell.n_base]):
            chosen[cell.n_base] = cell
    if not chosen:
        right = "search per arm (per_arm: true, --per-arm), or let a block run its base"
        raise UserError(f"tune: no block trains {classifier} on the base images alone; {right}")
    return tuple(
        Training(cell, the_plan.jobs[cell.trial_id], known[cell.classifier])
        for _, cell in sorted(chosen.items())
    )


def _apart(cell: Cell) -> float:
    """How far what is added is from as much as there is, as a factor's logarithm. Of equal ones
    the first counts: the first generator, and the first seeds.
    """
    added = cell.n_total - cell.n_base
    return abs(math.log(added / cell.n_base)) if added else 0.0


def needed(the_plan: Plan, needs: Iterable[str], *others: Job) -> dict[str, Job]:
    """The jobs that must have run before the searches: these of a grid by their ids, others, and
    all that they need.
    """
    wanted: dict[str, Job] = {}
    every = {**the_plan.jobs, **{job.id: job for job in others}}
    left = [*needs, *(job.id for job in others)]
    while left:
        job = every[left.pop()]
        if job.id not in wanted:
            assert job.kind != trial.KIND.name, "no trial is read"
            wanted[job.id] = job
            left.extend(job.needs)
    return {job_id: job for job_id, job in every.items() if job_id in wanted}


def decoded(space: tuple[Dimension, ...], config: Mapping[str, Any]) -> Values:
    """From what a searcher draws, in which a choice is its number, to values."""
    return {one.name: _decoded(one, config[one.name]) for one in space}


def _decoded(one: Dimension, drawn: Any) -> Any:
    if isinstance(one.varied, tuple):
        return one.varied[int(drawn)]
    return int(drawn) if one.whole else float(drawn)


def encoded(space: tuple[Dimension, ...], values: Values) -> dict[str, Any] | None:
    """The other way; None for values that are not in the space any more."""
    if any(one.name not in values or not one.has(values[one.name]) for one in space):
        return None
    return {
        one.name: one.varied.index(values[one.name])
        if isinstance(one.varied, tuple)
        else values[one.name]
        for one in space
    }


def suggesting(space: tuple[Dimension, ...]) -> Callable[[Any], None]:
    """The space as Optuna is asked in: a function of one of its trials."""
    return _Suggesting(space)


@dataclass(frozen=True)
class _Suggesting:
    space: tuple[Dimension, ...]

    def __call__(self, trial_: Any) -> None:
        for one in self.space:
            varied = one.varied
            if isinstance(varied, tuple):
                trial_.suggest_categorical(one.name, list(range(len(varied))))
            elif one.whole:
                step = int(varied.step or 1)
                trial_.suggest_int(one.name, varied.low, varied.high, step=step, log=varied.log)
            else:
                step_ = varied.step and float(varied.step)
                trial_.suggest_float(one.name, varied.low, varied.high, step=step_, log=varied.log)
