"""Counters and gauges of a run, through `ray.util.metrics`: in Ray's dashboard and for Prometheus.

Tagged by grid and kind of job only: a tag value per cell would be a time series per cell.
"""

from collections import Counter

from ray.util import metrics


class Metrics:
    """`ray_equigrid_jobs_{finished,failed,cached}_total` and `ray_equigrid_jobs_running`."""

    def __init__(self, grid: str):
        tags = ("grid", "kind")
        self._grid = grid
        self._finished = metrics.Counter("equigrid_jobs_finished", "Jobs finished in this run.", tag_keys=tags)
        self._failed = metrics.Counter("equigrid_jobs_failed", "Jobs failed for good in this run.", tag_keys=tags)
        self._cached = metrics.Counter("equigrid_jobs_cached", "Jobs done before this run.", tag_keys=tags)
        self._running = metrics.Gauge("equigrid_jobs_running", "Jobs sent to a device.", tag_keys=tags)

    def _tags(self, kind: str) -> dict[str, str]:
        return {"grid": self._grid, "kind": kind}

    def finished(self, kind: str) -> None:
        self._finished.inc(1, tags=self._tags(kind))

    def failed(self, kind: str) -> None:
        self._failed.inc(1, tags=self._tags(kind))

    def cached(self, counts: Counter) -> None:
        for kind, count in counts.items():
            if count:
                self._cached.inc(count, tags=self._tags(kind))

    def running(self, counts: dict[str, int]) -> None:
        """Called again and again, changed or not: Ray forgets a gauge that is not set for a while."""
        for kind, count in counts.items():
            self._running.set(count, tags=self._tags(kind))
