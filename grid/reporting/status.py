"""How far a grid is, and what failed in it: from the store alone, whether or not it is running."""

import time
from dataclasses import asdict, dataclass

from equigrid.grid.jobs import trial
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.pending import done_jobs
from equigrid.grid.store import Store, documents, layout, lock, results


@dataclass(frozen=True)
class StageStatus:
    """Jobs of one kind: those with an output, those whose last attempt failed, and the rest."""

    kind: str
    total: int
    done: int
    failed: int

    @property
    def left(self) -> int:
        return self.total - self.done - self.failed


@dataclass(frozen=True)
class Status:
    """A grid's state in the store. failures: id, kind, cell and the error's last line, with its
    traceback.

    driver: while one runs, who that is and how far it was with its last heartbeat: by kind of job
    `running`, `images_per_s` and `left_s`; `device_s`, `shard_hits` and `shard_loads` of this run.
    """

    grid: str
    store: str
    cells: int
    cells_done: int
    stages: tuple[StageStatus, ...]
    failures: tuple[dict, ...]
    last_result_at: str | None
    runs: tuple[dict, ...]
    driver: dict | None = None

    @property
    def complete(self) -> bool:
        return self.cells_done == self.cells

    def to_json(self) -> dict:
        return {**asdict(self), "complete": self.complete}


COLUMNS = ["trial_id", "status", "error", "finished_at"]


def status(store: Store, plan: Plan, reader: results.Reader | None = None) -> Status:
    """Reads the state of `plan`'s jobs from `store`.

    reader: of COLUMNS, kept by who asks again and again: files of results that it has read are not
    read again.
    """
    rows = (reader or results.Reader(store, COLUMNS)).read().to_pylist()
    rows = [row for row in rows if row["trial_id"] in plan.jobs]
    done = done_jobs(store, plan, {row["trial_id"] for row in rows if row["status"] == "ok"})
    failures = _failures(store, plan, done, rows)
    failed = {failure["id"] for failure in failures}
    stages = []
    for kind in KINDS:
        ids = [job.id for job in plan.of_kind(kind)]
        stages.append(
            StageStatus(kind, len(ids), sum(i in done for i in ids), sum(i in failed for i in ids))
        )
    times = [row["finished_at"] for row in rows if row["finished_at"]]
    spec = plan.resolved.spec
    runs = documents.read_all(
        store, sorted(filter(layout.is_manifest, store.list(layout.runs(spec.name)))),
        documents.RunRecord,
    )  # fmt: skip
    return Status(
        grid=spec.name,
        store=store.uri,
        cells=len(plan.cells),
        cells_done=sum(cell.trial_id in done for cell in plan.cells),
        stages=tuple(stages),
        failures=tuple(failures),
        last_result_at=max(times).isoformat(timespec="seconds") if times else None,
        runs=tuple(run.model_dump() for run in runs if run),
        driver=_driver(store, spec.name),
    )


def _driver(store: Store, grid: str) -> dict | None:
    """By this machine's clock, if the driver is on another: who only looks may have no right to
    write.
    """
    holder = lock.holder(store, grid, now_s=time.time())
    if holder is None or not holder.alive:
        return None
    return {"who": str(holder), "kinds": {}, **(holder.progress or {})}


def _failures(store: Store, plan: Plan, done: set[str], rows: list[dict]) -> list[dict]:
    """The last word on every job of the plan that failed and has no output since."""
    cells = plan.cells_by_trial()
    found = []
    for row in rows:
        if row["status"] == "failed":
            cell = "; ".join(str(c) for c in cells[row["trial_id"]])
            found.append(
                _failure(row["trial_id"], trial.KIND.name, cell, row["error"] or "it failed")
            )
    last: dict[str, str] = {}
    for name in sorted(filter(layout.is_failure, store.list(layout.FAILURES))):
        last[layout.failed_job(name)] = name
    for job_id, name in last.items():
        if job_id in plan.jobs and job_id not in done:
            content = documents.readable(store, name, documents.FailureRecord)
            job = plan.jobs[job_id]
            error = content.error if content else f"it failed; {name} is damaged"
            found.append(_failure(job_id, job.kind, job.stage, error))
    return found


def _failure(job_id: str, kind: str, cell: str, traceback: str) -> dict:
    # By line feeds alone: a carriage return in a message begins no line of it.
    last = traceback.strip().rsplit("\n", 1)[-1]
    return {"id": job_id, "kind": kind, "cell": cell, "error": last, "traceback": traceback}
