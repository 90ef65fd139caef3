"""From a resolved spec to a graph of jobs. Pure: no store, no clock, no Ray.

Four kinds of job: ingest → generator → shard (of a pool) → trial. Equal ids are one job: a generator serves all
of its trials, and cells that ask for the same training of the same images share one trial. A *cell* is a
place in the user's grid, with the labels that tables and fits need; a *job* is work.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from classifiers import recipes
from generators import pools
from grid import subsets
from grid.ids import content_id, seed_of
from grid.resolve import GeneratorChoice, Resolved
from grid.spec import Block, SpecError

KINDS = ("ingest", "generator", "shard", "trial")


@dataclass(frozen=True, slots=True)
class Job:
    """Work with one output. `payload` says all that the job's body needs; `stage` is its name in Ray's dashboard."""

    id: str
    kind: str
    needs: tuple[str, ...]
    payload: dict
    stage: str


class Cell(NamedTuple):
    """A place in the grid; amounts in images. `trial_id` is the job that fills it."""

    trial_id: str
    arm: str
    n_base: int
    n_nominal: int
    n_real_added: int
    n_syn: int
    n_copies: int
    generator: str | None
    setting: str | None
    generator_seed: int | None
    classifier: str
    recipe: str
    subset_seed: int
    seed: int

    @property
    def n_total(self) -> int:
        return self.n_base + self.n_real_added + self.n_syn + self.n_copies

    def __str__(self) -> str:
        if self.arm == "syn":
            added = f" + {self.n_syn:,} {self.generator} (generator seed {self.generator_seed})"
        elif self.arm == "base":
            added = ""
        else:
            added = f" + {self.n_real_added or self.n_copies:,} {'real' if self.arm == 'real' else 'copies'}"
        return f"{self.n_base:,} real{added}, {self.classifier}, subset {self.subset_seed}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Pool:
    """A generator's pool: it has no length, only the shards that some trial asked for."""

    id: str
    generator_id: str
    shard_size: int

    def manifest(self, index: int) -> str:
        return f"pools/{self.id}/{index:05d}.json"

    def shard_id(self, index: int) -> str:
        return f"{self.id}/{index:05d}"


@dataclass(frozen=True)
class Plan:
    """Jobs in an order in which each comes after what it needs, and the cells they fill."""

    resolved: Resolved
    jobs: dict[str, Job]
    cells: list[Cell]
    pools: dict[str, Pool]

    def of_kind(self, kind: str) -> Iterator[Job]:
        return (job for job in self.jobs.values() if job.kind == kind)

    def cells_by_trial(self) -> dict[str, list[Cell]]:
        by_trial: dict[str, list[Cell]] = {}
        for cell in self.cells:
            by_trial.setdefault(cell.trial_id, []).append(cell)
        return by_trial


def plan(resolved: Resolved) -> Plan:
    """All jobs and cells of a grid. Raises SpecError for amounts that the dataset cannot supply.

    While only reading the source can tell its shape, the plan is the ingest alone.
    """
    return _Planner(resolved).plan()


class _Arm(NamedTuple):
    """The amounts of one arm at one base size: what is added to `n_base` images."""

    arm: str
    n_base: int
    nominal: int
    n_real_added: int = 0
    n_syn: int = 0
    n_copies: int = 0
    generator: GeneratorChoice | None = None

    @property
    def n_real(self) -> int:
        return self.n_base + self.n_real_added


