"""What a search leaves on disk: the recipe with where it comes from, the table, the figure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import yaml

from equigrid import __version__
from equigrid.analysis.figures.style import STYLE
from equigrid.analysis.figures.tuning import tuning_figure
from equigrid.classifiers.recipes import Recipe
from equigrid.grid.jobs.provenance import code_version, versions
from equigrid.grid.planning.graph import Plan
from equigrid.grid.reporting.out_folder import replacing
from equigrid.grid.tuning.generator_study import GeneratorStudy
from equigrid.grid.tuning.outcome import Outcome
from equigrid.grid.tuning.study import Study

RECIPE, TABLE, COLUMNS, FIGURE = "tuned.yaml", "tuning.csv", "tuning.parquet", "tuning.png"
GENERATOR = "tuned-generator.yaml"
OPTIMISTIC = (
    "The best value of a search is optimistic: it was chosen for being high. Fresh seeds correct "
    "that for the seeds, not for the validation images, which are the same. The test images were "
    "not looked at."
)


def recipe_of(outcomes: Sequence[Outcome], own: Recipe) -> dict[str, Any] | None:
    """The best recipe as a spec's mapping; of several arms the base's, and under `by_arm` what the
    others do otherwise. None where no candidate was trained to its end.
    """
    found: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        study, best = outcome.study, outcome.best
        if isinstance(study, Study):
            recipe = study.recipe_with(best.values) if best else own.for_arm(study.arm)
            found[study.arm] = _mapping(recipe)
    if not found or not any(outcome.best for outcome in outcomes):
        return None
    first, *others = found
    whole = dict(found[first])
    if not others and own.by_arm:  # what other arms do otherwise stays
        whole["by_arm"] = {arm: part for arm, part in own.by_arm.items() if arm != first}
    arms = {arm: _differing(found[arm], whole) for arm in others}
    if arms := {arm: differing for arm, differing in arms.items() if differing}:
        whole["by_arm"] = arms
    return whole


def generator_of(outcome: Outcome, the_plan: Plan) -> dict[str, Any] | None:
    """The best generator as a spec's mapping; None where no candidate was trained to its end."""
    study, best = outcome.study, outcome.best
    if best is None or not isinstance(study, GeneratorStudy):
        return None
    content = study.recipe_with(best.values).model_dump(mode="json", exclude_none=True)
    seeds = the_plan.resolved.spec.generators[study.arm].get("seeds")
    return {**content, "seeds": seeds} if seeds else content


def _mapping(recipe: Recipe) -> dict[str, Any]:
    content = recipe.model_dump(mode="json", exclude_none=True, exclude={"by_arm"})
    return {key: value for key, value in content.items() if key != "by_classifier" or value}


def _differing(recipe: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if other.get(key) != value}


def provenance(outcomes: Sequence[Outcome], the_plan: Plan, source: str) -> dict[str, Any]:
    """Where a recipe comes from, as plain values."""
    resolved, first = the_plan.resolved, outcomes[0]
    wish = first.study.wish
    validation = resolved.spec.validation
    return {
        "made_by": f"equigrid tune {source}", "equigrid": __version__, "code": code_version(),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "spec": resolved.spec.name, "dataset": resolved.source.name,
        "fingerprint": resolved.fingerprint,
        "validation": validation.model_dump(mode="json") if validation else None,
        "searched": _what(first.study), "metric": first.study.metric,
        "seed": wish.seed, "started_from": first.study.known,
        "versions": versions(),
        "searches": [search_facts(outcome) for outcome in outcomes],
        "caution": OPTIMISTIC,
    }  # fmt: skip


def _what(study: Study | GeneratorStudy) -> str:
    if isinstance(study, GeneratorStudy):
        return f"generator {study.arm}"
    return f"recipe of {study.trainings[0].payload.classifier}"


