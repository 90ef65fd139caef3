"""The results' loose parts made into whole files while a run goes on, and at its end."""

import ray
from rich.console import Console

from equigrid.grid import jobs
from equigrid.grid.store import Store, results

EVERY = 1000  # loose parts


class Compaction:
    """Each in a process of its own, since it holds the whole table and a driver must not grow with
    the grid; never two at once, since the second would read the same parts again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parts = 0  # that were written since the last was begun
        self._last: ray.ObjectRef | None = None

    def part_written(self) -> None:
        """A row has landed."""
        self._parts += 1
        if self._parts >= EVERY and self._is_idle():
            self._parts, self._last = 0, self._compact()

    def finish(self, console: Console) -> None:
        """The last one of a run; waits for it."""
        try:
            if self._last:
                ray.wait([self._last])
            ray.get(self._compact())
        except ray.exceptions.RayError as error:  # readers are slower then, nothing is lost
            text = f"results were not compacted: {jobs.one_line(error)}"
            console.print(text, highlight=False)

    def _is_idle(self) -> bool:
        return self._last is None or bool(ray.wait([self._last], timeout=0)[0])

    def _compact(self) -> ray.ObjectRef:
        return ray.remote(num_cpus=0)(results.compact).options(name="compact").remote(self._store)
