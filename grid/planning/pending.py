"""What of a plan is done, by the store's word alone: the driver, `plan` and `status` all ask
here.
"""

from equigrid.grid.planning.planner import KINDS, WANTED, Job, Plan
from equigrid.grid.store import Store, layout, results

OUTPUTS: dict[str, layout.Files] = {
    "generator": layout.GENERATORS,
    "shard": layout.POOLS,
    "reference": layout.REFERENCE_CLASSIFIERS,
    "quality": layout.QUALITY,
    "domain": layout.DOMAIN_GAPS,
}


def pending(store: Store, the_plan: Plan) -> tuple[list[Job], set[str]]:
    """The jobs that a run would do now, in order, and the ids of those that are done.

    Only what an unfinished trial or measure needs is work: a pool that was removed after these were
    done stays away.
    """
    done = done_jobs(store, the_plan)
    needed = {job.id for kind in WANTED for job in the_plan.of_kind(kind) if job.id not in done}
    for kind in reversed([kind for kind in KINDS if kind not in WANTED]):
        kids = [job for job in the_plan.jobs.values() if job.id in needed]
        wanted = {need for job in kids for need in job.needs if need not in done}
        needed |= {i for i in wanted if the_plan.jobs[i].kind == kind}
    return [job for job in the_plan.jobs.values() if job.id in needed], done


def done_jobs(store: Store, the_plan: Plan, trials: set[str] | None = None) -> set[str]:
    """Ids of the plan's jobs whose output is in the store. trials: the finished ones, where the
    caller knows them.
    """
    done = (results.finished(store) if trials is None else trials) & the_plan.jobs.keys()
    if the_plan.resolved.dataset:
        done.add(the_plan.resolved.source.key)
    for kind, outputs in OUTPUTS.items():
        if any(the_plan.of_kind(kind)):
            manifests = filter(outputs.is_manifest, store.list(outputs.root))
            done.update(map(outputs.owner, manifests))
    return done & the_plan.jobs.keys()
