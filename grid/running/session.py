"""One run of a grid from its lock to its summary: what the command line and Python both do."""

from collections.abc import Callable

from rich.console import Console

from equigrid.analysis.answer.asking import Question
from equigrid.grid.planning.graph import Plan
from equigrid.grid.reporting import questions
from equigrid.grid.reporting.analysis_bridge import start_analyst
from equigrid.grid.reporting.summary import Summary
from equigrid.grid.running import cluster, driver, rounds
from equigrid.grid.running.interrupts import terminating_signals_interrupt
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store, lock


def run(
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
) -> tuple[Summary, Plan]:
    """Runs what has no finished output, under the grid's lock. tell: gets lines for people.
    last_word: as `cluster.connected` has it.

    An interrupt ends the run early: the summary says so. Raises UserError, StoreError,
    ClusterError; UnavailableError if another driver runs the grid.
    """
    with (
        terminating_signals_interrupt(),
        lock.acquire(store, spec.name, takeover=takeover, tell=tell) as held,
        cluster.connected(address, dashboard=dashboard, last_word=last_word),
    ):
        return driver.run(
            spec,
            store,
            console=console,
            analyst=start_analyst,
            max_device_hours=max_device_hours,
            lock=held,
        )


def run_until(
    spec: GridSpec,
    store: Store,
    question: Question,
    *,
    console: Console,
    tell: Callable[[str], None],
    address: str | None = None,
    dashboard: bool = True,
    max_device_hours: float | None = None,
    takeover: bool = False,
    last_word: Callable[[str], None] | None = None,
) -> rounds.Asked:
    """Rounds of runs, until the question is answered: see `equigrid.grid.running.rounds`. The rest
    as `run`.
    """
    rounds.check(question)
    questions.first_grid(spec, store, question)  # what is wrong with the question is said at once
    with (
        terminating_signals_interrupt(),
        lock.acquire(store, spec.name, takeover=takeover, tell=tell) as held,
        cluster.connected(address, dashboard=dashboard, last_word=last_word),
    ):
        return rounds.run_until(
            spec, store, question, console=console, max_device_hours=max_device_hours, lock=held
        )
