"""The result for a terminal: one table of curves and a sentence for each."""

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from equigrid.analysis.conclusions.equivalence import Analysis, CurveResult
from equigrid.analysis.data.estimates import Estimate
from equigrid.analysis.data.summary import cell_means
from equigrid.analysis.settings import NAMES


def summary_table(table: pd.DataFrame, analysis: Analysis) -> RenderableType:
    """Per base size the accuracies of each arm, then each curve's equivalence or why it is
    undetermined.
    """
    parts: list[RenderableType] = [Text(problem, style="yellow") for problem in analysis.problems]
    metric = analysis.settings.metric
    parts += [
        _accuracy_table(means, family, metric) for family, means in _by_family(table, analysis)
    ]
    for curve in analysis.curves:
        parts.append(
            Text(curve.sentence, style="bold green" if curve.determined else "bold yellow")
        )
        parts += [Text(f"  {line}") for line in _gain_lines(curve)]
        parts += [Text(f"  note: {note}", style="dim") for note in curve.notes]
        if curve.missing:
            parts.append(
                Text(
                    f"  {len(curve.missing)} cells incomplete, first: {curve.missing[0]}",
                    style="yellow",
                )
            )
    return Group(*parts)


def _by_family(table: pd.DataFrame, analysis: Analysis) -> list[tuple[tuple, pd.DataFrame]]:
    means = cell_means(table, metric=analysis.settings.metric, level=analysis.settings.level)
    return list(means.groupby(["dataset", "classifier", "recipe"], sort=True)) if len(means) else []


def _accuracy_table(means: pd.DataFrame, family: tuple, metric: str) -> Table:
    view = Table(title=" / ".join(family), title_justify="left")
    for name in ("base", "arm", "added", "scale", f"{NAMES[metric]} %", "interval", "n"):
        view.add_column(name, justify="left" if name == "arm" else "right")
    for _, row in means.sort_values(["n_nominal", "arm", "generator", "scale"]).iterrows():
        arm = f"syn ({row['generator']})" if row["arm"] == "syn" else row["arm"]
        interval = "-" if pd.isna(row["low"]) else f"{row['low']:.2f} to {row['high']:.2f}"
        added = int(row["n_real_added"] + row["n_syn"] + row["n_copies"])
        size, scale, mean = f"{row['n_nominal']:,.0f}", f"{row['scale']:g}", f"{row['mean']:.2f}"
        view.add_row(size, arm, f"{added:,}", scale, mean, interval, str(row["trials"]))
    return view


def _gain_lines(curve: CurveResult) -> list[str]:
    named: list[tuple[str, Estimate | None]] = [
        ("real over base", curve.real_gain), ("synthetic over base", curve.gain_over_base),
        ("synthetic over copies", curve.gain_over_copies),
        ("copies over base", curve.copies_over_base),
    ]  # fmt: skip
    return [f"gain of {name}: {gain.text(2)} points" for name, gain in named if gain is not None]
