"""What a finished grid, or the paper, says: fits, reports, the practical answer."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equigrid.grid.cli import streams
from equigrid.grid.cli.inputs import open_filled, planned, print_json
from equigrid.grid.cli.options import (
    DEFAULT_STORE,
    Json,
    Metric,
    Out,
    RanSpec,
    StoreOption,
    TableOption,
)
from equigrid.grid.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from equigrid.grid.planning.graph import Plan
    from equigrid.grid.store import Store


def fit(
    spec: Annotated[
        str | None, typer.Argument(metavar="[SPEC]", help="A grid's name, preset or file.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    table: TableOption = None,
    metric: Metric = "top1",
    as_json: Json = False,
) -> None:
    """Say anew from the store, or from a table of your own, what the synthetic images are worth."""
    rows, analysis, warnings = _analysed("fit", spec, store, table, metric)
    if as_json:
        print_json(analysis.to_json())
    else:
        _show_analysis(rows, analysis, warnings)


def report(
    spec: RanSpec,
    store: StoreOption = DEFAULT_STORE,
    out: Out = None,
    metric: Metric = "top1",
    as_json: Json = False,
) -> None:
    """Write the figures and the HTML report anew from the store."""
    from equigrid.grid.reporting import analysis_bridge
    from equigrid.grid.reporting.out_folder import out_folder

    opened = open_filled(store)
    the_plan = planned(spec, opened)
    folder = out_folder(out, the_plan.resolved.spec.name, option="--out", store=opened)
    analysis_bridge.read_results(opened, the_plan)
    written = analyse(the_plan, opened, folder, as_json=True, metric=metric)
    if as_json:
        print_json(written)
    else:
        streams.say(written["report"])


def paper(
    as_printed: Annotated[
        bool,
        typer.Option("--as-printed", help="Table 9's contradictory row as printed, not corrected."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also draw Figs. 2, 5 to 8, 10, 13 and 14 from the tables: PNG, SVG, PDF.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Re-fit the seven published equations from the paper's own tables, beside the published
    coefficients, and draw its figures.
    """
    from equigrid.analysis.paper import published
    from equigrid.analysis.report import paper_figures
    from equigrid.grid.reporting.console import screen
    from equigrid.grid.reporting.out_folder import out_folder

    folder = None if out is None else out_folder(out, "paper", option="--out")
    rows = published.refit(as_printed=as_printed)
    paths = [] if folder is None else paper_figures.write(folder, as_printed=as_printed)
    if as_json:
        figures = [str(path) for path in paths]
        print_json(rows if out is None else {"equations": rows, "figures": figures})
        return
    screen().print(published.render(rows))
    for path in paths:
        streams.say(str(path))


def equiv(
    n_base: Annotated[int, typer.Option(help="Real images there are.")],
    n_real: Annotated[int, typer.Option(help="Real images one could add.")],
    spec: Annotated[
        str | None, typer.Argument(metavar="[SPEC]", help="A grid's name, preset or file.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    from_paper: Annotated[
        bool, typer.Option("--paper", help="Ask the paper's tables, not a grid.")
    ] = False,
    table: TableOption = None,
    cost_real: Annotated[
        float | None, typer.Option(help="What labelling one real image costs.")
    ] = None,
    cost_syn: Annotated[
        float | None, typer.Option(help="What making one synthetic image costs.")
    ] = None,
    cost_generator: Annotated[
        float, typer.Option(help="What training the generator costs, once.")
    ] = 0.0,
    target: Annotated[
        float | None, typer.Option(help="What to reach, in percent of the metric.")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="The most to spend.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset's curve.")] = None,
    classifier: Annotated[str | None, typer.Option(help="Only this classifier's curve.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Only this recipe's curve.")] = None,
    generator: Annotated[str | None, typer.Option(help="Only this generator's curve.")] = None,
    metric: Metric = "top1",
    as_json: Json = False,
) -> None:
    """Answer: what are N more real images worth in synthetic ones, and what would each cost?"""
    from dataclasses import replace

    from equigrid.analysis.answer.practical import equiv as ask

    only: dict[str, Any] = {
        "dataset": dataset,
        "classifier": classifier,
        "recipe": recipe,
        "generator": generator,
    }
    if sum((from_paper, spec is not None, table is not None)) > 1:
        raise UserError(
            "equiv: ask one of a grid that has run, --paper, or --table FILE, not several"
        )
    warnings: tuple[str, ...] = ()
    if from_paper:
        analysis = _of_paper(dataset, metric)
    else:
        spec = _only_grid(store) if spec is None and table is None else spec
        _, analysis, warnings = _analysed("equiv", spec, store, table, metric)
    costs = (cost_real, cost_syn, target, budget, cost_generator)
    try:
        answer = ask(analysis, n_base, n_real, *costs, **only)
    except ValueError as error:
        raise UserError(f"equiv: {error}") from error
    answer = replace(answer, problems=(*answer.problems, *warnings))
    if as_json:
        print_json(answer.to_json())
    else:
        streams.say(answer.text)


