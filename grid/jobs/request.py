"""What a job's body is told: one attempt at one job, as the driver sends it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from equigrid.grid.jobs.job import Payload

P = TypeVar("P", bound=Payload)


@dataclass(frozen=True)
class Images:
    """Shards of one split or one pool, in order: handles (Ray's references, or the arrays
    themselves) and lengths.
    """

    handles: tuple = ()
    lengths: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        return sum(self.lengths)


def untold(job_id: str, share: float) -> None:
    """Where nobody wants to know how far a job is."""


@dataclass(frozen=True)
class Request(Generic[P]):
    """One attempt at one job.

    labels: a handle of all training labels (N,) int64. repeated: places of training images that are
    copies of others, see `equigrid.grid.datasets.subsets.subset`. train, val, test, syn: the images
    that the job may ask for. hashes: the content hashes of the shards it is given. row: the labels
    of a trial's row (grid, dataset, arm …). inputs: ids of other jobs whose outputs the body reads
    from the store, by what they are. tell: takes the job's id and the share of it that is done.
    energy: the country (ISO 3166, three letters) for whose electricity codecarbon counts; None:
    nothing is counted.
    """

    id: str
    kind: str
    payload: P
    attempt: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    labels: object = None
    repeated: tuple[int, ...] = ()
    train: Images = Images()
    val: Images = Images()
    test: Images = Images()
    syn: Images = Images()
    hashes: tuple[str, ...] = ()
    row: dict | None = None
    workers: int = 1
    gpus: float = 0
    cpus: float = 1
    threads: int = 1
    checkpoint_every_s: float = 120
    tell: Callable[[str, float], object] = untold
    energy: str | None = None

    @property
    def classes(self) -> int:
        return len(self.class_names)
