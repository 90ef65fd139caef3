"""What a person sees of a search: one line a stage."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from equigrid.grid.jobs.candidate import DIVERGED, FAILED, STOPPED
from equigrid.grid.units import duration

EVERY_S = 10.0  # where there is no terminal, whose line could change


class Told:
    """Counts candidates as they end. In a terminal a line that changes; elsewhere a line now and
    then, and at the end.
    """

    def __init__(
        self,
        console: Console,
        stage: str,
        total: int,
        metric: str,
        *,
        lower: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """metric: what is counted, in words; lower: whether the least of it is the best."""
        self.stage, self._better = stage, min if lower else max
        self._console, self._total, self._metric, self._clock = console, total, metric, clock
        self._counts: Counter[str] = Counter()
        self._best: float | None = None
        self._running, self._said_s, self._began_s = 0, clock(), clock()
        self._live = Live(console=console, transient=True) if console.is_terminal else None

    def running(self, n: int, now_s: float) -> None:
        """So many are under way."""
        self._running = n
        self._show()

    def ended(self, status: str, value: float | None) -> None:
        """A candidate ended, with its last value."""
        self._counts[status] += 1
        if value is not None:
            self._best = value if self._best is None else self._better(self._best, value)
        self._show()

    @property
    def line(self) -> str:
        """How far it is."""
        done = sum(self._counts.values())
        parts = [f"tune {self.stage}: {done} of {self._total}"]
        for status, words in (
            (STOPPED, "stopped early"), (DIVERGED, "diverged"), (FAILED, "failed"),
        ):  # fmt: skip
            if self._counts[status]:
                parts.append(f"{self._counts[status]} {words}")
        if self._running:
            parts.append(f"{self._running} under way")
        if self._best is not None:
            parts.append(f"best {self._best:.2f} {self._metric}")
        return ", ".join([*parts, duration(self._clock() - self._began_s)])

    def _show(self) -> None:
        if self._live is not None:
            self._live.update(Text(self.line))
        elif self._clock() - self._said_s >= EVERY_S:
            self._say()

    def _say(self) -> None:
        self._said_s = self._clock()
        self._console.print(self.line, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._began_s = self._said_s = self._clock()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = 0
        if self._live is not None:
            self._live.stop()
        self._say()
