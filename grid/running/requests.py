"""From a job to a request: one attempt, with references to all the images it may ask for and the
labels of its row.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from equigrid.grid import jobs
from equigrid.grid.datasets.shards import ShardRef
from equigrid.grid.ids import new_attempt
from equigrid.grid.planning.planner import Cell, Job, Plan
from equigrid.grid.running.outputs import Outputs
from equigrid.grid.running.shard_cache import ShardCache


class Requests:
    """Makes the requests of one run."""

    def __init__(self, the_plan: Plan, outputs: Outputs, cache: ShardCache) -> None:
        self._plan, self._outputs, self._cache = the_plan, outputs, cache
        self._cells = the_plan.cells_by_trial()

    def title(self, job: Job) -> str:
        """What a slot's log calls a job."""
        cells = self._cells.get(job.id)
        return f"{self._plan.resolved.spec.name}: {cells[0] if cells else job.stage}"

    def make(self, job: Job, *, workers: int, gpus: float) -> jobs.Request:
        """The next attempt at a job that nothing is absent for. gpus: of each worker."""
        execution, dataset = self._plan.resolved.spec.execution, self._outputs.dataset
        shape = dataset.shape
        request = jobs.Request(
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
        )
        if job.kind == "shard":
            return request
        # An open-set generator sees none of the set's images.
        if job.kind != "generator" or job.payload["subset"]:
            request = replace(
                request,
                labels=self._cache.labels(dataset),
                repeated=dataset.repeated,
                train=self._images(dataset.train),
            )
        if job.kind in ("generator", "reference"):
            return request
        pools = self._outputs.shards_for(job)
        request = replace(request, syn=self._images(pools))
        if job.kind == "trial":
            return self._for_trial(request, pools, self._cells[job.id][0])
        return request

    def _for_trial(self, request: jobs.Request, pools: list[ShardRef], cell: Cell) -> jobs.Request:
        validation = self._plan.resolved.spec.validation
        own = validation and validation.images == "own"
        dataset = self._outputs.dataset
        used = (*dataset.train, *pools, *dataset.test)
        return replace(
            request,
            test=self._images(dataset.test),
            val=self._images(dataset.val) if own else jobs.Images(),
            hashes=tuple(ref.checksum for ref in used),
            row=self._labels(cell),
        )

    def _images(self, refs: Sequence[ShardRef]) -> jobs.Images:
        name = self._plan.resolved.source.name
        handles = tuple(self._cache.handle(ref, name) for ref in refs)
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
