"""The result schema: one row per cell of the grid, the contract between the grid and the analysis.

A trial shared by several cells appears once per cell, with the same `trial_id`; counting distinct
`trial_id`s therefore counts trainings. Accuracies are in percent, sizes in images, durations in
seconds, times in UTC.
"""

import pandas as pd
import pyarrow as pa

SCHEMA_VERSION = 1
STATUSES = ("ok", "failed")
ARMS = ("base", "real", "syn", "copies", "mix", "augmentation")
SETTINGS = ("closed", "open", "adapted")
SETTING_WORDS = {"closed": "closed set", "open": "open set", "adapted": "open set, adapted"}
"""What a generator may have seen, as people read it."""
# (name, type, nullable, meaning). Nullable columns are those that an arm or a failed attempt lacks.
COLUMNS: tuple[tuple[str, pa.DataType, bool, str], ...] = (
    ("trial_id", pa.string(), False, "Hash of everything that determines the trial's outcome."),
    (
        "attempt",
        pa.string(),
        False,
        "Identifier of this attempt at the trial; unique within the trial.",
    ),
    ("status", pa.string(), False, "'ok' or 'failed'."),
    ("error", pa.string(), True, "Traceback of a failed attempt; null when ok."),
    ("grid", pa.string(), False, "Name of the grid (the spec) that asked for the cell."),
    ("dataset", pa.string(), False, "Name of the labelled image dataset."),
    ("fingerprint", pa.string(), False, "Hash of the dataset's content."),
    (
        "arm",
        pa.string(),
        False,
        "'base', 'real', 'syn', 'copies', or 'mix' of real and syn: what was added; 'augmentation' "
        "where nothing was, but the base was augmented.",
    ),
    (
        "setting",
        pa.string(),
        True,
        "'closed', 'open' or 'adapted' (what the generator may have seen: the base alone, other "
        "images, or both); null without one.",
    ),
    ("generator", pa.string(), True, "Name of the generator in the spec; null in the other arms."),
    ("classifier", pa.string(), False, "Name of the classifier."),
    ("recipe", pa.string(), False, "Name of the training recipe."),
    ("n_total", pa.int64(), False, "Images in the mix: n_base + n_real_added + n_syn + n_copies."),
    ("n_base", pa.int64(), False, "Real images in the base subset."),
    (
        "n_nominal",
        pa.int64(),
        False,
        "Nominal base size, for ratios and tau; n_base unless the spec rounds.",
    ),
    ("n_real_added", pa.int64(), False, "Real images added to the base subset."),
    ("n_syn", pa.int64(), False, "Synthetic images added."),
    (
        "n_copies",
        pa.int64(),
        False,
        "Repeated base images added (the control for the number of steps).",
    ),
    ("subset_seed", pa.int64(), False, "Seed of the order in which real images are drawn."),
    (
        "generator_seed",
        pa.int64(),
        True,
        "Seed of the generator's training; null in arms without one.",
    ),
    ("seed", pa.int64(), False, "Seed of the trial (initialisation, batch order, augmentation)."),
    ("rev", pa.int64(), False, "Hand-bumped revision of the trial's code."),
    ("epochs", pa.float64(), True, "Passes over the mix."),
    ("steps", pa.int64(), True, "Optimiser steps."),
    ("top1", pa.float64(), True, "Top-1 accuracy on the evaluation set, percent."),
    ("top5", pa.float64(), True, "Top-5 accuracy, percent; null where it was not computed."),
    ("per_class", pa.list_(pa.float64()), True, "Top-1 accuracy of each class, percent."),
    ("confusion", pa.list_(pa.int64()), True, "Counts, true class by predicted class, row-major."),
    ("loss", pa.float64(), True, "Mean cross-entropy on the evaluation set, nats."),
    (
        "val_top1",
        pa.float64(),
        True,
        "Top-1 accuracy on held-out training images, percent, where there are any.",
    ),
    (
        "seconds",
        pa.float64(),
        True,
        "Wall time of the training and its evaluation; an equal share of it where several trials "
        "of one mix trained together.",
    ),
    ("images_per_s", pa.float64(), True, "Training throughput, in such seconds."),
    (
        "peak_device_bytes",
        pa.int64(),
        True,
        "Peak memory on the device, of all that trained together; null where it is not measured.",
    ),
    ("device", pa.string(), True, "Device, in words."),
    ("world_size", pa.int64(), True, "Devices that trained together."),
    ("threads", pa.int64(), True, "CPU threads of the training process."),
    ("shards", pa.list_(pa.string()), True, "Content hashes of the shards consumed."),
    ("versions", pa.map_(pa.string(), pa.string()), True, "Versions of the libraries, by name."),
    ("code", pa.string(), True, "Version of this project's code."),
    ("started_at", pa.timestamp("us", tz="UTC"), True, "Start of the attempt."),
    ("finished_at", pa.timestamp("us", tz="UTC"), True, "End of the attempt."),
    ("node", pa.string(), True, "Host that ran the attempt."),
    ("balanced_accuracy", pa.float64(), True, "Mean over classes of their top-1, percent."),
    ("macro_f1", pa.float64(), True, "Mean over classes of their F1 score, percent."),
    (
        "auc",
        pa.float64(),
        True,
        "Area under the ROC curve, one class against the rest, mean over classes, percent.",
    ),
    (
        "sensitivity",
        pa.float64(),
        True,
        "Top-1 of class 1 of two, percent; null with other numbers of classes.",
    ),
    (
        "specificity",
        pa.float64(),
        True,
        "Top-1 of class 0 of two, percent; null with other numbers of classes.",
    ),
    (
        "energy_kwh",
        pa.float64(),
        True,
        "Electricity, kWh, estimated by codecarbon; null where it is not counted.",
    ),
    ("co2_kg", pa.float64(), True, "CO2-equivalents of that, kg, by the country's mix."),
    (
        "by_class",
        pa.list_(pa.int64()),
        True,
        "Synthetic images (in the arm copies, repeated ones) added of each class, in the order of "
        "per_class, where the spec says so by class; null where the pool's balance says.",
    ),
    (
        "augmentation",
        pa.string(),
        True,
        "Name of the augmentation in the spec; null in the other arms.",
    ),
    (
        "pretrained",
        pa.string(),
        True,
        "SHA-256 of the weights that the classifier started from, and where they lay: other "
        "people's data, an open set; null for a training from scratch.",
    ),
)

DESCRIPTIONS: dict[str, str] = {name: meaning for name, _, _, meaning in COLUMNS}

SCHEMA: pa.Schema = pa.schema(
    [
        pa.field(name, kind, nullable, metadata={"description": meaning})
        for name, kind, nullable, meaning in COLUMNS
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)


def to_frame(rows: list[dict]) -> pd.DataFrame:
    """Rows as a DataFrame with exactly the schema's columns; what a row lacks is null. Raises
    pyarrow.ArrowInvalid for values that do not fit a column's type.
    """
    return pa.Table.from_pylist(rows, schema=SCHEMA).to_pandas()
