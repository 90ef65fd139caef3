"""The bodies of the jobs: functions of plain values that read inputs, do the work and write their own outputs.

None of them needs Ray: a request's handles may be the arrays themselves. Each returns an outcome, a small dict
for the driver; the output itself is already in the store by then.
"""

import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

from grid import results, shards
from grid.store import Store, StoreError
from grid.tasks import domain, generators, pools, quality, reference, trials
from grid.tasks.errors import is_infrastructure, is_out_of_memory, one_line
from grid.tasks.request import Images, Request
from grid.tasks.surroundings import surroundings
from grid.training import Leaving

__all__ = ["CORRUPT", "FAILED", "OK", "RETRY", "Images", "Request", "one_line", "record_failure", "run"]

OK, FAILED, CORRUPT, RETRY = trials.OK, "failed", "corrupt", "retry"
BODIES: dict[str, Callable[[Store, Request], dict]] = {
    "generator": generators.train,
    "shard": pools.sample,
    "reference": reference.train,
    "trial": trials.run,
    "quality": quality.measure,
    "domain": domain.measure,
}


def run(store: Store, request: Request) -> dict:
    """Does the job. A failure that repeating will not mend is written to the store and returned, not raised."""
    started = datetime.now(UTC)
    clock = time.perf_counter()
    try:
        facts = BODIES[request.kind](store, request)
        return {"id": request.id, "status": OK, "seconds": time.perf_counter() - clock, **facts}
    except Exception as error:  # every failure of a job ends here: it becomes a row, or goes back for another try
        seconds = time.perf_counter() - clock
        cause = getattr(error, "cause", None) or error  # Ray wraps what a task raised
        if isinstance(cause, shards.ShardCorrupt):
            return {"id": request.id, "status": CORRUPT, "manifest": cause.name, "error": str(cause)}
        if is_infrastructure(error) or is_infrastructure(cause):
            return {"id": request.id, "status": RETRY, "error": one_line(cause), **_advice(cause)}
        text = traceback.format_exc()
        row = record_failure(store, request, text, started, seconds)
        return {"id": request.id, "status": FAILED, "error": one_line(cause), "row": row, "seconds": seconds}


def _advice(error: BaseException) -> dict:
    """What the driver should do before the next attempt."""
    memory, left = is_out_of_memory(error), isinstance(error, Leaving)
    # Losing a machine, with or without notice, is no fault of the job's: it uses up none of its tries.
    advice = {"fresh_slot": memory or left, "out_of_memory": memory, "reload": not (memory or left), "lost": left}
    return {**advice, "store": [str(error), error.permanent] if isinstance(error, StoreError) else None}


def record_failure(store: Store, request: Request, error: str, started: datetime, seconds: float) -> dict | None:
    """Writes a failed attempt: a trial as a row of the results, any other job as a JSON file of its own."""
    if request.kind == "trial":
        row = {**trials.row(request, started, seconds), "status": FAILED, "error": error}
        results.write_part(store, row)
        return row
    failure = {"id": request.id, "kind": request.kind, "error": error, "at": started.isoformat()}
    store.put_json(f"failures/{request.id}/{request.attempt}.json", {**failure, **surroundings(request)})
    return None