def table(
    spec: RanSpec,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write comma-separated text.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Write Parquet.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a grid's results as one tidy table: a row per cell and trial."""
    from equigrid.grid.reporting.cell_table import write_table
    from equigrid.grid.reporting.out_folder import check_outside

    if (csv is None) == (parquet is None):
        raise UserError("table: give --csv FILE or --parquet FILE")
    from equigrid.grid.reporting import analysis_bridge

    opened = open_filled(store)
    path = csv or parquet
    assert path is not None
    check_outside(opened, path, "table")
    the_plan = planned(spec, opened)
    rows = analysis_bridge.read_table(opened, the_plan)
    if rows.empty:
        analysis_bridge.read_results(opened, the_plan)  # says why
    try:
        write_table(rows, path.expanduser(), "csv" if csv else "parquet")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, str(path)) from error
        why = error.strerror or error
        raise UserError(f"table: {path} cannot be written: {why}; name a file that can") from error
    streams.say(f"{path}: {len(rows):,} rows")


# What they share ----------------------------------------------------------------------------------


def analyse(
    the_plan: "Plan", store: "Store", folder: Path, *, as_json: bool, metric: str = "top1"
) -> dict:
    """Fits, prints the table unless `as_json`, and writes figures and report into `folder`. Returns
    what was written.
    """
    from equigrid.grid.reporting import analysis_bridge
    from equigrid.grid.reporting.console import progress_console

    table, analysis = analysis_bridge.fit(store, the_plan, metric)
    if not as_json:
        shape = the_plan.resolved.shape
        warnings = tuple(analysis_bridge.pool_warnings(store, the_plan))
        _show_analysis(table, analysis, warnings, shape.classes if shape else None)

    def tell(text: str) -> None:
        progress_console().print(text, soft_wrap=True)

    path = analysis_bridge.write_report(store, the_plan, table, analysis, folder, tell)
    if not as_json:
        streams.say(f"report: {path}")
    return {"report": str(path), "analysis": analysis.to_json()}


def _show_analysis(
    table: "pd.DataFrame",
    analysis: Any,
    warnings: tuple[str, ...] = (),
    class_names: tuple[str, ...] | None = None,
) -> None:
    from equigrid.analysis.report.terminal import summary_table
    from equigrid.grid.reporting.console import screen

    screen().print(summary_table(table, analysis, warnings, class_names))


def _analysed(
    command: str, spec: str | None, store: str, table: Path | None, metric: str
) -> tuple["pd.DataFrame", Any, tuple[str, ...]]:
    """Rows, their analysis, and warnings about the pools: of a grid, or of a table of the user's.

    Raises UserError, StoreError.
    """
    from equigrid.grid.reporting import analysis_bridge

    chosen = analysis_bridge.known_metric(metric)
    if (spec is None) == (table is None):
        raise UserError(f"{command}: name a grid that has run, or give --table FILE")
    if spec is not None:
        opened = open_filled(store)
        the_plan = planned(spec, opened)
        analysis_bridge.read_results(opened, the_plan)
        found = analysis_bridge.fit(opened, the_plan, metric)
        return *found, tuple(analysis_bridge.pool_warnings(opened, the_plan))
    from equigrid.analysis.conclusions.equivalence import analyse as conclude
    from equigrid.analysis.data.tidy import read_table
    from equigrid.analysis.settings import Settings

    assert table is not None
    try:
        rows = read_table(table, metric)
    except ValueError as error:
        raise UserError(f"{command}: {error}") from error
    return rows, conclude(rows, settings=Settings(metric=chosen)), ()


def _of_paper(dataset: str | None, metric: str) -> Any:
    """The analysis of the paper's tables, of one dataset if named."""
    from equigrid.analysis.conclusions.equivalence import analyse as conclude
    from equigrid.analysis.paper import published
    from equigrid.grid.reporting import analysis_bridge

    table = published.results()
    if dataset:  # the others would be fitted for nothing
        table = table[table["dataset"] == dataset]
    table = table[table["recipe"] != "paper/zero-shot"]
    return conclude(table, settings=published.settings(metric=analysis_bridge.known_metric(metric)))


def _only_grid(store: str) -> str:
    """The name of the store's grid. Raises UserError if it holds several or none."""
    from equigrid.grid.store import layout

    specs = filter(layout.is_spec, open_filled(store).list(layout.GRIDS))
    names = sorted(map(layout.grid_of, specs))
    if len(names) > 1:
        known = ", ".join(names)
        raise UserError(
            f"equiv: store {store} holds several grids: name one of {known}, or give --paper"
        )
    return names[0]
