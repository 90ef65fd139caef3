"""What a table of results says: fits, and the answer for one question."""

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from equigrid.analysis.answer.cheapest_mix import Prices
from equigrid.analysis.answer.practical import Costs, check, costs
from equigrid.analysis.conclusions.amounts import Amount
from equigrid.analysis.conclusions.equivalence import Analysis, CurveResult, analyse
from equigrid.analysis.conclusions.worth import plain
from equigrid.analysis.data.tidy import read_table, tidy
from equigrid.analysis.schema import SCHEMA
from equigrid.analysis.settings import Metric, Settings
from equigrid.grid.errors import UserError
from equigrid.grid.reporting import notebook
from equigrid.grid.reporting.console import PlainConsole
from equigrid.grid.reporting.out_folder import out_folder


@dataclass(frozen=True)
class Answer:
    """How many synthetic images do what `n_real` more real ones do, at a base of `n_base`.

    amount: the answer itself, see `equigrid.analysis.conclusions.amounts.Amount`. reasons: why the
    synthetic images are not known to bring anything beyond copies of the base. warnings: what
    limits every answer from this table. costs: what either way costs, in the caller's currency
    (`real`, `syn`, `syn_low`, `syn_high`, `cheaper` …); None where no prices were given. Printed,
    it is one sentence, and one more for each line about costs.

    >>> import equigrid as eg
    >>> answer = eg.fit("results.csv").answer(n_base=100, n_real=100)
    >>> answer.kind
    'matched'
    >>> answer.low < answer.n_syn < answer.high
    True
    """

    dataset: str
    classifier: str
    recipe: str
    generator: str
    amount: Amount = field(repr=False)
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    costs: Costs | None = None

    @property
    def kind(self) -> str:
        """'matched', 'at least', 'fewer than', 'no amount does' or 'undetermined'."""
        return self.amount.kind

    @property
    def n_syn(self) -> float | None:
        """Synthetic images, the middle of the interval; None where the kind has no such number."""
        return self.amount.value

    @property
    def low(self) -> float:
        """The interval's lower end, in images."""
        return self.amount.low

    @property
    def high(self) -> float | None:
        """The interval's upper end, in images; None where it is open."""
        return self.amount.high

    @property
    def level(self) -> float:
        """The interval's level, such as 0.95."""
        return self.amount.level

    @property
    def text(self) -> str:
        """One sentence."""
        return self.amount.text

    def to_json(self) -> dict[str, Any]:
        """Plain values: the names, the amount with its notes, reasons and warnings, the text."""
        costs = None if self.costs is None else self.costs.to_json()
        return {**plain(asdict(self)), "costs": costs, "text": self.text}

    def __str__(self) -> str:
        return "\n".join([self.text, *(self.costs.lines if self.costs else ())])

    def _repr_html_(self) -> str:
        names = f"{self.dataset} / {self.classifier} / {self.recipe} / {self.generator}"
        lines = self.costs.lines if self.costs else ()
        notes = (*lines, *self.amount.notes, *self.reasons, *self.warnings)
        sentence = notebook.paragraph(self.text, bold=True)
        return f"{notebook.paragraph(names)}{sentence}{notebook.listed(dict.fromkeys(notes))}"


