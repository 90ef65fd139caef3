"""The card of an exported pool: a README.md with a head that Hugging Face's hub reads."""

from typing import Any

import yaml

from equigrid import __version__
from equigrid.analysis.schema import SETTING_WORDS
from equigrid.grid.exporting.pools import Export

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
QUALITY = {
    "fid": "FID (Inception)",
    "inception_score": "Inception Score",
    "diversity": "diversity",
    "diversity_real": "diversity of the real images",
    "feature_distance": "Fréchet distance in the features of the grid's classifier",
    "neighbour_distance": "median distance to the nearest training image (of 255)",
    "neighbour_distance_real": "the same among the training images",
    "fd": "Fréchet distance",
    "fd_infinity": "Fréchet distance, without the bias of the pool's size",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "nearer_than_held_out": "pairs in which a sample is nearer to the training images than a "
    "held-out real one (0.5: no copies)",
    "near_copies": "nearer than all but 1% of held-out real images",
}
"""Columns of a pool's measures, in words."""


def card(export: Export, *, parquet: bool) -> str:
    """Markdown. parquet: whether the images lie in data/train-*.parquet, not in class folders."""
    head = yaml.safe_dump(_head(export, parquet), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{_text(export)}"


def memorised(export: Export) -> float | None:
    """The part of the measured samples that copy a training image; None where none was measured."""
    return export.quality.get("memorised") if export.quality else None


def _head(export: Export, parquet: bool) -> dict[str, Any]:
    n = export.n
    size = next((word for most, word in SIZES if n < most), "1M<n<10M")
    features = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": _numbered(export.classes)}}},
    ]
    data = "data/train-*.parquet" if parquet else "*/*.png"
    return {
        "pretty_name": f"{export.pool.generator} of {export.plan.resolved.source.name}",
        "task_categories": ["image-classification"],
        "tags": ["synthetic", "equigrid"],
        "size_categories": [size],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": data}]}
        ],
        "dataset_info": {"features": features, "splits": [{"name": "train", "num_examples": n}]},
        "equigrid": _facts(export),
    }  # fmt: skip


def _numbered(names: tuple[str, ...]) -> dict[str, str]:
    return {str(label): name for label, name in enumerate(names)}


def _facts(export: Export) -> dict[str, Any]:
    """For machines: what the text says in words."""
    training, subset = export.training, export.training.subset
    return {
        "version": __version__,
        "pool": export.pool.id,
        "generator": export.pool.generator_id,
        "kind": training.mapping.get("kind"),
        "setting": export.plan.resolved.generators[export.pool.generator].config.setting,
        "dataset": export.plan.resolved.source.name,
        "fingerprint": training.dataset,
        "training_images": training.n_images,
        "kept_apart": training.outside is not None,
        "subset_seed": subset and subset.subset_seed,
        "generator_seed": training.seed,
        "balance": export.plan.resolved.generators[export.pool.generator].config.balance,
        "images": export.n,
        "memorised": memorised(export),
    }


def _drawn(seed: int | None) -> str:
    return "the whole training set" if seed is None else f"a subset drawn with seed {seed}"


def _text(export: Export) -> str:
    facts, shape = _facts(export), export.plan.resolved.shape
    assert shape is not None, "a plan with pools has a shape"
    source = f"{facts['dataset']} (fingerprint `{facts['fingerprint']}`)"
    if facts["kept_apart"]:
        learned = (
            f"trained from scratch on {facts['training_images']:,} real images of {source}, which "
            "no base of its grid has"
        )
    elif facts["setting"] == "adapted":
        learned = (
            f"a model that knows other images, adapted to {facts['training_images']:,} real "
            f"images of {source}, {_drawn(facts['subset_seed'])}"
        )
    elif facts["training_images"] is None:
        learned = f"an open-set generator, which may know other images, for the classes of {source}"
    else:
        learned = (
            f"trained from scratch on {facts['training_images']:,} real images of {source}, "
            f"{_drawn(facts['subset_seed'])}"
        )
    lines = [
        f"# Synthetic images: {export.pool.generator} of {facts['dataset']}",
        "",
        "**No image here is real.** They come from a generative model, and share its faults.",
        "",
        f"- Images: {export.n:,} of {shape.height}×{shape.width}, {_channels(shape.channels)}, in "
        f"{len(shape.classes)} classes; labels are what the generator was asked for, "
        f"{_balance(facts['balance'])}.",
        f"- Generator: `{facts['kind']}`, {SETTING_WORDS[facts['setting']]}: {learned}; seed "
        f"{facts['generator_seed']}.",
        f"- Memorised: {_memorised(export)}",
        f"- Made with equigrid {__version__}, pool `{facts['pool']}`, generator "
        f"`{facts['generator']}`{_machine(export)}.",
        "",
        "## Quality",
        "",
        *_quality(export),
        "",
        "## Configuration of the generator",
        "",
        "```yaml",
        yaml.safe_dump(
            dict(training_mapping(export)), sort_keys=False, allow_unicode=True
        ).rstrip(),
        "```",
        "",
        "## Terms",
        "",
        "Synthetic images may be subject to the terms of the images that their generator learned",
        "from, and of its weights. Whoever publishes this set states its licence.",
    ]
    return "\n".join(lines) + "\n"


def training_mapping(export: Export) -> dict[str, Any]:
    """The generator's configuration, without paths of the machine that it was made on."""
    return {
        key: value
        for key, value in export.training.mapping.items()
        if not (isinstance(value, str) and ("/" in value or "\\" in value))
    }


def _balance(balance: str | dict[str, float]) -> str:
    if isinstance(balance, dict):
        return "in shares of " + ", ".join(f"{name} {share:g}" for name, share in balance.items())
    words = {"equal": "as many of each class", "as_data": "in the proportions of the training set"}
    return words[balance]


def _channels(channels: int) -> str:
    return "grey" if channels == 1 else "in colour"


def _memorised(export: Export) -> str:
    share = memorised(export)
    if share is None:
        return "not measured."
    return (
        f"{share:.1%} of the samples looked at are three times nearer to one training image than "
        "to any other."
    )


def _machine(export: Export) -> str:
    device = export.manifest.get("device")
    return f", trained on {device}" if device else ""


def _quality(export: Export) -> list[str]:
    row = export.quality
    if row is None:
        return ["Nothing was measured of this pool."]
    found = [(words, row[name]) for name, words in QUALITY.items() if row.get(name) is not None]
    if not found:
        return ["Nothing was measured of this pool but its nearest training images."]
    n = f"Of {row['n_images']:,} of its images, against {row['n_real']:,} real ones."
    if row.get("extractor"):
        n += f" Measures with an interval are in the features of {row['extractor']}."
    if not any(row.get(f"{name}_low") is not None for name in QUALITY):
        table = ["| measure | value |", "|---|---|"]
        return [n, "", *table, *(f"| {words} | {value:.4g} |" for words, value in found)]
    table = ["| measure | value | 95% interval |", "|---|---|---|"]
    return [n, "", *table, *(_line(row, name) for name in QUALITY if row.get(name) is not None)]


def _line(row: dict[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = "" if low is None or high is None else f"{low:.4g} to {high:.4g}"
    return f"| {QUALITY[name]} | {row[name]:.4g} | {interval} |"
