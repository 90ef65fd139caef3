"""Before a run: the spec is planned, its mistakes said, and its dataset read where the store has it
not.
"""

from rich.console import Console

from equigrid.grid.datasets import ingest
from equigrid.grid.errors import DocumentError, UserError
from equigrid.grid.jobs import energy
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.recorded import record, record_spec
from equigrid.grid.planning.resolve import Resolved, check_without_gpus, resolve
from equigrid.grid.reporting import trackers
from equigrid.grid.reporting.progress import ReadingProgress
from equigrid.grid.running import cluster
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store, layout


def prepared(spec: GridSpec, store: Store, console: Console) -> Plan:
    """The plan of a spec, whose dataset is read where it is not in the store yet. Ray must be
    connected. Raises UserError for what is wrong with the spec, before anything runs.
    """
    try:
        trackers.check(spec.trackers)
        energy.check(spec.execution.energy)
    except ValueError as error:
        raise UserError(str(error)) from error
    resolved = _resolved(spec, store, console)
    if not cluster.gpus_of_a_slot(spec.execution):  # of `auto` the plan cannot know
        check_without_gpus(resolved, "no machine here has one")
    plan(resolved)  # for what is wrong with the spec, before it is recorded, and a long ingest
    record_spec(spec, store)  # before that ingest: gc would take its shards for nobody's
    cluster.check_all_nodes_see(store)
    if resolved.dataset is None:
        with ReadingProgress(resolved.source.name, console) as progress:
            dataset = ingest.with_ray(store, resolved.source, progress.update)
        resolved = resolved.with_dataset(dataset)
    assert resolved.dataset
    for line in resolved.dataset.told:
        console.print(f"{resolved.source.name}: {line}", highlight=False, soft_wrap=True)
    for warning in resolved.dataset.warnings:
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    the_plan = plan(resolved)
    record(spec, store, the_plan)
    return the_plan


def _resolved(spec: GridSpec, store: Store, console: Console) -> Resolved:
    """A dataset whose manifest is damaged counts as not read yet: it is read, and written, anew."""
    try:
        return resolve(spec, store)
    except DocumentError as error:
        if not layout.is_dataset(error.name):
            raise
        console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        return resolve(spec, None)