class _Planner:
    def __init__(self, resolved: Resolved):
        self.resolved, self.spec, self.shape = resolved, resolved.spec, resolved.shape
        self.fingerprint = resolved.fingerprint
        self.stage_of = f"{resolved.source.name}:n{{}}".format
        self.pools: dict[str, Pool] = {}
        self.generators: dict[str, Job] = {}
        self.shards: dict[str, Job] = {}
        self.trials: dict[str, Job] = {}
        self.cells: list[Cell] = []
        self.recipes: dict[tuple, dict] = {}
        self.payloads: dict[str, tuple[dict, dict]] = {}
        ingest_id = resolved.source.key
        self.ingest = Job(ingest_id, "ingest", (), {}, f"ingest:{resolved.source.name}")

    def plan(self) -> Plan:
        if self.shape:
            arms = list(self._distinct_arms())
            for subset_seed in self.spec.subset_seeds:  # trials of one base side by side: they share shards
                for arm in arms:
                    self._add_arm(arm, subset_seed)
        jobs = {self.ingest.id: self.ingest, **self.generators, **self.shards, **self.trials}
        return Plan(self.resolved, jobs, self.cells, self.pools)

    # Blocks to arms ------------------------------------------------------------------------------------------

    def _distinct_arms(self) -> Iterator[_Arm]:
        seen = set()
        for i, block in enumerate(self.spec.blocks):
            for arm in self._arms(block, f"blocks.{i}"):
                key = (*arm[:-1], arm.generator and arm.generator.name)
                if key not in seen:  # blocks may overlap: their common cells are there once
                    seen.add(key)
                    yield arm

    def _arms(self, block: Block, where: str) -> Iterator[_Arm]:
        for size in block.n_base:
            n = self._base_size(size, where)
            nominal = block.nominal or n
            if n:
                yield _Arm("base", n, nominal)
            for amount in block.real:
                yield _Arm("real", n, nominal, n_real_added=self._real(amount, n, nominal, f"{where}.real"))
            for name, amounts in block.syn.items():
                choice = self.resolved.generators[name]
                if not n and choice.config.setting == "closed":
                    raise SpecError(f"{where}.syn.{name}: n_base 0 leaves a closed-set generator nothing to learn from")
                for amount in amounts:
                    count = self._whole(amount.count(nominal), amount, f"{where}.syn.{name}")
                    yield _Arm("syn", n, nominal, n_syn=count, generator=choice)
            for amount in block.copies:
                count = self._whole(amount.count(nominal), amount, f"{where}.copies")
                yield _Arm("copies", n, nominal, n_copies=count)

    def _base_size(self, size, where: str) -> int:
        n_train, name = self.shape.n_train, self.resolved.source.name
        n = n_train if size == "all" else size
        if n > n_train:
            right = f"use at most {n_train:,}, or all"
            raise SpecError(f"{where}.n_base: {n:,} is more than the {n_train:,} training images of {name}; {right}")
        if n and (least := subsets.smallest_complete(self.shape.train_counts)) > n:
            missing = self.shape.classes[int((subsets.subset_counts(self.shape.train_counts, n) == 0).argmax())]
            right = f"the smallest base with every class is {least:,}"
            raise SpecError(f"{where}.n_base: {n:,} leaves class {missing!r} of {name} without an image; {right}")
        return n

    def _real(self, amount, n: int, nominal: int, where: str) -> int:
        count, left = self._whole(amount.count(nominal), amount, where), self.shape.n_train - n
        if count > left:
            what = f"{amount} × {n:,} = {count:,}" if amount.images is None else f"{count:,}"
            name = self.resolved.source.name
            raise SpecError(f"{where}: {what} real images to add to {n:,}; {name} has {left:,} more, use at most those")
        return count

    def _whole(self, count: int, amount, where: str) -> int:
        if count < 1:
            raise SpecError(f"{where}: {amount} of the base is no whole image; use a larger amount")
        return count

    # Arms to jobs --------------------------------------------------------------------------------------------

    def _add_arm(self, arm: _Arm, subset_seed: int) -> None:
        real = self._subset(arm.n_real, subset_seed)
        if arm.generator is None:
            self._add_trials(arm, subset_seed, real, None, None)
            return
        for generator_seed in arm.generator.seeds:
            pool = self._pool(arm, self._subset(arm.n_base, subset_seed), generator_seed)
            self._add_trials(arm, subset_seed, real, pool, generator_seed)

    def _add_trials(self, arm: _Arm, subset_seed: int, real: dict, pool: Pool | None, generator_seed) -> None:
        needs = (self.ingest.id, *(self._shards(pool, arm) if pool else ()))
        mix = {
            "dataset": self.fingerprint,
            "real": real,
            "syn": {"pool": pool.id, "n": arm.n_syn} if pool else None,
            "copies": {"n": arm.n_copies} if arm.n_copies else None,
        }
        generator = arm.generator
        for classifier in self.spec.classifiers:
            recipe = self._recipe(arm, classifier)
            for seed in self.spec.seeds:
                payload = {**mix, "classifier": classifier, "recipe": recipe, "seed": seed}
                trial_id = content_id("trial", payload)
                if trial_id not in self.trials:
                    stage = f"trial:{self.stage_of(arm.n_base)}"
                    self.trials[trial_id] = Job(trial_id, "trial", needs, payload, stage)
                self.cells.append(
                    Cell(
                        trial_id, arm.arm, arm.n_base, arm.nominal, arm.n_real_added, arm.n_syn, arm.n_copies,
                        generator and generator.name, generator and generator.config.setting, generator_seed,
                        classifier, self.resolved.recipe_name, subset_seed, seed,
                    )
                )  # fmt: skip

    def _subset(self, n: int, seed: int) -> dict:
        # The subset of everything is the same for every seed, and so is all that is made from it.
        return {"n": n, "subset_seed": seed if 0 < n < self.shape.n_train else None}

    def _recipe(self, arm: _Arm, classifier: str) -> dict:
        n_total = arm.n_real + arm.n_syn + arm.n_copies
        key = (arm.n_base, n_total, classifier)
        if key not in self.recipes:
            try:
                sizes = {"n_base": arm.n_base, "n_total": n_total, "n_dataset": self.shape.n_train}
                resolved = recipes.resolve(self.resolved.recipe, **sizes, classifier=classifier)
            except ValueError as error:
                raise SpecError(f"recipe {self.resolved.recipe_name}: {error}") from error
            self.recipes[key] = resolved.payload()
        return self.recipes[key]

    def _pool(self, arm: _Arm, subset: dict, seed: int) -> Pool:
        config = arm.generator.config
        name = arm.generator.name
        if name not in self.payloads:  # once: a file of weights is hashed for it
            self.payloads[name] = (config.training_payload(), config.sampling_payload())
        training, sampling = self.payloads[name]
        trained = {"dataset": self.fingerprint, "subset": subset, "config": training, "seed": seed}
        if config.setting == "open":
            trained["subset"] = None
        generator_id = content_id("generator", trained)
        if generator_id not in self.generators:
            payload = {**trained, "mapping": config.model_dump(mode="json"), "name": name}
            stage = f"generator:{self.stage_of(arm.n_base)}"
            self.generators[generator_id] = Job(generator_id, "generator", (self.ingest.id,), payload, stage)
        sampled = {"generator": generator_id, "sampler": sampling, "classes": len(self.shape.classes)}
        pool_id = content_id("pool", sampled)
        if pool_id not in self.pools:
            size = pools.shard_size(self.shape.height, self.shape.width, self.shape.channels)
            self.pools[pool_id] = Pool(pool_id, generator_id, size)
        return self.pools[pool_id]

    def _shards(self, pool: Pool, arm: _Arm) -> list[str]:
        ids = []
        for index in range(-(-arm.n_syn // pool.shard_size)):
            shard_id = pool.shard_id(index)
            if shard_id not in self.shards:
                config = arm.generator.config.model_dump(mode="json")
                payload = {"pool": pool.id, "generator": pool.generator_id, "index": index, "mapping": config}
                payload |= {"size": pool.shard_size, "seed": seed_of(pool.id, "pool")}
                stage = f"shard:{self.stage_of(arm.n_base)}"
                self.shards[shard_id] = Job(shard_id, "shard", (pool.generator_id,), payload, stage)
            ids.append(shard_id)
        return ids
