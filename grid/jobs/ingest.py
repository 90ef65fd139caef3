"""Reading a dataset into shards: the one kind of job that the driver does before all others."""

from dataclasses import dataclass, field

from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.jobs.job import HOW, Job, Payload
from equigrid.grid.jobs.kind import NOTHING, Cost, JobKind, Took
from equigrid.grid.store import Store


@dataclass(frozen=True, kw_only=True)
class IngestPayload(Payload):
    """key: the source's, and so the job's id. done: whether its dataset is in the store."""

    key: str
    done: bool = field(metadata=HOW)


def _done(store: Store, jobs: list[Job]) -> set[str]:
    """By the word of whoever made the plan: it looked the dataset up."""
    return {job.id for job in jobs if job.payload.done}


def _bytes(payload: IngestPayload, like: Took | None, shape: Shape | None) -> float | None:
    if shape is None:
        return None
    image_bytes = shape.height * shape.width * shape.channels + 8  # and its label
    return image_bytes * (shape.n_train + shape.n_val + shape.n_test)


KIND = JobKind(
    name="ingest",
    payload=IngestPayload,
    body=None,
    words="ingest",
    plural="ingests",
    reads=lambda payload: NOTHING,
    id_of=lambda payload: payload.key,
    done=_done,
    cost=Cost(bytes=_bytes),
)
