"""The arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from equigrid.grid.planning import recorded

DEFAULT_STORE = recorded.DEFAULT_STORE
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
        "--store",
        envvar=recorded.STORE_VARIABLE,
        metavar="URI",
        help="A folder, or s3://… or gs://…",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for figures and report [equigrid-out/GRID]."),
]
Metric = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="METRIC",
        help="top1, top5, val_top1, balanced_accuracy, macro_f1, auc, sensitivity, specificity.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="A Ray cluster (auto, HOST:PORT); without it, RAY_ADDRESS or a local one."),
]
Dashboard = Annotated[bool, typer.Option(help="Ray's dashboard, for a local cluster.")]
Takeover = Annotated[
    bool, typer.Option("--takeover", help="Take the place of a driver that runs the grid.")
]
TableOption = Annotated[
    Path | None,
    typer.Option(
        "--table",
        metavar="FILE",
        help="Results made elsewhere (.csv, .tsv, .parquet), not a grid's; see docs/analysis.md.",
    ),
]


def finite(value: float | None) -> float | None:
    """For options that are amounts of something. Raises typer.BadParameter for nan and inf."""
    import math

    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no amount; write a number")
    return value


MaxGpuHours = Annotated[
    float | None,
    typer.Option(
        min=0,
        callback=finite,
        help="Stop before holding devices for longer (a CPU slot counts as one).",
    ),
]
