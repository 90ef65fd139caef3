"""A grid that ran, or runs: its results, and what follows from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.schema import DESCRIPTIONS
from equigrid.grid.api.fits import Answer, Fit
from equigrid.grid.api.images import PoolImages
from equigrid.grid.exporting import pools
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Plan
from equigrid.grid.reporting import analysis_bridge, notebook
from equigrid.grid.reporting import status as state
from equigrid.grid.reporting.out_folder import out_folder
from equigrid.grid.reporting.summary import Summary
from equigrid.grid.store import Store

if TYPE_CHECKING:  # it imports Ray
    from equigrid.grid.running.rounds import Asked


class Run:
    """A grid in a store, made by `equigrid.run` and `equigrid.open_run`. It holds no results: each
    call reads the store, so that a grid that still runs can be looked at.

    plan: the jobs and cells. store: where all of it lies. summary: what `equigrid.run` did; None
    of a grid that was opened. asked: what came of the question, where `equigrid.run` was given one:
    `known`, `stopped` (why the rounds ended), `rounds`, `trainings`.

    >>> import equigrid as eg
    >>> run = eg.open_run("tiny")
    >>> run.name, run.complete
    ('tiny', True)
    """

    def __init__(
        self, store: Store, plan: Plan, summary: Summary | None = None, asked: "Asked | None" = None
    ) -> None:
        self.store, self.plan, self.summary, self.asked = store, plan, summary, asked
        self._fitted: tuple[frozenset, Fit] | None = None  # the trials it is of

    @property
    def name(self) -> str:
        """The grid's."""
        return self.plan.resolved.spec.name

    @property
    def complete(self) -> bool:
        """Whether every cell has a result, by the store. Raises StoreError."""
        return self.status().complete

    def results(self) -> pd.DataFrame:
        """The table: a row for every cell that has a result, failed trainings with their error.

        Columns are those of `equigrid.COLUMNS`, in its order: accuracies in percent, amounts in
        images, times in seconds. A training that several cells share is in each of them, with one
        `trial_id`. `frame.attrs["columns"]` says what each column means. Raises StoreError.

        >>> import equigrid as eg
        >>> frame = eg.open_run("tiny").results()
        >>> list(frame.columns) == list(eg.COLUMNS)
        True
        >>> frame.groupby("arm")["top1"].count().to_dict()
        {'base': 2, 'copies': 2, 'real': 2, 'syn': 4}
        """
        frame = analysis_bridge.read_table(self.store, self.plan)
        frame.attrs["columns"] = dict(DESCRIPTIONS)
        return frame

    def fit(self) -> Fit:
        """The fits of the results that there are now; kept until there are others.

        Raises StoreError.

        >>> import equigrid as eg
        >>> len(eg.open_run("tiny").fit().curves)
        1
        """
        table = self.results()
        trials = frozenset(zip(table["trial_id"], table["attempt"]))
        if self._fitted is None or self._fitted[0] != trials:
            settings = analysis_bridge.settings(self.plan)
            self._fitted = trials, Fit(table, analyse(table, settings=settings))
        return self._fitted[1]

    def answer(
        self,
        n_base: float,
        n_real: float,
        *,
        classifier: str | None = None,
        recipe: str | None = None,
        generator: str | None = None,
        cost_real: float | None = None,
        cost_syn: float | None = None,
        cost_generator: float = 0.0,
    ) -> Answer:
        """How many synthetic images do what `n_real` more real ones do, at a base of `n_base`?

        n_base: real images there are, a base size of the grid. The names choose where the grid has
        several. The costs are those of `Fit.answers`. Raises UserError if they leave several curves
        or none, or if the base was not measured; StoreError.

        >>> import equigrid as eg
        >>> answer = eg.open_run("tiny").answer(n_base=60, n_real=60)
        >>> answer.generator, answer.kind in ("undetermined", "no amount does", "at least")
        ('edm', True)
        """
        return self.fit().answer(
            n_base, n_real, classifier=classifier, recipe=recipe, generator=generator,
            cost_real=cost_real, cost_syn=cost_syn, cost_generator=cost_generator,
        )  # fmt: skip

    def report(self, out: str | Path | None = None) -> Path:
        """Writes report.html, figures and tables into the folder `out`, `equigrid-out/GRID` where
        none is named; returns the report's path. It opens from disk.

        A report that is there with more results is kept beside it. Raises UserError if the folder
        cannot be written or if there is no result yet, StoreError.

        >>> import equigrid as eg
        >>> eg.open_run("tiny").report("report-of-tiny").name
        'report.html'
        """
        analysis_bridge.read_results(self.store, self.plan)
        fit, folder = self.fit(), out_folder(out, self.name, store=self.store)
        return analysis_bridge.write_report(self.store, self.plan, fit.table, fit.analysis, folder)

    def pool(
        self,
        generator: str,
        *,
        n: int | None = None,
        n_base: int | None = None,
        subset_seed: int | None = None,
        generator_seed: int | None = None,
    ) -> PoolImages:
        """The synthetic images of a generator, by its name in the spec.

        n: the first so many; None for all that are in the store. The others choose among the pools
        of a generator that was trained several times. Raises UserError if they leave several pools
        or none, or fewer than n images; StoreError.

        >>> import equigrid as eg
        >>> pool = eg.open_run("tiny").pool("edm", n_base=60)
        >>> images, labels = pool.arrays()
        >>> images.dtype, images.shape[1:]
        (dtype('uint8'), (8, 8, 1))
        """
        export = pools.chosen(
            self.store, self.plan, generator, n=n, n_base=n_base, subset_seed=subset_seed,
            generator_seed=generator_seed, where="pool", spelled=lambda name: f"{name}=",
        )  # fmt: skip
        return PoolImages(self.store, export)

    def status(self) -> state.Status:
        """How far the grid is, running or not: `cells`, `cells_done`, `stages` (for each kind of
        job `total`, `done`, `failed`, `left`), `failures`, `driver` while one runs.

        Raises StoreError.

        >>> import equigrid as eg
        >>> status = eg.open_run("tiny").status()
        >>> status.cells_done, status.cells
        (10, 10)
        """
        return state.status(self.store, self.plan)

    def failures(self) -> pd.DataFrame:
        """The jobs that failed and have no output since: `id`, `kind`, `cell`, `error` (its last
        line) and `traceback`. The next run tries them again. Raises StoreError.

        >>> import equigrid as eg
        >>> len(eg.open_run("tiny").failures())
        0
        """
        columns = ["id", "kind", "cell", "error", "traceback"]
        return pd.DataFrame(list(self.status().failures), columns=columns)

    def __repr__(self) -> str:
        return f"<run of {self.name} in {self.store.uri}>"

    def _repr_html_(self) -> str:
        found = self.status()
        title = f"{found.grid}: {found.cells_done:,} of {found.cells:,} cells have a result"
        rows: list[tuple[Any, ...]] = [
            (
                KINDS[stage.kind].words,
                f"{stage.total:,}",
                f"{stage.done:,}",
                f"{stage.failed:,}",
                f"{stage.left:,}",
            )
            for stage in found.stages
            if stage.total
        ]
        failed = [f"failed: {one['cell']} ({one['id']}): {one['error']}" for one in found.failures]
        table = notebook.table(("job", "jobs", "done", "failed", "left"), rows, title)
        return table + notebook.listed(failed)
