"""Questions to a grid: whether it can answer them, what it says so far, and what more costs."""

import pandas as pd

from equigrid.analysis.answer.asking import Question, Suggested, suggestions
from equigrid.analysis.answer.next_trials import Costs
from equigrid.analysis.conclusions.amounts import Amount
from equigrid.analysis.conclusions.worth import SyntheticWorth, synthetic_worth
from equigrid.analysis.data.checks import FAMILY, check_table
from equigrid.classifiers.models.pretraining import unhashed
from equigrid.grid.errors import DocumentError, UserError
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.growth import grew_from, start
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.recorded import recorded_spec
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting import analysis_bridge, spending
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store


def first_grid(spec: GridSpec, store: Store, question: Question) -> GridSpec:
    """The grid to begin with: as far as an earlier run of the same question grew it, or the start.

    Raises UserError where the question names what the grid does not have.
    """
    check(spec, question)
    first = start(spec, question.classifier)
    try:
        grown = recorded_spec(store, spec.name)
    except (UserError, DocumentError):  # of another version, or damaged: it is recorded anew
        return first
    if grown is not None and grew_from(grown, first):
        return grown.model_copy(update={"execution": first.execution})
    return first


def next_steps(
    spec: GridSpec, store: Store, question: Question, *, steps: int = 10
) -> tuple[Amount, list[Suggested]]:
    """The answer so far, by what the store holds, and what to run next for it, the best first.

    Raises UserError where nothing has run yet, or the question names what the grid does not have.
    """
    grown = first_grid(spec, store, question)
    the_plan = plan(resolve(grown, store))
    done = analysis_bridge.read_table(store, the_plan)
    if done.empty:  # the whole grid's results may be there, if no round was run yet
        the_plan = plan(resolve(spec, store))
        done = analysis_bridge.read_table(store, the_plan)
    if done.empty:
        n = len(plan(resolve(grown, store)).cells)
        first = f"nothing has run yet: the first round is {n:,} trainings, each place of the grid"
        right = f"n_base={question.n_base},n_real={question.n_real},within=1.5"
        raise UserError(f"{first} under two subset seeds; start with run SPEC --until {right}")
    worth = worth_of(done, question)
    amount = worth.amount(question.n_base, question.n_real)
    return amount, suggestions(worth, question, costs(store, the_plan), steps=steps)


def check(spec: GridSpec, question: Question) -> None:
    """Raises UserError where the question names what the grid does not have."""
    sizes = {size for block in spec.blocks for size in (block.nominal, *block.n_base) if size}
    if question.n_base not in sizes and "all" not in sizes:
        known = ", ".join(f"{size:,}" for size in sorted(s for s in sizes if isinstance(s, int)))
        raise UserError(f"n_base {question.n_base:,} is no base size of the grid; it has {known}")
    names = {name for block in spec.blocks for name in block.syn}
    if question.generator is not None and question.generator not in names:
        known = ", ".join(sorted(names)) or "none"
        raise UserError(f"generator {question.generator!r}: the grid adds images of {known}")
    if question.generator is None and len(names) != 1:
        known = ", ".join(sorted(names)) or "none"
        raise UserError(f"generator: add generator=NAME to the question, one of: {known}")


def worth_of(table: pd.DataFrame, question: Question) -> SyntheticWorth:
    """What the asked generator's images are worth, by all trainings of its classifier and of the
    recipe that most of them have. Raises UserError where there is none.
    """
    checked = check_table(table)
    rows = checked.frame
    if question.classifier is not None:
        asked = unhashed(question.classifier)
        rows = rows[[unhashed(name) == asked for name in rows["classifier"]]]
    families = rows[rows["n_syn"] > 0].value_counts(FAMILY)
    if families.empty:
        raise UserError("no training with synthetic images has finished yet: run the grid first")
    dataset, *most = (str(name) for name in families.index[0])
    own = rows[(rows[["classifier", "recipe"]] == most).all(axis=1)]
    found = synthetic_worth(own, n_test=checked.test_sizes.get(dataset))
    name = question.generator or next(iter(found))
    if name not in found:
        raise UserError(f"no training with images of {name} has finished yet: run the grid first")
    return found[name]


def costs(store: Store, the_plan: Plan) -> Costs:
    """Device-seconds of one more training, by its images, and of one more generator; equal costs
    where nothing is known.
    """
    return spending.costs(store, the_plan, analysis_bridge.read_table(store, the_plan))
