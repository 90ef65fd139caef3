"""The bodies of the jobs: functions of plain values that read inputs, do the work and write their
own outputs.

None of them needs Ray: a request's handles may be the arrays themselves. Each returns an outcome, a
small dict for the driver; the output itself is already in the store by then.
"""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from equigrid.grid.datasets import shards
from equigrid.grid.errors import StoreError
from equigrid.grid.jobs.checkpoints import Leaving
from equigrid.grid.jobs.energy import METER
from equigrid.grid.jobs.failures import (
    cause_of,
    is_broken_group,
    is_infrastructure,
    is_lost_process,
    is_out_of_memory,
    one_line,
    traceback_of,
)
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.jobs.provenance import provenance
from equigrid.grid.jobs.request import Images, Request
from equigrid.grid.jobs.trial import FAILED, OK
from equigrid.grid.store import Store, layout

__all__ = [
    "CORRUPT",
    "FAILED",
    "OK",
    "RETRY",
    "Images",
    "Request",
    "one_line",
    "record_failure",
    "run",
    "run_together",
]

log = logging.getLogger("equigrid.jobs")
CORRUPT, RETRY = "corrupt", "retry"


def run(store: Store, request: Request) -> dict:
    """Does the job. A failure that repeating will not mend is written to the store and returned,
    not raised.
    """
    return run_together(store, [request])[0]


def run_together(store: Store, requests: Sequence[Request]) -> list[dict]:
    """Does jobs that are alike (`JobKind.alike`) beside each other; outcomes as if each had been
    alone, with an equal share of the seconds.
    """
    started = datetime.now(UTC)
    clock = time.perf_counter()
    found: Sequence[dict | Exception]
    METER.begin(requests)
    try:
        found = KINDS[requests[0].kind].run_together(store, requests)
    # Every failure of a job ends here: it becomes a row, or goes back for another try.
    except Exception as error:
        if len(requests) > 1 and not is_infrastructure(cause_of(error)):
            log.warning("what was to run together runs one by one: %s", one_line(error))
            METER.end()
            return [run(store, request) for request in requests]  # whosever fault it is, shows
        found = [error] * len(requests)
    METER.end()  # where no result was written
    seconds = (time.perf_counter() - clock) / len(requests)
    crowd = len(requests)
    return [
        _failed(store, request, one, crowd, started, seconds)
        if isinstance(one, Exception)
        else {"id": request.id, "status": OK, "seconds": seconds, **one}
        for request, one in zip(requests, found, strict=True)
    ]


def _failed(
    store: Store, request: Request, error: Exception, crowd: int, started: datetime, seconds: float
) -> dict:
    """The outcome of a failure. crowd: how many jobs shared the request."""
    cause = cause_of(error)
    if isinstance(cause, shards.ShardCorrupt):
        return {"id": request.id, "status": CORRUPT, "manifest": cause.name, "error": str(cause)}
    if is_infrastructure(cause):
        return {
            "id": request.id,
            "status": RETRY,
            "error": one_line(cause),
            **_advice(cause, request, crowd),
        }
    text = traceback_of(error)
    # In the slot's log, so in Ray's dashboard.
    log.error("%s %s failed\n%s", request.kind, request.id, text)
    row = record_failure(store, request, text, started, seconds)
    return {
        "id": request.id,
        "status": FAILED,
        "error": one_line(cause),
        "row": row,
        "seconds": seconds,
    }


def _advice(error: BaseException, request: Request, crowd: int) -> dict:
    """What the driver should do before the next attempt.

    lost: losing a machine, with or without notice, is no fault of the job's and uses up none of its
    tries; nor is it, where the memory did not suffice for several jobs at once. lost_process: one
    of a worker group died; whether with its machine, the driver finds out.
    """
    memory, left = is_out_of_memory(error), isinstance(error, Leaving)
    rank = request.workers > 1 and (is_lost_process(error) or is_broken_group(error))
    advice = {
        "together": crowd,
        "fresh_slot": memory or left,
        "out_of_memory": memory,
        "lost": left or (memory and crowd > 1),
        "lost_process": rank,
    }
    # A load that failed for want of the host's memory stays a failure; a device's memory has
    # nothing to do with it.
    advice["reload"] = isinstance(error, MemoryError) or not (memory or left)
    return {
        **advice,
        "store": [str(error), error.permanent] if isinstance(error, StoreError) else None,
    }


def record_failure(
    store: Store, request: Request, error: str, started: datetime, seconds: float
) -> dict | None:
    """Writes a failed attempt as its kind does; else as a JSON file of its own."""
    if record := KINDS[request.kind].record_failure:
        return record(store, request, error, started, seconds)
    failure = {"id": request.id, "kind": request.kind, "error": error, "at": started.isoformat()}
    name = layout.failure(request.id, request.attempt)
    store.put_json(name, {**failure, **provenance(request)})
    return None
