"""One run of a grid from its lock to its summary: what the command line and Python both do."""

from collections.abc import Callable

from rich.console import Console

from equigrid.grid.planning.graph import Plan
from equigrid.grid.reporting.analysis_bridge import start_analyst
from equigrid.grid.reporting.summary import Summary
from equigrid.grid.running import cluster, driver
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store, lock


def run(
    spec: GridSpec,
    store: Store,
    *,
    console: Console,
    tell: Callable[[str], None],
    address: str | None = None,
    dashboard: bool = True,
    max_device_hours: float | None = None,
    takeover: bool = False,
) -> tuple[Summary, Plan]:
    """Runs what has no finished output, under the grid's lock. tell: gets lines for people.

    An interrupt ends the run early: the summary says so. Raises UserError, StoreError,
    ClusterError; UnavailableError if another driver runs the grid.
    """
    held = lock.acquire(store, spec.name, takeover=takeover, tell=tell)
    with held, cluster.connected(address, dashboard=dashboard):
        return driver.run(
            spec,
            store,
            console=console,
            analyst=start_analyst,
            max_device_hours=max_device_hours,
            lock=held,
        )
