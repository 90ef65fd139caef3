"""Where the grid meets the analysis: its table read from a store, its curves and report published
there.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd

from equigrid.generators.common.decoding import BrokenImage, decode
from equigrid.grid.errors import UserError, near
from equigrid.grid.jobs import OK, domain_gap, generator, quality, shard
from equigrid.grid.jobs.generator import GeneratorPayload
from equigrid.grid.jobs.kind import JobKind
from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.planning.graph import Cell, Job, Plan, Pool
from equigrid.grid.planning.resolve import GeneratorChoice
from equigrid.grid.reporting import samples, spending
from equigrid.grid.reporting.cell_table import cell_table
from equigrid.grid.store import Store, documents, layout, results
from equigrid.grid.units import duration

if TYPE_CHECKING:
    from equigrid.analysis.conclusions.equivalence import Analysis
    from equigrid.analysis.settings import Metric, Settings

TOP1 = "top1"


def read_cells(store: Store, cells: list[Cell], grid: str, dataset: str) -> pd.DataFrame:
    """The results of a grid's cells, one row per cell that has one, in the schema's columns."""
    return cell_table(cells, results.read(store), grid=grid, dataset=dataset)


def read_table(store: Store, plan: Plan) -> pd.DataFrame:
    """The results of a plan's cells."""
    return read_cells(store, plan.cells, plan.resolved.spec.name, plan.resolved.source.name)


def read_results(store: Store, plan: Plan) -> pd.DataFrame:
    """As `read_table`, for who wants an answer from it. Raises UserError where no training of the
    grid has succeeded: there is nothing to say, and nothing to replace an earlier word with.
    """
    table = read_table(store, plan)
    if n_results(table):
        return table
    grid, cells = plan.resolved.spec.name, len(plan.cells)
    if len(table):
        why = f"all {len(table):,} trainings that ended failed: equigrid status says how"
    elif plan.resolved.dataset is None:
        why = "its dataset, as it is now, was not read yet: run the grid first"
    else:
        why = "run it first"
    raise UserError(f"grid {grid}: no result of its {cells:,} cells is in {store.uri}; {why}")


def n_results(table: pd.DataFrame) -> int:
    """Rows of trainings that succeeded."""
    return int((table["status"] == "ok").sum())


def publish(store: Store, grid: str, name: str, data: bytes) -> None:
    """Puts one object of the analysis under the grid's name."""
    store.put(layout.analysis(grid, name), data)


def settings(plan: Plan, metric: str = TOP1) -> "Settings":
    """What the analysis must know of the grid beside its table: the whole training set's size, for
    τ. metric: what is fitted. Raises UserError for one that is not known.
    """
    from equigrid.analysis.settings import Settings

    resolved = plan.resolved
    nominal = [
        cell.n_nominal
        for cell in plan.cells
        if resolved.shape and cell.n_base == resolved.shape.n_train
    ]
    size = max([*nominal, resolved.shape.n_train]) if resolved.shape else None
    sizes = {resolved.source.name: size} if size else {}
    return Settings(metric=known_metric(metric), dataset_sizes=sizes)


def known_metric(name: str) -> "Metric":
    """The metric of that name. Raises UserError."""
    from equigrid.analysis.settings import METRICS

    for metric in METRICS:
        if metric == name:
            return metric
    known = ", ".join(METRICS)
    raise UserError(f"--metric: {name!r} is not known; known: {known}{near(name, METRICS)}")


