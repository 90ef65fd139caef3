"""From a job to a request: one attempt, with references to all the images it may ask for and the
labels of its row.
"""

from collections.abc import Iterable
from dataclasses import replace

from equigrid.grid import jobs
from equigrid.grid.datasets import shards
from equigrid.grid.ids import new_attempt
from equigrid.grid.planning.planner import Cell, Job, Plan
from equigrid.grid.running.slots import ShardCache
from equigrid.grid.store import Store


def shards_of(the_plan: Plan, job: Job) -> list[str]:
    """Ids of the jobs that make the pools' shards that a job reads."""
    return [need for need in job.needs if the_plan.jobs[need].kind == "shard"]


def manifest_of(shard_id: str) -> str:
    return f"pools/{shard_id}.json"


class Requests:
    """Makes the requests of one run. dataset: the ingested set as it is now; it may have to be made
    again.

    made: the shards of pools that are known to be there, by job.
    """

    def __init__(self, the_plan: Plan, store: Store, cache: ShardCache):
        self.plan, self.store, self.cache = the_plan, store, cache
        self.dataset = the_plan.resolved.dataset
        self.made: dict[str, shards.ShardRef] = {}

    def absent(self, job: Job) -> str | None:
        """The job whose shard `job` reads and which is not there after all; None if all are."""
        for shard_id in shards_of(self.plan, job):
            if shard_id not in self.made:
                manifest = manifest_of(shard_id)
                content = self.store.get_json(manifest)
                if content is None:
                    return shard_id
                self.made[shard_id] = shards.ref(manifest, content)
        return None

    def make(self, job: Job, *, workers: int, gpus: float, cells: list[Cell]) -> jobs.Request:
        """The next attempt at a job that nothing is absent for. gpus: of a worker; cells: a trial's
        places.
        """
        shape, execution = self.plan.resolved.shape, self.plan.resolved.spec.execution
        request = jobs.Request(
            id=job.id, kind=job.kind, payload=job.payload, attempt=new_attempt(), class_names=shape.classes,
            image_shape=(shape.height, shape.width, shape.channels), workers=workers, gpus=gpus, cpus=execution.cpus,
            threads=execution.threads, checkpoint_every_s=execution.checkpoint_every_s,
        )  # fmt: skip
        if job.kind == "shard":
            return request
        if (
            job.kind != "generator" or job.payload["subset"]
        ):  # an open-set generator sees none of the set's images
            labels = self.cache.labels(self.dataset)
            request = replace(
                request, labels=labels, repeated=self.dataset.repeated,
                train=self._images(self.dataset.train),
            )  # fmt: skip
        if job.kind in ("generator", "reference"):
            return request
        pools = [self.made[shard_id] for shard_id in shards_of(self.plan, job)]
        request = replace(request, syn=self._images(pools))
        return self._for_trial(request, pools, cells[0]) if job.kind == "trial" else request

    def _for_trial(
        self, request: jobs.Request, pools: list[shards.ShardRef], cell: Cell
    ) -> jobs.Request:
        validation = self.plan.resolved.spec.validation
        own = validation and validation.images == "own"
        used = (*self.dataset.train, *pools, *self.dataset.test)
        return replace(
            request, test=self._images(self.dataset.test),
            val=self._images(self.dataset.val) if own else jobs.Images(),
            hashes=tuple(ref.checksum for ref in used), row=self._labels(cell),
        )  # fmt: skip

    def _images(self, refs: Iterable[shards.ShardRef]) -> jobs.Images:
        name = self.plan.resolved.source.name
        return jobs.Images(
            tuple(self.cache.handle(ref, name) for ref in refs), tuple(ref.n for ref in refs)
        )

    def _labels(self, cell: Cell) -> dict:
        resolved = self.plan.resolved
        labels = {key: value for key, value in cell._asdict().items() if key != "trial_id"}
        return {
            "grid": resolved.spec.name, "dataset": resolved.source.name, "fingerprint": resolved.fingerprint,
            "n_total": cell.n_total, **labels,
        }  # fmt: skip
