"""The result for a terminal: the verdicts first, then the amounts, the accuracies, and the paper's
reading.
"""

from collections.abc import Sequence

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from equigrid.analysis.answer.next_steps import NOTHING_FITTED, next_step, next_steps
from equigrid.analysis.conclusions.chosen import NO_BALANCED, sentences
from equigrid.analysis.conclusions.equivalence import Analysis, CurveResult
from equigrid.analysis.conclusions.phrasing import (
    OPEN,
    exchange_sentence,
    extra_sentence,
    unique,
    verdict,
)
from equigrid.analysis.conclusions.rivals import Rivals
from equigrid.analysis.data.estimates import Estimate
from equigrid.analysis.data.summary import cell_means
from equigrid.analysis.report.paper_reading import paper_paragraph
from equigrid.analysis.report.tables import (
    RIVALS_TITLE,
    added_text,
    amount_interval,
    amount_text,
    contender_text,
)
from equigrid.analysis.settings import NAMES


def summary_table(
    table: pd.DataFrame,
    analysis: Analysis,
    warnings: tuple[str, ...] = (),
    class_names: Sequence[str] | None = None,
) -> RenderableType:
    """Each curve's verdicts with what limits them, its amounts, then the accuracies of each arm.

    warnings: what the caller knows beside the table, such as of a pool of noise. class_names: by
    label.
    """
    parts: list[RenderableType] = [
        Text(problem, style="yellow") for problem in (*analysis.problems, *warnings)
    ]
    if not analysis.curves:
        parts.append(Text(f"no curve yet. {NOTHING_FITTED}", style="bold yellow"))
    for curve in analysis.curves:
        parts += _answer(curve, bool(analysis.chosen))
    parts += [Text(line) for line in sentences(analysis.chosen, class_names)]
    parts += [_rivals_table(one) for one in analysis.rivals]
    parts += [
        Text(verdict.text, style="bold") for one in analysis.rivals for verdict in one.verdicts
    ]
    parts += [
        _accuracy_table(means, family, analysis.settings.metric)
        for family, means in _by_family(table, analysis)
    ]
    for curve in analysis.curves:
        parts += [Text(line) for line in _gain_lines(curve)]
        parts.append(Text(f"the paper's reading, {curve.key}:", style="dim"))
        parts += [Text(f"  {line}", style="dim") for line in paper_paragraph(curve)]
        parts += [Text(f"  note: {note}", style="dim") for note in curve.notes]
    return Group(*parts)


def _answer(curve: CurveResult, by_class: bool) -> list[RenderableType]:
    worth = curve.worth
    status = worth.status if worth else "undetermined"
    parts: list[RenderableType] = [Text(f"{curve.key}: {status}", style="bold")]
    if worth is None or not worth.bases:
        nothing = NO_BALANCED if by_class else "there are no synthetic images in the results"
        why = "; ".join(worth.reasons) if worth else nothing
        parts.append(Text(f"  Undetermined: {why}.", style="bold yellow"))
        return [*parts, *(Text(f"  {step}") for step in next_steps(worth))]
    for base in worth.bases:
        found = verdict(base)
        style = "bold yellow" if found.kind == OPEN else "bold green"
        parts.append(Text(f"  {found.text}", style=style))
        parts += [Text(f"    {line}") for line in (next_step(worth, base),) if line]
        if found.kind != OPEN:
            parts.append(Text(f"    {exchange_sentence(base, worth.generator)}"))
            parts.append(Text(f"    {extra_sentence(base.extra, base.n_base, worth.generator)}"))
    parts.append(_amount_table(curve))
    missing = []
    if curve.missing:
        missing.append(f"{len(curve.missing)} cells incomplete, first: {curve.missing[0]}")
    of_amounts = [note for base in worth.bases for one in base.amounts for note in one.notes]
    warned = unique([*worth.warnings, *missing])
    parts += [Text(f"  {warning}", style="yellow") for warning in warned]
    noted = unique([*worth.notes, *of_amounts])
    parts += [Text(f"  note: {note}", style="dim") for note in noted]
    return parts


def _amount_table(curve: CurveResult) -> Table:
    view = Table(title=f"  images of {curve.key.generator} that do the same", title_justify="left")
    for name in ("base", "real images", "synthetic", "interval", "known within", "interpolated"):
        view.add_column(name, justify="right")
    assert curve.worth is not None
    for base in curve.worth.bases:
        for one in base.amounts:
            beside = one.interpolation and one.interpolation[1]
            view.add_row(
                f"{base.n_base:,.0f}", f"{one.n_real:,.0f}", amount_text(one),
                amount_interval(one) or "-",
                f"×{one.factor:.2g}" if one.kind == "matched" and one.factor else "-",
                f"{beside:,.0f}" if beside else "-",
            )  # fmt: skip
    return view


def _rivals_table(one: Rivals) -> Table:
    title = f"{RIVALS_TITLE}: base {one.n_base:,}, {one.classifier}, {one.recipe}"
    view = Table(title=title, title_justify="left")
    generators = list(one.contenders[0].over)
    beside = [f"over {name}" for name in generators]
    for name in ("what", "added", "steps", "mean %", "over the base", *beside, "n"):
        view.add_column(name, justify="left" if name == "what" else "right")
    for line in one.contenders:
        gains = [line.over_base, *(line.over[name] for name in generators)]
        view.add_row(
            contender_text(line), f"{line.added:,}", f"{line.steps:,}" if line.steps else "-",
            f"{line.mean:.2f}", *("-" if gain is None else gain.text(2) for gain in gains),
            str(line.trials),
        )  # fmt: skip
    return view


def _by_family(table: pd.DataFrame, analysis: Analysis) -> list[tuple[tuple, pd.DataFrame]]:
    settings = analysis.settings
    means = cell_means(
        table, metric=settings.metric, level=settings.level, test_sizes=settings.test_sizes
    )
    return list(means.groupby(["dataset", "classifier", "recipe"], sort=True)) if len(means) else []


def _accuracy_table(means: pd.DataFrame, family: tuple, metric: str) -> Table:
    view = Table(title=" / ".join(family), title_justify="left")
    for name in ("base", "arm", "added", "scale", f"{NAMES[metric]} %", "interval", "n"):
        view.add_column(name, justify="left" if name == "arm" else "right")
    ordered = means.sort_values(["n_nominal", "arm", "generator", "scale"])
    for row in ordered.to_dict("records"):
        arm = f"{row['arm']} ({row['generator']})" if row["generator"] else row["arm"]
        interval = "-" if pd.isna(row["low"]) else f"{row['low']:.2f} to {row['high']:.2f}"
        added = added_text(row)
        shown = added if isinstance(added, str) else f"{added:,}"
        scale = "-" if pd.isna(row["scale"]) else f"{row['scale']:g}"  # of no base
        size, mean = f"{row['n_nominal']:,.0f}", f"{row['mean']:.2f}"
        view.add_row(size, arm, shown, scale, mean, interval, str(row["trials"]))
    return view


def _gain_lines(curve: CurveResult) -> list[str]:
    named: list[tuple[str, Estimate | None]] = [
        ("real over base", curve.real_gain), ("synthetic over base", curve.gain_over_base),
        ("synthetic over copies", curve.gain_over_copies),
        ("copies over base", curve.copies_over_base),
    ]  # fmt: skip
    found = [f"  {name}: {gain.text(2)} points" for name, gain in named if gain is not None]
    return [f"mean gains, {curve.key}:", *found] if found else []
