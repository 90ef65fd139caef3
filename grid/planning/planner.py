"""From a resolved spec to a graph of jobs. Pure: no store, no clock, no Ray.

Kinds of job (`equigrid.grid.jobs.kinds`): ingest → generator → shard (of a pool) → trial, and
beside the trials what is measured of pools, some of it with the grid's own classifier, trained on
real images. Equal ids are one job: a generator serves all of its trials, and cells that ask for the
same training of the same images share one trial. A *cell* is a place in the user's grid, with the
labels that tables and fits need; a *job* is work.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.grid.datasets.catalogue import Dataset
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.errors import UserError
from equigrid.grid.ids import content_id
from equigrid.grid.jobs import generator, ingest, shard, trial
from equigrid.grid.jobs.generator import GeneratorPayload
from equigrid.grid.jobs.grid_facts import GridFacts
from equigrid.grid.jobs.ingest import IngestPayload
from equigrid.grid.jobs.job import Job, Outside, Subset, Synthetic
from equigrid.grid.jobs.kinds import KINDS, rank
from equigrid.grid.jobs.pool import PlannedPool, Pool, PoolIdentity
from equigrid.grid.jobs.trial import Copies, TrialPayload
from equigrid.grid.planning.arms import Arm, arms_of
from equigrid.grid.planning.graph import Cell, Plan
from equigrid.grid.planning.resolve import GeneratorChoice, Resolved

MOST_CELLS = 200_000


def plan(resolved: Resolved) -> Plan:
    """All jobs and cells of a grid. Raises UserError for amounts that the dataset cannot supply.

    While only reading the source can tell its shape, the plan is the ingest alone.
    """
    first = _ingest(resolved)
    if resolved.shape is None:
        return Plan(resolved, {first.id: first}, [], {})
    grid = _facts(resolved, resolved.shape, first.id)
    jobs: dict[str, Job] = {first.id: first}
    cells: dict[Cell, None] = {}
    used: dict[str, PlannedPool] = {}
    arms = arms_of(resolved, grid)
    _check_cells(grid, arms)
    for found in _places(grid, arms):
        for job in found.jobs:
            jobs.setdefault(job.id, job)
        cells.update(dict.fromkeys(found.cells))  # blocks may overlap in some of their seeds
        if pool := found.pool:
            known = used.setdefault(pool.pool.id, pool)
            used[pool.pool.id] = replace(known, n_used=max(known.n_used, pool.n_used))
    for job in _of_pools(grid, used.values()):
        jobs.setdefault(job.id, job)
    ordered = {job.id: job for job in sorted(jobs.values(), key=lambda job: rank(job.kind))}
    return Plan(resolved, ordered, [*cells], {pool_id: one.pool for pool_id, one in used.items()})


def facts(resolved: Resolved) -> GridFacts:
    """What is known of a grid whose dataset's shape is known."""
    assert resolved.shape is not None, "only reading the source will tell"
    return _facts(resolved, resolved.shape, _ingest(resolved).id)


def _ingest(resolved: Resolved) -> Job:
    source = resolved.source
    payload = IngestPayload(key=source.key, done=resolved.dataset is not None)
    return ingest.KIND.job(payload, [], source.name)


def _facts(resolved: Resolved, shape: Shape, ingest_id: str) -> GridFacts:
    dataset = resolved.dataset
    return GridFacts(
        spec=resolved.spec,
        shape=shape,
        dataset=resolved.fingerprint,
        source=resolved.source.name,
        ingest=ingest_id,
        recipes=resolved.recipes,
        recipe=resolved.recipe_name,
        domain_recipe=resolved.domain_recipe,
        zero_shot=resolved.zero_shot,
        quality=resolved.quality,
        repeated=dataset.repeated_counts if dataset and dataset.repeated else (),
        grouped=resolved.source.grouped or bool(dataset and dataset.grouped),
        twice=_twice(dataset) if dataset else {},
    )


def _check_cells(grid: GridFacts, arms: list[Arm]) -> None:
    """Raises UserError for more cells than anybody runs: they would fill the memory one by one."""
    n = len(grid.spec.classifiers) * sum(
        len(arm.seeds.subset)
        * len(arm.seeds.trial)
        * (len(arm.generator_seeds) if arm.generator else 1)
        for arm in arms
    )
    if n > MOST_CELLS:
        what = f"{n:,} cells: every arm, under every seed, with every classifier"
        raise UserError(f"blocks: {what}; {MOST_CELLS:,} of a grid are the most")


def _twice(dataset: Dataset) -> dict[str, int]:
    return {pair: n for pair, n in dataset.duplicates.items() if "_" in pair}


# Arms to jobs -------------------------------------------------------------------------------------


class _Place(NamedTuple):
    """An arm at a subset seed and a generator seed: its cells, their trials, and what these
    need.
    """

    jobs: list[Job]
    cells: list[Cell]
    pool: PlannedPool | None