class Fit:
    """A table of results and what follows from it: a curve for each dataset, classifier, recipe and
    generator. Made by `equigrid.fit` and `Run.fit`; printed or shown in a notebook it is the
    summary that `equigrid fit` prints.

    table: the rows, in the columns of `equigrid.COLUMNS`. analysis: all that was fitted.

    >>> import equigrid as eg
    >>> fit = eg.fit("results.csv")
    >>> [curve.key.generator for curve in fit.curves]
    ['synthetic']
    """

    def __init__(self, table: pd.DataFrame, analysis: Analysis) -> None:
        self.table, self.analysis = table, analysis

    @property
    def curves(self) -> tuple[CurveResult, ...]:
        """What was fitted, curve by curve: Appendix A's c1 and c2, gains, and `worth`."""
        return self.analysis.curves

    def answers(
        self,
        n_base: float,
        n_real: float,
        *,
        dataset: str | None = None,
        classifier: str | None = None,
        recipe: str | None = None,
        generator: str | None = None,
        cost_real: float | None = None,
        cost_syn: float | None = None,
        cost_generator: float = 0.0,
    ) -> tuple[Answer, ...]:
        """An answer of every curve that has these names.

        n_base: real images there are, a base size that was measured. n_real: real images one could
        add. cost_real, cost_syn: of labelling a real image and of making a synthetic one, in any
        one currency; cost_generator: of training the generator, once. With both prices
        `Answer.costs` says what either way costs. Raises UserError if the base was not measured, if
        no curve has the names, or if a price is out of range.

        >>> import equigrid as eg
        >>> for answer in eg.fit("results.csv").answers(n_base=100, n_real=100):
        ...     print(answer.generator, answer.kind)
        synthetic matched
        """
        if not n_base > 0 or not n_real > 0:
            raise UserError(
                f"answer: n_base is {n_base} and n_real {n_real}; write numbers of images above 0"
            )
        prices = _prices(n_base, n_real, cost_real, cost_syn, cost_generator)
        given = {
            "dataset": dataset,
            "classifier": classifier,
            "recipe": recipe,
            "generator": generator,
        }
        wanted = {name: value for name, value in given.items() if value is not None}
        return tuple(_answer(curve, n_base, n_real, prices) for curve in self._chosen(wanted))

    def answer(
        self,
        n_base: float,
        n_real: float,
        *,
        dataset: str | None = None,
        classifier: str | None = None,
        recipe: str | None = None,
        generator: str | None = None,
        cost_real: float | None = None,
        cost_syn: float | None = None,
        cost_generator: float = 0.0,
    ) -> Answer:
        """The answer of the one curve that has these names; see `answers`.

        Raises UserError if several curves do, and says by what to choose.

        >>> import equigrid as eg
        >>> fit = eg.fit("results.csv")
        >>> print(fit.answer(n_base=100, n_real=100).kind)
        matched
        >>> fit.answer(n_base=100, n_real=100, cost_real=1.0, cost_syn=0.001).costs.cheaper
        'synthetic is cheaper'
        """
        found = self.answers(
            n_base,
            n_real,
            dataset=dataset,
            classifier=classifier,
            recipe=recipe,
            generator=generator,
            cost_real=cost_real,
            cost_syn=cost_syn,
            cost_generator=cost_generator,
        )
        if len(found) > 1:
            raise UserError(f"answer: {len(found)} curves fit; choose by {_choices(found)}")
        return found[0]

    def report(self, out: str | Path | None = None) -> Path:
        """Writes report.html and the figures into the folder `out`, `equigrid-out/table` where none
        is named; returns the report's path. Raises UserError if it cannot be written.
        """
        from equigrid.analysis.report.html import write_report

        return write_report(self.table, self.analysis, out_folder(out, "table"), extras={})

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `equigrid fit --json` prints them."""
        return self.analysis.to_json()

    def __str__(self) -> str:
        return self._printed().file.getvalue()  # type: ignore[attr-defined]  # a StringIO

    def __repr__(self) -> str:
        return f"<fit of {len(self.table):,} rows, {len(self.curves)} curves>"

    def _repr_html_(self) -> str:
        style = "<pre style='white-space:pre;overflow-x:auto'>{code}</pre>"
        return self._printed().export_html(inline_styles=True, code_format=style)

    def _printed(self) -> Console:
        from equigrid.analysis.report.terminal import summary_table

        console = PlainConsole(
            record=True, file=io.StringIO(), width=120, force_terminal=False, force_jupyter=False
        )
        console.print(summary_table(self.table, self.analysis))
        return console

    def _chosen(self, wanted: dict[str, str]) -> list[CurveResult]:
        known = [curve for curve in self.curves if curve.key.generator]
        if not known:
            raise UserError("answer: the table has no usable training with synthetic images")
        found = [
            curve
            for curve in known
            if all(getattr(curve.key, name) == value for name, value in wanted.items())
        ]
        if not found:
            asked = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
            there = "; ".join(str(curve.key) for curve in known)
            raise UserError(f"answer: no curve has {asked}; there are: {there}")
        return found


def _prices(
    n_base: float,
    n_real: float,
    cost_real: float | None,
    cost_syn: float | None,
    cost_generator: float,
) -> Prices | None:
    """What images cost, if both prices are given. Raises UserError."""
    try:
        check(n_base, n_real, cost_real, cost_syn, cost_generator, None, None)
    except ValueError as error:
        raise UserError(f"answer: {error}") from error
    if cost_real is None or cost_syn is None:
        return None
    return Prices(cost_real, cost_syn, cost_generator)


def _answer(curve: CurveResult, n_base: float, n_real: float, prices: Prices | None) -> Answer:
    worth = curve.worth
    if worth is None:
        raise UserError(f"answer: {curve.key}: nothing could be fitted: {'; '.join(curve.reasons)}")
    try:
        amount = worth.amount(n_base, n_real)
    except ValueError as error:
        raise UserError(f"answer: {curve.key}: {error}") from error
    key = curve.key
    names = (key.dataset, key.classifier, key.recipe, key.generator)
    spent = costs(amount, n_real, prices)
    return Answer(*names, amount, worth.reasons, worth.warnings, spent)


def _choices(found: Iterable[Answer]) -> str:
    answers = list(found)
    choices = []
    for name in ("dataset", "classifier", "recipe", "generator"):
        values = sorted({getattr(answer, name) for answer in answers})
        if len(values) > 1:
            choices.append(f"{name}={' or '.join(map(repr, values))}")
    return ", ".join(choices)


def fit_table(
    table: pd.DataFrame | str | Path,
    *,
    metric: Metric | None = None,
    dataset_size: int | None = None,
    settings: Settings | None = None,
) -> Fit:
    """`equigrid.fit`."""
    chosen = (settings or Settings()).model_dump()
    if metric is not None:
        chosen["metric"] = metric
    try:
        if not isinstance(table, pd.DataFrame):
            rows = read_table(table, chosen["metric"])
        elif set(SCHEMA.names) <= set(table.columns):
            rows = table
        else:
            rows = tidy(table, chosen["metric"])
        if dataset_size is not None:
            chosen["dataset_sizes"] = dict.fromkeys(rows["dataset"].unique(), dataset_size)
        return Fit(rows, analyse(rows, settings=Settings.model_validate(chosen)))
    except ValueError as error:  # pydantic's too, which has several lines
        raise UserError(f"fit: {' '.join(str(error).split())}") from error
