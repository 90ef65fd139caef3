"""From a resolved spec to a graph of jobs. Pure: no store, no clock, no Ray.

Kinds of job: ingest → generator → shard (of a pool) → trial, and beside the trials what measures a
pool: quality and domain (gap), some of them with a reference, the grid's own classifier trained on
real images. Equal ids are one job: a generator serves all of its trials, and cells that ask for the
same training of the same images share one trial. A *cell* is a place in the user's grid, with the
labels that tables and fits need; a *job* is work.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from equigrid.classifiers import recipes
from equigrid.generators.common import pools
from equigrid.grid.datasets import subsets
from equigrid.grid.errors import UserError
from equigrid.grid.ids import content_id, seed_of
from equigrid.grid.planning.resolve import GeneratorChoice, Resolved, recipe_name
from equigrid.grid.spec import Block
from equigrid.grid.store.layout import POOLS

KINDS = ("ingest", "generator", "shard", "reference", "trial", "quality", "domain")
WANTED = (
    "trial",
    "quality",
    "domain",
)  # what a grid is run for; the others are run where one of these needs them
RESIDENT_BYTES = (
    4 * 2**30
)  # a trial's images up to here lie on the device whole; more of them are streamed
WINDOW_BYTES = 2**30  # of a streamed trial's images at hand: 5,440 at 256×256


@dataclass(frozen=True, slots=True)
class Job:
    """Work with one output. `payload` says all that the job's body needs; `stage` is its name in
    Ray's dashboard.
    """

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
    """A generator's pool: it has no length, only the shards that some trial asked for.

    generator: its name in the spec; several that differ in sampling alone share one training,
    `generator_id`.
    """

    id: str
    generator_id: str
    shard_size: int
    generator: str

    def manifest(self, index: int) -> str:
        return POOLS.manifest(self.shard_id(index))

    def shard_id(self, index: int) -> str:
        return POOLS.job_id(self.id, index)


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
    """All jobs and cells of a grid. Raises UserError for amounts that the dataset cannot supply.

    While only reading the source can tell its shape, the plan is the ingest alone.
    """
    return _Planner(resolved).plan()


class _Arm(NamedTuple):
    """The amounts of one arm at one base size: what is added to `n_base` images."""

    arm: str
    recipe: str
    n_base: int
    nominal: int
    n_real_added: int = 0
    n_syn: int = 0
    n_copies: int = 0
    generator: GeneratorChoice | None = None

    @property
    def n_real(self) -> int:
        return self.n_base + self.n_real_added

    @property
    def n_total(self) -> int:
        return self.n_real + self.n_syn + self.n_copies


class _Planner:
    def __init__(self, resolved: Resolved):
        self.resolved, self.spec, self.shape = resolved, resolved.spec, resolved.shape
        self.fingerprint = resolved.fingerprint
        self.stage_of = f"{resolved.source.name}:n{{}}".format
        self.pools: dict[str, Pool] = {}
        self.generators: dict[str, Job] = {}
        self.shards: dict[str, Job] = {}
        self.trials: dict[str, Job] = {}
        self.references: dict[str, Job] = {}
        self.measures: dict[str, Job] = {}
        self.used: dict[str, int] = {}  # images of each pool that trials use
        self.cells: list[Cell] = []
        self.recipes: dict[tuple, dict] = {}
        self.payloads: dict[str, tuple[dict, dict]] = {}
        ingest_id = resolved.source.key
        self.ingest = Job(ingest_id, "ingest", (), {}, f"ingest:{resolved.source.name}")
        self.seen = self._seen_classes()
        self.held_out, self.n_train = self._held_out()
        self.n_different = int(self._counts().sum()) if self.shape else 0

    def plan(self) -> Plan:
        if self.shape:
            arms = list(self._distinct_arms())
            for (
                subset_seed
            ) in self.spec.subset_seeds:  # trials of one base side by side: they share shards
                for arm in arms:
                    self._add_arm(arm, subset_seed)
            self._measure_pools()
        before = {self.ingest.id: self.ingest, **self.generators, **self.shards, **self.references}
        jobs = {**before, **self.trials, **self.measures}
        return Plan(self.resolved, jobs, self.cells, self.pools)

    def _seen_classes(self) -> list[int] | None:
        """The labels whose real images may be trained on, where that is not all of them."""
        if not self.shape or not self.spec.zero_shot:
            return None
        classes = len(self.shape.classes)
        return sorted(
            set(range(classes))
            - set(self.spec.zero_shot.unseen_labels(self.shape.classes, classes))
        )

    def _counts(self) -> np.ndarray:
        """Different real images of each class that may be trained on, where there are any of the
        class.
        """
        counts = np.asarray(self.shape.train_counts) - self._repeated()
        return subsets.counts_left(
            counts if self.seen is None else counts[self.seen], self.held_out
        )

    def _repeated(self) -> np.ndarray | int:
        """Training images of each class that are copies of others: only the whole set has them."""
        dataset = self.resolved.dataset
        return np.asarray(dataset.repeated_counts) if dataset and dataset.repeated else 0

    def _held_out(self) -> tuple[int, int]:
        """(images of the training set that are kept for validation, images that are left)."""
        if not self.shape:
            return 0, 0
        self.held_out = 0
        wanted, n_train, name = (
            self.spec.validation,
            int(self._counts().sum()),
            self.resolved.source.name,
        )
        if wanted and wanted.images == "own":
            if not self.shape.n_val:
                raise UserError(
                    f"validation.images: {name} has no validation split of its own; write a number"
                )
            return 0, self._whole_set(n_train)
        held = wanted.images if wanted else 0
        if held >= n_train:
            raise UserError(
                f"validation.images: {held:,} of the {n_train:,} training images of {name}; leave some"
            )
        source, dataset = self.resolved.source, self.resolved.dataset
        if held and (source.grouped or (dataset and dataset.grouped)):
            right = "set val: 0.1 in dataset, and write validation: {images: own}"
            raise UserError(
                f"validation.images: {held:,} images would tear groups of {name} apart; {right}"
            )
        return (held, n_train - held) if held else (0, self._whole_set(n_train))

    def _whole_set(self, different: int) -> int:
        """Training images with those that are copies of others."""
        repeated = self._repeated()
        if isinstance(repeated, int):
            return different
        return different + int((repeated if self.seen is None else repeated[self.seen]).sum())

    def _check_different(self, n: int, where: str) -> None:
        if self.n_different < n < self.n_train:
            name = self.resolved.source.name
            what = f"{name} has {self.n_different:,} different training images, {self.n_train:,} with copies"
            right = f"use at most {self.n_different:,}, or all"
            raise UserError(f"{where}: {n:,}, and {what}; {right}")

    # Blocks to arms -------------------------------------------------------------------------------

    def _distinct_arms(self) -> Iterator[_Arm]:
        seen = set()
        for i, block in enumerate(self.spec.blocks):
            for arm in self._arms(block, i):
                key = (*arm[:-1], arm.generator and arm.generator.name)
                if key not in seen:  # blocks may overlap: their common cells are there once
                    seen.add(key)
                    yield arm

    def _arms(self, block: Block, number: int) -> Iterator[_Arm]:
        where = f"blocks.{number}"
        for size in block.n_base:
            n = self._base_size(size, where)
            nominal = block.nominal or n
            recipe = (
                recipe_name(block.recipe, f"custom {number}")
                if block.recipe
                else self.resolved.recipe_name
            )
            if n and block.base:
                yield _Arm("base", recipe, n, nominal)
            for amount in block.real:
                yield _Arm(
                    "real",
                    recipe,
                    n,
                    nominal,
                    n_real_added=self._real(amount, n, nominal, f"{where}.real"),
                )
            for name, amounts in block.syn.items():
                choice = self.resolved.generators[name]
                if not n and choice.config.setting == "closed":
                    raise UserError(
                        f"{where}.syn.{name}: n_base 0 leaves a closed-set generator nothing to learn from"
                    )
                for amount in amounts:
                    count = self._synthetic(amount, nominal, choice, f"{where}.syn.{name}")
                    yield _Arm("syn", recipe, n, nominal, n_syn=count, generator=choice)
            for amount in block.copies:
                count = self._whole(amount.count(nominal, 0), amount, f"{where}.copies")
                yield _Arm("copies", recipe, n, nominal, n_copies=count)

    def _base_size(self, size, where: str) -> int:
        n_train, name = self.n_train, self.resolved.source.name
        n = n_train if size == "all" else size
        if n > n_train:
            right = f"use at most {n_train:,}, or all"
            raise UserError(
                f"{where}.n_base: {n:,} is more than the {n_train:,} training images of {name}; {right}"
            )
        self._check_different(n, f"{where}.n_base")
        counts = self._counts()
        if n and not counts.all():
            empty = self.shape.classes[int(counts.argmin())]
            raise UserError(
                f"{where}: class {empty!r} of {name} has no image to train on; remove the class"
            )
        if n and (least := subsets.smallest_complete(counts)) > n:
            missing = self.shape.classes[int((subsets.subset_counts(counts, n) == 0).argmax())]
            right = f"the smallest base with every class is {least:,}"
            raise UserError(
                f"{where}.n_base: {n:,} leaves class {missing!r} of {name} without an image; {right}"
            )
        return n

    def _real(self, amount, n: int, nominal: int, where: str) -> int:
        left, name = max(0, self.n_different - n), self.resolved.source.name
        count = self._whole(amount.count(nominal, left), amount, where)
        if count > left:
            what = f"{amount} × {nominal:,} = {count:,}" if amount.images is None else f"{count:,}"
            more = "more" if self.n_different == self.n_train else "more that differ"
            right = f"{name} has {left:,} {more}: write all for those"
            raise UserError(f"{where}: {what} real images to add to {n:,}; {right}")
        return count

    def _synthetic(self, amount, nominal: int, choice: GeneratorChoice, where: str) -> int:
        count = self._whole(amount.count(nominal, 0), amount, where)
        most = choice.config.capacity(self.shape.classes)
        if most is not None and self._drawn(count) > most:
            classes, seen = len(self.shape.classes), len(self.seen or ())
            have = f"{most * (classes - seen) // classes:,} that are balanced over the {'unseen ' * bool(seen)}classes"
            raise UserError(f"{where}: {count:,} images; {choice.name} has {have}")
        return count

    def _drawn(self, n: int) -> int:
        """Images from a pool's start that hold n to train on: it has all classes, zero-shot takes
        those unseen.
        """
        if self.seen is None:
            return n
        classes = len(self.shape.classes)
        return -(-n // (classes - len(self.seen))) * classes

    def _whole(self, count: int, amount, where: str) -> int:
        if count < 1:
            raise UserError(f"{where}: {amount} of the base is no whole image; use a larger amount")
        return count

    # Arms to jobs ---------------------------------------------------------------------------------

    def _add_arm(self, arm: _Arm, subset_seed: int) -> None:
        real = self._subset(arm.n_real, subset_seed)
        if arm.generator is None:
            self._add_trials(arm, subset_seed, real, None, None)
            return
        for generator_seed in arm.generator.seeds:
            pool = self._pool(arm, self._subset(arm.n_base, subset_seed), generator_seed)
            self._add_trials(arm, subset_seed, real, pool, generator_seed)

    def _add_trials(
        self, arm: _Arm, subset_seed: int, real: dict, pool: Pool | None, generator_seed
    ) -> None:
        needs = (self.ingest.id, *(self._shards(pool, arm) if pool else ()))
        mix = {
            "dataset": self.fingerprint,
            "real": real,
            "syn": {"pool": pool.id, "n": arm.n_syn} if pool else None,
            "copies": {"n": arm.n_copies} if arm.n_copies else None,
        }
        if self.spec.validation:
            mix["validation"] = self.spec.validation.identity()
        how = {}
        if zero_shot := self.spec.zero_shot:
            mix["zero_shot"] = zero_shot.payload(self.shape.classes, len(self.shape.classes))
            how = {"zero_shot_config": zero_shot.model_dump(mode="json")}
        generator, stream = arm.generator, self._stream(arm.n_total)
        for classifier in self.spec.classifiers:
            recipe = self._recipe(arm, classifier)
            for seed in self.spec.seeds:
                payload = {
                    **mix,
                    **stream,
                    "classifier": classifier,
                    "recipe": recipe,
                    "seed": seed,
                }
                trial_id = content_id("trial", payload)
                if trial_id not in self.trials:
                    stage = f"trial:{self.stage_of(arm.n_base)}"
                    self.trials[trial_id] = Job(trial_id, "trial", needs, {**payload, **how}, stage)
                self.cells.append(
                    Cell(
                        trial_id, arm.arm, arm.n_base, arm.nominal, arm.n_real_added, arm.n_syn, arm.n_copies,
                        generator and generator.name, generator and generator.config.setting, generator_seed,
                        classifier, arm.recipe, subset_seed, seed,
                    )
                )  # fmt: skip

    def _subset(self, n: int, seed: int) -> dict:
        # The subset of everything is the same for every seed, and so is all that is made from it.
        chosen = {"n": n, "subset_seed": seed if 0 < n < self.n_train else None}
        chosen |= {"held_out": self.held_out} if self.held_out else {}
        return chosen | ({"classes": self.seen} if self.seen is not None else {})

    def _recipe(self, arm: _Arm, classifier: str) -> dict:
        n_total = arm.n_total
        key = (arm.recipe, arm.n_base, n_total, classifier)
        if key not in self.recipes:
            try:
                sizes = {"n_base": arm.n_base, "n_total": n_total, "n_dataset": self.n_train}
                resolved = recipes.resolve(
                    self.resolved.recipes[arm.recipe], **sizes, classifier=classifier
                )
            except ValueError as error:
                raise UserError(f"recipe {arm.recipe}: {error}") from error
            self.recipes[key] = resolved.payload()
        return self.recipes[key]

    def _stream(self, n_total: int, patch_px: int | None = None) -> dict:
        """How a mix too large for a device is read: a window of its shards at a time. By sizes
        alone, since it changes the order of images; so it is a part of the trial's id, and no
        device has a say in it.

        patch_px: the side of the square that is kept of each image, where that is not all of it.
        """
        shape = self.shape
        image_bytes = (patch_px**2 if patch_px else shape.height * shape.width) * shape.channels
        if n_total * image_bytes <= RESIDENT_BYTES:
            return {}
        shard_bytes = image_bytes * pools.shard_size(shape.height, shape.width, shape.channels)
        return {"stream": {"window": max(1, WINDOW_BYTES // shard_bytes)}}

    def _pool(self, arm: _Arm, subset: dict, seed: int) -> Pool:
        config = arm.generator.config
        name = arm.generator.name
        if name not in self.payloads:  # once: a file of weights is hashed for it
            self.payloads[name] = (config.trained_identity(), config.sampling_payload())
        training, sampling = self.payloads[name]
        trained = {"dataset": self.fingerprint, "subset": subset, "config": training, "seed": seed}
        if config.setting == "open":
            trained["subset"] = None
        generator_id = content_id("generator", trained)
        if generator_id not in self.generators:
            payload = {**trained, "mapping": config.model_dump(mode="json"), "name": name}
            stage = f"generator:{self.stage_of(arm.n_base)}"
            self.generators[generator_id] = Job(
                generator_id, "generator", (self.ingest.id,), payload, stage
            )
        sampled = {
            "generator": generator_id,
            "sampler": sampling,
            "classes": len(self.shape.classes),
        }
        pool_id = content_id("pool", sampled)
        if pool_id not in self.pools:
            size = pools.shard_size(self.shape.height, self.shape.width, self.shape.channels)
            self.pools[pool_id] = Pool(pool_id, generator_id, size, name)
        return self.pools[pool_id]

    def _shards(self, pool: Pool, arm: _Arm) -> list[str]:
        n = self._drawn(arm.n_syn)
        self.used[pool.id] = max(self.used.get(pool.id, 0), n)
        return self._shards_of(pool, n)

    def _shards_of(self, pool: Pool, n: int) -> list[str]:
        """Ids of the shards with the pool's first n images."""
        ids = []
        generator = self.generators[pool.generator_id]
        # The pool's own: the generator's says how the first of those samples that share its
        # training.
        mapping = self.resolved.generators[pool.generator].config.model_dump(mode="json")
        for index in range(-(-n // pool.shard_size)):
            shard_id = pool.shard_id(index)
            if shard_id not in self.shards:
                payload = {"pool": pool.id, "generator": generator.id, "index": index}
                payload |= {"mapping": mapping, "size": pool.shard_size}
                payload |= {"seed": seed_of(pool.id, "pool")}
                stage = generator.stage.replace("generator:", "shard:", 1)
                self.shards[shard_id] = Job(shard_id, "shard", (generator.id,), payload, stage)
            ids.append(shard_id)
        return ids

    # What is measured of pools --------------------------------------------------------------------

    def _measure_pools(self) -> None:
        for pool in self.pools.values():
            if self.spec.quality:
                self._add_quality(pool)
            if self.spec.domain_gap:
                for patch_px in (None, *self.spec.domain_gap.patches):
                    self._add_domain(pool, patch_px)

    def _add_quality(self, pool: Pool) -> None:
        quality, shape = self.spec.quality, self.shape
        n = self._at_most(quality.images or self.used[pool.id], pool)
        image = (shape.height, shape.width, shape.channels)
        reference = self._reference() if quality.features else None
        trained = self.generators[pool.generator_id].payload
        payload = {
            "dataset": self.fingerprint, "syn": {"pool": pool.id, "n": n}, "subset": trained["subset"],
            "reference": reference, "config": quality.payload(*image),
        }  # fmt: skip
        self._add_measure("quality", pool, payload, {"networks": quality.networks(*image)})

    def _add_domain(self, pool: Pool, patch_px: int | None) -> None:
        gap = self.spec.domain_gap
        n = self._at_most(gap.images or self.used[pool.id], pool)
        n = min(n, self.n_train) if n >= self.n_train else min(n, self.n_different)
        if patch_px is not None and patch_px > min(self.shape.height, self.shape.width):
            side = f"{self.shape.height}×{self.shape.width}"
            raise UserError(
                f"domain_gap.patches: {patch_px} px squares do not fit into images of {side}"
            )
        classifier = gap.classifier or self.spec.classifiers[0]
        sizes = {"n_base": n, "n_total": 2 * n, "n_dataset": self.n_train}
        try:
            recipe = recipes.resolve(
                self.resolved.domain_recipe, **sizes, classifier=classifier
            ).payload()
        except ValueError as error:
            raise UserError(f"domain_gap.recipe: {error}") from error
        if (stream := self._stream(2 * n, patch_px)) and "normalisation" not in recipe:
            right = "give the recipe a normalisation (mean and std), or domain_gap fewer images"
            raise UserError(
                f"domain_gap.recipe: {2 * n:,} images are streamed, and so are not measured; {right}"
            )
        tsne = gap.tsne if patch_px is None else 0
        payload = {
            "dataset": self.fingerprint, "syn": {"pool": pool.id, "n": n}, "real": self._subset(n, 0),
            "classifier": classifier, "recipe": recipe, "held_out": gap.held_out, "patch_px": patch_px, **stream,
            "tsne": tsne, "reference": self._reference() if tsne else None, **gap.added(),
        }  # fmt: skip
        self._add_measure("domain", pool, payload, {})

    def _add_measure(self, kind: str, pool: Pool, payload: dict, how: dict) -> None:
        """how: what the body must know that determines nothing, such as where a file of weights
        lies.
        """
        job_id = content_id(kind, payload)
        shards = self._shards_of(pool, payload["syn"]["n"])
        needs = (self.ingest.id, *([payload["reference"]] if payload["reference"] else ()), *shards)
        stage = self.generators[pool.generator_id].stage.replace("generator:", f"{kind}:", 1)
        self.measures[job_id] = Job(job_id, kind, needs, {**payload, **how}, stage)

    def _at_most(self, n: int, pool: Pool) -> int:
        name = self.generators[pool.generator_id].payload["name"]
        most = self.resolved.generators[name].config.capacity(self.shape.classes)
        return n if most is None else min(n, most)

    def _reference(self) -> str:
        """The id of the grid's own classifier: the spec's first, trained on real images alone."""
        classifier, n = self.spec.classifiers[0], self.spec.reference_images or self.n_train
        if n > self.n_train:
            right = f"use at most {self.n_train:,}, or leave it out for all"
            raise UserError(
                f"reference_images: {n:,} is more than there are training images; {right}"
            )
        self._check_different(n, "reference_images")
        own = _Arm("base", self.resolved.recipe_name, n, n)
        payload = {
            "dataset": self.fingerprint,
            "real": self._subset(n, 0),
            "classifier": classifier,
        }
        payload |= {**self._stream(n), "recipe": self._recipe(own, classifier)}
        job_id = content_id("reference", payload)
        stage = f"reference:{self.stage_of(n)}"
        self.references.setdefault(
            job_id, Job(job_id, "reference", (self.ingest.id,), payload, stage)
        )
        return job_id
