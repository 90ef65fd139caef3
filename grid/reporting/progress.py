"""What a person sees while a grid runs: one live line per stage in a terminal, a table that
changes in place in a notebook, plain lines elsewhere.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.progress_bar import ProgressBar
from rich.table import Table

from equigrid.grid.reporting import notebook
from equigrid.grid.units import duration

PLAIN_EVERY_S, QUIET_EVERY_S, BOARD_EVERY_S = 10, 60, 1

MOST_SHARES = 4  # jobs within a stage whose own progress is shown


@dataclass
class Stage:
    """Counts of one kind of job. `cached` were done before this run; `blocked` wait for something
    that failed.
    """

    total: int = 0
    cached: int = 0
    done: int = 0
    failed: int = 0
    blocked: int = 0
    running: int = 0
    shares: tuple[float, ...] = ()  # how much is done of those that run, as far as they say so
    started_s: float | None = None
    last_done_s: float | None = None

    @property
    def left(self) -> int:
        return self.total - self.cached - self.done - self.failed - self.blocked

    def begin(self, now_s: float) -> None:
        """A job was sent: the stage's clock runs from the first."""
        self.started_s = now_s if self.started_s is None else self.started_s

    def finish(self, now_s: float) -> None:
        """A job succeeded."""
        self.done += 1
        self.last_done_s = now_s

    @property
    def rate(self) -> float | None:
        """Jobs per second from the first start to the last success; None before there is one."""
        return self.done / self.seconds if self.seconds else None

    @property
    def seconds(self) -> float | None:
        """From the first start to the last success; None before there is one."""
        if self.started_s is None or self.last_done_s is None:
            return None
        return self.last_done_s - self.started_s

    def left_s(self, now_s: float) -> float | None:
        """Seconds until the stage is done at that rate, from `now_s` on."""
        if not self.rate or self.last_done_s is None:
            return None
        return max(0.0, self.left / self.rate - (now_s - self.last_done_s))


@dataclass
class Whole:
    """The run as a whole. left_s: until all is done, None while that cannot be said; at_s: when
    that was said.
    """

    elapsed_s: float = 0.0
    left_s: float | None = None
    device_s_left: float | None = None
    at_s: float = 0.0

    def text(self, now_s: float) -> str:
        """`about 4 min left of 6 min`; '' while nothing can be said."""
        if self.left_s is None:
            return ""
        left = max(self.left_s - (now_s - self.at_s), 0.0)
        return f"about {duration(left)} left of {duration(self.elapsed_s + self.left_s)}"

    @property
    def share(self) -> float | None:
        """How much of the time has passed."""
        whole = self.elapsed_s + (self.left_s or 0.0)
        return None if self.left_s is None or not whole else self.elapsed_s / whole


class Progress:
    """Shows stages. A context manager; `update` is called often and prints no more often than is
    useful.
    """

    def __init__(
        self,
        stages: dict[str, Stage],
        console: Console,
        clock: Callable[[], float] = time.monotonic,
        whole: Whole | None = None,
    ):
        self.stages, self.console, self.clock = stages, console, clock
        self.whole = whole or Whole()
        self._last_plain_s, self._last_text = -float(PLAIN_EVERY_S), ""
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._table)
        self._board = notebook.Board() if console.is_jupyter and not console.quiet else None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.refresh()
            self._live.stop()
        else:
            self.update(force=True)

    def message(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def update(self, *, force: bool = False) -> None:
        if self.console.is_terminal:
            return
        now = self.clock()
        if self._board is not None:
            if force or now - self._last_plain_s >= BOARD_EVERY_S:
                self._last_plain_s = now
                self._board.show(self._html(now))
            return
        parts = [line(name, stage, now) for name, stage in self.stages.items() if stage.total]
        text = "; ".join([*parts, *([whole] if (whole := self.whole.text(now)) else [])])
        counts = "; ".join(f"{s.done} {s.failed} {s.running}" for s in self.stages.values())
        # Where nothing has ended for long, a line now and then says how far the jobs within are.
        every_s = PLAIN_EVERY_S if counts != self._last_text else QUIET_EVERY_S
        silent_s = now - self._last_plain_s
        if (force and counts != self._last_text) or (not force and silent_s >= every_s):
            self._last_plain_s, self._last_text = now, counts
            self.message(text)

    def _html(self, now_s: float) -> str:
        rows = [
            (name, f"{stage.cached + stage.done:,}/{stage.total:,}", _details(stage, now_s))
            for name, stage in self.stages.items()
            if stage.total
        ]
        if whole := self.whole.text(now_s):
            rows.append(("all", f"{self.whole.share or 0:.0%}", whole))
        return notebook.table(("job", "done", ""), rows)

    def _table(self) -> Table:
        now = self.clock()
        table = Table.grid(padding=(0, 2))
        for name, stage in self.stages.items():
            if stage.total:
                finished = stage.cached + stage.done
                bar = ProgressBar(
                    total=stage.total, completed=finished + sum(stage.shares), width=24
                )
                table.add_row(name, bar, f"{finished:,}/{stage.total:,}", _details(stage, now))
        share = self.whole.share
        if share is not None:
            bar = ProgressBar(total=1, completed=share, width=24)
            table.add_row("all", bar, f"{share:.0%}", self.whole.text(now))
        return table


class ReadingProgress:
    """Images read of a dataset: a bar in a terminal, a line now and then elsewhere. A context
    manager.
    """

    def __init__(self, dataset: str, console: Console, clock: Callable[[], float] = time.monotonic):
        self.dataset, self.console, self.clock = dataset, console, clock
        self._last_s = clock()
        self._bar = RichProgress(
            "ingest", BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("ingest", total=None)

    def __enter__(self) -> Self:
        self.console.print(f"ingesting {self.dataset}", highlight=False)
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
        if not self.console.is_terminal and self.clock() - self._last_s >= PLAIN_EVERY_S:
            self._last_s = self.clock()
            self.console.print(f"ingest {done:,}/{total:,} images", highlight=False)


def line(name: str, stage: Stage, now_s: float) -> str:
    """`trial 120/204, 2 running, 1.7/s, 49 s left`."""
    details = _details(stage, now_s)
    return f"{name} {stage.cached + stage.done:,}/{stage.total:,}" + (
        f", {details}" if details else ""
    )


def _details(stage: Stage, now_s: float) -> str:
    rate, left_s = stage.rate, stage.left_s(now_s)
    parts = [
        f"{stage.running} running{_within(stage)}" if stage.running else "",
        f"{stage.failed} failed" if stage.failed else "",
        f"{stage.blocked} blocked" if stage.blocked else "",
        _rate(rate) if rate else "",
        f"{duration(left_s)} left" if left_s and stage.left else "",
        f"{stage.cached:,} from before" if stage.cached else "",
    ]
    return ", ".join(part for part in parts if part)


def _within(stage: Stage) -> str:
    """` (43%, 12%)`: how far those are that run, where they say so."""
    shown = ", ".join(f"{share:.0%}" for share in sorted(stage.shares, reverse=True)[:MOST_SHARES])
    more = ", …" if len(stage.shares) > MOST_SHARES else ""
    return f" ({shown}{more})" if shown else ""


def _rate(rate: float) -> str:
    if rate >= 1:
        return f"{rate:.1f}/s"
    return f"{rate * 60:.1f}/min" if rate * 60 >= 1 else f"{rate * 3600:.1f}/h"
