"""What a finished grid, or the paper, says: fits, reports, the practical answer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equigrid.grid.cli.inputs import open_filled, out_folder, planned, print_json
from equigrid.grid.cli.options import DEFAULT_STORE, Json, Metric, Out, RanSpec, StoreOption
from equigrid.grid.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from equigrid.grid.planning.graph import Plan
    from equigrid.grid.store import Store


def fit(
    spec: RanSpec,
    store: StoreOption = DEFAULT_STORE,
    metric: Metric = "top1",
    as_json: Json = False,
) -> None:
    """Fit the equivalence anew from the store, and print it with its interval, or why there is
    none.
    """
    from equigrid.grid.reporting import analysis_bridge

    opened = open_filled(store)
    table, analysis = analysis_bridge.fit(opened, planned(spec, opened), metric)
    if as_json:
        print_json(analysis.to_json())
    else:
        _show_analysis(table, analysis)


def report(
    spec: RanSpec,
    store: StoreOption = DEFAULT_STORE,
    out: Out = None,
    metric: Metric = "top1",
    as_json: Json = False,
) -> None:
    """Write the figures and the HTML report anew from the store."""
    opened = open_filled(store)
    the_plan = planned(spec, opened)
    folder = out_folder(out, the_plan.resolved.spec.name)
    written = analyse(the_plan, opened, folder, as_json=True, metric=metric)
    if as_json:
        print_json(written)
    else:
        print(written["report"])


def paper(
    as_printed: Annotated[
        bool,
        typer.Option("--as-printed", help="Table 9's contradictory row as printed, not corrected."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Re-fit the seven published equations from the paper's own tables, beside the published
    coefficients.
    """
    from equigrid.analysis.paper import published
    from equigrid.grid.reporting import console as screens

    rows = published.refit(as_printed=as_printed)
    if as_json:
        print_json(rows)
    else:
        screens.screen().print(published.render(rows))


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
    cost_real: Annotated[
        float | None, typer.Option(help="What labelling one real image costs.")
    ] = None,
    cost_syn: Annotated[
        float | None, typer.Option(help="What making one synthetic image costs.")
    ] = None,
    target: Annotated[float | None, typer.Option(help="An accuracy to reach, in percent.")] = None,
    budget: Annotated[float | None, typer.Option(help="The most to spend.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset's curve.")] = None,
    classifier: Annotated[str | None, typer.Option(help="Only this classifier's curve.")] = None,
    generator: Annotated[str | None, typer.Option(help="Only this generator's curve.")] = None,
    metric: Metric = "top1",
    as_json: Json = False,
) -> None:
    """Answer: N more real images are worth how many synthetic ones, with an interval, and what
    would each cost?
    """
    if from_paper and spec is not None:
        raise UserError(
            "equiv: name a grid that has run, or ask the paper's tables with --paper, not both"
        )
    if not from_paper and spec is None:
        spec = _only_grid(store)
    only = {"dataset": dataset, "classifier": classifier, "generator": generator}
    amounts = (n_base, n_real, cost_real, cost_syn, target, budget)
    answer = _answer_of(spec, store, amounts, only, metric)
    if as_json:
        print_json({"metric": metric, **answer.to_json()})
    else:
        if metric != "top1":
            from equigrid.analysis.settings import NAMES

            print(f"by {NAMES[metric]}, where the answer says accuracy:")
        print(answer.text)


# What they share ----------------------------------------------------------------------------------


def analyse(
    the_plan: "Plan",
    store: "Store",
    folder: Path,
    *,
    as_json: bool,
    summary: dict | None = None,
    metric: str = "top1",
) -> dict:
    """Fits, prints the table unless `as_json`, and writes figures and report into `folder`. Returns
    what was written.
    """
    from equigrid.grid.reporting import analysis_bridge

    table, analysis = analysis_bridge.fit(store, the_plan, metric)
    if not as_json:
        _show_analysis(table, analysis)
    path = analysis_bridge.write_report(store, the_plan, table, analysis, folder, summary)
    if not as_json:
        print(f"report: {path}")
    return {"report": str(path), "analysis": analysis.to_json()}


def _show_analysis(table: "pd.DataFrame", analysis: Any) -> None:
    from equigrid.analysis.report.terminal import summary_table
    from equigrid.grid.reporting import console as screens

    screens.screen().print(summary_table(table, analysis))


def _only_grid(store: str) -> str:
    """The name of the store's grid. Raises UserError if it holds several or none."""
    from equigrid.grid.store import layout

    names = sorted({layout.grid_of(name) for name in open_filled(store).list(layout.GRIDS)})
    if len(names) > 1:
        known = ", ".join(names)
        raise UserError(
            f"equiv: store {store} holds several grids: name one of {known}, or give --paper"
        )
    return names[0]


def _answer_of(spec: str | None, store: str, amounts: tuple, only: dict, metric: str) -> Any:
    """The answer from a grid's results, or from the paper's tables where `spec` is None. Raises
    UserError.
    """
    from equigrid.analysis.answer.practical import equiv as ask
    from equigrid.grid.reporting import analysis_bridge

    if spec is None:
        from equigrid.analysis.conclusions.equivalence import analyse as conclude
        from equigrid.analysis.paper import published

        table = published.results()
        if only["dataset"]:  # the others would be fitted for nothing
            table = table[table["dataset"] == only["dataset"]]
        chosen = {"metric": analysis_bridge.known_metric(metric)}
        analysis = conclude(
            table[table["recipe"] != "paper/zero-shot"],
            settings=published.settings().model_copy(update=chosen),
        )
    else:
        opened = open_filled(store)
        _, analysis = analysis_bridge.fit(opened, planned(spec, opened), metric)
    try:
        return ask(analysis, *amounts, **only)
    except ValueError as error:
        raise UserError(f"equiv: {error}") from error
