"""The paper's published tables, in the grid's own results schema, and its seven equations fitted
again from them.

Source: Wang et al., "Exploring the Equivalence of Closed-Set Generative and Real Data Augmentation
in Image Classification". The tables lie in `analysis/paper/tables/*.csv` with their table numbers;
`notes.csv` lists what is printed beside what is used where the paper contradicts itself.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from equigrid.analysis.conclusions.equivalence import CurveResult, analyse
from equigrid.analysis.conclusions.phrasing import verdicts
from equigrid.analysis.fitting.surface import EQ11, place
from equigrid.analysis.schema import to_frame
from equigrid.analysis.settings import Settings

TABLES = Path(__file__).parent / "tables"
WIDE = 10.0  # an interval whose ends differ by more than this factor is no determination
UNSTABLE = 2.0  # likewise, forms of the fit that differ by more
TRAININGS_PER_MEAN = 3  # Appendix B: three trials, the mean reported; their spread is not published

# Appendix A. ImageNet-100 with either classifier; sizes of the whole training sets, nominal for
# BloodMNIST.
DATASET_SIZES = {"bloodmnist": 12_000, "cifar10": 50_000, "imagenet100": 130_000}
REAL_RATIOS = {
    "bloodmnist": (1.0, 2.0, 3.0),
    "cifar10": (1.0, 2.0, 3.0),
    "imagenet100": (0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 3.0, 4.0),
}
TUPLE_BASES = {
    "bloodmnist": (1_200, 6_000),
    "cifar10": (500, 5_000, 25_000),
    "imagenet100": (6_500, 26_000),
}


def read_table(name: str) -> pd.DataFrame:
    """A published table as data: 'accuracy' (9 to 21), 'traditional' (6), 'quality' (2, 3, 7),
    'costs' (8), 'equations' (Eqs. 2 to 6, 8, 9), 'notes' (printed beside used). ValueError for
    another name.
    """
    path = TABLES / f"{name}.csv"
    if not path.exists():
        raise ValueError(
            f"no table {name!r}; there are {sorted(p.stem for p in TABLES.glob('*.csv'))}"
        )
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def results(*, as_printed: bool = False) -> pd.DataFrame:
    """Tables 9 to 21 in the columns of `schema.SCHEMA`, one row per cell; each is the mean of three
    trainings.

    `as_printed`: Table 9's self-contradicting row (25,000, 1:0.8) with 15,000 added images instead
    of 20,000. In Table 20 the synthetic amount is fixed and the real one varies: there n_base is
    the real amount, 0 included.
    """
    published = read_table("accuracy")
    if as_printed:
        real = published["arm"] == "real"
        published.loc[real, "n_real_added"] = published.loc[real, "printed_added"]
    cell = [
        "dataset", "classifier", "recipe", "arm", "generator", "n_base", "n_real_added", "n_syn",
    ]  # fmt: skip
    published = published.drop_duplicates(cell)  # the base rows recur in several tables
    return to_frame([_result(row) for row in published.to_dict("records")])


def _result(row: dict) -> dict:
    """One published mean as a row of the results schema."""
    has_generator = row["arm"] == "syn"
    amounts = ("n_base", "n_real_added", "n_syn")
    known = {
        name: None if pd.isna(row[name]) else row[name]
        for name in ("setting", "generator", "top1", "top5")
    }
    names = ("table", "arm", *amounts, "generator")
    return {
        "trial_id": "-".join(str(row[name]) for name in names), "attempt": "published",
        "status": "ok", "grid": "paper", "fingerprint": "published",
        **{name: row[name] for name in ("dataset", "classifier", "recipe", "arm")}, **known,
        "n_total": sum(row[name] for name in amounts), "n_nominal": row["n_base"],
        **{name: row[name] for name in amounts}, "n_copies": 0, "subset_seed": 0,
        "generator_seed": 0 if has_generator else None, "seed": 0, "rev": 0,
    }  # fmt: skip


def settings(**changes: Any) -> Settings:
    """The settings of Appendix A for the published datasets; `changes` override single fields."""
    fixed = {"dataset_sizes": DATASET_SIZES, "real_ratios": REAL_RATIOS, "tuple_bases": TUPLE_BASES}
    return Settings(**{**fixed, **changes})


def curves(*, as_printed: bool = False, **changes: Any) -> dict[int, CurveResult]:
    """The curve of each published equation whose metric was published, by its number. `changes`:
    fields of Settings.
    """
    table = results(as_printed=as_printed)
    wanted = table[table["dataset"].isin(DATASET_SIZES) & (table["recipe"] != "paper/zero-shot")]
    found = {
        (curve.key.dataset, curve.key.classifier, curve.key.generator): curve
        for curve in analyse(wanted, settings=settings(**changes)).curves
    }
    names = {
        int(row["equation"]): (row["dataset"], row["classifier"], row["generator"])
        for row in read_table("equations").to_dict("records")
    }
    return {equation: found[name] for equation, name in names.items() if name in found}


def refit(*, as_printed: bool = False, **changes: Any) -> list[dict]:
    """The published equations beside the ones fitted from the published tables: one plain mapping
    per equation.

    `published`, `refit`: [c1, c2]; `interval`: of the refit, with the scatter about the surface as
    the noise, as no spread is published; `ill_determined`, with the reasons in `why`; `variants`:
    [c1, c2] by other forms and epsilons. `changes`: fields of Settings.
    """
    fitted = curves(as_printed=as_printed, **changes)
    return [
        _row(equation, fitted[int(equation["equation"])])
        for equation in read_table("equations").to_dict("records")
    ]


def _row(equation: dict[Hashable, Any], curve: CurveResult) -> dict:
    why = [*curve.reasons, *_instability(curve)]
    return {
        "equation": int(equation["equation"]),
        "dataset": equation["dataset"],
        "classifier": equation["classifier"],
        "setting": equation["setting"],
        "generator": equation["generator"],
        "published": [float(equation["c1"]), float(equation["c2"])],
        "refit": [curve.c1.value, curve.c2.value],
        "interval": {
            "level": curve.c1.level,
            "c1": [curve.c1.low, curve.c1.high],
            "c2": [curve.c2.low, curve.c2.high],
        },
        "ill_determined": bool(why),
        "why": why,
        "eq11_rank": eq11_ranks(curve),
        "worth": curve.worth and curve.worth.to_json(),
        "verdicts": [one.text for one in verdicts(curve.worth)] if curve.worth else [],
        "inverse_tau": round(1 / curve.tau),
        "tuples": len(curve.tuples),
        "discarded": len(curve.discarded),
        "variants": {name: list(pair) for name, pair in curve.variants.items()},
    }


def eq11_ranks(curve: CurveResult) -> dict[str, int | None]:
    """By base size, Eq. 11's rank among the 31 surfaces of Eq. 10 by adjusted R², 1 the best; None
    where these cells do not identify it.
    """
    epsilon = curve.settings.epsilon
    return {
        f"{base.data.n_nominal:g}": place(base.candidates(epsilon), EQ11, "adjusted_r2")
        for base in curve.bases
        if base.surface is not None
    }


def _instability(curve: CurveResult) -> list[str]:
    """Why a fitted pair should not be read as a number, in plain words."""
    words = []
    for name, estimate in (("c1", curve.c1), ("c2", curve.c2)):
        if estimate.interval is not None:
            low, high = estimate.interval
            if high > WIDE * low:
                words.append(f"the interval of {name} spans a factor of {high / low:,.0f}")
    for i, name in enumerate(("c1", "c2")):
        values = [curve.variants[form][i] for form in ("paper", "robust", "log", "relative")]
        known = [value for value in values if value is not None]
        if known and max(known) > UNSTABLE * min(known):
            words.append(
                f"{name} changes by a factor of {max(known) / min(known):,.1f} "
                "with the form of the fit"
            )
    return words


def render(rows: list[dict]) -> RenderableType:
    """Published beside re-fitted, for a terminal (`rich`)."""
    view = Table(title="Published and re-fitted (c1, c2)", title_justify="left")
    texts = ("dataset", "classifier", "set", "published", "re-fitted", "interval c1", "interval c2")
    for name in ("Eq.", *texts, "tuples", "Eq. 11's rank"):
        view.add_column(name, justify="left" if name in texts else "right")
    view.add_column("")
    for row in rows:
        flag = Text("ill-determined", style="yellow") if row["ill_determined"] else Text("")
        view.add_row(
            str(row["equation"]), row["dataset"], row["classifier"], row["setting"],
            _pair(row["published"]), _pair(row["refit"]), _ends(row["interval"]["c1"]),
            _ends(row["interval"]["c2"]), f"{row['tuples']}/{row['tuples'] + row['discarded']}",
            ", ".join("–" if n is None else str(n) for n in row["eq11_rank"].values()), flag,
        )  # fmt: skip
    lines = [
        Text(f"Eq. {row['equation']}: {'; '.join(row['why'])}", style="dim")
        for row in rows
        if row["why"]
    ]
    rank = "Eq. 11's rank: among the 31 surfaces by adjusted R², at each base size; "
    lines.append(Text(f"{rank}Appendix A calls it the best", style="dim"))
    lines.append(Text("What the images are worth, by the effective-sample-size model:"))
    for row in rows:
        name = f"{row['dataset']}, {row['classifier']}, {row['setting']} set"
        lines += [Text(f"  Eq. {row['equation']} ({name}): {text}") for text in row["verdicts"]]
    return Group(view, *lines)


def _pair(pair: list) -> str:
    return "none" if None in pair else f"{pair[0]:.3f}, {pair[1]:,.3f}"


def _ends(ends: list) -> str:
    low, high = ("open" if end is None else f"{end:.3g}" for end in ends)
    return f"{low} to {high}"
