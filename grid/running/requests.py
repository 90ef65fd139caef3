"""From a job to a request: one attempt, with references to all the images it may ask for and the
labels of its row.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from equigrid.grid import jobs
from equigrid.grid.datasets.shards import ShardRef
from equigrid.grid.ids import new_attempt
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.jobs.request import untold
from equigrid.grid.planning.graph import Cell, Job, Plan
from equigrid.grid.running.outputs import Outputs
from equigrid.grid.running.shard_cache import ShardCache


class Requests:
    """Makes the requests of one run."""

    def __init__(
        self,
        the_plan: Plan,
        outputs: Outputs,
        cache: ShardCache,
        tell: Callable[[str, float], object] = untold,
    ) -> None:
        """tell: what jobs say how far they are with."""
        self._plan, self._outputs, self._cache, self._tell = the_plan, outputs, cache, tell
        self._cells = the_plan.cells_by_trial()

    def title(self, job: Job) -> str:
        """What a slot's log calls a job."""
        cells = self._cells.get(job.id)
        return f"{self._plan.resolved.spec.name}: {cells[0] if cells else job.stage}"

    def make(self, job: Job, *, workers: int, gpus: float, node: str | None) -> jobs.Request[Any]:
        """The next attempt at a job that nothing is absent for. gpus: of each worker. node: Ray's
        name of the machine it runs on; None for several.
        """
        execution, dataset = self._plan.resolved.spec.execution, self._outputs.dataset
        shape = dataset.shape
        request: jobs.Request[Any] = jobs.Request(
            id=job.id,
            kind=job.kind,
            payload=job.payload,
            attempt=new_attempt(),
            class_names=shape.classes,
            image_shape=(shape.height, shape.width, shape.channels),
            workers=workers,
            gpus=gpus,
            cpus=execution.cpus,
            threads=execution.threads,
            checkpoint_every_s=execution.checkpoint_every_s,
            tell=self._tell,
            energy=execution.energy,
        )
        reads = KINDS[job.kind].reads(job.payload)
        given = {
            "train": dataset.train,
            "syn": self._outputs.shards_for(job),
            "test": dataset.test,
            "val": dataset.val,
        }
        images: dict[str, Any] = {
            name: self._images(refs, node) for name, refs in given.items() if name in reads
        }
        request = replace(request, **images)
        if "train" in reads:
            labels = self._cache.labels(dataset, node)
            request = replace(request, labels=labels, repeated=dataset.repeated)
        if cells := self._cells.get(job.id):
            used = (*given["train"], *given["syn"], *given["test"])
            hashes = tuple(ref.checksum for ref in used)
            request = replace(request, hashes=hashes, row=self._labels(cells[0]))
        return request

    def _images(self, refs: Sequence[ShardRef], node: str | None) -> jobs.Images:
        name = self._plan.resolved.source.name
        handles = tuple(self._cache.handle(ref, name, node) for ref in refs)
        return jobs.Images(handles, tuple(ref.n for ref in refs))

    def _labels(self, cell: Cell) -> dict[str, Any]:
        """What the trial's row says of the place in the grid that it fills."""
        resolved = self._plan.resolved
        labels = {key: value for key, value in cell._asdict().items() if key != "trial_id"}
        return {
            "grid": resolved.spec.name,
            "dataset": resolved.source.name,
            "fingerprint": resolved.fingerprint,
            "n_total": cell.n_total,
            **labels,
        }
