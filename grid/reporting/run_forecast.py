"""The forecast of a run: its jobs as tasks, with what the store and the spec say of them."""

from collections.abc import Iterable, Mapping
from functools import partial

from equigrid.grid.jobs import generator, shard, trial
from equigrid.grid.jobs.kinds import KINDS, on_slots
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.reporting import estimate
from equigrid.grid.reporting.forecast import Forecast, Task
from equigrid.grid.store import Store

# A training step's image is passed forward, and twice as dearly backward.
_PASSES_OF_TRAINING = 3


def of(store: Store, plan: Plan, todo: Iterable[Job]) -> Forecast:
    """The forecast of these jobs of a plan."""
    shape, slotted = plan.resolved.shape, on_slots()
    expected_s, execution = estimate.expected(store, plan), plan.resolved.spec.execution
    tasks = []
    for job in todo:
        if job.kind in slotted and shape is not None:
            cost = KINDS[job.kind].cost
            workers = execution.workers_of(job.kind)
            share = estimate.gpus_of_a_slot(execution)
            tasks.append(
                Task(
                    job.id, job.kind, tuple(cost.alike(job.payload)),
                    max(cost.work(job.payload, shape), 1e-9), expected_s(job),
                    estimate.devices_held(workers, share),
                )
            )  # fmt: skip
    return Forecast(tasks, partial(_guess, plan))


def _guess(plan: Plan, task: Task, work: float, rates: Mapping[str, float]) -> float | None:
    """Seconds of jobs of a kind that has not run yet, by the passes of a network that training
    took; what measures or judges pools counts as nothing beside.
    """
    if task.kind in (generator.KIND.name, trial.KIND.name):
        return None  # one of these runs early
    if task.kind != shard.KIND.name:
        return 0.0
    trained, shape = rates.get(generator.KIND.name), plan.resolved.shape
    if trained is None or shape is None:
        return None
    own = plan.jobs[plan.jobs[task.id].payload.generator].payload
    batch = generator.cost_facts(own.mapping, shape, own.n_images).get("training_batch")
    return work * trained / (batch * _PASSES_OF_TRAINING) if batch else None
