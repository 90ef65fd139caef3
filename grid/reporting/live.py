"""What the page that watches a grid shows of it, from the store alone: how far each cell is, what
failed, what it costs; and the answer, fitted anew as rows land.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.report.live import live_answer
from equigrid.grid.errors import UnavailableError
from equigrid.grid.jobs.failures import one_line
from equigrid.grid.jobs.kinds import KINDS, on_slots
from equigrid.grid.planning.graph import Cell, Plan
from equigrid.grid.reporting import analysis_bridge, estimate
from equigrid.grid.reporting.status import COLUMNS, Status, status
from equigrid.grid.store import Store, results
from equigrid.grid.units import duration

STATE_S = 1.5  # a state younger than this serves whoever asks
QUIET_S = 60.0  # without anybody asking for so long, nothing is fitted
SLOWER = 8.0  # times as long as a fit took passes before the next: it must not take a slot's cores
LEAST_S = 3.0
ARMS = ("base", "real", "syn", "mix", "copies", "augmentation")  # the order of the map's lines
DONE, RUNNING, FAILED, WAITING = "done", "running", "failed", "waiting"


class Live:
    """The state of one grid, for many readers. Threads may call it at once.

    planned: makes the plan, which may have grown since. A thread of its own fits, while somebody
    looks; `close` ends it.
    """

    def __init__(
        self, store: Store, planned: Callable[[], Plan], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._planned, self._clock = store, planned, clock
        self._reader = results.Reader(store, COLUMNS)
        self._state: dict | None = None
        self._state_at_s = -STATE_S
        self._answer: dict | None = None
        self._fitted_rows: str | None = None
        self._asked_at_s = clock()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._fit_on, name="watch-fit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends its thread."""
        self._over.set()
        self._thread.join()

    def state(self) -> dict:
        """How far the grid is, as words and numbers for the page. Raises StoreError, UserError."""
        with self._lock:
            self._asked_at_s = now = self._clock()
            if self._state is None or now - self._state_at_s >= STATE_S:
                plan = self._planned()
                found = status(self._store, plan, self._reader)
                self._state = _state(self._store, plan, found, self._trials())
                self._state_at_s = now
            return self._state

    def answer(self, have: str) -> dict | None:
        """The newest answer; None if that is the version which the caller has, or there is none."""
        self._asked_at_s = self._clock()
        found = self._answer
        return None if found is None or found["version"] == have else found

    def _trials(self) -> dict[str, str]:
        """Whether trials succeeded, by id."""
        table = self._reader.read()
        return {row["trial_id"]: row["status"] for row in table.to_pylist()}

    # Fitting --------------------------------------------------------------------------------------

    def _fit_on(self) -> None:
        pause_s = 0.0
        while not self._over.wait(pause_s):
            pause_s = LEAST_S
            if self._clock() - self._asked_at_s > QUIET_S:
                continue
            began = self._clock()
            # A store that is away, or rows that cannot be fitted, must not end what looks again.
            try:
                fitted = self._fit()
            except UnavailableError:
                continue
            except Exception as error:  # noqa: BLE001
                self._answer = _trouble(error)
                continue
            if fitted:
                pause_s = max(LEAST_S, SLOWER * (self._clock() - began))

    def _fit(self) -> bool:
        """Whether there was anything new."""
        plan = self._planned()
        table = analysis_bridge.read_table(self._store, plan)
        rows = f"{len(table)}-{(table['status'] == 'ok').sum()}-{len(plan.cells)}"
        if rows == self._fitted_rows:
            return False
        analysis = analyse(table, settings=analysis_bridge.settings(plan))
        extras = analysis_bridge.report_extras(self._store, plan, table)
        when = datetime.now(UTC).strftime("%H:%M:%S")
        self._answer = {
            **live_answer(analysis, extras),
            "version": rows,
            "when": f"Fitted at {when} UTC to {len(table):,} results.",
        }
        self._fitted_rows = rows
        return True


def _trouble(error: Exception) -> dict:
    from markupsafe import escape

    text = escape(f"The answer could not be fitted: {one_line(error)}")
    return {"html": f'<section><h2>The answer</h2><p class="warn">{text}</p></section>',
            "panels": {}, "table": None, "version": text, "when": ""}  # fmt: skip


# The state ----------------------------------------------------------------------------------------


