"""What of a plan is done, by the store's word alone: the driver, `plan` and `status` all ask
here.
"""

from equigrid.grid.planning.planner import KINDS, WANTED, Job, Plan
from equigrid.grid.store import Store, results


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
    for folder in ("generators", "references"):
        if any(the_plan.of_kind(folder.removesuffix("s"))):
            manifests = (name for name in store.list(folder) if name.endswith("/manifest.json"))
            done.update(name.split("/")[1] for name in manifests)
    for folder in ("pools", "quality", "domain"):
        manifests = (name for name in store.list(folder) if name.endswith(".json"))
        done.update(name.removeprefix(f"{folder}/").removesuffix(".json") for name in manifests)
    return done & the_plan.jobs.keys()
