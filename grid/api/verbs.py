"""The verbs of the command line, as functions."""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError
from rich.console import Console

from equigrid.analysis.answer.asking import Question
from equigrid.analysis.data.tidy import SUFFIXES
from equigrid.analysis.settings import Metric, Settings
from equigrid.grid import spec as specs
from equigrid.grid.api.drafts import Draft
from equigrid.grid.api.fits import Answer, Fit, fit_table
from equigrid.grid.api.plans import GridPlan, NextSteps
from equigrid.grid.api.runs import Run
from equigrid.grid.errors import UnavailableError, UserError
from equigrid.grid.planning import planner, recorded
from equigrid.grid.planning.recorded import GRID_NAME
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting import questions
from equigrid.grid.reporting.console import PlainConsole, progress_console
from equigrid.grid.reporting.outline import outline
from equigrid.grid.reporting.summary import closing_line, nothing_done
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store

Grid = GridSpec | str | Path | dict[str, Any]
"""A spec that `load` gave, or what `load` takes."""


def load(source: Grid) -> GridSpec:
    """The spec of a grid: checked, frozen, every default filled in.

    source: a preset's name, the path of a YAML file, or a mapping with the same keys (docs/spec.md
    lists them). Relative paths in a file are relative to it, in a mapping to the present folder.
    Raises UserError, one line that says what, where, and what would be right.

    >>> import equigrid as eg
    >>> grid = eg.load("digits")
    >>> grid.name, grid.classifiers
    ('digits', ('digits-cnn',))
    >>> eg.load({"name": "mine", "dataset": "digits", "recipe": "digits"})
    Traceback (most recent call last):
    ...
    equigrid.grid.errors.UserError: spec: classifiers: is missing; it is required
    """
    return source if isinstance(source, GridSpec) else specs.load(source)