def search_facts(outcome: Outcome) -> dict[str, Any]:
    """What one search found, as plain values."""
    study, best, gain = outcome.study, outcome.best, outcome.gain
    tuned = outcome.reached(best.values) if best else None
    own, importance = outcome.reached(None), outcome.importance()
    return {
        "arm": study.arm, "study": study.id,
        "trained_on": [str(training.cell) for training in study.trainings],
        "candidates": len(outcome.searched), "trained_to_the_end": len(outcome.finished),
        "device_seconds": round(outcome.seconds, 1),
        "devices": sorted({record.device for record in outcome.records}),
        "space": {one.name: str(one).partition(": ")[2] for one in study.space},
        "best_values": best.values if best else None,
        "best_in_the_search": round(outcome.shown(best), 4) if best else None,
        "with_fresh_seeds": tuned.to_json() if tuned else None,
        "own_recipe_with_fresh_seeds": own.to_json() if own else None,
        "gain_over_own": gain.to_json() if gain else None,
        "importance_at_the_first_look": importance
        and {name: round(share, 3) for name, share in importance.items()},
    }  # fmt: skip


def usage(study: Study | GeneratorStudy, path: str | Path) -> str:
    """What to write in a spec."""
    if isinstance(study, GeneratorStudy):
        return f"generators: {{{study.arm}: {path}}}"
    return f"recipe: {path}"


def recipe_text(found: dict[str, Any], where_from: dict[str, Any], use: str) -> str:
    """The file of a recipe or a generator."""
    head = (
        f"# As `{where_from['made_by']}` found it.\n"
        f"# To use it, write in a spec: {use} (a path relative to the spec).\n"
        "# What follows `provenance` says where it comes from, and is not read.\n"
    )
    content = {**found, "provenance": where_from}
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def write(
    folder: Path, outcomes: Sequence[Outcome], the_plan: Plan, source: str
) -> dict[str, Path]:
    """Writes recipe, table and figure into a folder; their paths. Without a candidate that was
    trained to its end there is no recipe. Raises OSError.
    """
    paths = {"table": folder / TABLE, "columns": folder / COLUMNS, "figure": folder / FIGURE}
    table = table_of(outcomes)
    with replacing(paths["table"]) as aside:
        table.to_csv(aside, index=False)
    with replacing(paths["columns"]) as aside:
        _as_text(table).to_parquet(aside, index=False)
    importance = {outcome.study.arm: outcome.importance() for outcome in outcomes}
    first = outcomes[0].study
    lower = first.sign < 0
    with replacing(paths["figure"]) as aside, mpl.rc_context(STYLE):
        figure = tuning_figure(table, importance, first.metric, lower=lower)
        figure.savefig(aside, dpi=150, format=paths["figure"].suffix[1:])
    if found := _found(outcomes, the_plan):
        name = GENERATOR if isinstance(first, GeneratorStudy) else RECIPE
        paths["recipe"] = folder / name
        where_from = provenance(outcomes, the_plan, source)
        text = recipe_text(found, where_from, usage(first, name))
        with replacing(paths["recipe"]) as aside:
            aside.write_text(text, encoding="utf-8")
    return paths


def _found(outcomes: Sequence[Outcome], the_plan: Plan) -> dict[str, Any] | None:
    """What is written under its key."""
    name = f"tuned-{the_plan.resolved.spec.name}"
    if (generator := generator_of(outcomes[0], the_plan)) is not None:
        return {"name": name, "generator": generator}
    own = the_plan.resolved.recipes[the_plan.resolved.recipe_name]
    recipe = recipe_of(outcomes, own)
    return recipe and {"name": name, "recipe": recipe}


def table_of(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """The candidates of all searches, see `Outcome.table`."""
    return pd.concat([outcome.table() for outcome in outcomes], ignore_index=True)


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of several types, such as a decay, as text: a column of Parquet has one."""
    mixed = {
        name: table[name].map(str)
        for name in table.columns
        if table[name].dtype == object and table[name].map(type).nunique() > 1
    }
    return table.assign(**mixed)
