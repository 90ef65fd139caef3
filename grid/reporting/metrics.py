"""Counters and gauges of a run, through `ray.util.metrics`: in Ray's dashboard and for Prometheus.

Tagged by grid and kind of job only: a tag value per cell would be a time series per cell. What a
run is like now is gauges, which Ray forgets some 20 s after the driver went; what adds up over the
runs of a grid is counters.
"""

import time
from collections import defaultdict
from collections.abc import Callable

from ray.util import metrics

from equigrid.grid.reporting.progress import Stage

EVERY_S = 1.0  # Ray's agents hear of changes every 10 s: more often would only cost
STATES = {
    "done": "Jobs finished in this run.",
    "running": "Jobs that a device works on.",
    "failed": "Jobs failed for good in this run.",
    "cached": "Jobs done before this run.",
    "blocked": "Jobs that wait for one that failed.",
    "left": "Jobs neither done, failed nor blocked; those that run among them.",
}


class GridMetrics:
    """What Prometheus finds of a run; `[grid, kind]` are the tags.

    ray_equigrid_jobs_{done,running,failed,cached,blocked,left} [grid, kind]: gauges; kinds without
    jobs have none. ray_equigrid_left_seconds [grid, kind]: gauge, once a job of the kind finished
    in this run. ray_equigrid_images_total [grid, kind]: images that finished trials trained on,
    images in finished shards. ray_equigrid_device_seconds_total [grid]: seconds that devices were
    held, busy or not. ray_equigrid_shard_{hits,loads}_total [grid]: shards asked for that were in
    the cluster already, and loaded.
    """

    def __init__(self, grid: str, clock: Callable[[], float] = time.monotonic):
        self._grid, self._clock, self._told_s = {"grid": grid}, clock, float("-inf")
        both = ("grid", "kind")
        self._jobs = {
            state: metrics.Gauge(f"equigrid_jobs_{state}", meaning, tag_keys=both)
            for state, meaning in STATES.items()
        }
        self._left_s = metrics.Gauge(
            "equigrid_left_seconds", "Time left at the kind's own rate.", tag_keys=both
        )
        self._counters = {
            "images": metrics.Counter(
                "equigrid_images", "Images trained on, images sampled.", tag_keys=both
            ),
            "device_s": metrics.Counter(
                "equigrid_device_seconds", "Seconds devices were held.", tag_keys=("grid",)
            ),
            "hits": metrics.Counter(
                "equigrid_shard_hits", "Shards that were loaded already.", tag_keys=("grid",)
            ),
            "loads": metrics.Counter("equigrid_shard_loads", "Shards loaded.", tag_keys=("grid",)),
        }
        self.handled: defaultdict[str, float] = defaultdict(float)  # images, by kind of job
        # What Ray's counters stand at.
        self._told: defaultdict[tuple[str, str | None], float] = defaultdict(float)

    def images(self, kind: str, count: float) -> None:
        """A job of `kind` is finished that handled so many images; Ray hears of it with the next
        update.
        """
        self.handled[kind] += count

    def update(
        self,
        stages: dict[str, Stage],
        *,
        shard_hits: int,
        shard_loads: int,
        device_s: float,
        last: bool = False,
    ) -> None:
        """Totals of the run so far. Called in every round, changed or not: a gauge that is not set
        goes. last: now.
        """
        now = self._clock()
        if now - self._told_s < EVERY_S and not last:
            return
        self._told_s = now
        for kind, stage in stages.items():
            if stage.total:
                self._update_stage(stage, now, {**self._grid, "kind": kind})
        for kind, count in self.handled.items():
            self._raise("images", count, {**self._grid, "kind": kind})
        for name, total in (("device_s", device_s), ("hits", shard_hits), ("loads", shard_loads)):
            self._raise(name, total, self._grid)

    def _update_stage(self, stage: Stage, now_s: float, tags: dict[str, str]) -> None:
        for state, gauge in self._jobs.items():
            gauge.set(getattr(stage, state), tags=tags)
        left_s = stage.left_s(now_s)
        if left_s is not None:
            self._left_s.set(left_s, tags=tags)

    def _raise(self, name: str, total: float, tags: dict[str, str]) -> None:
        key = (name, tags.get("kind"))
        if total > self._told[key]:
            self._counters[name].inc(total - self._told[key], tags=tags)
            self._told[key] = total
