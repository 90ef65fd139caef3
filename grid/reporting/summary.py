"""What one run of a grid did, for the store, the terminal and the report."""

from collections import Counter
from dataclasses import asdict, dataclass, field

from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Plan
from equigrid.grid.store import Store
from equigrid.grid.units import duration


@dataclass(frozen=True)
class Failure:
    """A job that failed for good in this run, and the cells that have no result because of it."""

    id: str
    kind: str
    error: str
    cells: tuple[str, ...]


@dataclass
class Summary:
    """What a run did. `jobs` counts the jobs that ran in it, by kind; `cached` those that were done
    before.

    device_s: seconds that slots and worker groups held their devices (a CPU slot counts as one),
    idle or not.
    interrupted: by a signal, or because another driver took over, which `taken_over` says.
    """

    grid: str
    store: str
    jobs: Counter = field(default_factory=Counter)
    cached: Counter = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    blocked: int = 0
    retries: int = 0
    shard_loads: int = 0
    shard_hits: int = 0
    seconds: float = 0.0
    training_s: float = 0.0
    trial_overheads_s: list[float] = field(default_factory=list, repr=False)
    interrupted: bool = False
    taken_over: bool = False
    device_s: float = 0.0
    budget_reached: bool = False

    def to_json(self) -> dict:
        overheads = sorted(self.trial_overheads_s)
        median = overheads[len(overheads) // 2] if overheads else None
        content = {k: v for k, v in asdict(self).items() if k != "trial_overheads_s"}
        return {
            **content,
            "jobs": dict(self.jobs),
            "cached": dict(self.cached),
            "trial_overhead_median_s": median,
        }


def nothing_done(store: Store, the_plan: Plan) -> Summary:
    """The summary of a run that found all its jobs done."""
    return Summary(
        the_plan.resolved.spec.name,
        store.uri,
        cached=Counter(job.kind for job in the_plan.jobs.values()),
    )


def closing_line(summary: Summary, command: str) -> str:
    """One line on how a run ended; `command` is what resumes it."""
    ran = [f"{n:,} {_words(kind, n)}" for kind, n in summary.jobs.items() if n]
    early = summary.budget_reached or summary.interrupted
    nothing = "nothing finished" if early or summary.failures else "nothing to do"
    text = f"{', '.join(ran)} in {duration(summary.seconds)}" if ran else nothing
    if before := sum(summary.cached.values()):
        text += f" ({before:,} jobs were done before)"
    if summary.budget_reached:
        return f"stopped at the budget: {text}; everything finished is kept. To go on: {command}"
    if summary.interrupted:
        return f"stopped: {text}; everything finished is kept. To go on: {command}"
    return text


def _words(kind: str, n: int) -> str:
    return KINDS[kind].plural if n > 1 else KINDS[kind].words
