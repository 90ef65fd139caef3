"""What of a plan is done, by the store's word alone: the driver, `plan` and `status` all ask here."""

from grid import results
from grid.plan import KINDS, Job, Plan
from grid.store import Store


def pending(store: Store, the_plan: Plan) -> tuple[list[Job], set[str]]:
    """The jobs that a run would do now, in order, and the ids of those that are done.

    Only what an unfinished trial needs is work: a pool that was removed after its trials are done stays away.
    """
    done = done_jobs(store, the_plan)
    needed = {job.id for job in the_plan.of_kind("trial") if job.id not in done}
    for kind in reversed(KINDS[:-1]):
        kids = [job for job in the_plan.jobs.values() if job.id in needed]
        wanted = {need for job in kids for need in job.needs if need not in done}
        needed |= {i for i in wanted if the_plan.jobs[i].kind == kind}
    return [job for job in the_plan.jobs.values() if job.id in needed], done


def done_jobs(store: Store, the_plan: Plan) -> set[str]:
    """Ids of the plan's jobs whose output is in the store."""
    done = results.finished(store) & the_plan.jobs.keys()
    if the_plan.resolved.dataset:
        done.add(the_plan.resolved.source.key)
    for name in store.list("generators"):
        if name.endswith("/manifest.json"):
            done.add(name.split("/")[1])
    for name in store.list("pools"):
        if name.endswith(".json"):
            done.add(name.removeprefix("pools/").removesuffix(".json"))
    return done & the_plan.jobs.keys()