def start_analyst(store: Store, plan: Plan) -> Any:
    """The analyst actor of a run: it refits as rows land and publishes the curves. On the driver's
    machine: one that would be idle without it could not leave the cluster.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from equigrid.analysis.actor import Analyst

    grid, dataset = plan.resolved.spec.name, plan.resolved.source.name
    # Names and cells travel; a source might not.
    reader = partial(read_cells, store, plan.cells, grid, dataset)
    actor: Any = Analyst  # what Ray's decorator makes of a class has no types
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return actor.options(scheduling_strategy=here).remote(
        reader, partial(publish, store, grid), settings(plan)
    )


def fit(store: Store, plan: Plan, metric: str = TOP1) -> "tuple[pd.DataFrame, Analysis]":
    """The table and its analysis, from the store; the curves are published as the analyst would,
    those of another metric beside them, if there is any result. Raises UserError for a metric that
    is not known, or that no row has.
    """
    import json

    from equigrid.analysis.conclusions.equivalence import analyse

    table, chosen = read_table(store, plan), settings(plan, metric)
    if metric != TOP1 and len(table):
        _check_there(table, metric)
    analysis = analyse(table, settings=chosen)
    content = json.dumps(analysis.to_json(), allow_nan=False).encode()
    name = "curves.json" if metric == TOP1 else f"curves-{metric}.json"
    if n_results(table):
        publish(store, plan.resolved.spec.name, name, content)
    return table, analysis


def _check_there(table: pd.DataFrame, metric: str) -> None:
    from equigrid.analysis.data.metrics import metric_values

    if metric_values(table, metric).isna().all():
        raise UserError(
            f"--metric: no result has {metric} (sensitivity and specificity are of two classes, "
            "val_top1 needs validation images, top5 more than five classes)"
        )


def pool_warnings(store: Store, plan: Plan) -> list[str]:
    """What the pools' measured quality says against the answer."""
    from equigrid.analysis.conclusions.pools import pool_warnings as warnings

    names = {pool.id: _pool_name(plan, pool) for pool in plan.pools.values()}
    rows = (row for _, row in _manifests(store, plan, quality.KIND))
    measured = warnings([{**row, "pool": names[row["pool"]]} for row in rows])
    return [*measured, *real_images(store, plan)]


def real_images(store: Store, plan: Plan) -> list[str]:
    """A line for each pool that somebody brought and in which the dataset's own images were found,
    pixel by pixel.
    """
    lines = []
    for pool in plan.pools.values():
        if not plan.resolved.generators[pool.generator].config.brings_images:
            continue
        jobs = [job for job in plan.of_kind(shard.KIND.name) if job.payload.pool == pool.id]
        rows = [row for job in jobs if (row := shard.KIND.recorded(store, job))]
        n = sum(row["n"] for row in rows)
        for split in ("train", "val", "test"):
            if found := sum(row.get("real", {}).get(split, 0) for row in rows):
                named = f"{found:,} of {n:,} images are {split} images of the dataset"
                lines.append(f"{_pool_name(plan, pool)}: {named}, pixel by pixel")
    return lines


