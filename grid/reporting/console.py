"""What the commands print: tables and lines for people."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.reporting.devices import CPU
from equigrid.grid.reporting.estimate import MEASURED, Line
from equigrid.grid.reporting.grids import GridLine
from equigrid.grid.reporting.status import Status
from equigrid.grid.reporting.summary import Summary
from equigrid.grid.store.layout import top_folder
from equigrid.grid.text import printable, redacted, safe
from equigrid.grid.units import duration

if TYPE_CHECKING:
    from equigrid.analysis.answer.asking import Suggested


class PlainConsole(Console):
    """rich's, which takes no text for markup: `[/b]` or `[batch, 3]` in an error are what they are.
    Nor does text steer the terminal or tell secrets: see `equigrid.grid.text`. Every console of the
    product is one; what is to be bold is a `Text` or has a `style`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, *arguments: Any, **options: Any) -> Text:
        """Before it is measured, so that tables are as wide as what they show."""
        return super().render_str(safe(text), *arguments, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Whatever was made in another way, such as a `Text`."""
        if isinstance(renderable, Text) and redacted(renderable.plain) != renderable.plain:
            renderable = Text(redacted(renderable.plain), renderable.style)
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def progress_console() -> Console:
    """Where progress and messages go."""
    return PlainConsole(stderr=True)


def screen() -> Console:
    """Where results go; a file or pipe has no width, and 80 columns would cut the tables."""
    return PlainConsole(width=None if sys.stdout.isatty() else 120)


def show_plan(content: dict, lines: list[Line]) -> None:
    pending = (
        " (not ingested yet: fingerprint pending)" if content["fingerprint"] == "pending" else ""
    )
    table = Table(
        title=f"{content['grid']}: {content['cells']:,} cells on {content['dataset']}{pending}"
    )
    table.add_column("job")
    priced = any(line.money is not None for line in lines)
    for name in ("jobs", "done", "to run", "serve several cells", "device time"):
        table.add_column(name, justify="right")
    table.add_column("which is")
    table.add_column("to store", justify="right")
    if priced:
        table.add_column(content["currency"], justify="right")
    for line in lines:
        time = line_time(line)
        basis = ", ".join(line.basis) if line.seconds is not None else ""
        size = "–" if line.bytes is None else size_text(line.bytes)
        counts = [f"{count:,}" for count in (line.total, line.done, line.todo, line.shared)]
        row = [*counts, time, basis, size]
        if priced:
            row.append("–" if line.money is None else f"{line.money:,.2f}")
        table.add_row(KINDS[line.kind].words, *row)
    console = screen()
    console.print(table)
    for remark in content["remarks"]:
        console.print(remark, soft_wrap=True)
    if content["device_seconds"]:
        console.print(took_text(content, lines), soft_wrap=True)
        if content["money"] is not None:
            console.print(
                f"{content['money']:,.2f} {content['currency']} at the spec's prices",
                highlight=False,
            )
    elif any(line.todo for line in lines):
        unknown = [
            KINDS[line.kind].plural
            for line in lines
            if line.todo and line.seconds is None and KINDS[line.kind].body
        ]
        what = f" of {', '.join(unknown)}" if unknown else ""
        console.print(
            f"time{what} unknown: no job like these has finished in this store, and what they"
            " compute was not counted"
        )
    else:
        console.print("nothing to do")


def line_time(line: Line) -> str:
    """Device time, with its range where it has one: `3.1 d (1.3 d to 7.8 d)`."""
    if line.seconds is None or line.seconds_least is None or line.seconds_most is None:
        return "–"
    text = duration(line.seconds)
    if line.seconds_least == line.seconds_most:
        return text
    return f"{text} ({duration(line.seconds_least)} to {duration(line.seconds_most)})"


def took_text(content: dict, lines: list[Line]) -> str:
    """What all that is left takes, in a sentence: on this machine's slots where that is measured,
    else on one device of a kind.
    """
    if content["wall_seconds"]:
        seen = any(MEASURED in line.basis for line in lines)
        basis = "from finished jobs in the store" if seen else "from the preset's figures"
        text = f"about {duration(content['wall_seconds'])} on {content['slots']} slots ({basis})"
        return f"{text}{_gpu_hours(content, lines)}"
    least, most = content["device_seconds_least"], content["device_seconds_most"]
    one = "one core of a CPU" if content["device"] == CPU else f"one {content['device']}"
    return (
        f"about {duration(content['device_seconds'])} on {one}, between {duration(least)} and"
        f" {duration(most)}: estimated by what the jobs compute (docs/costs.md), until jobs like"
        " these have finished here; --device estimates for another"
    )


def _gpu_hours(content: dict, lines: list[Line]) -> str:
    if not content["gpus"]:
        return ""
    packed = content["gpus"] == "auto"  # several trials on one, and their rows do not say how many
    share = 1 if packed else content["gpus"]
    text = f"; {content['gpu_hours']:.2f} GPU-hours with {share:g} GPU a slot"
    seen = any(MEASURED in line.basis for line in lines if KINDS[line.kind].shares_device)
    return f"{text}, trials that shared one counted as if alone on it" if packed and seen else text


def size_text(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def show_status(found: Status) -> None:
    table = Table(
        title=f"{found.grid}: {found.cells_done:,} of {found.cells:,} cells have a result"
    )
    table.add_column("job")
    live = ("running", "images/s", "time left") if found.driver else ()
    for name in ("jobs", "done", "failed", "left", *live):
        table.add_column(name, justify="right")
    for stage in found.stages:
        now = _live(found.driver["kinds"].get(stage.kind, {})) if found.driver else ()
        counts = (stage.total, stage.done, stage.failed, stage.left)
        table.add_row(KINDS[stage.kind].words, *(f"{count:,}" for count in counts), *now)
    console = screen()
    console.print(table)
    if found.driver:
        console.print(_driver_line(found.driver), soft_wrap=True)
    if found.last_result_at:
        console.print(f"last result at {found.last_result_at}")
    for failure in found.failures:
        text = f"failed: {failure['cell']} ({failure['id']}): {failure['error']}"
        console.print(text, soft_wrap=True)


def _live(kind: dict) -> tuple[str, str, str]:
    speed, left_s = kind.get("images_per_s"), kind.get("left_s")
    return (
        f"{kind.get('running', 0):,}",
        f"{speed:,.0f}" if speed is not None else "–",
        duration(left_s) if left_s is not None else "–",
    )


def _driver_line(driver: dict) -> str:
    if "device_s" not in driver:
        return f"{driver['who']}: nothing begun yet"
    asked = driver["shard_hits"] + driver["shard_loads"]
    shards = f"{driver['shard_hits']:,} of {asked:,} shards were in the cluster's memory"
    left_s = driver.get("left_s")
    left = f"about {duration(left_s)} left, " if left_s is not None else ""
    used = f"{driver['device_s'] / 3600:.2f} device-hours in this run"
    return f"{driver['who']}: {left}{used}, {shards}"


def show_failures(summary: Summary, console: Console) -> None:
    if not summary.failures:
        return
    cells = sum(len(failure.cells) for failure in summary.failures)
    console.print(f"{len(summary.failures)} jobs failed, {cells} cells have no result:")
    for failure in summary.failures:
        places = list(failure.cells[:3]) + (
            [f"and {len(failure.cells) - 3} more"] if len(failure.cells) > 3 else []
        )
        text = f"  {KINDS[failure.kind].words} {failure.id}: {failure.error} [{'; '.join(places)}]"
        console.print(text, soft_wrap=True)
    console.print(
        "the tracebacks are in the store (equigrid status --json); the next run tries these again",
        soft_wrap=True,
    )


def show_grids(lines: Sequence[GridLine]) -> None:
    """The grids of a store, a row each."""
    table = Table()
    for name in ("grid", "dataset"):
        table.add_column(name, overflow="fold")
    for name in ("done", "cells", "last result", "size"):
        table.add_column(name, justify="right")
    for line in lines:
        at = "running" if line.running else line.last_result_at or "–"
        done, cells = (("–" if n is None else f"{n:,}") for n in (line.done, line.cells))
        size = "–" if line.bytes is None else size_text(line.bytes)
        table.add_row(line.name, line.dataset, done, cells, at, size)
    console = screen()
    console.print(table)
    for line in lines:
        if line.trouble:
            text = f"{line.name} cannot be planned: {line.trouble}"
            console.print(text, soft_wrap=True)
    console.print("sizes are of all that a grid uses; what several use counts in each")


def show_garbage(garbage: list, *, deleted: bool) -> None:
    """What `gc` found, folder by folder and reason by reason."""
    if not garbage:
        screen().print("nothing to remove: every object is needed by a grid in the store")
        return
    groups: dict[tuple[str, str], list[int]] = {}
    for item in garbage:
        groups.setdefault((top_folder(item.name), item.why), []).append(item.bytes)
    table = Table(title="removed" if deleted else "would be removed")
    for name in ("folder", "why"):
        table.add_column(name)
    for name in ("objects", "size"):
        table.add_column(name, justify="right")
    for (folder, why), sizes in sorted(groups.items()):
        table.add_row(folder, why, f"{len(sizes):,}", size_text(sum(sizes)))
    console, total = screen(), size_text(sum(item.bytes for item in garbage))
    console.print(table)
    text = (
        f"{total} freed"
        if deleted
        else f"{total} in all; add --delete to free them, --json to see each"
    )
    console.print(text)


def show_next(answer: str, suggested: "Sequence[Suggested]") -> None:
    """What to run next for one answer: each line as if those above it were done."""
    console = screen()
    console.print(answer, soft_wrap=True)
    if not suggested:
        console.print("Nothing that the grid could add narrows this answer.")
        return
    view = Table(title="What narrows it most for its cost, in this order", title_justify="left")
    for name, justify in (("run", "left"), ("known within", "right"), ("device time", "right")):
        view.add_column(name, justify="right" if justify == "right" else "left")
    for one in suggested:
        view.add_row(Text(one.text), f"×{one.now:.2g} → ×{one.after:.2g}", duration(one.cost))
    console.print(view)
