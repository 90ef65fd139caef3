"""The outputs that jobs take in: which of them are there, and what is done where one is wrong."""

from equigrid.grid.datasets import ingest, shards
from equigrid.grid.errors import UserError
from equigrid.grid.jobs import shard
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.running.queue import JobQueue, State
from equigrid.grid.running.shard_cache import ShardCache
from equigrid.grid.store import Store, documents, layout


def shards_of(the_plan: Plan, job: Job) -> tuple[str, ...]:
    """Ids of the jobs that make the pools' shards that a job reads."""
    return tuple(need for need in job.needs if the_plan.jobs[need].kind == shard.KIND.name)


class Outputs:
    """What the jobs of one run take in: the dataset, the shards of pools, what generators learned.

    dataset: as it is now; it may have to be made again.
    """

    def __init__(self, the_plan: Plan, store: Store, cache: ShardCache, queue: JobQueue) -> None:
        assert the_plan.resolved.dataset, "its jobs are planned once the dataset is there"
        self.dataset = the_plan.resolved.dataset
        self._plan, self._store, self._cache, self._queue = the_plan, store, cache, queue
        self._shards: dict[str, shards.ShardRef] = {}  # known to be there, by the job that makes it

    # What is there --------------------------------------------------------------------------------

    def absent(self, job: Job) -> str | None:
        """The job whose shard `job` reads and which is not there after all; None if all are."""
        for shard_id in shards_of(self._plan, job):
            if shard_id not in self._shards:
                manifest = layout.POOLS.manifest(shard_id)
                content = documents.readable(self._store, manifest, documents.ShardRecord)
                if content is None:  # a damaged one is made again
                    return shard_id
                self._shards[shard_id] = shards.ref(manifest, content)
        return None

    def shards_for(self, job: Job) -> list[shards.ShardRef]:
        """The pools' shards that a job reads; nothing is absent for it."""
        return [self._shards[shard_id] for shard_id in shards_of(self._plan, job)]

    def made(self, job: Job, outcome: dict) -> None:
        """A job has its output."""
        if job.kind == shard.KIND.name:
            self._shards[job.id] = shards.ShardRef(**outcome["shard"])

    def let_go(self, job: Job) -> None:
        """A job will read its shards no more: those that none is left to read leave the cache."""
        for shard_id in shards_of(self._plan, job):
            if not self._queue.readers_left(shard_id):
                self._cache.drop(layout.POOLS.manifest(shard_id))

    # What is not, or is wrong ---------------------------------------------------------------------

    def mend(self, manifest: str, job: Job) -> None:
        """A job came back because what a manifest names is wrong or gone: it is made again."""
        if layout.is_dataset(manifest):
            self._mend_dataset()
        elif not self._queue.is_old_news(job.id, _maker(manifest)):
            self.remake(_maker(manifest))

    def remake(self, job_id: str) -> None:
        """Has an output made again, and first what it is made of, where that is gone too."""
        if self._queue.state(job_id) not in (State.DONE, State.FAILED):
            return  # it is to be made anyway
        job = self._plan.jobs[job_id]
        files = KINDS[job.kind].outputs
        assert files, f"no job takes in what a {job.kind} makes"
        manifest = files.manifest(job_id)
        self._cache.drop(manifest)
        self._shards.pop(job_id, None)
        self._store.delete(manifest)
        self._queue.remake(job_id)
        for need in job.needs:
            files = KINDS[self._plan.jobs[need].kind].outputs
            if files and not self._store.exists(files.manifest(need)):
                self.remake(need)

    def _mend_dataset(self) -> None:
        resolved = self._plan.resolved
        self.dataset = ingest.again(self._store, resolved.source, resolved.spec.dataset)
        if self.dataset.fingerprint != resolved.fingerprint:
            what = "its content changed while the grid ran; run again to plan anew"
            raise UserError(f"dataset {resolved.source.name}: {what}")
        self._cache.clear()


def _maker(manifest: str) -> str:
    """The id of the job that writes a manifest."""
    outputs = (kind.outputs for kind in KINDS.values() if kind.outputs)
    return next(files.owner(manifest) for files in outputs if files.is_manifest(manifest))