def write_report(
    store: Store,
    plan: Plan,
    table: pd.DataFrame,
    analysis: "Analysis",
    directory: Path,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Writes the report and its figures into `directory`; returns the report's path. tell: gets a
    line where a report that has more is kept beside it.
    """
    from equigrid.analysis.report.html import write_report as write

    return write(table, analysis, directory, extras=report_extras(store, plan, table), tell=tell)


def report_extras(store: Store, plan: Plan, table: pd.DataFrame) -> dict:
    """What the store knows beside the table, for `equigrid.analysis.report.html`."""
    import yaml

    from equigrid.grid.reporting.status import status

    spec = plan.resolved.spec
    found = status(store, plan)
    generators = _manifests(store, plan, generator.KIND)
    names = {pool.id: _pool_name(plan, pool) for pool in plan.pools.values()}
    sampled = [(pool, shard.cost(store, pool.id)) for pool in plan.pools.values()]
    sheets, unread = samples.sheets(store, plan, {p.id: p.generator for p in plan.pools.values()})
    costs = {
        "training generators": [_generator_cost(job, manifest) for job, manifest in generators],
        "sampling pools": [_pool_cost(plan, pool, cost) for pool, cost in sampled if cost],
        "energy": _energy(store, plan),
    }
    return {
        "recipe": plan.resolved.recipe_name,
        "class_names": list(plan.resolved.shape.classes) if plan.resolved.shape else None,
        "spec": yaml.safe_dump(
            spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False
        ),
        "versions": generators[-1][1]["versions"] if generators else {},
        "failures": [
            {k: failure[k] for k in ("id", "kind", "cell", "error")} for failure in found.failures
        ],
        "costs": {kind: rows for kind, rows in costs.items() if rows},
        "generators": [_generator_row(choice) for choice in plan.resolved.generators.values()],
        "quality": [
            {**_quality_row(plan, row), "pool": names[row["pool"]]}
            for _, row in _manifests(store, plan, quality.KIND)
        ],
        "domain": [
            {**row, "pool": names[row["pool"]]}
            for _, row in _manifests(store, plan, domain_gap.KIND)
        ],
        "zero_shot": _zero_shot_rows(store, plan),
        "sheets": sheets,
        "neighbours": _neighbours(store, plan, names),
        "warnings": [*real_images(store, plan), *unread],
        "runs": [_run_row(run) for run in found.runs],
        "spending": _spending(store, plan, table, costs),
    }


def _run_row(run: dict) -> dict:
    """A run of the grid in words."""
    ran = [f"{n:,} {KINDS[kind].plural if n > 1 else KINDS[kind].words}"
           for kind, n in run["jobs"].items() if n and kind in KINDS]  # fmt: skip
    how = "complete"
    if run.get("budget_reached"):
        how = "stopped at its budget"
    elif run.get("interrupted"):
        how = "another driver took over" if run.get("taken_over") else "stopped"
    ended = str(run.get("ended_at", ""))[:16].replace("T", " ")
    return {
        "ended, UTC": ended, "how": how, "took": duration(run["seconds"]),
        "ran": ", ".join(ran) or "nothing", "done before": sum(run["cached"].values()),
        "failed": len(run["failures"]), "tried again": run["retries"],
        "device-hours": run.get("device_s", 0.0) / 3600,
    }  # fmt: skip


def _spending(store: Store, plan: Plan, table: pd.DataFrame, costs: dict[str, list[dict]]) -> dict:
    """Device-seconds that things took, by generator and for one more training."""
    found: dict[str, Any] = {"trials": spending.costs(store, plan, table)}
    for name, kind, seconds in (
        ("training", "training generators", "seconds"),
        ("sampling", "sampling pools", "seconds per image"),
    ):
        by_name: dict[str, list[float]] = {}
        for row in costs[kind]:
            by_name.setdefault(row["generator"], []).append(row[seconds])
        found[name] = {generator: median(values) for generator, values in by_name.items()}
    return found


def _manifests(store: Store, plan: Plan, kind: JobKind) -> list[tuple[Job, dict]]:
    """The finished jobs of a kind, with what they wrote."""
    read = ((job, kind.recorded(store, job)) for job in plan.of_kind(kind.name))
    return [(job, content) for job, content in read if content]


def _energy(store: Store, plan: Plan) -> list[dict]:
    """A row per kind of job: kWh and kg of CO2 of those of its finished jobs that were counted;
    nothing where none was.
    """
    rows = []
    for name, kind in KINDS.items():
        if kind.wanted and kind.outputs is None:
            columns = ["trial_id", "status", "energy_kwh", "co2_kg"]
            ids = {job.id for job in plan.of_kind(name)}
            every = results.read(store, columns).to_pylist()
            found = [row for row in every if row["trial_id"] in ids and row["status"] == OK]
        elif kind.outputs is not None:
            found = [content for _, content in _manifests(store, plan, kind)]
        else:
            continue
        counted = [row for row in found if row.get("energy_kwh") is not None]
        if counted:
            kwh, co2_kg = (sum(row[key] for row in counted) for key in ("energy_kwh", "co2_kg"))
            facts = {"counted": f"{len(counted):,} of {len(found):,}", "kWh": kwh, "kg CO2": co2_kg}
            rows.append({"jobs": kind.plural, **facts})
    return rows


_TRAINING_FACTS = (
    "parameters", "training_batch", "training_steps",
    "autoencoder_parameters", "autoencoder_batch", "autoencoder_steps",
)  # fmt: skip


def _generator_cost(job: Job, manifest: dict) -> dict:
    payload, devices = job.payload, manifest["world_size"]
    return {
        "generator": payload.name, "base": manifest["n_images"],
        "subset seed": _subset_seed(payload), "seconds": manifest["train_seconds"],
        "device-hours": manifest["train_seconds"] * devices / 3600, "devices": devices,
        "device": manifest["device"], "peak MB": _megabytes(manifest["peak_device_bytes"]),
        **_words(manifest["cost"], _TRAINING_FACTS), "id": job.id,
    }  # fmt: skip


def _pool_cost(plan: Plan, pool: Pool, cost: dict) -> dict:
    """A row of the paper's Table 8: seconds and memory per image, batch and steps. cost: see
    `pools.cost`.
    """
    payload = plan.jobs[pool.generator_id].payload
    return {
        "generator": pool.generator, "base": payload.subset and payload.subset.n,
        "subset seed": _subset_seed(payload), "seconds per image": cost["seconds_per_image"],
        "shards": cost["shards"], "device": cost["device"],
        "peak MB": _megabytes(cost["peak_device_bytes"]),
        **_words(cost["facts"], ("sampling_batch", "sampler_steps", "evaluations_per_image")),
        "id": pool.id,
    }  # fmt: skip


_SAMPLER = ("steps", "guidance", "guidance_channels", "sigma_min", "sigma_max", "S_churn")


def _generator_row(choice: GeneratorChoice) -> dict:
    """How a generator samples, presets and defaults written out: what the paper's Table 7 says, and
    the filter.
    """
    config = choice.config.model_dump(mode="json")
    sampler = config.get("sampler", {})
    return {
        "generator": choice.name, "kind": config["kind"], "setting": config["setting"],
        "trained on": "images kept apart" if choice.config.learns_from_outside else None,
        "model": config.get("pipeline"),
        **{name.replace("_", " "): sampler.get(name) for name in _SAMPLER},
        "prompt": config.get("prompt") or _captions(config.get("captions")),
        "filter": _filter(config.get("clip_filter")),
        "adapted by": _adapted(config.get("adaptation"), config.get("variation")),
    }  # fmt: skip


def _captions(captions: dict | None) -> str | None:
    if captions is None:
        return None
    each = f"{captions['images_per_caption']} images each"
    return (
        f"captions by {captions['language_model']} from {'; '.join(captions['templates'])}; {each}"
    )


def _adapted(trained: dict | None, varied: dict | None) -> str | None:
    said = []
    if trained is not None:
        tokens = " and learned tokens" if trained["tokens"] else ""
        said.append(f"LoRA of rank {trained['rank']}{tokens}, {trained['steps']:,} steps")
    if varied is not None:
        said.append(f"images of the base at strength {varied['strength']:g}")
    return "; ".join(said) or None


def _filter(chosen: dict | None) -> str | None:
    if chosen is None:
        return None
    of = "each class" if chosen["scope"] == "class" else "all classes together"
    return f"the {chosen['drop']:.0%} of {of} that {chosen['model']} is least sure of are dropped"


def _words(facts: dict, names: tuple[str, ...]) -> dict:
    return {name.replace("_", " "): facts[name] for name in names if name in facts}


def _quality_row(plan: Plan, row: dict) -> dict:
    from equigrid.generators.quality.measure import COLUMNS

    pool = plan.pools[row["pool"]]
    payload = plan.jobs[pool.generator_id].payload
    base = payload.subset and payload.subset.n
    nominal = {cell.n_base: cell.n_nominal for cell in plan.cells}
    return {
        "dataset": plan.resolved.source.name, "generator": pool.generator,
        "n_base": base and nominal[base],
        "setting": plan.resolved.generators[pool.generator].config.setting,
        **{name: row.get(name) for name in COLUMNS}, "seconds": row["seconds"],
    }  # fmt: skip


def _zero_shot_rows(store: Store, plan: Plan) -> list[dict]:
    """All accuracies of the grid's zero-shot trials: the paper's, and the harder ones."""
    if not plan.resolved.spec.zero_shot:
        return []
    rows = []
    for cell in plan.cells:
        name = layout.ZERO_SHOT.manifest(cell.trial_id)
        if facts := documents.readable(store, name, documents.ZeroShotRecord):
            rows.append({**cell._asdict(), **facts.model_dump()})
    return rows


def _pool_name(plan: Plan, pool: Pool) -> str:
    """A pool in words: its generator, base, and seeds where there are several."""
    payload = plan.jobs[pool.generator_id].payload
    base = f", base {payload.subset.n:,}" if payload.subset else ""
    several = _subset_seed(payload) is not None and len(plan.resolved.spec.subset_seeds) > 1
    seed = f", subset {_subset_seed(payload)}" if several else ""
    return f"{pool.generator}{base}{seed}{_of_class(plan, pool)}"


def _of_class(plan: Plan, pool: Pool) -> str:
    """Which class a pool of one alone has, in words."""
    shape = plan.resolved.shape
    return "" if pool.label is None or shape is None else f", class {shape.classes[pool.label]}"


def _subset_seed(payload: GeneratorPayload) -> int | None:
    return None if payload.subset is None else payload.subset.subset_seed


def _megabytes(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def _neighbours(store: Store, plan: Plan, names: dict[str, str]) -> dict[str, bytes]:
    """PNGs of each measured pool's samples above the training images that they are nearest to."""
    found = {}
    for job, row in _manifests(store, plan, quality.KIND):
        if row["neighbour_distance"] is None:  # none were looked for
            continue
        name = layout.neighbours_picture(job.id)
        try:
            picture = store.get(name)
            decode(picture)
        except (FileNotFoundError, BrokenImage) as error:
            why = "is gone" if isinstance(error, FileNotFoundError) else f"is no picture: {error}"
            documents.passed_over(f"store {store.uri}: {name} {why}; the report is without it")
            continue
        found[names[row["pool"]]] = picture
    return found