def presets() -> dict[str, str]:
    """What comes with equigrid: each preset's name, and what it is.

    >>> import equigrid as eg
    >>> "digits" in eg.presets()
    True
    """
    texts = {
        name: (specs.PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
        for name in specs.presets()
    }
    return {name: text.splitlines()[0].removeprefix("# ") for name, text in texts.items()}


def init(
    place: str | Path, *, name: str | None = None, group: str | None = None, size: int | None = None
) -> Draft:
    """Looks at labelled images, and proposes a first spec for them and this machine.

    place: a folder of class folders, a table of labels, an .npz file, Parquet files, or a URI.
    name: the grid's, else the set's. group: the column or pattern that says which images belong
    together, such as those of one patient; "none" where no two do. size: the side in pixels at
    which images are stored. Nothing is written until `Draft.write`. Raises UserError.

    >>> import equigrid as eg
    >>> eg.init("nowhere")
    Traceback (most recent call last):
    ...
    equigrid.grid.errors.UserError: nowhere: no such file or folder
    """
    from equigrid.grid.authoring.machine import this_machine
    from equigrid.grid.authoring.proposing import checked, propose

    if name is not None and not GRID_NAME.fullmatch(name):
        raise UserError(f"name: {name!r}; write letters, digits, '.', '_' and '-', at most 64")
    proposal = propose(str(place), this_machine(), name=name, group=group, size=size)
    return Draft(proposal, checked(proposal))


def plan(grid: Grid, store: str | Path | None = None) -> GridPlan:
    """What a run of the grid would do, what is done already in the store, and what it would take.

    Nothing runs, and nothing is written. store: a folder, or a URI such as `s3://bucket/place`;
    None for EQUIGRID_STORE, or else `equigrid-store` in the present folder. It need not exist.
    Raises UserError, StoreError.

    >>> import equigrid as eg
    >>> plan = eg.plan("digits", store="new-store")
    >>> plan.todo["generator"]
    10
    """
    loaded, opened = load(grid), Store(place(store))
    the_plan = planner.plan(resolve(loaded, opened))
    return GridPlan(the_plan, *outline(opened, the_plan))


def run(
    grid: Grid,
    store: str | Path | None = None,
    *,
    address: str | None = None,
    dashboard: bool = True,
    max_gpu_hours: float | None = None,
    until: Question | None = None,
    slots: int | None = None,
    gpus: float | None = None,
    takeover: bool = False,
    quiet: bool = False,
) -> Run:
    """Runs all of the grid that has no finished output in the store; the same call resumes.

    store: as in `plan`; made where it is not there. address: a Ray cluster (`auto`, `HOST:PORT`);
    None for the connection that this process has, else RAY_ADDRESS, else a Ray of its own, which
    ends with the call. dashboard: Ray's, of such a Ray. max_gpu_hours: stop before devices are held
    for longer; a CPU slot counts as one. until: run in rounds until this question, which needs
    `within`, is answered, and no more of the grid than that takes. slots, gpus: how many slots at
    once, and the share of a GPU that each holds (0 to 1), instead of the spec's. takeover: take the
    place of a driver that runs the grid. quiet: no progress; else it goes to standard error, in a
    notebook to the cell.

    Cells that failed do not raise: see `Run.failures`. Raises UserError, StoreError, ClusterError;
    UnavailableError if another driver runs the grid or took it over; KeyboardInterrupt after an
    interrupt, when everything that finished is kept.

    >>> import equigrid as eg
    >>> run = eg.run({
    ...     "name": "tiny", "dataset": "digits", "classifiers": ["digits-cnn"],
    ...     "recipe": {"extends": "digits", "steps": 15}, "quality": "off", "seeds": [0, 1],
    ...     "generators": {"edm": {"kind": "edm", "preset": "digits",
    ...                            "training": {"total_nimg": 640}, "sampler": {"steps": 4}}},
    ...     "blocks": [{"n_base": 60, "real": [1], "syn": {"edm": [1, 2]}, "copies": [1]}],
    ...     "execution": {"gpus": 0},
    ... }, quiet=True)
    >>> run.complete, len(run.results())
    (True, 10)
    """
    chosen = {
        name: value for name, value in (("slots", slots), ("gpus", gpus)) if value is not None
    }
    loaded = _executed(load(grid), chosen)
    if max_gpu_hours is not None and not 0 <= max_gpu_hours < float("inf"):
        raise UserError(f"run: max_gpu_hours is {max_gpu_hours}; write hours from 0 up")
    opened = Store(place(store), create=True)
    opened.check()
    if until is None and (plan_now := recorded.nothing_to_do(loaded, opened)) is not None:
        return Run(opened, plan_now, nothing_done(opened, plan_now))
    with _without_hints_of_widgets():
        from equigrid.grid.running import session

    console = silent() if quiet else progress_console()
    tell = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    how: dict[str, Any] = {
        "console": console, "tell": tell, "address": address, "dashboard": dashboard,
        "max_device_hours": max_gpu_hours, "takeover": takeover,
    }  # fmt: skip
    asked = None
    if until is None:
        summary, the_plan = session.run(loaded, opened, **how)
    else:
        asked = session.run_until(loaded, opened, until, **how)
        summary, the_plan = asked.summary, asked.plan
    ended = closing_line(summary, f"equigrid.run({loaded.name!r}, {opened.uri!r})")
    tell(ended)
    if summary.taken_over:
        raise UnavailableError(f"grid {loaded.name}: another driver took it over; {ended}")
    if summary.interrupted:
        raise KeyboardInterrupt(ended)
    return Run(opened, the_plan, summary, asked)


@contextmanager
def _without_hints_of_widgets() -> Iterator[None]:
    """Ray and tqdm advise in a notebook to install ipywidgets; progress here needs none."""
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


def next_steps(
    grid: Grid, question: Question, store: str | Path | None = None, *, steps: int = 10
) -> NextSteps:
    """What to run next for one answer: which trainings of the grid narrow it most for their cost.

    question: `n_base`, `n_real` in images, and `generator`, `classifier` where the grid has
    several. steps: how many at most. The ranking follows from the fits so far, it needs no outcome.
    Raises UserError if nothing has run yet, or the question names what the grid does not have.

    >>> import equigrid as eg
    >>> found = eg.next_steps("tiny", eg.Question(n_base=60, n_real=60))
    >>> len(found.steps) <= 10, list(found.frame.columns[:2])
    (True, ['step', 'n_base'])
    """
    opened = recorded.open_filled(place(store))
    loaded = recorded.ran(grid, opened) if isinstance(grid, str) else load(grid)
    amount, found = questions.next_steps(loaded, opened, question, steps=steps)
    return NextSteps(amount, tuple(found))


def open_run(grid: Grid, store: str | Path | None = None) -> Run:
    """A grid that ran, or runs, in the store, without running anything.

    grid: its name in the store, or what `load` takes. store: as in `plan`. Raises UserError if the
    store holds no grid, StoreError.

    >>> import equigrid as eg
    >>> eg.open_run("tiny").results()["dataset"].unique().tolist()
    ['digits']
    """
    opened = recorded.open_filled(place(store))
    loaded = recorded.ran(grid, opened) if isinstance(grid, str) else load(grid)
    return Run(opened, recorded.as_run(loaded, opened))


def results(grid: Grid, store: str | Path | None = None) -> pd.DataFrame:
    """The table of a grid that ran: `open_run(grid, store).results()`, see `Run.results`.

    >>> import equigrid as eg
    >>> len(eg.results("tiny"))
    10
    """
    return open_run(grid, store).results()


def report(grid: Grid, store: str | Path | None = None, *, out: str | Path | None = None) -> Path:
    """The report of a grid that ran: `open_run(grid, store).report(out)`, see `Run.report`.

    >>> import equigrid as eg
    >>> eg.report("tiny", out="report-of-tiny").as_posix()
    'report-of-tiny/report.html'
    """
    return open_run(grid, store).report(out)


def fit(
    table: pd.DataFrame | str | Path,
    *,
    metric: Metric | None = None,
    dataset_size: int | None = None,
    settings: Settings | None = None,
) -> Fit:
    """Fits any table of results, equigrid's or others'.

    table: a DataFrame, or the path of a CSV, TSV or Parquet file, with a row for each training. It
    needs the accuracy in percent (`top1`, or `accuracy`), the size of the base in images (`n_base`)
    and the images added: `n_real_added`, `n_syn`, `n_copies`, or `arm` and `amount`. Names
    (`dataset`, `classifier`, `recipe`, `generator`) and seeds (`subset_seed`, `generator_seed`,
    `seed`) are taken where they are given. metric: the column of the accuracies. dataset_size:
    images of the whole training set, for τ of Eq. 13; the largest real amount where it is not
    given. settings: all other choices. Raises UserError that names what the table lacks.

    >>> import equigrid as eg, numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> rows = [
    ...     {"n_base": 100, "n_real_added": real, "n_syn": syn, "n_copies": copies, "seed": seed,
    ...      "accuracy": 70 + 8 * np.log(1 + (real + 0.3 * syn) / 100) + rng.normal(0, 0.3)}
    ...     for real, syn, copies in [(0, 0, 0), (50, 0, 0), (100, 0, 0), (200, 0, 0),
    ...                               (0, 100, 0), (0, 400, 0), (0, 1000, 0),
    ...                               (0, 0, 100), (0, 0, 400), (0, 0, 1000)]
    ...     for seed in range(5)
    ... ]
    >>> answer = eg.fit(pd.DataFrame(rows)).answer(n_base=100, n_real=100)
    >>> answer.low < 100 / 0.3 < answer.high  # a synthetic image was planted as 0.3 real ones
    True
    """
    return fit_table(table, metric=metric, dataset_size=dataset_size, settings=settings)


def equiv(
    source: Run | Fit | pd.DataFrame | str | Path,
    n_base: float,
    n_real: float,
    *,
    store: str | Path | None = None,
    dataset: str | None = None,
    classifier: str | None = None,
    recipe: str | None = None,
    generator: str | None = None,
    cost_real: float | None = None,
    cost_syn: float | None = None,
    cost_generator: float = 0.0,
) -> Answer:
    """How many synthetic images do what `n_real` more real ones do, at a base of `n_base`?

    source: a run, a fit, a table or its file as `fit` takes them, or the name of a grid in the
    store. The names choose where there are several curves. cost_real, cost_syn, cost_generator: per
    image, and once for the generator, in any one currency. Raises UserError, see `Fit.answer`.

    >>> import equigrid as eg
    >>> eg.equiv("results.csv", n_base=100, n_real=100).kind
    'matched'
    >>> eg.equiv("results.csv", 100, 100, cost_real=0.05, cost_syn=0.0004).costs.real
    5.0
    """
    if isinstance(source, Run):
        source = source.fit()
    elif isinstance(source, str) and Path(source).suffix not in SUFFIXES:
        source = open_run(source, store).fit()
    elif not isinstance(source, Fit):
        source = fit(source)
    return source.answer(
        n_base, n_real, dataset=dataset, classifier=classifier, recipe=recipe, generator=generator,
        cost_real=cost_real, cost_syn=cost_syn, cost_generator=cost_generator,
    )  # fmt: skip


def place(store: str | Path | None) -> str:
    if store is not None:
        return str(store)
    return os.environ.get(recorded.STORE_VARIABLE) or recorded.DEFAULT_STORE


def _executed(spec: GridSpec, chosen: dict[str, Any]) -> GridSpec:
    """The spec with choices of this run. Raises UserError."""
    try:
        execution = type(spec.execution).model_validate({**spec.execution.model_dump(), **chosen})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"][:1])) or "execution"
        raise UserError(f"run: {where}: {first['msg']}") from error
    return spec.model_copy(update={"execution": execution})


def silent() -> Console:
    return PlainConsole(file=io.StringIO(), quiet=True, force_terminal=False, force_jupyter=False)
