"""A candidate of a search for a recipe: trained on each base of the search, one after another, and
looked at on validation images alone.

It is no job of a grid: Ray Tune runs it (`equigrid.grid.tuning`), and may end it after any look.
What it is told has no test images at all. All that is known of it is in the store, written before
Ray Tune hears of it: what ended is told again and never trained again, and what was under way goes
on from its checkpoint.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from equigrid.grid.errors import StoreError
from equigrid.grid.ids import seed_of
from equigrid.grid.jobs import inputs, trial
from equigrid.grid.jobs.checkpoints import Checkpoints, Saving
from equigrid.grid.jobs.provenance import device_name, device_of, provenance
from equigrid.grid.jobs.request import Request
from equigrid.grid.store import Store, documents, layout

if TYPE_CHECKING:
    from equigrid.classifiers.evaluation import Evaluation

RUNNING, FINISHED, STOPPED, DIVERGED, FAILED = (
    "running", "finished", "stopped", "diverged", "failed",
)  # fmt: skip
ENDED = (FINISHED, STOPPED, DIVERGED)  # never trained again
Report = Callable[[Mapping[str, Any]], object]
TrainPart = Callable[["Progress", int, Report], None]
LOOKED_AT = ("top1", "balanced_accuracy", "macro_f1", "auc", "sensitivity", "specificity")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One recipe, to be tried. requests: a training each, in order. values: of the search space.
    replicate: 0 in the search, else the number of a fresh seed. looks: at the validation images in
    each training. label: whose recipe it is, for people. worst: the value of one that failed.
    measuring: how a generator is looked at; None for a recipe.
    """

    id: str
    study: str
    values: Mapping[str, Any]
    replicate: int
    label: str
    metric: str
    looks: int
    requests: tuple[Request[Any], ...]
    worst: float = 0.0
    measuring: object = None

    @property
    def place(self) -> str:
        """Where its record lies in the store."""
        return layout.candidate(self.study, self.id)


@dataclass
class Progress:
    """What is known of a candidate, kept in the store."""

    store: Store
    candidate: Candidate
    status: str = RUNNING
    error: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds_before: float = 0.0
    started_at: str = ""

    @classmethod
    def of(cls, store: Store, candidate: Candidate) -> "Progress":
        """As the store has it; what failed begins where it was."""
        kept = documents.readable(store, candidate.place, documents.CandidateRecord)
        if kept is None:
            return cls(store, candidate, started_at=datetime.now(UTC).isoformat())
        status = kept.status if kept.status in ENDED else RUNNING
        history = [dict(look) for look in kept.history]
        return cls(store, candidate, status, None, history, kept.seconds, kept.started_at)

    def __post_init__(self) -> None:
        self._clock = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of training, in all attempts."""
        return self.seconds_before + time.perf_counter() - self._clock

    @property
    def reached(self) -> float:
        """The progress of the last look; 0 before the first."""
        return self.history[-1]["progress"] if self.history else 0.0

    def write(self) -> None:
        """Raises StoreError."""
        one = self.candidate
        record = {
            "study": one.study, "values": dict(one.values),
            "replicate": one.replicate, "label": one.label, "status": self.status,
            "error": self.error, "history": self.history, "seconds": self.seconds,
            "device": device_name(device_of(one.requests[0])),
            "versions": provenance(one.requests[0])["versions"], "started_at": self.started_at,
        }  # fmt: skip
        self.store.put_json(one.place, record)


def check(request: Request[Any]) -> None:
    """Raises Leak for a request with which a search could see the test split."""
    if request.test.n or request.test.handles:
        raise inputs.Leak(f"{request.id}: a search is given no test images")


def train(
    store: Store, candidate: Candidate, report: Report, train_part: TrainPart | None = None
) -> None:
    """Trains a candidate and reports each look: `progress` (looks so far), `value` (the metric's
    mean over the bases so far, in percent), `seconds`, and more.

    train_part: does one of its trainings; None: a classifier's. What a training raises ends it with
    the worst value, and the record says why: a loss that is not finite is a recipe that diverges,
    which is known then; all else the next search tries again. What is no Exception, such as the end
    of its process, ends it where it is. Raises StoreError.
    """
    for request in candidate.requests:
        check(request)
    from equigrid.classifiers.training import loop  # before the clock  # noqa: F401

    known = Progress.of(store, candidate)
    for look in known.history:
        report(look)
    if known.status in ENDED:
        return
    known.write()
    try:
        for part in range(len(candidate.requests)):
            if known.reached < (part + 1) * candidate.looks:
                (train_part or _train_part)(known, part, report)
    except StoreError:
        raise  # another attempt may mend it
    except Exception as error:
        diverged = isinstance(error, FloatingPointError)
        known.status = DIVERGED if diverged else FAILED
        known.error = str(error) if diverged else f"{type(error).__name__}: {error}"
        last = {"progress": known.reached + 1, "value": candidate.worst, "seconds": known.seconds}
        if diverged:
            known.history.append(last)
        known.write()
        report(last)


def _train_part(known: Progress, part: int, report: Report) -> None:
    """One training of a candidate, from its last checkpoint on."""
    from equigrid.classifiers.training import loop

    candidate, store = known.candidate, known.store
    request = candidate.requests[part]
    payload, device = request.payload, device_of(request)
    steps = payload.recipe.total_steps(payload.n_total)

    def told(step: int, evaluation: "Evaluation") -> None:
        progress = round(candidate.looks * (part + step / steps), 4)
        if progress > known.reached:  # else an earlier attempt told of it
            found = {name: trial.known(getattr(evaluation, name)) for name in LOOKED_AT}
            facts = {**found, "step": step, "n_total": payload.n_total, "loss": evaluation.loss}
            note(known, part, progress, found[candidate.metric] or 0.0, facts, report)

    validation = trial.validation(request)
    assert validation is not None, "check asks for one"
    checkpoints = checkpoints_of(store, candidate, part)
    images = inputs.mix(request, trial.training_parts(request), payload.stream)
    with Saving(checkpoints, every_s=request.checkpoint_every_s, steps=steps) as saving:
        loop.train(
            images, model=payload.classifier, recipe=payload.recipe, classes=request.classes,
            seed=seed_of(candidate.id, "training", part), device=device,
            resume=checkpoints.load(), checkpoint=saving,
            validation=loop.Validation(
                validation.mix, every_steps=-(-steps // candidate.looks), told=told
            ),
        )  # fmt: skip


def note(
    known: Progress, part: int, progress: float, now: float, facts: dict[str, Any], report: Report
) -> None:
    """A look at one of a candidate's trainings: written, then reported. now: what is made large, of
    this training; the value is its mean with those of the trainings before.
    """
    candidate = known.candidate
    values = [*(_of_part(known.history, before) for before in range(part)), now]
    known.history.append(
        {
            **facts, "progress": progress, "value": sum(values) / len(values), "part": part,
            "of_part": now, "seconds": known.seconds,
        }
    )  # fmt: skip
    if progress >= candidate.looks * len(candidate.requests):
        known.status = FINISHED  # now: the last report may be where the scheduler ends it
    known.write()
    report(known.history[-1])


def _of_part(history: list[dict[str, Any]], part: int) -> float:
    """The metric at the end of an earlier training."""
    return [look for look in history if look.get("part") == part][-1]["of_part"]


def checkpoints_of(store: Store, candidate: Candidate, part: int) -> Checkpoints:
    """Of one of its trainings."""
    return Checkpoints(store, layout.candidate_checkpoints(candidate.study, candidate.id, part))
