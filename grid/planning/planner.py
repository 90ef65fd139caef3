"""From a resolved spec to a graph of jobs. Pure: no store, no clock, no Ray.

Kinds of job (`equigrid.grid.jobs.kinds`): ingest → generator → shard (of a pool) → trial, and
beside the trials what is measured of pools, some of it with the grid's own classifier, trained on
real images. Equal ids are one job: a generator serves all of its trials, and cells that ask for the
same training of the same images share one trial. A *cell* is a place in the user's grid, with the
labels that tables and fits need; a *job* is work.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
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
from equigrid.grid.planning.arms import Arm, Rival, arms_of
from equigrid.grid.planning.graph import Cell, Plan
from equigrid.grid.planning.resolve import GeneratorChoice, Resolved, one_class, shares_of

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
        for pool in found.pools:
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
        classifiers=resolved.classifiers,
        recorded=resolved.recorded,
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
    pools: list[PlannedPool]


def _places(grid: GridFacts, arms: list[Arm]) -> Iterator[_Place]:
    """Trials of one base side by side: they share shards."""
    with_recipes = [(arm, _recipes(grid, arm)) for arm in arms]
    subset_seeds = dict.fromkeys(seed for arm in arms for seed in arm.seeds.subset)
    for subset_seed in subset_seeds:
        for arm, by_classifier in with_recipes:
            if subset_seed not in arm.seeds.subset:
                continue
            for pools, generator_seed in _pools(grid, arm, subset_seed):
                yield _place(grid, arm, by_classifier, subset_seed, pools, generator_seed)


def _recipes(grid: GridFacts, arm: Arm) -> dict[str, ResolvedRecipe]:
    """The recipe of each classifier for an arm."""
    if arm.rival:
        return {name: _rivals(grid, arm, arm.rival, name) for name in grid.classifiers}
    sizes = {"n_base": arm.n_base, "n_total": arm.n_total}
    return {
        name: grid.resolved_recipe(arm.recipe, **sizes, classifier=name, arm=arm.arm)
        for name in grid.classifiers
    }


def _rivals(grid: GridFacts, arm: Arm, rival: Rival, classifier: str) -> ResolvedRecipe:
    """The recipe of the base with images added, but for the augmentation: its schedule and number
    of steps, on the base alone.
    """
    n_total = arm.n_base + rival.steps_of
    found = grid.resolved_recipe(
        arm.recipe, n_base=arm.n_base, n_total=n_total, classifier=classifier
    )
    as_long = {"epochs": None, "steps": found.total_steps(n_total)}
    return found.model_copy(update={**as_long, "augmentation": rival.augmentation})


def _place(
    grid: GridFacts,
    arm: Arm,
    by_classifier: dict[str, ResolvedRecipe],
    subset_seed: int,
    pools: list[PlannedPool],
    generator_seed: int | None,
) -> _Place:
    before = [job for pool in pools for job in shard.planned(pool, pool.n_used)]
    needs = [grid.ingest, *(job.id for job in before)]
    trainings = [pool.training for pool in pools]
    trials, cells, choice = [], [], arm.generator
    for payload in _trials(grid, arm, by_classifier, grid.subset(arm.n_real, subset_seed), pools):
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
                classifier=payload.label,
                recipe=arm.recipe,
                subset_seed=subset_seed,
                seed=payload.seed,
                by_class=arm.by_class,
                augmentation=arm.rival.name if arm.rival else None,
                pretrained=payload.pretrained.told if payload.pretrained else None,
            )
        )
    return _Place([*trainings, *before, *trials], cells, pools)


def _trials(
    grid: GridFacts,
    arm: Arm,
    by_classifier: dict[str, ResolvedRecipe],
    real: Subset,
    pools: list[PlannedPool],
) -> Iterator[TrialPayload]:
    syn: Synthetic | None = None
    of_classes: tuple[Synthetic, ...] = ()
    if arm.by_class:
        of_classes = tuple(Synthetic(pool=pool.pool.id, n=pool.n_used) for pool in pools)
    elif pools:
        syn = Synthetic(pool=pools[0].pool.id, n=arm.n_syn)
    copies = None
    if arm.n_copies:
        copies = Copies(n=arm.n_copies, shares=arm.shares, by_class=arm.by_class)
    stream, split = grid.stream(arm.n_total), grid.zero_shot_payload()
    for name, recipe in by_classifier.items():
        classifier = grid.classifiers[name]
        grid.check_streamed(recipe, stream, arm.n_total, f"recipe {arm.recipe}", "fewer images")
        for seed in arm.seeds.trial:
            yield TrialPayload(
                dataset=grid.dataset,
                real=real,
                syn=syn,
                copies=copies,
                classifier=classifier.model,
                recipe=recipe,
                seed=seed,
                stream=stream,
                validation=grid.spec.validation,
                zero_shot=split,
                zero_shot_config=grid.spec.zero_shot,
                syn_by_class=of_classes,
                pretrained=classifier.weights,
            )


# Pools --------------------------------------------------------------------------------------------


def _pools(
    grid: GridFacts, arm: Arm, subset_seed: int
) -> Iterator[tuple[list[PlannedPool], int | None]]:
    """The pools that an arm draws from at once, with their generator's seed: of amounts by class
    one of each class, else one of all; none for an arm without.
    """
    if arm.generator is None:
        yield [], None
        return
    for seed in arm.generator_seeds:
        subset = grid.subset(arm.n_base, subset_seed)
        training = _training(grid, arm, arm.generator, subset, seed)
        pool = partial(_pool, grid, arm.generator, subset, training)
        if arm.by_class is None:
            yield [pool(grid.drawn(arm.n_syn))], seed
            continue
        wanted = [(label, n) for label, n in enumerate(arm.by_class) if n]
        yield [pool(n, label) for label, n in wanted], seed


def _training(grid: GridFacts, arm: Arm, choice: GeneratorChoice, subset: Subset, seed: int) -> Job:
    outside = _outside(grid, choice)
    return generator.KIND.job(
        GeneratorPayload(
            dataset=grid.dataset,
            subset=subset if choice.config.learns_from_base else None,
            config=choice.training,
            seed=seed,
            mapping=choice.mapping,
            name=choice.name,
            outside=outside,
        ),
        [grid.ingest],
        f"{grid.source}:outside" if outside else grid.where(arm.n_base),
    )


def _pool(
    grid: GridFacts,
    choice: GeneratorChoice,
    subset: Subset,
    training: Job,
    n: int,
    label: int | None = None,
) -> PlannedPool:
    """The pool of a generator of which n images are used. label: that of a pool of one class, which
    serves all amounts of that class: its image i follows from (generator, class, i) alone.
    """
    classes = grid.shape.classes
    if label is None:
        shares = shares_of(choice, grid.spec, grid.shape, grid.repeated)
        capacity = choice.capacity(classes, shares)
    else:
        shares, capacity = one_class(label, len(classes)), choice.capacity_of(label, classes)
    identity = PoolIdentity(
        generator=training.id, sampler=choice.sampling, classes=len(classes), shares=shares
    )
    pool_id = content_id("pool", identity.identity())
    return PlannedPool(
        pool=Pool(pool_id, training.id, grid.shape.image, choice.name, label),
        training=training,
        mapping=choice.mapping,
        capacity=capacity,
        n_used=n,
        shares=shares,
        varied=subset if choice.config.varies_base else None,
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
    """What is measured of pools, and what that needs, kind by kind. Of pools that lack classes
    nothing is: all that is measured compares with real images of every class.
    """
    for pool in used:
        if pool.pool.label is not None or grid.unseen_shares:
            continue
        for kind in KINDS.values():
            if kind.plan:
                yield from kind.plan(grid, pool)
