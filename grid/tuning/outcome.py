"""What came of a search: the candidates as a table, the best recipe, how uncertain it is, and what
mattered.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from equigrid.grid.jobs.candidate import DIVERGED, FINISHED
from equigrid.grid.store.documents import CandidateRecord
from equigrid.grid.tuning.generator_study import GeneratorStudy
from equigrid.grid.tuning.space import Values
from equigrid.grid.tuning.study import Study, encoded

LEAST_FOR_IMPORTANCE = 8  # candidates: of fewer, a share of the variance says nothing
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Reached:
    """What a recipe reached with fresh seeds, in percent: their mean, and half the width of its 95%
    interval (Student's t over the seeds; nan for one).
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def half_width(self) -> float:
        from scipy.stats import t

        n = len(self.values)
        if n < 2:
            return math.nan
        deviation = float(np.std(self.values, ddof=1))
        return float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)

    def __str__(self) -> str:
        seeds = f"{len(self.values)} fresh seed{'s' if len(self.values) > 1 else ''}"
        if len(self.values) < 2:
            return f"{self.mean:.2f} ({seeds})"
        return f"{self.mean:.2f} ± {self.half_width:.2f} (95%, {seeds})"

    def to_json(self) -> dict[str, Any]:
        width = self.half_width
        return {
            "mean": round(self.mean, 4),
            "half_width_95": None if math.isnan(width) else round(width, 4),
            "values": [round(value, 4) for value in self.values],
        }


@dataclass(frozen=True)
class Outcome:
    """A study and what the store knows of its candidates."""

    study: Study | GeneratorStudy
    records: tuple[CandidateRecord, ...]

    @property
    def searched(self) -> list[CandidateRecord]:
        """The search's own candidates, in the order in which they began."""
        return [record for record in self.records if record.replicate == 0]

    @property
    def finished(self) -> list[CandidateRecord]:
        """Those that were trained to their end."""
        return [record for record in self.searched if record.status == FINISHED]

    @property
    def best(self) -> CandidateRecord | None:
        """The one with the highest value among those that were trained to their end."""
        return max(self.finished, key=value_of, default=None)

    @property
    def seconds(self) -> float:
        """Of training, of all candidates and confirmations."""
        return sum(record.seconds for record in self.records)

    def shown(self, record: CandidateRecord) -> float:
        """What a candidate reached at its last look, as people know it."""
        return self.study.sign * value_of(record)

    def reached(self, values: Values | None) -> Reached | None:
        """What the recipe of these values (None: the grid's own) reached with fresh seeds."""
        label = "own" if values is None else "tuned"
        found = [
            self.shown(record)
            for record in self.records
            if record.replicate and record.label == label and record.status in (FINISHED, DIVERGED)
            and (values is None or record.values == values)
        ]  # fmt: skip
        return Reached(tuple(found)) if found else None

    @property
    def gain(self) -> Reached | None:
        """Tuned less own, seed by seed; None where they were not confirmed."""
        best = self.best
        tuned, own = self.reached(best.values if best else None), self.reached(None)
        if best is None or tuned is None or own is None or len(tuned.values) != len(own.values):
            return None
        return Reached(tuple(a - b for a, b in zip(tuned.values, own.values)))

    def table(self) -> pd.DataFrame:
        """A row for each candidate: `arm`, `candidate` (its number), `status`, `value` (the
        metric's mean over the bases, in percent, at its last look), `progress` (1: trained to its
        end), `first` (the value at its first look), `seconds` of training, `replicate`, `label`,
        and the values of the space.
        """
        rows = [
            {
                "arm": self.study.arm, "candidate": number, "replicate": record.replicate,
                "label": record.label, "status": record.status,
                "value": self.shown(record) if record.history else math.nan,
                "first": self.study.sign * float(record.history[0]["value"] or 0)
                if record.history else math.nan,
                "progress": _progress(record) / self.study.most_progress,
                "seconds": record.seconds, "started_at": record.started_at, **record.values,
            }
            for number, record in enumerate(self.records, 1)
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def importance(self) -> dict[str, float] | None:
        """By key of the space its share of what the values at the first look vary by (fANOVA,
        Hutter et al. 2014, as Optuna has it): those at the end are of the survivors alone. None of
        few candidates, or where nothing varied.
        """
        looked = [record for record in self.searched if record.history]
        values = [record.history[0]["value"] for record in looked]
        if len(looked) < LEAST_FOR_IMPORTANCE or len(set(values)) < 2:
            return None
        return _fanova(self.study, looked)


def value_of(record: CandidateRecord) -> float:
    """At the last look, the larger the better: in percent, or a distance less than zero."""
    value = record.history[-1]["value"] if record.history else None
    return 0.0 if value is None else float(value)


def _progress(record: CandidateRecord) -> float:
    return float(record.history[-1]["progress"] or 0) if record.history else 0.0


def _fanova(study: Study | GeneratorStudy, records: Sequence[CandidateRecord]) -> dict[str, float]:
    import optuna

    kinds = optuna.distributions
    distributions: dict[str, Any] = {}
    for one in study.space:
        varied = one.varied
        if isinstance(varied, tuple):
            distributions[one.name] = kinds.CategoricalDistribution(list(range(len(varied))))
        elif one.whole:
            distributions[one.name] = kinds.IntDistribution(
                int(varied.low), int(varied.high), log=varied.log, step=int(varied.step or 1)
            )
        else:
            distributions[one.name] = kinds.FloatDistribution(
                varied.low, varied.high, log=varied.log, step=varied.step
            )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seen = optuna.create_study(direction="maximize")
    for record in records:
        if (params := encoded(study.space, record.values)) is not None:
            first = record.history[0]["value"]
            seen.add_trial(
                optuna.create_trial(params=params, distributions=distributions, value=first)
            )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=study.wish.seed)
    found = optuna.importance.get_param_importances(seen, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}