def _state(store: Store, plan: Plan, found: Status, trials: dict[str, str]) -> dict:
    driver = found.driver or {}
    at_work = driver.get("at_work") or []
    running = {job["id"] for job in at_work}
    return {
        "driver": _driver(found),
        "share": found.cells_done / max(found.cells, 1),
        "whole": _whole(found),
        "cost": _cost(store, plan, found),
        "stages": [_stage(found, stage.kind, at_work) for stage in found.stages if stage.total],
        "cells": _cells(plan, trials, running),
        "failures": list(found.failures),
        "complete": found.complete,
    }


def _driver(found: Status) -> str:
    if found.driver:
        return f"Running: {found.driver['who']}."
    if found.complete:
        return "All cells have a result; no driver runs."
    last = f" The last result came at {found.last_result_at}." if found.last_result_at else ""
    return f"No driver runs: the same equigrid run goes on where it was.{last}"


def _whole(found: Status) -> str:
    text = f"{found.cells_done:,} of {found.cells:,} cells have a result"
    left_s = (found.driver or {}).get("left_s")
    return f"{text}; about {duration(left_s)} left" if left_s is not None else text


def _cost(store: Store, plan: Plan, found: Status) -> str:
    """Device time of the runs so far, and what is left; in money where the spec has prices."""
    driver, spec = found.driver or {}, plan.resolved.spec
    used_s = sum(run.get("device_s", 0.0) for run in found.runs) + driver.get("device_s", 0.0)
    left_s = driver.get("device_s_left")
    if left_s is None and not found.complete:
        lines = [line for line in estimate.lines(store, plan) if line.kind in on_slots()]
        known = [line.seconds for line in lines]
        left_s = None if None in known else sum(s for s in known if s is not None)
    if found.complete:
        left_s = 0.0
    price = estimate.price_per_hour(spec.prices, None)

    def told(seconds: float) -> str:
        money = "" if price is None else f" ({seconds / 3600 * price:,.2f} {spec.currency})"
        return f"{duration(seconds)} of device time{money}"

    so_far = f"So far {told(used_s)}"
    if left_s is None:
        return f"{so_far}; what is left is not known yet."
    return f"{so_far}; to go about {told(left_s)}." if left_s else f"{so_far}; nothing to go."


def _stage(found: Status, kind: str, at_work: list[dict]) -> dict:
    own = next(stage for stage in found.stages if stage.kind == kind)
    now = [job for job in at_work if job["kind"] == kind]
    shares = [
        f"{job['share']:.0%}" if job["share"] is not None else f"{duration(job['seconds'])}"
        for job in now[:4]
    ]
    more = ", …" if len(now) > 4 else ""
    text = f"{len(now)} running ({', '.join(shares)}{more})" if now else ""
    return {"name": KINDS[kind].plural, "total": own.total, "done": own.done,
            "failed": own.failed, "left": own.left, "now": text}  # fmt: skip


def _cells(plan: Plan, trials: dict[str, str], running: set[str]) -> list[dict]:
    """A line of the map for each base size and what is added to it."""
    lines: dict[tuple, list[Cell]] = defaultdict(list)
    several = len({cell.classifier for cell in plan.cells}) > 1
    for cell in plan.cells:
        place = (cell.n_nominal, cell.classifier, ARMS.index(cell.arm), _added(cell))
        lines[place].append(cell)
    shown = []
    for (base, classifier, _, added), cells in sorted(lines.items()):
        cells.sort(key=lambda c: (c.n_total, c.subset_seed, c.generator_seed or 0, c.seed))
        beside = f", {classifier}" if several else ""
        shown.append(
            {
                "name": f"base {base:,}{beside}: {added}",
                "titles": [str(cell) for cell in cells],
                "states": [_cell_state(cell, trials, running) for cell in cells],
            }
        )
    return shown


def _added(cell: Cell) -> str:
    if cell.arm == "base":
        return "alone"
    if cell.arm == "augmentation":
        return f"with {cell.augmentation}"
    named = {"syn": cell.generator, "mix": f"real and {cell.generator}"}
    return f"+ {named.get(cell.arm) or cell.arm}{' by class' if cell.by_class else ''}"


def _cell_state(cell: Cell, trials: dict[str, str], running: set[str]) -> str:
    ended = trials.get(cell.trial_id)
    if ended == "ok":
        return DONE
    if cell.trial_id in running:
        return RUNNING
    return FAILED if ended == "failed" else WAITING
