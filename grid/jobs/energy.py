"""What a job takes of electricity, and the CO2 of that: codecarbon's estimate, where it is
installed and the spec names a country (`execution.energy`).

codecarbon looks at the processor's and the GPU's counters where it may read them, else it reckons
from the processor's rated power and this process's load. It works offline: the country's mix is in
a table of its own. One tracker serves all jobs of a process: making the first takes seconds.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from equigrid.grid.jobs.request import Request

log = logging.getLogger("equigrid.jobs")


class Energy(NamedTuple):
    """kilowatt-hours, and kilograms of CO2-equivalents."""

    kwh: float
    co2_kg: float


class _Meter:
    """Of one process: begun with the jobs of a request, read when a result is written."""

    def __init__(self) -> None:
        self._attempts: tuple[str, ...] = ()  # that are counted; the first names the task
        self._first: Request | None = None
        self._found: Energy | None = None

    def begin(self, requests: Sequence[Request]) -> None:
        """Starts counting, where the request asks for it; never raises. A worker group's processes
        are not this one: nothing is counted then.
        """
        self._attempts, self._first, self._found = (), None, None
        first = requests[0]
        if first.energy is None or first.workers > 1:
            return
        try:
            _tracker(first.energy).start_task(first.attempt)
        except Exception as error:  # a measure beside the work must not end it
            log.warning("energy is not counted: %s: %s", type(error).__name__, error)
            return
        self._attempts, self._first = tuple(request.attempt for request in requests), first

    def taken(self, request: Request) -> Energy | None:
        """Since `begin`, of jobs that ran together an equal share; None where nothing was counted.
        Ends the counting.
        """
        if request.attempt not in self._attempts:
            return None
        self.end()
        return self._found

    def end(self) -> None:
        """Ends the counting, if it goes on."""
        first, self._first = self._first, None
        if first is None:
            return
        assert first.energy is not None
        try:
            data = _tracker(first.energy).stop_task(first.attempt)
        except Exception as error:  # as above
            log.warning("energy is not known: %s: %s", type(error).__name__, error)
            return
        kwh, co2_kg = _of_this_slot(data, first.gpus)
        self._found = Energy(kwh / len(self._attempts), co2_kg / len(self._attempts))


METER = _Meter()


def _of_this_slot(data: Any, gpus: float) -> Energy:
    """A GPU's counter counts the whole device: a slot that holds a share of one has that part."""
    share = min(gpus, 1.0) if gpus else 0.0
    kwh = data.cpu_energy + data.ram_energy + share * data.gpu_energy
    per_kwh = data.emissions / data.energy_consumed if data.energy_consumed else 0.0
    return Energy(kwh, kwh * per_kwh)


@cache
def _tracker(country: str) -> Any:
    """codecarbon's, for this process and its GPUs. Raises ModuleNotFoundError."""
    from codecarbon import OfflineEmissionsTracker

    return OfflineEmissionsTracker(
        country_iso_code=country, tracking_mode="process", save_to_file=False,
        log_level="error", allow_multiple_runs=True, measure_power_secs=5,
    )  # fmt: skip


def check(country: str | None) -> None:
    """Raises ValueError in one line where codecarbon is asked for and not installed here."""
    import importlib.util

    if country is not None and importlib.util.find_spec("codecarbon") is None:
        raise ValueError("execution.energy: codecarbon is not installed; pip install codecarbon")
