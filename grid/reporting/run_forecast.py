"""The forecast of a run: its jobs as tasks, with what the store and the spec say of them."""

from collections.abc import Collection, Iterable, Mapping
from functools import partial

from equigrid.grid.jobs import domain_gap, generator, reference_classifier, shard, trial
from equigrid.grid.jobs.kinds import KINDS, on_slots
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.reporting import estimate
from equigrid.grid.reporting.forecast import Forecast, Task
from equigrid.grid.store import Store

# A training step's image is passed forward, and twice as dearly backward.
_PASSES_OF_TRAINING = 3
FEW = 20  # trials are looked at for what a trial computes


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
    """Seconds of jobs of a kind that has not run yet.

    Shards by the passes of a network that training took, classifiers beside the trials (of domain
    gaps, of measures) by the operations that trials did. What else measures pools counts as nothing
    beside.
    """
    if task.kind in (generator.KIND.name, trial.KIND.name):
        return None  # one of these runs early
    if task.kind == shard.KIND.name:
        return _by_passes(plan, task, work, rates)
    if task.kind in (domain_gap.KIND.name, reference_classifier.KIND.name):
        return _by_operations(plan, plan.jobs[task.id], work, rates)
    return 0.0


def _by_passes(plan: Plan, task: Task, work: float, rates: Mapping[str, float]) -> float | None:
    """None until a training has told, and where it does not say in what batches it trains."""
    trained, shape = rates.get(generator.KIND.name), plan.resolved.shape
    if trained is None or shape is None:
        return None
    own = plan.jobs[plan.jobs[task.id].payload.generator].payload
    batch = generator.cost_facts(own.mapping, shape, own.n_images).get("training_batch")
    return work * trained / (batch * _PASSES_OF_TRAINING) if batch else None


def _by_operations(plan: Plan, job: Job, work: float, rates: Mapping[str, float]) -> float:
    """0 until a trial has told, and where its operations are not known: it holds nothing up."""
    told = rates.get(trial.KIND.name)
    if told is None:
        return 0.0
    trials = list(plan.of_kind(trial.KIND.name))
    own, of_trials = _operations(plan, [job]), _operations(plan, trials[:: len(trials) // FEW or 1])
    return work * told * own / of_trials if own and of_trials else 0.0


def _operations(plan: Plan, jobs: Collection[Job]) -> float | None:
    """Per unit of their work; None where they are not known."""
    if (shape := plan.resolved.shape) is None:
        return None
    costs = [(KINDS[job.kind].cost, job.payload) for job in jobs]
    computed = [each for cost, payload in costs if (each := cost.flops(payload, shape))]
    work = sum(cost.work(payload, shape) for cost, payload in costs)
    if len(computed) < len(costs) or not work:
        return None
    return sum(each.flops for each in computed) / work