def _places(grid: GridFacts, arms: list[Arm]) -> Iterator[_Place]:
    """Trials of one base side by side: they share shards."""
    with_recipes = [(arm, _recipes(grid, arm)) for arm in arms]
    subset_seeds = dict.fromkeys(seed for arm in arms for seed in arm.seeds.subset)
    for subset_seed in subset_seeds:
        for arm, by_classifier in with_recipes:
            if subset_seed not in arm.seeds.subset:
                continue
            for pool, generator_seed in _pools(grid, arm, subset_seed):
                yield _place(grid, arm, by_classifier, subset_seed, pool, generator_seed)


def _recipes(grid: GridFacts, arm: Arm) -> dict[str, ResolvedRecipe]:
    """The recipe of each classifier for an arm."""
    sizes = {"n_base": arm.n_base, "n_total": arm.n_total}
    return {
        name: grid.resolved_recipe(arm.recipe, **sizes, classifier=name, arm=arm.arm)
        for name in grid.spec.classifiers
    }


def _place(
    grid: GridFacts,
    arm: Arm,
    by_classifier: dict[str, ResolvedRecipe],
    subset_seed: int,
    pool: PlannedPool | None,
    generator_seed: int | None,
) -> _Place:
    before = [pool.training, *shard.planned(pool, pool.n_used)] if pool else []
    needs = [grid.ingest, *(job.id for job in before if job.kind == shard.KIND.name)]
    trials, cells, choice = [], [], arm.generator
    for payload in _trials(grid, arm, by_classifier, grid.subset(arm.n_real, subset_seed), pool):
        trials.append(trial.KIND.job(payload, needs, grid.where(arm.n_base)))
        cells.append(
            Cell(
                trial_id=trials[-1].id,
                arm=arm.arm,
                n_base=arm.n_base,
                n_nominal=arm.nominal,
                n_real_added=arm.n_real_added,
                n_syn=arm.n_syn,
                n_copies=arm.n_copies,
                generator=choice.name if choice else None,
                setting=choice.config.setting if choice else None,
                generator_seed=generator_seed,
                classifier=payload.classifier,
                recipe=arm.recipe,
                subset_seed=subset_seed,
                seed=payload.seed,
            )
        )
    return _Place([*before, *trials], cells, pool)


def _trials(
    grid: GridFacts,
    arm: Arm,
    by_classifier: dict[str, ResolvedRecipe],
    real: Subset,
    pool: PlannedPool | None,
) -> Iterator[TrialPayload]:
    syn = Synthetic(pool=pool.pool.id, n=arm.n_syn) if pool else None
    copies = Copies(n=arm.n_copies, shares=arm.shares) if arm.n_copies else None
    stream, split = grid.stream(arm.n_total), grid.zero_shot_payload()
    for classifier, recipe in by_classifier.items():
        grid.check_streamed(recipe, stream, arm.n_total, f"recipe {arm.recipe}", "fewer images")
        for seed in arm.seeds.trial:
            yield TrialPayload(
                dataset=grid.dataset,
                real=real,
                syn=syn,
                copies=copies,
                classifier=classifier,
                recipe=recipe,
                seed=seed,
                stream=stream,
                validation=grid.spec.validation,
                zero_shot=split,
                zero_shot_config=grid.spec.zero_shot,
            )


# Pools --------------------------------------------------------------------------------------------


def _pools(
    grid: GridFacts, arm: Arm, subset_seed: int
) -> Iterator[tuple[PlannedPool | None, int | None]]:
    """The pools that an arm draws from, each with its generator's seed; None for an arm without."""
    if arm.generator is None:
        yield None, None
        return
    for seed in arm.generator_seeds:
        yield _pool(grid, arm, arm.generator, grid.subset(arm.n_base, subset_seed), seed), seed


def _pool(
    grid: GridFacts, arm: Arm, choice: GeneratorChoice, subset: Subset, seed: int
) -> PlannedPool:
    outside = _outside(grid, choice)
    training = generator.KIND.job(
        GeneratorPayload(
            dataset=grid.dataset,
            subset=None if choice.config.setting == "open" else subset,
            config=choice.training,
            seed=seed,
            mapping=choice.mapping,
            name=choice.name,
            outside=outside,
        ),
        [grid.ingest],
        f"{grid.source}:outside" if outside else grid.where(arm.n_base),
    )
    shares = choice.shares(grid.shape, grid.repeated)
    identity = PoolIdentity(
        generator=training.id,
        sampler=choice.sampling,
        classes=len(grid.shape.classes),
        shares=shares,
    )
    return PlannedPool(
        pool=Pool(
            content_id("pool", identity.identity()), training.id, grid.shape.image, choice.name
        ),
        training=training,
        mapping=choice.mapping,
        capacity=choice.capacity(grid.shape.classes, shares),
        n_used=grid.drawn(arm.n_syn),
        shares=shares,
    )


def _outside(grid: GridFacts, choice: GeneratorChoice) -> Outside | None:
    """The images kept apart, for a generator that learns from them."""
    if not choice.config.learns_from_outside:
        return None
    try:
        return grid.outside
    except UserError as error:
        raise UserError(f"generators.{choice.name}.{error}") from error


def _of_pools(grid: GridFacts, used: Iterable[PlannedPool]) -> Iterator[Job]:
    """What is measured of pools, and what that needs, kind by kind."""
    for pool in used:
        for kind in KINDS.values():
            if kind.plan:
                yield from kind.plan(grid, pool)
