"""The analyst: a Ray actor that takes rows as they land, refits when they pause, and publishes the
curves.

The only file of `analysis` that imports ray. Reader and publisher are handed in, so the actor knows
no store. Its death costs nothing: everything it holds can be read again.
"""

import json
import threading
import time
from collections.abc import Callable

import pandas as pd
import ray

from equigrid.analysis.conclusions.equivalence import Analysis, analyse
from equigrid.analysis.settings import DEFAULTS, Settings

CURVES = "curves.json"


class AnalystState:
    """What the actor does, without Ray. `add` only appends; a thread of its own refits.

    read() -> DataFrame of the results schema; publish(name, bytes) stores one object. `quiet_s`:
    seconds without new rows before a refit; `longest_s`: seconds after which rows that keep coming
    are refitted all the same.
    """

    def __init__(
        self,
        read: Callable[[], pd.DataFrame],
        publish: Callable[[str, bytes], object],
        settings: Settings = DEFAULTS,
        *,
        quiet_s: float = 2.0,
        longest_s: float = 30.0,
    ):
        self._read, self._publish, self._settings = read, publish, settings
        self._quiet_s, self._longest_s = quiet_s, longest_s
        self._condition = threading.Condition()
        self._rows = 0
        self._first: float | None = None  # when the oldest row not yet fitted came
        self._last = 0.0
        self._closed = False
        self._fits = 0
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, name="analyst-refit", daemon=True)
        self._thread.start()

    def add(self, rows: list[dict]) -> int:
        """Note that rows have landed; returns the number seen so far. The rows themselves are read
        from the store, which has them before the driver does.
        """
        now = time.monotonic()
        with self._condition:
            self._rows += len(rows)
            if rows:
                self._first = self._first if self._first is not None else now
                self._last = now
                self._condition.notify()
            return self._rows

    def status(self) -> dict:
        """Rows seen, refits made, the last refit's error or None."""
        with self._condition:
            return {"rows": self._rows, "fits": self._fits, "error": self._error}

    def finish(self) -> dict:
        """Stop debouncing, refit once more, publish, and return the analysis as plain values."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()
        return self._refit().to_json()

    def _run(self) -> None:
        while self._wait_for_work():
            # The actor is a convenience of a running grid: an error in it is shown by `status`, and
            # raised by `finish`, but must not end the thread that may do better with the next rows.
            try:
                self._refit()
                self._error = None
            except Exception as error:  # noqa: BLE001
                self._error = f"{type(error).__name__}: {error}"

    def _wait_for_work(self) -> bool:
        """Block until rows are due for a fit (True) or the analyst is finishing (False)."""
        with self._condition:
            while not self._closed:
                now = time.monotonic()
                if self._first is not None:
                    due = min(self._last + self._quiet_s, self._first + self._longest_s)
                    if now >= due:
                        self._first = None
                        return True
                    self._condition.wait(due - now)
                else:
                    self._condition.wait()
            return False

    def _refit(self) -> Analysis:
        analysis = analyse(self._read(), settings=self._settings)
        self._publish(CURVES, json.dumps(analysis.to_json(), allow_nan=False).encode())
        self._fits += 1
        return analysis


# No CPU is reserved: on a laptop the analyst must not keep a slot from training. Calls come one
# after the other, which is enough, as refits run in a thread of the state's own and never block
# `add`.
@ray.remote(num_cpus=0, max_restarts=0)
class Analyst(AnalystState):
    """`AnalystState` as an actor: `Analyst.remote(read, publish, settings)`."""
