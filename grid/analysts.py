"""Where the grid meets the analysis: its table read from a store, its curves and report published there."""

from functools import partial
from pathlib import Path

import pandas as pd

from grid import results
from grid.plan import Cell, Plan
from grid.store import Store


def read_cells(store: Store, cells: list[Cell], grid: str, dataset: str) -> pd.DataFrame:
    """The results of a grid's cells, one row per cell that has one, in the schema's columns."""
    return results.cell_table(cells, results.read(store), grid=grid, dataset=dataset)


def read_table(store: Store, plan: Plan) -> pd.DataFrame:
    """The results of a plan's cells."""
    return read_cells(store, plan.cells, plan.resolved.spec.name, plan.resolved.source.name)


def publish(store: Store, grid: str, name: str, data: bytes) -> None:
    """Puts one object of the analysis under the grid's name."""
    store.put(f"grids/{grid}/analysis/{name}", data)


def settings(plan: Plan):
    """What the analysis must know of the grid beside its table: the whole training set's size, for τ."""
    from analysis.settings import Settings

    resolved = plan.resolved
    nominal = [cell.n_nominal for cell in plan.cells if resolved.shape and cell.n_base == resolved.shape.n_train]
    size = max([*nominal, resolved.shape.n_train]) if resolved.shape else None
    return Settings(dataset_sizes={resolved.source.name: size} if size else {})


def start_analyst(store: Store, plan: Plan):
    """The analyst actor of a run: it refits as rows land and publishes the curves."""
    from analysis.actor import Analyst

    grid, dataset = plan.resolved.spec.name, plan.resolved.source.name
    reader = partial(read_cells, store, plan.cells, grid, dataset)  # names and cells travel; a source might not
    return Analyst.remote(reader, partial(publish, store, grid), settings(plan))


def fit(store: Store, plan: Plan):
    """The table and its analysis, from the store; the curves are published as the analyst would."""
    import json

    from analysis.equivalence import analyse

    table = read_table(store, plan)
    analysis = analyse(table, settings=settings(plan))
    publish(store, plan.resolved.spec.name, "curves.json", json.dumps(analysis.to_json(), allow_nan=False).encode())
    return table, analysis


def write_report(store: Store, plan: Plan, table: pd.DataFrame, analysis, directory: Path, summary: dict | None):
    """Writes the report and its figures into `directory`; returns the report's path."""
    from analysis.report import write_report as write

    return write(table, analysis, directory, extras=_extras(store, plan, summary))


def _extras(store: Store, plan: Plan, summary: dict | None) -> dict:
    import yaml

    from grid.status import status

    spec = plan.resolved.spec
    found = status(store, plan)
    costs, sheets, versions = [], {}, {}
    for job in plan.of_kind("generator"):
        manifest = store.get_json(f"generators/{job.id}/manifest.json")
        if manifest:
            costs.append(_generator_cost(job, manifest))
            versions = manifest["versions"]
    for pool in plan.pools.values():
        manifest = store.get_json(pool.manifest(0))
        if manifest:
            costs.append(_pool_cost(plan, pool, manifest))
    sheets = _sheets(store, plan)
    return {
        "spec": yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False),
        "versions": versions,
        "failures": [{k: failure[k] for k in ("id", "kind", "cell", "error")} for failure in found.failures],
        "costs": costs,
        "sheets": sheets,
        "runs": list(found.runs),
        "summary": summary,
    }


def _generator_cost(job, manifest: dict) -> dict:
    payload = job.payload
    return {
        "what": "generator", "name": payload["name"], "n_base": manifest["n_images"],
        "seconds": manifest["train_seconds"], "device": manifest["device"],
        "peak_device_bytes": manifest["peak_device_bytes"],
        "subset_seed": payload["subset"] and payload["subset"]["subset_seed"], "id": job.id,
    }  # fmt: skip


def _pool_cost(plan: Plan, pool, manifest: dict) -> dict:
    generator = plan.jobs[pool.generator_id].payload
    return {
        "what": "pool", "name": generator["name"], "n_base": generator["subset"] and generator["subset"]["n"],
        "seconds_per_image": manifest["seconds_per_image"], "device": manifest["device"],
        "peak_device_bytes": manifest["peak_device_bytes"], "id": pool.id,
        "subset_seed": generator["subset"] and generator["subset"]["subset_seed"],
    }  # fmt: skip


def _sheets(store: Store, plan: Plan) -> dict[str, bytes]:
    """A sample sheet, one row per class, of the first pool of each generator and base size."""
    from generators.sheets import sheet
    from grid import shards

    found: dict[str, bytes] = {}
    for pool in plan.pools.values():
        generator = plan.jobs[pool.generator_id].payload
        base = f", base {generator['subset']['n']:,}" if generator["subset"] else ""
        title = f"{generator['name']}{base}"
        manifest = store.get_json(pool.manifest(0))
        if title not in found and manifest:
            try:
                images, labels = shards.read(store, shards.ref(pool.manifest(0), manifest))
            except shards.ShardCorrupt:
                continue  # the next run makes it again; a report is no reason to fail
            found[title] = sheet(images, labels, classes=len(plan.resolved.shape.classes))
    return found
