"""The `equigrid` command; its exit codes are `equigrid.grid.errors.ExitCode`."""

import json
import shlex
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from equigrid.grid.errors import ExitCode, UnavailableError, UserError

# Anything heavier than this is imported inside the commands: `--help` must answer at once.
from equigrid.grid.spec import PRESETS, GridSpec

app = typer.Typer(
    name="equigrid",
    help="How many synthetic images is one real image worth? Plans, runs and analyses the experiment that says.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DEFAULT_STORE = "equigrid-store"
Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="A preset's name or a YAML file.", show_default=False)
]
RanSpec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC", help="The name of a grid in the store, a preset's name, or a YAML file."
    ),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="EQUIGRID_STORE", metavar="URI", help="A folder, or s3://… or gs://…"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for figures and report [equigrid-out/GRID]."),
]


def main() -> None:
    """The entry point: every kind of bad input ends here, as one line and exit code 2."""
    try:
        app()
    except KeyboardInterrupt:
        print("equigrid: interrupted", file=sys.stderr)
        sys.exit(130)


@contextmanager
def _bad_input():
    try:
        yield
    except (UserError, UnavailableError) as error:
        print(f"equigrid: {error}", file=sys.stderr)
        bad = isinstance(error, UserError)
        raise typer.Exit(ExitCode.BAD_INPUT if bad else ExitCode.UNAVAILABLE) from error


def _print_json(content) -> None:
    print(json.dumps(content, indent=1, default=str))


def _open(store: str, *, create: bool = False):
    from equigrid.grid.store import Store

    opened = Store(store, create=create)
    if not create and not any(True for _ in opened.list("grids")):
        raise UserError(
            f"store {store}: holds no grid yet; run one first, or name another with --store"
        )
    return opened


def _ran(spec: str, store):
    """A spec as it was last run in `store`, by its grid's name; else as a preset or file says."""
    from equigrid.grid.spec import load

    recorded = None
    if not spec.endswith((".yaml", ".yml")) and "/" not in spec:
        recorded = store.get_json(f"grids/{spec}/spec.json")
    if recorded is None:
        return load(spec)
    return GridSpec.model_validate(recorded)


def _planned(spec: str, store):
    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve

    return plan(resolve(_ran(spec, store), store))


# Commands -----------------------------------------------------------------------------------------


@app.command()
def plan(spec: Spec, store: StoreOption = DEFAULT_STORE, as_json: Json = False) -> None:
    """Show what would run, what is done already, and what it would take."""
    from equigrid.grid.reporting import console as screens

    with _bad_input():
        from equigrid.grid.planning import planner as planning
        from equigrid.grid.planning.resolve import resolve
        from equigrid.grid.reporting import estimate
        from equigrid.grid.spec import load
        from equigrid.grid.store import Store

        loaded = load(spec)
        opened = Store(store)
        the_plan = planning.plan(resolve(loaded, opened))
        lines = estimate.lines(opened, the_plan)
        slots, gpus = _slots_here(loaded)
        content = {
            "grid": loaded.name, "dataset": the_plan.resolved.source.name,
            "fingerprint": the_plan.resolved.fingerprint, "cells": len(the_plan.cells), "slots": slots,
            "gpus": loaded.execution.gpus, "kinds": [line.__dict__ for line in lines],
            "device_seconds": _sum(line.seconds for line in lines if line.kind != "ingest"),
            "bytes": _sum(line.bytes for line in lines), "currency": loaded.currency,
            "money": _sum(line.money for line in lines if line.kind != "ingest"),
        }  # fmt: skip
        seconds = content["device_seconds"]
        content["wall_seconds"] = seconds and seconds / (slots * (gpus or 1))
        content["gpu_hours"] = seconds and seconds / 3600 * bool(gpus)
    if as_json:
        _print_json(content)
    else:
        screens.show_plan(content, lines)


