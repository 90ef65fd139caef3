"""A search for a recipe, as one looks at it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from equigrid.grid.api.verbs import Grid, load, place, silent
from equigrid.grid.errors import UserError
from equigrid.grid.reporting import notebook
from equigrid.grid.reporting.console import progress_console
from equigrid.grid.reporting.out_folder import out_folder
from equigrid.grid.store import Store

if TYPE_CHECKING:  # it imports Ray
    from equigrid.grid.tuning.session import Tuned


class Search:
    """What a search found, made by `equigrid.tune`.

    recipe: the best, as a spec's `recipe` takes it (of a generator, as `generators` takes it); None
    where no candidate was trained to its end.
    table: a DataFrame, a row for each candidate (docs/tuning.md lists the columns). facts: plain
    values for each arm: the best value, what fresh seeds reached, the gain over the grid's own.
    failures: candidates that failed, a line each. complete: whether nothing is left to do.

    >>> import equigrid as eg
    >>> from equigrid.grid.api.tuning import Search
    >>> Search.__name__
    'Search'
    """

    def __init__(self, found: "Tuned", source: str) -> None:
        from equigrid.grid.tuning import writing

        self._found, self._source = found, source
        resolved = found.plan.resolved
        own = resolved.recipes[resolved.recipe_name]
        self.recipe = writing.recipe_of(found.outcomes, own) or writing.generator_of(
            found.outcomes[0], found.plan
        )
        self.table: pd.DataFrame = writing.table_of(found.outcomes)
        self.facts: list[dict[str, Any]] = [writing.search_facts(one) for one in found.outcomes]
        self.failures = found.failures
        self.complete = not (found.budget_reached or found.failures)

    def write(self, out: str | Path | None = None) -> Path:
        """Writes recipe, table and figure into the folder `out`, `equigrid-out/GRID` where none is
        named; returns the recipe's path, which a spec can name. Raises UserError for a folder that
        cannot be written, or where there is no recipe.
        """
        from equigrid.grid.tuning import writing

        folder = out_folder(out, self._found.plan.resolved.spec.name)
        written = writing.write(folder, self._found.outcomes, self._found.plan, self._source)
        if "recipe" not in written:
            raise UserError("tune: no candidate was trained to its end; search on with more trials")
        return written["recipe"]

    def __str__(self) -> str:
        from equigrid.grid.tuning import phrasing

        return "\n".join(line for one in self._found.outcomes for line in phrasing.lines_of(one))

    def __repr__(self) -> str:
        return f"<search of {self._found.plan.resolved.spec.name}: {len(self.table)} candidates>"

    def _repr_html_(self) -> str:
        rows = [tuple(map(str, row)) for row in self.table.itertuples(index=False)]
        return notebook.table(tuple(map(str, self.table.columns)), rows, repr(self)[1:-1])


def tune(
    grid: Grid,
    store: str | Path | None = None,
    *,
    space: str | Mapping[str, Any] | None = None,
    trials: int | None = None,
    metric: str | None = None,
    per_arm: bool | None = None,
    confirm: int | None = None,
    classifier: str | None = None,
    generator: str | None = None,
    seed: int | None = None,
    address: str | None = None,
    dashboard: bool = True,
    max_gpu_hours: float | None = None,
    slots: int | None = None,
    gpus: float | None = None,
    takeover: bool = False,
    quiet: bool = False,
) -> Search:
    """Searches a recipe for the grid's classifier by Ray Tune, on the validation images that the
    grid holds out; the same call goes on with it. docs/tuning.md says how.

    space: by dotted key of a recipe a list of values or a range `{"low": …, "high": …, "log":
    True}`. trials: recipes that are tried. metric: what is made large, `top1` by default. per_arm:
    search for each arm. confirm: fresh seeds for the best recipe and the grid's own. classifier:
    the grid's first by default. generator: search its duration and guidance in place of a recipe,
    by the distance of its images from those held out. What is None is as the grid's `tune` says.
    The others are those of `run`. Raises UserError, StoreError, ClusterError; UnavailableError if
    another driver runs the grid; KeyboardInterrupt after an interrupt, when everything that
    finished is kept.

    >>> import equigrid as eg
    >>> eg.tune({"name": "small-search", "dataset": "digits", "classifiers": ["digits-cnn"],
    ...          "blocks": [{"n_base": 60}]})
    Traceback (most recent call last):
    ...
    equigrid.grid.errors.UserError: tune: small-search holds no validation images out; write …
    """
    from equigrid.grid.tuning import session, wishes

    wish = {
        "trials": trials,
        "metric": metric,
        "per_arm": per_arm,
        "confirm": confirm,
        "classifier": classifier,
        "seed": seed,
    }
    loaded, aim = wishes.wished(load(grid), wish, space, generator, slots=slots, gpus=gpus)
    if max_gpu_hours is not None and not 0 <= max_gpu_hours < float("inf"):
        raise UserError(f"tune: max_gpu_hours is {max_gpu_hours}; write hours from 0 up")
    opened = Store(place(store), create=True)
    opened.check()
    console = silent() if quiet else progress_console()
    found = session.tune(
        loaded, opened, console=console,
        tell=partial(console.print, highlight=False, markup=False, soft_wrap=True),
        address=address, dashboard=dashboard, max_device_hours=max_gpu_hours, takeover=takeover,
        aim=aim,
    )  # fmt: skip
    if found.interrupted:
        raise KeyboardInterrupt(f"search of {loaded.name}: interrupted; what is done is kept")
    return Search(found, loaded.name)
