"""Results made elsewhere, brought to the schema: a table needs only what no other column tells.

Needed are the accuracy, the base size, and what was added: an amount in `n_real_added`, `n_syn` or
`n_copies`, or an `arm` with an `amount`. Names of dataset, generator, classifier and recipe, and
all seeds, are taken where they are given. Rows that nothing tells apart are repetitions.
"""

import json
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from equigrid.analysis.schema import ARMS, SCHEMA

AUGMENTED = "augmentation"
AMOUNTS = {"real": "n_real_added", "syn": "n_syn", "copies": "n_copies"}
ARM_WORDS = {
    "none": "base", "baseline": "base", "synthetic": "syn", "generated": "syn", "copy": "copies",
    "repeated": "copies", "mixed": "mix", "augmented": "augmentation",
}  # fmt: skip
ALIASES = {
    "n_base": ("base", "base_size", "n_real_base"),
    "n_real_added": ("real_added", "added_real", "n_added_real"),
    "n_syn": ("n_synthetic", "synthetic", "syn", "n_generated"),
    "n_copies": ("copies", "n_copied", "repeats"),
    "top1": ("accuracy", "acc", "acc1", "top1_accuracy", "test_accuracy"),
    "classifier": ("model", "network"),
    "subset_seed": ("subset", "fold"),
    "seed": ("trial", "run", "repetition", "trial_seed"),
    "amount": ("added", "n_added"),
}
NAMES = {"dataset": "dataset", "classifier": "classifier", "recipe": "recipe"}
SUFFIXES = (".csv", ".tsv", ".parquet")
ROWS, MOST_BYTES = 256, 2**30  # read at once, and of a table in memory: a row has some 500 bytes


def read_table(path: Path | str, metric: str = "top1") -> pd.DataFrame:
    """A CSV, TSV or Parquet file in the schema's columns; see `tidy`.

    Raises ValueError, one line, for a file that cannot be read as its suffix says.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: write a table as {', '.join(SUFFIXES)}, by its suffix")
    try:
        if not (path.is_file() or path.is_dir()) and path.exists():
            raise ValueError("it is no file (a pipe or a device?)")
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path) if path.is_dir() else _parquet(path)
        else:
            separator = "\t" if path.suffix == ".tsv" else ","
            frame = _nested(pd.read_csv(path, sep=separator, skipinitialspace=True))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: a cell is nested too deeply") from error
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:  # pyarrow's too
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{path}: is no {path.suffix.removeprefix('.')} table: {first}") from error
    try:
        return tidy(frame, metric)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parquet(path: Path) -> pd.DataFrame:
    """A Parquet file, some rows at a time: a text that each row repeats is a file of kilobytes that
    unfolds to gigabytes. Raises ValueError for one that does.
    """
    file, parts, whole = pq.ParquetFile(path), [], 0
    for part in file.iter_batches(ROWS):
        whole += part.nbytes
        if whole > MOST_BYTES:
            raise ValueError(f"it unfolds to more than {MOST_BYTES:,} bytes")
        parts.append(part)
    return pa.Table.from_batches(parts, file.schema_arrow).to_pandas()


def _nested(frame: pd.DataFrame) -> pd.DataFrame:
    """Lists and maps that a text file holds as JSON. Raises ValueError for what is none."""
    for field in SCHEMA:
        if field.name in frame and pa.types.is_nested(field.type):
            texts = frame[field.name].astype(object)
            frame[field.name] = [
                json.loads(text) if isinstance(text, str) else None for text in texts
            ]
    return frame


def tidy(frame: pd.DataFrame, metric: str = "top1") -> pd.DataFrame:
    """The rows of any results table in the schema's columns; what it does not say is filled in.

    frame: one row per training. Needed: `n_base`, the metric's column (`top1`, also called
    `accuracy`), and the added amounts in images. metric: the column of accuracies, percent.
    Raises ValueError, one line, that names what is missing and for what it is needed.
    """
    frame = _renamed(frame, metric).reset_index(drop=True)
    _require(frame, metric)
    frame = _amounts(frame)
    frame["arm"] = _arms(frame)
    for name, default in NAMES.items():
        frame[name] = frame.get(name, pd.Series(default, frame.index)).fillna(default).astype(str)
    frame["generator"] = _generators(frame)
    frame = _seeds(frame)
    filled: dict[str, Any] = {
        "n_nominal": frame["n_base"],
        "n_total": frame[["n_base", *AMOUNTS.values()]].sum(axis=1),
        "status": "ok",
        "grid": "table",
        "fingerprint": "",
        "rev": 0,
        "trial_id": [f"row-{i}" for i in frame.index],
        "attempt": "0",
        "setting": None,
    }
    for name, value in filled.items():
        value = pd.Series(value, frame.index)
        frame[name] = frame[name].where(frame[name].notna(), value) if name in frame else value
    for name in SCHEMA.names:
        if name not in frame:
            frame[name] = None
    extra = [metric] if metric not in SCHEMA.names else []
    return frame[[*SCHEMA.names, *extra]]


def _renamed(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Under the schema's names: case, spaces and common other names do not matter."""
    plain = {column: str(column).strip().lower().replace(" ", "_") for column in frame.columns}
    found: dict[Hashable, str] = {}
    for column, name in plain.items():
        known = next((own for own, others in ALIASES.items() if name in others), name)
        known = metric if known == "top1" and metric not in plain.values() else known
        if known in found.values():
            same = [first for first, other in found.items() if other == known]
            raise ValueError(f"columns {same[0]!r} and {column!r} both mean {known}; keep one")
        found[column] = known
    return frame.rename(columns=found)