@app.command()
def run(
    spec: Spec,
    store: StoreOption = DEFAULT_STORE,
    out: Out = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster (auto, HOST:PORT); without it, RAY_ADDRESS or a local one."
        ),
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Ray's dashboard, for a local cluster.")] = True,
    max_gpu_hours: Annotated[
        float | None,
        typer.Option(
            min=0, help="Stop before holding devices for longer (a CPU slot counts as one)."
        ),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            min=1, help="Slots at once, also beyond the present nodes: an autoscaler adds them."
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="GPUs of a slot, 1 or a fraction: where no node is up yet."
        ),
    ] = None,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Take the place of a driver that runs it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a grid, or whatever is left of it; then fit, and write figures and a report."""
    from equigrid.grid.reporting import console as screens

    with _bad_input():
        from equigrid.grid.reporting.summary import closing_line, nothing_done
        from equigrid.grid.spec import load
        from equigrid.grid.store import Store

        loaded, opened, console = load(spec), Store(store, create=True), screens.progress_console()
        chosen = {
            name: value for name, value in (("slots", slots), ("gpus", gpus)) if value is not None
        }
        loaded = loaded.model_copy(update={"execution": loaded.execution.model_copy(update=chosen)})
        opened.check()
        if not as_json:
            console.print(
                f"grid {loaded.name} → store {opened.uri}", highlight=False, soft_wrap=True
            )
        if (plan_now := _nothing_to_do(loaded, opened)) is not None:
            summary, the_plan = nothing_done(opened, plan_now), plan_now
        else:
            from equigrid.grid.reporting.analysis_bridge import start_analyst
            from equigrid.grid.running import cluster, driver
            from equigrid.grid.store import lock

            tell = partial(console.print, highlight=False, soft_wrap=True)
            held = lock.acquire(opened, loaded.name, takeover=takeover, tell=tell)
            with held, cluster.connected(address, dashboard=dashboard):
                options = {
                    "analyst": start_analyst,
                    "max_device_hours": max_gpu_hours,
                    "lock": held,
                }
                summary, the_plan = driver.run(loaded, opened, console=console, **options)
        again = shlex.join(["equigrid", *sys.argv[1:]])
        console.print(closing_line(summary, again), highlight=False, soft_wrap=True)
        if summary.interrupted:
            raise typer.Exit(130)
        if summary.jobs or summary.failures or not _report_path(the_plan, out).exists():
            written = _analyse(the_plan, opened, out, as_json=as_json, summary=summary.to_json())
        else:
            written = {"report": str(_report_path(the_plan, out))}
            console.print(f"report: {written['report']}", highlight=False, soft_wrap=True)
    if as_json:
        _print_json({"summary": summary.to_json(), **written})
    screens.show_failures(summary, console)
    if summary.failures:
        raise typer.Exit(1)
    if summary.budget_reached:
        raise typer.Exit(3)


@app.command()
def status(
    spec: RanSpec,
    store: StoreOption = DEFAULT_STORE,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show again every few seconds until all is done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how far a grid is, running or not, and what failed in it: from the store alone."""
    import time

    from equigrid.grid.reporting import console as screens

    with _bad_input():
        from equigrid.grid.reporting import status as state
        from equigrid.grid.store import results

        opened = _open(store)
        reader = results.Reader(opened, state.COLUMNS)
    while True:
        with _bad_input():
            found = state.status(opened, _planned(spec, opened), reader)
        if as_json:
            _print_json(found.to_json())
        else:
            screens.show_status(found)
        if not watch or found.complete:
            break
        time.sleep(5)
    if any(stage.failed for stage in found.stages):
        raise typer.Exit(1)


@app.command()
def fit(spec: RanSpec, store: StoreOption = DEFAULT_STORE, as_json: Json = False) -> None:
    """Fit the equivalence anew from the store, and print it with its interval, or why there is
    none.
    """
    with _bad_input():
        from equigrid.grid.reporting import analysis_bridge

        opened = _open(store)
        table, analysis = analysis_bridge.fit(opened, _planned(spec, opened))
    if as_json:
        _print_json(analysis.to_json())
    else:
        _show_analysis(table, analysis)


@app.command()
def report(
    spec: RanSpec, store: StoreOption = DEFAULT_STORE, out: Out = None, as_json: Json = False
) -> None:
    """Write the figures and the HTML report anew from the store."""
    with _bad_input():
        opened = _open(store)
        written = _analyse(_planned(spec, opened), opened, out, as_json=True)
    if as_json:
        _print_json(written)
    else:
        print(written["report"])


@app.command()
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
    from equigrid.analysis.paper import published as published
    from equigrid.grid.reporting import console as screens

    rows = published.refit(as_printed=as_printed)
    if as_json:
        _print_json(rows)
    else:
        screens.screen().print(published.render(rows))


@app.command()
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
    as_json: Json = False,
) -> None:
    """Answer: N more real images are worth how many synthetic ones, with an interval, and what
    would each cost?
    """
    with _bad_input():
        if from_paper and spec is not None:
            raise UserError(
                "equiv: name a grid that has run, or ask the paper's tables with --paper, not both"
            )
        if not from_paper and spec is None:
            spec = _only_grid(store)
        only = {"dataset": dataset, "classifier": classifier, "generator": generator}
        answer = _answer_of(
            spec, store, (n_base, n_real, cost_real, cost_syn, target, budget), only
        )
    if as_json:
        _print_json(answer.to_json())
    else:
        print(answer.text)


