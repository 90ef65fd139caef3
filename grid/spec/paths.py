"""Relative paths of a spec: relative to the file that names them, and absolute from then on, so
that every command works from any folder.
"""

from pathlib import Path

PLACES = frozenset(
    ("imagefolder", "parquet", "npz", "webdataset", "imagenet", "imagenet100", "imagenet10")
)
"""Kinds of datasets whose place is a path, wherever in the mapping they stand."""
ALWAYS = frozenset(("path", "weights", "classes", "extractor_weights"))
"""Keys whose texts are paths."""
WHERE_THERE = frozenset(
    ("labels", "pipeline", "language_model", "model", "examples", "backgrounds", "relations",
     "text_encoder", "inception", "vit")
)  # fmt: skip
"""Keys whose texts may be paths, or names on a hub: they are paths where something lies there."""


def rooted(data: dict, folder: Path) -> dict:
    """The mapping of a spec with its relative paths made absolute, from `folder`."""
    found = dict(data)
    dataset = found.get("dataset")
    if isinstance(dataset, dict) and dataset:
        kind = next((key for key in dataset if key in PLACES), next(iter(dataset)))
        found["dataset"] = {
            key: _absolute(value, folder)
            if key == kind or key in PLACES
            else _rooted(key, value, folder)
            for key, value in dataset.items()
        }
    if isinstance(found.get("classifiers"), dict | list):
        found["classifiers"] = _classifiers(found["classifiers"], folder)
    for part in ("generators", "quality", "zero_shot"):
        if isinstance(found.get(part), dict):
            found[part] = _rooted(part, found[part], folder)
    return found


def _classifiers(value: dict | list, folder: Path) -> object:
    """With the places of pre-trained weights made absolute; a tag of timm's and a repository of a
    hub stay as they are.
    """
    if isinstance(value, list):
        return [_classifiers(one, folder) if isinstance(one, dict) else one for one in value]
    weights = value.get("pretrained")
    if not isinstance(weights, str) or weights.startswith("hf-hub:"):
        return value
    if weights.endswith(".safetensors") or _is_there(weights, folder):
        return {**value, "pretrained": _absolute(weights, folder)}
    return value


def _rooted(key: object, value: object, folder: Path) -> object:
    if isinstance(value, dict) and value.get("kind") == "python":
        # The module lies beside the spec where it says nothing else. Its options are its own: a
        # `path` among them is no place of the spec's.
        return {**value, "path": _absolute(value.get("path", str(folder)), folder)}
    if isinstance(value, dict):
        return {inner: _rooted(inner, part, folder) for inner, part in value.items()}
    if key in ALWAYS or (key in WHERE_THERE and _is_there(value, folder)):
        return _absolute(value, folder)
    return value


def _is_there(value: object, folder: Path) -> bool:
    try:
        return isinstance(value, str) and bool(value) and (folder / value).exists()
    except (OSError, ValueError):  # a name too long, or with a zero in it
        return False


def _absolute(value: object, folder: Path) -> object:
    """A relative path made absolute; a URI, `~/…`, `$VARIABLE…` and what is no text as it is."""
    if not isinstance(value, str) or not value or "://" in value or value[0] in "~$/":
        return value
    return str(folder / value)
