"""Planning and running grids, and how far they are."""

import shlex
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equigrid.grid.cli import streams, supervisor
from equigrid.grid.cli.inputs import open_filled, planned, print_json, question
from equigrid.grid.cli.options import (
    DEFAULT_STORE,
    Address,
    Dashboard,
    Json,
    MaxGpuHours,
    Out,
    RanSpec,
    Spec,
    StoreOption,
    Takeover,
    finite,
)
from equigrid.grid.errors import ExitCode, UnavailableError, UserError
from equigrid.grid.planning.recorded import nothing_to_do
from equigrid.grid.reporting.devices import DEVICES, Device
from equigrid.grid.reporting.devices import device as known_device
from equigrid.grid.text import redacted

if TYPE_CHECKING:
    from equigrid.analysis.answer.asking import Question
    from equigrid.grid.planning.graph import Plan
    from equigrid.grid.reporting.summary import Summary
    from equigrid.grid.spec import GridSpec
    from equigrid.grid.store import Store

WATCH_EVERY_S = 5


def plan(
    spec: Spec,
    store: StoreOption = DEFAULT_STORE,
    ask: Annotated[
        str | None,
        typer.Option(
            "--question",
            metavar="N_BASE,N_REAL",
            help="Rank what to run next by how much it narrows one answer for its cost:"
            " n_base=5000,n_real=2500[,generator=edm].",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Estimate what never ran for this device, such as A100, or CPU for a core."
            " Without it, for this machine's GPU, else for the paper's.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what would run, what is done already, and what it would take."""
    from equigrid.grid.planning import planner as planning
    from equigrid.grid.planning.resolve import resolve
    from equigrid.grid.reporting.console import show_plan
    from equigrid.grid.reporting.outline import outline
    from equigrid.grid.spec import load
    from equigrid.grid.store import Store

    loaded = load(spec)
    asked = None if ask is None else question(ask)
    opened = Store(store)
    if asked is not None:
        _show_next(loaded, opened, asked, as_json=as_json)
        return
    chosen = estimated_on(device, gpus=loaded.execution.gpus)
    content, lines = outline(opened, planning.plan(resolve(loaded, opened)), chosen)
    if as_json:
        print_json(content)
    else:
        show_plan(content, lines)


def run(
    spec: Spec,
    store: StoreOption = DEFAULT_STORE,
    out: Out = None,
    address: Address = None,
    dashboard: Dashboard = True,
    max_gpu_hours: MaxGpuHours = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="N_BASE,N_REAL,WITHIN",
            help="Run in rounds until one answer is known, and no more of the grid than it needs:"
            " n_base=5000,n_real=2500,within=1.5[,generator=edm].",
        ),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Slots at once, also beyond the present nodes: an autoscaler adds them.",
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            callback=finite,
            help="GPUs of a slot, 1 or a fraction: where no node is up yet.",
        ),
    ] = None,
    takeover: Takeover = False,
    as_json: Json = False,
) -> ExitCode:
    """Run a grid, or whatever is left of it; then fit, and write figures and a report."""
    from equigrid.grid.reporting.console import progress_console, show_failures
    from equigrid.grid.reporting.out_folder import out_folder
    from equigrid.grid.reporting.summary import closing_line, nothing_done
    from equigrid.grid.spec import load
    from equigrid.grid.store import Store

    loaded, console = load(spec), progress_console()
    asked = None if until is None else question(until)
    tell = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    chosen = {
        name: value for name, value in (("slots", slots), ("gpus", gpus)) if value is not None
    }
    loaded = loaded.model_copy(update={"execution": loaded.execution.model_copy(update=chosen)})
    folder = out_folder(out, loaded.name, option="--out", store=store)
    opened = Store(store, create=True)  # nothing is left behind by a wrong --out
    opened.check()
    if not as_json:
        tell(f"grid {loaded.name} → store {opened.uri}")
    if asked is not None:
        return _run_until(
            loaded,
            opened,
            asked,
            folder=folder,
            address=address,
            dashboard=dashboard,
            max_gpu_hours=max_gpu_hours,
            takeover=takeover,
            as_json=as_json,
        )
    if (plan_now := nothing_to_do(loaded, opened)) is not None:  # Ray is not even imported
        summary, the_plan = nothing_done(opened, plan_now), plan_now
    else:
        from equigrid.grid.running import session

        summary, the_plan = session.run(
            loaded,
            opened,
            console=console,
            tell=tell,
            address=address,
            dashboard=dashboard,
            max_device_hours=max_gpu_hours,
            takeover=takeover,
            last_word=supervisor.end,
        )
    tell(closing_line(summary, shlex.join(["equigrid", *sys.argv[1:]])))
    if summary.interrupted:
        return ExitCode.INTERRUPTED
    written = _reported(summary, the_plan, opened, folder, as_json=as_json)
    if as_json:
        print_json({"summary": summary.to_json(), **written})
    show_failures(summary, console)
    if summary.failures:
        return ExitCode.FAILED_CELLS
    return ExitCode.BUDGET if summary.budget_reached else ExitCode.DONE


def demo(store: StoreOption = DEFAULT_STORE, out: Out = None) -> ExitCode:
    """Run the digits grid, as `run digits` does: minutes on a laptop, nothing to download."""
    return run("digits", store, out)