def _only_grid(store: str) -> str:
    """The name of the store's grid if it holds one. Raises UserError if it holds several
    or none.
    """
    names = sorted({name.split("/")[1] for name in _open(store).list("grids")})
    if len(names) > 1:
        raise UserError(
            f"equiv: store {store} holds several grids: name one of {', '.join(names)}, or give --paper"
        )
    return names[0]


def _answer_of(spec: str | None, store: str, amounts: tuple, only: dict):
    """The answer from a grid's results, or from the paper's tables where `spec` is None. Raises
    UserError.
    """
    from equigrid.analysis.answer.practical import equiv as ask

    if spec is None:
        from equigrid.analysis.conclusions.equivalence import analyse
        from equigrid.analysis.paper import published as published

        table = published.results()
        if only["dataset"]:  # the others would be fitted for nothing
            table = table[table["dataset"] == only["dataset"]]
        analysis = analyse(
            table[table["recipe"] != "paper/zero-shot"], settings=published.settings()
        )
    else:
        from equigrid.grid.reporting import analysis_bridge

        opened = _open(store)
        _, analysis = analysis_bridge.fit(opened, _planned(spec, opened))
    try:
        return ask(analysis, *amounts, **only)
    except ValueError as error:
        raise UserError(f"equiv: {error}") from error


@app.command()
def gc(
    store: StoreOption = DEFAULT_STORE,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is shown.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a store holds that no grid in it needs; with --delete, remove it. Results are never
    touched.
    """
    from equigrid.grid.reporting import console as screens

    with _bad_input():
        from equigrid.grid import gc as collecting

        opened = _open(store)
        garbage = collecting.plan_gc(opened, collecting.recorded(opened))
        freed = collecting.collect(opened, garbage) if delete else 0
    if as_json:
        _print_json({"garbage": [item._asdict() for item in garbage], "freed_bytes": freed})
    else:
        screens.show_garbage(garbage, deleted=delete)


@app.command()
def presets(as_json: Json = False) -> None:
    """List the presets."""
    from equigrid.grid.spec import presets as names

    about = {
        name: (PRESETS / f"{name}.yaml").read_text().splitlines()[0].lstrip("# ")
        for name in names()
    }
    if as_json:
        _print_json(about)
    else:
        print("\n".join(f"{name}: {text}" for name, text in about.items()))


# What they share and show -------------------------------------------------------------------------


def _nothing_to_do(spec: GridSpec, store):
    """The plan of a grid that has no work left, or None: then Ray need not start."""
    from equigrid.grid.planning.pending import pending
    from equigrid.grid.planning.planner import plan as make_plan
    from equigrid.grid.planning.resolve import resolve

    resolved = resolve(spec, store)
    the_plan = make_plan(resolved)
    if resolved.dataset is None:
        return None
    return None if pending(store, the_plan)[0] else the_plan


def _analyse(
    the_plan, store, out: Path | None, *, as_json: bool, summary: dict | None = None
) -> dict:
    """Fits, prints the table unless `as_json`, and writes figures and report. Returns what was
    written.
    """
    from equigrid.grid.reporting import analysis_bridge

    directory = _report_path(the_plan, out).parent
    table, analysis = analysis_bridge.fit(store, the_plan)
    if not as_json:
        _show_analysis(table, analysis)
    path = analysis_bridge.write_report(store, the_plan, table, analysis, directory, summary)
    if not as_json:
        print(f"report: {path}")
    return {"report": str(path), "analysis": analysis.to_json()}


def _report_path(the_plan, out: Path | None) -> Path:
    return (out or Path("equigrid-out") / the_plan.resolved.spec.name) / "report.html"


def _show_analysis(table, analysis) -> None:
    from equigrid.analysis.report.terminal import summary_table
    from equigrid.grid.reporting import console as screens

    screens.screen().print(summary_table(table, analysis))


def _slots_here(spec: GridSpec) -> tuple[int, float]:
    """Slots of a local run on this machine (or the spec's own number), and GPUs per slot if they
    were GPUs.
    """
    import os

    from equigrid.grid.reporting.estimate import gpus_of_a_slot

    execution = spec.execution
    return execution.slots or max(1, int((os.cpu_count() or 1) / execution.cpus)), gpus_of_a_slot(
        execution
    )


def _sum(values):
    values = list(values)
    return None if not values or any(value is None for value in values) else sum(values)


if __name__ == "__main__":
    main()
