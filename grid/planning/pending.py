"""What of a plan is done, by the store's word alone: the driver, `plan` and `status` all ask
here.
"""

from equigrid.grid.jobs import trial
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.store import Store


def pending(store: Store, the_plan: Plan) -> tuple[list[Job], set[str]]:
    """The jobs that a run would do now, in order, and the ids of those that are done.

    Only what an unfinished job of a wanted kind needs is work: a pool that was removed after these
    were done stays away.
    """
    done = done_jobs(store, the_plan)
    done -= _damaged(store, the_plan, done)
    needed = {
        job.id
        for job in the_plan.jobs.values()
        if (KINDS[job.kind].wanted or job.id in the_plan.wanted) and job.id not in done
    }
    for job in reversed(the_plan.jobs.values()):  # each comes after what it needs
        if job.id in needed:
            needed.update(need for need in job.needs if need not in done)
    return [job for job in the_plan.jobs.values() if job.id in needed], done


def done_jobs(store: Store, the_plan: Plan, trials: set[str] | None = None) -> set[str]:
    """Ids of the plan's jobs whose output is in the store. trials: the finished ones, where the
    caller knows them.
    """
    done: set[str] = set()
    for name, kind in KINDS.items():
        if name == trial.KIND.name and trials is not None:
            done |= trials & the_plan.jobs.keys()
        else:
            done |= kind.done_among(store, list(the_plan.of_kind(name)))
    return done


def _damaged(store: Store, the_plan: Plan, done: set[str]) -> set[str]:
    """Of the jobs that a grid is run for, those whose manifest is not what was written: they are
    done again. (What others made is looked at where it is needed.)
    """
    return {
        job.id
        for kind in KINDS.values()
        if kind.wanted and kind.outputs
        for job in the_plan.of_kind(kind.name)
        if job.id in done and kind.recorded(store, job) is None
    }
