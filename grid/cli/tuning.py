"""The search for a recipe on validation images."""

import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equigrid.grid.cli import streams, supervisor
from equigrid.grid.cli.inputs import print_json
from equigrid.grid.cli.options import (
    DEFAULT_STORE,
    Address,
    Dashboard,
    Json,
    MaxGpuHours,
    Spec,
    StoreOption,
    Takeover,
    finite,
)
from equigrid.grid.errors import ExitCode, UnavailableError

if TYPE_CHECKING:
    from equigrid.grid.tuning.session import Tuned


def tune(
    spec: Spec,
    store: StoreOption = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder for recipe, table, figure [equigrid-out/GRID]."
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="YAML",
            help="What is searched, as YAML or a file of it: 'lr: {low: 0.01, high: 0.3, log:"
            " true}'. Else the spec's, else a default.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Recipes that are tried [16].")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="top1 (default), balanced_accuracy, macro_f1, auc, sensitivity, specificity.",
        ),
    ] = None,
    per_arm: Annotated[
        bool | None,
        typer.Option(
            "--per-arm", help="Search for each arm, of equally many trials: a recipe by arm."
        ),
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(min=0, max=1_000, help="Fresh seeds for the best and the grid's own [3]."),
    ] = None,
    classifier: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the grid's [the first].")
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Search a generator's duration and guidance instead, by the distance of its images"
            " from those held out.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Of the search.")] = None,
    address: Address = None,
    dashboard: Dashboard = True,
    max_gpu_hours: MaxGpuHours = None,
    slots: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Candidates at once.")
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(min=0, max=1, callback=finite, help="GPUs of a candidate, 1 or a fraction."),
    ] = None,
    takeover: Takeover = False,
    as_json: Json = False,
) -> ExitCode:
    """Search a recipe by Ray Tune, on validation images, never on test images."""
    from equigrid.grid.reporting import console as screens
    from equigrid.grid.reporting.out_folder import out_folder
    from equigrid.grid.spec import load
    from equigrid.grid.store import Store
    from equigrid.grid.tuning import wishes, writing

    wish = {
        "trials": trials, "metric": metric, "per_arm": per_arm, "confirm": confirm,
        "classifier": classifier, "seed": seed,
    }  # fmt: skip
    loaded, aim = wishes.wished(load(spec), wish, space, generator, slots=slots, gpus=gpus)
    console = screens.progress_console()
    tell = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    folder = out_folder(out, loaded.name, option="--out", store=store)
    opened = Store(store, create=True)  # nothing is left behind by a wrong --out
    opened.check()
    from equigrid.grid.tuning import session

    found = session.tune(
        loaded, opened, console=console, tell=tell, address=address, dashboard=dashboard,
        max_device_hours=max_gpu_hours, takeover=takeover, last_word=supervisor.end,
        aim=aim,
    )  # fmt: skip
    again = shlex.join(["equigrid", *sys.argv[1:]])
    if found.interrupted:
        tell(f"interrupted; what is done is kept, to go on: {again}")
        return ExitCode.INTERRUPTED
    for line in found.failures:
        tell(f"failed: {line}")
    written: dict[str, Path] = {}
    if any(outcome.searched for outcome in found.outcomes):
        try:
            written = writing.write(folder, found.outcomes, found.plan, spec)
        except OSError as error:
            why = error.strerror or error
            raise UnavailableError(f"--out: {folder} cannot be written: {why}") from error
    _tell(found, written, as_json=as_json)
    if found.budget_reached:
        tell(f"stopped at the budget; to go on: {again}")
        return ExitCode.BUDGET
    return ExitCode.FAILED_CELLS if found.failures else ExitCode.DONE


def _tell(found: "Tuned", written: dict[str, Path], *, as_json: bool) -> None:
    from equigrid.grid.tuning import phrasing, writing

    if as_json:
        content: dict[str, Any] = {
            "searches": [writing.search_facts(outcome) for outcome in found.outcomes],
            "failures": found.failures, "device_seconds": found.device_s,
            **{name: str(path) for name, path in written.items()},
        }  # fmt: skip
        print_json(content)
        return
    for outcome in found.outcomes:
        for line in phrasing.table_lines(outcome):
            streams.say(line)
        for line in phrasing.lines_of(outcome):
            streams.say(line)
    if "recipe" in written:
        streams.say(writing.OPTIMISTIC)
        streams.say(f"table: {written['table']}; figure: {written['figure']}")
        use = writing.usage(found.outcomes[0].study, os.fspath(written["recipe"]))
        streams.say(f"to use it, write in the spec: {use}")
