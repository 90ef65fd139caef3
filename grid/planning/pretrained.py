"""Which files a pre-trained classifier stands for, and what they say: found, hashed and compared
with the network, without the store.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from equigrid.classifiers.models.pretraining import DEFAULT_RANK, PretrainedClassifier, Pretraining
from equigrid.classifiers.recipes import Normalisation
from equigrid.generators.common import hub
from equigrid.generators.common.digests import sha256
from equigrid.grid.ids import canonical_json
from equigrid.grid.jobs.classifier import Classifier, FromWeights

HUB = "hf-hub:"  # as timm writes a repository
WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Place(NamedTuple):
    """Where weights lie, and what timm saved beside them. told: in words, for a row. known: timm's
    name of them, or of their architecture.
    """

    weights: str
    config: str
    told: str
    known: str


def facts(entry: PretrainedClassifier) -> dict[str, Any]:
    """What the world says of a classifier, as JSON: `how` (a Pretraining), `normalisation`,
    `place`, `told`. Raises ValueError, one line.

    Imports torch: only the network's shapes tell whether the weights are its own.
    """
    try:
        return _facts(entry)
    except OSError as error:
        why = error.strerror or error
        raise ValueError(f"pretrained: {entry.pretrained!r} cannot be read: {why}") from error


def _facts(entry: PretrainedClassifier) -> dict[str, Any]:
    from equigrid.classifiers.models import loading

    name = entry.architecture
    loading.check_architecture(name)
    place = _place(entry)
    path = hub.local(place.weights, "pretrained")
    digest = sha256(path, "pretrained")
    saved = _saved(place, name)
    args = {**_part(saved, "model_args", place), **entry.args}
    about = _part(saved, "pretrained_cfg", place) or saved
    size = about.get("input_size")
    own = (args.pop("in_chans", None), *(size[:1] if isinstance(size, list) else ()))
    for decided in ("num_classes", "pretrained"):  # here, not there
        args.pop(decided, None)
    mean, std, usual = loading.defaults(place.known)
    shapes = loading.read_shapes(path, f"pretrained: {place.told}")
    how = Pretraining(
        weights=digest,
        train=entry.train,
        channels=loading.fitting(
            name,
            canonical_json(args),
            shapes,
            f"pretrained: {place.told}",
            [n for n in (*own, usual, 3, 1) if type(n) is int and n > 0],
        ),
        args=canonical_json(args),
        rank=(entry.rank or DEFAULT_RANK) if entry.train == "lora" else None,
        alpha=(entry.alpha or entry.rank or DEFAULT_RANK) if entry.train == "lora" else None,
    )
    if how.train == "lora":
        loading.check_adaptable(name, how.args, how.channels)
    given = entry.normalisation or Normalisation(
        mean=_per_channel("mean", about.get("mean") or mean, how.channels),
        std=_per_channel("std", about.get("std") or std, how.channels),
    )
    if len(given.mean) != how.channels:
        raise ValueError(
            f"normalisation: is of {len(given.mean)} channels, and the weights take {how.channels}"
        )
    told = f"sha256:{digest} ({name}, {place.told})"
    return {
        "how": how.model_dump(mode="json"),
        "normalisation": given.model_dump(mode="json"),
        "place": place.weights,
        "told": told,
    }


def classifier(entry: PretrainedClassifier, found: dict[str, Any]) -> Classifier:
    """The classifier of a spec's entry and its facts."""
    how = Pretraining.model_validate(found["how"])
    normalisation = Normalisation.model_validate(found["normalisation"])
    label = entry.label(how, normalisation)
    changed = {name: value for name, value in entry.recipe if value is not None}
    return Classifier(
        label,
        f"timm/{entry.architecture}",
        FromWeights(how=how, place=found["place"], label=label, told=found["told"]),
        {**changed, "normalisation": normalisation},
    )


def _place(entry: PretrainedClassifier) -> Place:
    given, name = entry.pretrained, entry.timm.removeprefix("timm/")
    tag = name.partition(".")[2] or None
    if given is True:
        return _released(entry.architecture, tag)
    assert isinstance(given, str), "the spec refuses false"
    if given.startswith(HUB):
        repository = given.removeprefix(HUB)
        return _in(f"{hub.SCHEME}{repository}", WEIGHTS, given, entry.architecture)
    if given.startswith(hub.SCHEME) or given.endswith(".safetensors"):
        folder = given.rpartition("/")[0]
        return Place(given, f"{folder}/{CONFIG}" if folder else CONFIG, given, entry.architecture)
    if "/" in given or Path(given).exists():
        if not Path(given).is_dir():
            raise ValueError(
                f"pretrained: {given!r} is no folder and no .safetensors file; write a tag of "
                f"timm's, {HUB}OWNER/NAME, or a path that ends in .safetensors"
            )
        return _in(given, WEIGHTS, given, entry.architecture)
    return _released(entry.architecture, given.removeprefix(f"{entry.architecture}."))


def _in(folder: str, weights: str, told: str, known: str) -> Place:
    return Place(f"{folder}/{weights}", f"{folder}/{CONFIG}", told, known)


def _released(architecture: str, tag: str | None) -> Place:
    from equigrid.classifiers.models import loading

    found = loading.released(architecture, tag)
    file = found["file"] or WEIGHTS
    told = f"{HUB}{found['hub']}"
    return _in(f"{hub.SCHEME}{found['hub']}", file, told, found["name"])


def _saved(place: Place, architecture: str) -> dict[str, Any]:
    """What timm saved beside the weights: architecture, arguments, normalisation; {} where there is
    nothing. Raises ValueError for the weights of another architecture.
    """
    try:
        path = Path(hub.local(place.config, "pretrained"))
    except ValueError as error:
        if hub.is_absent(error):
            return {}
        raise  # what cannot be had just now might say another normalisation
    if not path.is_file():
        return {}
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict):
            raise ValueError("it is no mapping")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"pretrained: {place.config} cannot be read: {error}") from None
    named = str(saved.get("architecture") or architecture).partition(".")[0]
    if named != architecture:
        raise ValueError(f"pretrained: {place.told} is of {named}; write timm: {named}")
    return saved


def _part(saved: dict[str, Any], name: str, place: Place) -> dict[str, Any]:
    found = saved.get(name) or {}
    if not isinstance(found, dict):
        raise ValueError(f"pretrained: {place.config}: {name} is {found!r:.40}, no mapping")
    return found


def _per_channel(what: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value for each of the network's channels. Raises ValueError where that is a guess."""
    if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
        raise ValueError(f"pretrained: its {what} is {values!r:.40}; a list of numbers is right")
    if what == "std" and min(values) <= 0:
        raise ValueError(f"pretrained: its std is {values}; a positive number each is right")
    if len(values) != channels and len(set(values)) > 1:
        raise ValueError(
            f"normalisation: the weights take {channels} channels, and {what} is known of "
            f"{len(values)} ({', '.join(f'{v:g}' for v in values)}); write "
            "normalisation: {mean: […], std: […]}"
        )
    return tuple(values) if len(values) == channels else (values[0],) * channels
