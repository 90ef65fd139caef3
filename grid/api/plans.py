"""A plan as one looks at it."""

from typing import Any

import pandas as pd

from equigrid.analysis.answer.asking import Suggested, Training
from equigrid.analysis.conclusions.amounts import Amount
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Cell, Plan
from equigrid.grid.reporting import notebook
from equigrid.grid.reporting.console import line_time, size_text, took_text
from equigrid.grid.reporting.estimate import Line
from equigrid.grid.spec import GridSpec
from equigrid.grid.units import duration


class GridPlan:
    """What a run would do now, what is done already, and what it would take; made by
    `equigrid.plan`. Printed or shown in a notebook it is a table of the kinds of job.

    outline: plain values, as `equigrid plan --json` prints them: `cells`, `kinds` (for each kind of
    job `total`, `done`, `todo`, `seconds`, `seconds_least`, `seconds_most`, `basis`, `bytes`),
    `device_seconds` (and `_least`, `_most`), `device` (on which what never ran is estimated),
    `wall_seconds` (None where a part is estimated), `gpu_hours`, `bytes`, `money`, `remarks`,
    `cell_list`. Times and bytes are None where nothing is known.

    >>> import equigrid as eg
    >>> plan = eg.plan("digits", store="new-store")
    >>> plan.outline["cells"], plan.todo["trial"]
    (198, 182)
    """

    def __init__(self, plan: Plan, outline: dict[str, Any], lines: list[Line]) -> None:
        self.plan, self.outline, self._lines = plan, outline, lines

    @property
    def grid(self) -> GridSpec:
        """The spec."""
        return self.plan.resolved.spec

    @property
    def todo(self) -> dict[str, int]:
        """How many jobs a run would do, by kind; kinds that the grid has none of are left out."""
        return {line.kind: line.todo for line in self._lines}

    @property
    def cells(self) -> pd.DataFrame:
        """The places of the grid, a row each: amounts in images, names, seeds, and `trial_id`, the
        training that fills the cell. Several cells may share one.

        >>> import equigrid as eg
        >>> cells = eg.plan("digits", store="new-store").cells
        >>> sorted(cells["arm"].unique())
        ['base', 'copies', 'real', 'syn']
        """
        return pd.DataFrame(self.plan.cells, columns=Cell._fields)

    def __str__(self) -> str:
        rows = (" ".join(row) for row in ([*self._head], *self._rows()))
        return "\n".join([self._title, *rows, *self.outline["remarks"]])

    def __repr__(self) -> str:
        left = sum(self.todo.values())
        return f"<plan of {self._title}: {left:,} of {len(self.plan.jobs):,} jobs to run>"

    def _repr_html_(self) -> str:
        time = took_text(self.outline, self._lines) if self.outline["device_seconds"] else ""
        remarks = [text for text in (time, *self.outline["remarks"]) if text]
        return notebook.table(self._head, self._rows(), self._title) + notebook.listed(remarks)

    _head = ("job", "jobs", "done", "to run", "device time", "which is", "to store")

    @property
    def _title(self) -> str:
        about = self.outline
        return f"{about['grid']}: {about['cells']:,} cells on {about['dataset']}"

    def _rows(self) -> list[list[str]]:
        return [
            [
                KINDS[line.kind].words,
                f"{line.total:,}",
                f"{line.done:,}",
                f"{line.todo:,}",
                line_time(line),
                ", ".join(line.basis) if line.seconds is not None else "",
                "–" if line.bytes is None else size_text(line.bytes),
            ]
            for line in self._lines
        ]


class NextSteps:
    """What to run next for one answer, made by `equigrid.next_steps`.

    amount: the answer so far. steps: the best first, each as if those before it were done:
    `trainings`, `text`, `now` and `after` (the factor within which the amount is known), `cost` in
    device-seconds.

    >>> import equigrid as eg
    >>> found = eg.next_steps("tiny", eg.Question(n_base=60, n_real=60))
    >>> "n_syn" in found.frame.columns
    True
    """

    def __init__(self, amount: Amount, steps: tuple[Suggested, ...]) -> None:
        self.amount, self.steps = amount, steps

    @property
    def frame(self) -> pd.DataFrame:
        """The trainings, a row each, with their step's number: amounts in images, and seeds."""
        rows = [
            {"step": number, **training._asdict()}
            for number, step in enumerate(self.steps)
            for training in step.trainings
        ]
        return pd.DataFrame(rows, columns=["step", *Training._fields])

    def __str__(self) -> str:
        return "\n".join([self.amount.text, *(" ".join(row) for row in self._rows())])

    def __repr__(self) -> str:
        return f"<{len(self.steps)} next steps: {self.amount.text}>"

    def _repr_html_(self) -> str:
        table = notebook.table(("run", "known within", "device time"), self._rows(), "What next")
        return notebook.paragraph(self.amount.text, bold=True) + table

    def _rows(self) -> list[tuple[str, str, str]]:
        return [
            (step.text, f"×{step.now:.2g} → ×{step.after:.2g}", duration(step.cost))
            for step in self.steps
        ]