def _require(frame: pd.DataFrame, metric: str) -> None:
    have = f"there are: {', '.join(map(str, frame.columns))}"
    for name, why in ((metric, "the accuracies, in percent"), ("n_base", "the base sizes")):
        if name not in frame:
            raise ValueError(f"no column {name} ({why}); {have}")
    if "amount" in frame and "arm" not in frame:
        raise ValueError("a column amount needs a column arm that says what was added")
    if not {"amount", *AMOUNTS.values()} & {*frame.columns}:
        raise ValueError(
            "no added amounts: give n_real_added, n_syn and n_copies in images, or arm and amount; "
            + have
        )
    if frame.empty:
        raise ValueError("the table has no rows")


def _amounts(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.copy()
    if "arm" in frame:
        words = frame["arm"].astype(str).str.strip().str.lower()
        frame["arm"] = words.replace(ARM_WORDS)
        _known(frame["arm"])
    for arm, name in AMOUNTS.items():
        if name not in frame and "amount" in frame:
            frame[name] = frame["amount"].where(frame["arm"] == arm, 0)
        frame[name] = _counts(frame.get(name, pd.Series(0, frame.index)).fillna(0), name)
    frame["n_base"] = _counts(frame["n_base"], "n_base")
    return frame


def _known(arms: pd.Series) -> None:
    if unknown := sorted({*arms} - {*ARMS}):
        raise ValueError(f"arm {unknown[0]!r} is unknown; write {', '.join(ARMS)}")


def _counts(values: pd.Series, name: str) -> pd.Series:
    """Whole numbers of images. Raises ValueError that names the first row with anything else."""
    texts = values.astype(str).str.replace(",", "")
    numbers = pd.to_numeric(texts, errors="coerce")
    wrong = numbers.isna() | (numbers < 0) | (numbers % 1 != 0)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise ValueError(
            f"{name} of row {row + 1} is {values.iloc[row]}; write a whole number of images"
        )
    return numbers.astype("int64")


def _arms(frame: pd.DataFrame) -> pd.Series:
    """What was added, told by the amounts; a given arm must agree with them."""
    real, syn, copies = (frame[name] > 0 for name in AMOUNTS.values())
    told = pd.Series("base", frame.index)
    for arm, where in (("real", real), ("syn", syn), ("copies", copies), ("mix", real & syn)):
        told = told.mask(where, arm)
    if (twice := copies & (real | syn)).any():
        row = int(twice.to_numpy().argmax())
        raise ValueError(f"row {row + 1} adds copies and other images at once; that is no arm")
    if "arm" in frame:
        told = told.mask((frame["arm"] == AUGMENTED) & (told == "base"), AUGMENTED)
        _require_names(frame)
    if "arm" in frame and (differ := frame["arm"] != told).any():
        row = int(differ.to_numpy().argmax())
        raise ValueError(
            f"arm of row {row + 1} is {frame['arm'].iloc[row]!r}, but its amounts say "
            f"{told.iloc[row]!r}"
        )
    return told


def _require_names(frame: pd.DataFrame) -> None:
    """Raises ValueError for an augmented base whose augmentation has no name."""
    unnamed = frame["arm"] == AUGMENTED
    if AUGMENTED in frame:
        unnamed &= frame[AUGMENTED].isna()
    if unnamed.any():
        row = int(unnamed.to_numpy().argmax())
        raise ValueError(
            f"arm of row {row + 1} is augmentation: name it in a column {AUGMENTED}, such as mixup"
        )


def _generators(frame: pd.DataFrame) -> pd.Series:
    """Names of generators where there are synthetic images, none elsewhere."""
    given = frame.get("generator", pd.Series(None, frame.index, dtype=object)).astype(object)
    return given.where(given.notna(), "synthetic").where(frame["n_syn"] > 0, None)


def _seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Seeds as given; rows of a cell that no seed tells apart are counted as repetitions.

    Any names will do for seeds, such as folds in words: equal names are one seed.
    """
    for name in ("subset_seed", "generator_seed", "seed"):
        if name in frame and not pd.api.types.is_integer_dtype(frame[name]):
            codes = pd.Series(pd.factorize(frame[name], sort=True)[0], frame.index)
            frame[name] = codes.where(frame[name].notna(), None)
    if "subset_seed" not in frame:
        frame["subset_seed"] = 0
    if "generator_seed" not in frame:
        frame["generator_seed"] = pd.Series(0, frame.index).where(frame["n_syn"] > 0, None)
    if "seed" not in frame:
        frame["seed"] = frame.groupby(_cell_columns(frame.columns), dropna=False).cumcount()
    return frame


def _cell_columns(columns: Iterable[str]) -> list[str]:
    known = [
        *NAMES,
        "generator",
        AUGMENTED,
        "n_base",
        *AMOUNTS.values(),
        "subset_seed",
        "generator_seed",
    ]
    return [name for name in known if name in columns]
