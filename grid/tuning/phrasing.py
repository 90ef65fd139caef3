"""What a person reads of a search at its end."""

from typing import Any

from equigrid.grid.tuning.outcome import Outcome, value_of
from equigrid.grid.units import duration

MOST_ROWS = 10


def table_lines(outcome: Outcome) -> list[str]:
    """The best candidates as a table, the highest first: those trained to their end before those
    that were stopped.
    """
    names = [one.name for one in outcome.study.space]
    head = ["value", "status", "time", *names]
    ranked = sorted(
        outcome.searched, key=lambda one: (one.status == "finished", value_of(one)), reverse=True
    )
    rows = [
        [
            f"{outcome.shown(one):.2f}" if one.history else "–", one.status, duration(one.seconds),
            *(short(one.values.get(name)) for name in names),
        ]
        for one in ranked[:MOST_ROWS]
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
             for row in [head, *rows]]  # fmt: skip
    if len(ranked) > MOST_ROWS:
        lines.append(f"… and {len(ranked) - MOST_ROWS} more, in the table")
    return lines


def lines_of(outcome: Outcome) -> list[str]:
    """What came of it, a line each."""
    study, best = outcome.study, outcome.best
    metric = study.metric
    head = f"{study.arm}: {len(outcome.searched)} candidates, {len(outcome.finished)} to the end"
    if best is None:
        return [f"{head}; none was trained to its end"]
    lines = [
        f"{head}, {duration(outcome.seconds)} of devices; best {outcome.shown(best):.2f} {metric}"
    ]
    if tuned := outcome.reached(best.values):
        lines.append(f"{study.arm}: with fresh seeds {tuned}")
    if own := outcome.reached(None):
        lines.append(f"{study.arm}: the grid's own recipe {own}")
    if gain := outcome.gain:
        lines.append(f"{study.arm}: tuning brings {gain}")
    if importance := outcome.importance():
        shares = ", ".join(f"{name} {share:.0%}" for name, share in importance.items())
        lines.append(f"{study.arm}: what mattered at the first look: {shares}")
    return lines


def short(value: Any) -> str:
    """A value of the space."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
