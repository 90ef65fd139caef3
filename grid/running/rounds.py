"""Runs in rounds until one answer is known: the trainings that narrow it most, and no others.

Each round is an ordinary run of an ordinary grid, which grew by blocks with seeds of their own
(`equigrid.grid.planning.growth`) and is kept in the store as the grid's spec. So a run that was
killed goes on where it was: the rounds so far are what the store holds.
"""

from dataclasses import dataclass, field
from functools import partial

from rich.console import Console

from equigrid.analysis.answer.asking import Question, Suggested, suggestions, why_open
from equigrid.analysis.conclusions.amounts import Amount
from equigrid.grid.errors import UserError
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.growth import Place, with_places
from equigrid.grid.reporting import analysis_bridge
from equigrid.grid.reporting.questions import costs, first_grid, worth_of
from equigrid.grid.reporting.summary import Summary
from equigrid.grid.running import driver
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store
from equigrid.grid.store.lock import Lock

STEPS = 5  # added in a round
CONFIRM = 2  # rounds in a row that must be narrow enough: one may be so by chance


@dataclass
class Asked:
    """What came of a question. stopped: why the rounds ended, in words; known: whether by the
    answer. rounds: how many ran; trainings: all that the grid has.
    """

    summary: Summary
    plan: Plan
    amount: Amount | None
    known: bool
    stopped: str
    rounds: int
    trainings: int
    suggested: list[Suggested] = field(default_factory=list)


def run_until(
    spec: GridSpec,
    store: Store,
    question: Question,
    *,
    console: Console,
    max_device_hours: float | None = None,
    max_rounds: int | None = None,
    lock: Lock | None = None,
) -> Asked:
    """Runs `spec` in rounds until `question` is answered, the budget is spent, or nothing that
    could be added narrows it. Ray must be connected. max_rounds: stop after so many (for tests).

    Raises UserError for a question that the grid cannot answer, or without a factor `within`.
    """
    check(question)
    tell = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    now, rounds, narrow, spent_h = first_grid(spec, store, question), 0, 0, 0.0
    while True:
        left = None if max_device_hours is None else max(0.0, max_device_hours - spent_h)
        summary, plan = driver.run(now, store, console=console, max_device_hours=left, lock=lock)
        spent_h += summary.device_s / 3600
        rounds += 1
        found = Asked(summary, plan, None, False, "", rounds, len(plan.cells_by_trial()))
        if summary.interrupted or summary.budget_reached:
            found.stopped = "interrupted" if summary.interrupted else "the budget is spent"
            found.amount = _amount_so_far(store, plan, question)
            return found
        worth = worth_of(analysis_bridge.read_table(store, plan), question)
        found.amount = worth.amount(question.n_base, question.n_real)
        narrow = narrow + 1 if question.is_answered(found.amount) else 0
        found.suggested = suggestions(worth, question, costs(store, plan), steps=STEPS)
        tell(f"round {rounds}: {found.amount.text}")
        if narrow >= CONFIRM or (narrow and not found.suggested):
            found.known, found.stopped = True, "the answer is known"
            return found
        if not found.suggested:
            open_ = why_open(found.amount, question)
            found.stopped = f"nothing that the grid could add narrows the answer: {open_}"
            return found
        if not _new_places(plan, found.suggested):
            found.stopped = "some trainings failed; the next run tries them again"
            return found
        if rounds == max_rounds:
            found.stopped = f"{rounds} rounds were asked for"
            return found
        for one in found.suggested:
            tell(f"  next: {one.text} (×{one.now:.2g} → ×{one.after:.2g})")
        now = with_places(now, plan.cells, _places(found.suggested))


def check(question: Question) -> None:
    """Raises UserError for a question without the factor that ends the rounds."""
    if question.within is None:
        raise UserError("until: within=FACTOR is missing, such as within=1.5: how narrow is enough")


def _amount_so_far(store: Store, plan: Plan, question: Question) -> Amount | None:
    try:
        worth = worth_of(analysis_bridge.read_table(store, plan), question)
        return worth.amount(question.n_base, question.n_real)
    except ValueError:  # too little has finished
        return None


def _places(suggested: list[Suggested]) -> list[Place]:
    return [Place(*training) for one in suggested for training in one.trainings]


def _new_places(plan: Plan, suggested: list[Suggested]) -> bool:
    """Whether anything suggested is not in the plan already: what is, failed."""
    known = {
        (c.n_nominal, c.n_real_added, c.n_syn, c.n_copies, c.subset_seed, c.generator_seed, c.seed)
        for c in plan.cells
        if c.by_class is None and c.arm != "augmentation"
    }
    return any((*p[:4], *p[5:]) not in known for p in _places(suggested))