def status(
    spec: RanSpec,
    store: StoreOption = DEFAULT_STORE,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show again every few seconds until all is done.")
    ] = False,
    as_json: Json = False,
) -> ExitCode:
    """Show how far a grid is, running or not, and what failed in it: from the store alone."""
    from equigrid.grid.reporting import status as state
    from equigrid.grid.reporting.console import show_status
    from equigrid.grid.store import results

    opened = open_filled(store)
    reader = results.Reader(opened, state.COLUMNS)
    while True:
        found = state.status(opened, planned(spec, opened), reader)
        if as_json:
            print_json(found.to_json())
        else:
            show_status(found)
        sys.stdout.flush()
        if not watch or found.complete or not streams.output_is_read():
            break
        time.sleep(WATCH_EVERY_S)
    failed = any(stage.failed for stage in found.stages)
    return ExitCode.FAILED_CELLS if failed else ExitCode.DONE


def watch(
    spec: RanSpec,
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the page; 0 takes any that is free.")
    ] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's are open to it.")
    ] = "127.0.0.1",
    as_json: Json = False,
) -> ExitCode:
    """Serve a page that shows a grid fill up and its answer narrow: from the store alone."""
    from equigrid.grid.reporting.live import Live
    from equigrid.grid.reporting.live_server import LiveServer

    opened = open_filled(store)
    the_plan = planned(spec, opened)  # what is wrong with the spec is said at once
    name = the_plan.resolved.spec.name
    live = Live(opened, lambda: planned(spec, opened))
    try:
        server = LiveServer(live, name, opened.uri, host=host, port=port)
    except OSError as error:
        live.close()
        raise UnavailableError(f"watch: {host}:{port}: {error.strerror or error}") from error
    if as_json:
        shown = {"grid": name, "store": redacted(opened.uri), "url": server.address}
        print_json(shown, own_token=True)
    else:
        streams.say(f"watching {name} in {opened.uri}; end with Ctrl-C")
        print(server.address)  # its token is what it is for: `say` would hide it
    sys.stdout.flush()
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            live.close()
    return ExitCode.DONE


def estimated_on(name: str | None, *, gpus: float | str) -> Device | None:
    """The device that is named, else this machine's first GPU if it is known and the grid wants
    one, else None. Raises UserError for a name that is not in the table.
    """
    from equigrid.grid.authoring.machine import this_machine

    if name is None:
        here = this_machine().gpus if gpus else ()
        return known_device(here[0]) if here else None
    found = known_device(name)
    if found is None:
        raise UserError(f"--device: {name!r} is not in the table; there are {', '.join(DEVICES)}")
    return found


# What they share ----------------------------------------------------------------------------------


def _run_until(
    spec: "GridSpec",
    store: "Store",
    asked: "Question",
    *,
    folder: Path,
    address: str | None,
    dashboard: bool,
    max_gpu_hours: float | None,
    takeover: bool,
    as_json: bool,
) -> ExitCode:
    """Rounds of runs, then the report of all that ran."""
    from equigrid.grid.reporting.console import progress_console, show_failures
    from equigrid.grid.reporting.summary import closing_line
    from equigrid.grid.running import session

    console = progress_console()
    tell = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    found = session.run_until(
        spec,
        store,
        asked,
        console=console,
        tell=tell,
        address=address,
        dashboard=dashboard,
        max_device_hours=max_gpu_hours,
        takeover=takeover,
        last_word=supervisor.end,
    )
    tell(closing_line(found.summary, shlex.join(["equigrid", *sys.argv[1:]])))
    what = "known" if found.known else f"not known: {found.stopped}"
    tell(f"{found.rounds} rounds, {found.trainings:,} trainings in all; the answer is {what}")
    if found.amount is not None:
        tell(found.amount.text)
    if found.summary.interrupted:
        return ExitCode.INTERRUPTED
    written = _reported(found.summary, found.plan, store, folder, as_json=as_json)
    if as_json:
        from equigrid.analysis.conclusions.worth import plain

        answer = found.amount and {**plain(asdict(found.amount)), "text": found.amount.text}
        asked_of = {"known": found.known, "stopped": found.stopped, "rounds": found.rounds,
                    "trainings": found.trainings, "answer": answer}  # fmt: skip
        print_json({"summary": found.summary.to_json(), "until": asked_of, **written})
    show_failures(found.summary, console)
    if found.summary.failures:
        return ExitCode.FAILED_CELLS
    return ExitCode.BUDGET if found.summary.budget_reached else ExitCode.DONE


def _show_next(spec: "GridSpec", store: "Store", asked: "Question", *, as_json: bool) -> None:
    """What to run next for one answer, by what the store holds."""
    from equigrid.analysis.conclusions.worth import plain
    from equigrid.grid.reporting import questions
    from equigrid.grid.reporting.console import show_next

    amount, found = questions.next_steps(spec, store, asked)
    if as_json:
        print_json(
            {
                "answer": {**plain(asdict(amount)), "text": amount.text},
                "next": [plain(asdict(one)) for one in found],
            }
        )
    else:
        show_next(amount.text, found)


def _reported(
    summary: "Summary", the_plan: "Plan", store: "Store", folder: Path, *, as_json: bool
) -> dict:
    """Fits and writes the report, unless nothing ran and it is there. Raises UnavailableError."""
    from equigrid.grid.cli.answers import analyse
    from equigrid.grid.reporting.console import progress_console

    report = folder / "report.html"
    if not (summary.jobs or summary.failures) and report.exists():
        progress_console().print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)
        return {"report": str(report)}
    try:
        return analyse(the_plan, store, folder, as_json=as_json)
    except OSError as error:
        if isinstance(error, UnavailableError):
            raise
        again = shlex.join(
            ["equigrid", "report", summary.grid, "--store", store.uri, "--out", "DIR"]
        )
        raise UnavailableError(
            f"--out: {folder} cannot be written: {error.strerror or error}; all results are in the"
            f" store, and the report comes from there: {again}"
        ) from error
