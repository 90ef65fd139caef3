"""Every key of a spec, with type, default and meaning, from the models that read it.

    python -m equigrid.grid.authoring.keys > docs/spec.md

A meaning is the docstring that stands below a field, or its description.
"""

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from equigrid.classifiers.names import MODELS
from equigrid.classifiers.recipes import DEFAULT, RECIPES, Recipe
from equigrid.generators import registry
from equigrid.grid.datasets import catalogue
from equigrid.grid.datasets.sources import medmnist
from equigrid.grid.spec import Amount, ByClass, GridSpec, presets

OF_GENERATORS = {
    "kind": f"What makes the images: {', '.join(f'`{kind}`' for kind in registry.KINDS)}.",
    "preset": "Where to start from; every other key overrides it, part by part.",
    "seeds": "Seeds of the generator: one is trained for each, base size and subset seed.",
}
OF_DATASETS = {
    "place": "The value is the place where the set lies.",
    "size": (
        "The short side is resized to it, the centre cropped to a square. MedMNIST: which of its "
        "versions."
    ),
    "resize": "The side at which images are stored.",
    "classes": "A file of your own that lists WordNet ids, and names if you like.",
    "allow_broken": "Images that may fail to decode; they are left out.",
    "range": "The grey levels that become 0 and 255.",
    "page": "Which image of a stack or an animation is taken, from 1 on; null: the first.",
    "channels": "1 keeps grey images grey, 3 makes all RGB.",
    "image": "The column of encoded images.",
    "labels": "A table of labels (CSV, TSV or Parquet) in place of class folders.",
    "label": "The column of classes; of a WebDataset the member or the JSON's field.",
    "split": "The column that says train, val or test.",
    "group": (
        "The column, or for files the pattern, that says which images belong together; `none`: "
        "there are no groups."
    ),
    "test": "The part of the images to hold back to test on, where there is no such split.",
    "val": "The part to hold back to select by.",
    "split_seed": "Which images these are.",
    "class_names": "Names in the order of the labels, or a mapping from class to name.",
    "duplicates": "Images that are there twice: keep, drop or refuse.",
    "keep": "Of some classes, how many training images there are to be: a long tail.",
}
"""Meanings of the options of sources, which are functions."""
OF_ALL_SETS = {
    "class_names": ("list or mapping of text", "null"),
    "duplicates": ("text", "keep"),
    "keep": ("mapping: class to whole number from 1", "null"),
}
_HEAD = """\
# Every key of a spec

A spec is a YAML file; [README](../README.md#your-own-grid) shows a small one, `equigrid init PLACE`
writes one for your images, and `equigrid plan` says what is wrong with yours. This page is made
from the models that read specs (`python -m equigrid.grid.authoring.keys`), and a test holds it to
them. *Required* keys have no default. A relative path is relative to the spec. An *amount* is a
multiple of `n_base` (`0.5`, `2`), a count (`'13000 images'`), or for real images `all` that are
left. *Amounts by class* are a mapping from classes, and `others`, to amounts, or `to_balance`
([analysis.md](analysis.md#chosen-classes)).
"""


class Key(NamedTuple):
    """A key of a spec: its path, what it may be, its default (None: required) and its meaning."""

    path: str
    type: str
    default: str | None
    meaning: str


class Section(NamedTuple):
    """Keys that stand side by side in a mapping. model: that reads them, if one does."""

    title: str
    text: str
    keys: tuple[Key, ...]
    model: type[BaseModel] | None = None


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for section in sections():
        parts.append(f"## {section.title}\n\n{_filled(section.text)}")
        if section.keys:
            rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
            rows += [
                f"| `{key.path}` | {key.type} | {_default(key.default)} | {key.meaning} |"
                for key in section.keys
            ]
            parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def sections() -> list[Section]:
    """All keys of a spec."""
    grid = _of_model("The grid", GridSpec, "")
    generators = [_generators()]
    for kind in dict.fromkeys(model for model, _ in registry.KINDS.values()):
        names = [name for name, (model, _) in registry.KINDS.items() if model is kind]
        generators += _of_model(f"Generators of kind {' and '.join(names)}", kind, "")
    recipe = [_recipes(), *_of_model("A recipe", Recipe, "")]
    return [*grid, _datasets(), *generators, *recipe]


# Models -------------------------------------------------------------------------------------------


def _of_model(title: str, model: type[BaseModel], prefix: str) -> list[Section]:
    """The section of a model, and those of the models in it."""
    meanings = _meanings(model)
    keys, inner = [], []
    for name, field in model.model_fields.items():
        parts = list(dict.fromkeys(_models(field.annotation)))
        keys.append(Key(name, _type(field.annotation, field), _written(field), meanings[name]))
        for part in parts:
            several = f" ({part.__name__})" if len(parts) > 1 else ""
            path = f"{prefix}{name}"
            inner += _of_model(f"{_owner(title)}: `{path}`{several}", part, f"{path}.")
    return [Section(title, _first_paragraph(model), tuple(keys), model), *inner]


def _owner(title: str) -> str:
    return title.partition(": `")[0]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


@cache
def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """By field: its description, or the docstring below it in the class or a class above it."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if issubclass(part, BaseModel) and part is not BaseModel:
            found |= _docstrings(part)
    return {
        name: _one_line(field.description or found.get(name) or _of_part(field))
        for name, field in model.model_fields.items()
    }


def _of_part(field: FieldInfo) -> str:
    """What the model that a field holds says of itself."""
    part = next(_models(field.annotation), None)
    return _first_paragraph(part) if part else ""


def _first_paragraph(model: type[BaseModel]) -> str:
    return inspect.cleandoc(vars(model).get("__doc__") or "").split("\n\n")[0]


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef), "the source of a class"
    found = {}
    for node, below in zip(body.body, body.body[1:]):
        match node, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                found[name] = str(text)
    return found


def _written(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        changed = value.model_dump(mode="json", exclude_defaults=True)
        return _yaml(changed) if changed else "its defaults"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, Amount):
        return str(value)
    return _yaml(value)


def _yaml(value: Any) -> str:
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return f"{value:g}"
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.removesuffix("...\n").strip()


# Types in words -----------------------------------------------------------------------------------

_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    dict: "mapping",
    list: "list",
    Amount: "amount",
    ByClass: "amounts by class",
    Any: "anything",
}


def _type(annotation: Any, field: FieldInfo | None = None) -> str:
    """What a field may be, in words."""
    limits = _limits(field.metadata) if field else ""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [part for mark in args[1:] for part in getattr(mark, "metadata", [mark])]
        return _type(args[0]) + _limits(inner) + limits
    if origin in (Union, types.UnionType):
        kinds = [_type(part) for part in args if part is not type(None)]
        text = ", ".join(dict.fromkeys(kinds)) + limits
        return f"{text}; or null" if type(None) in args else text
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (tuple, list):
        if len(args) == 2 and args[1] is not Ellipsis:
            return f"[{_type(args[0])}, {_type(args[1])}]{limits}"
        return f"list of {_type(args[0])}{limits}"
    if origin is dict:
        return f"mapping: {_type(args[0])} to {_type(args[1])}{limits}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"mapping ({annotation.__name__})"
    return _WORDS[annotation] + limits


def _limits(marks: list[Any]) -> str:
    words: list[str] = []
    for mark in marks:
        for kind, text in ((Ge, "from {}"), (Gt, "above {}"), (Le, "up to {}"), (Lt, "below {}")):
            if isinstance(mark, kind):
                value = getattr(mark, kind.__name__.lower())
                words.append(text.format(f"{value:,}" if isinstance(value, int) else f"{value:g}"))
    return f" {' '.join(words)}" if words else ""


# What no model reads ------------------------------------------------------------------------------


def _datasets() -> Section:
    names = ", ".join(f"`{name}`" for name in ("digits", "cifar10", *medmnist.NAMES))
    text = (
        f"`dataset` is a name ({names}), or a mapping of a kind to its place, with options after "
        "it: `{imagefolder: PATH, size: 32}`. [docs/datasets.md](datasets.md) says more."
    )
    places: list[Key] = []
    options: dict[tuple[str, ...], list[str]] = {}
    for kind, source in catalogue.SOURCES.items():
        if kind in medmnist.NAMES and kind != medmnist.NAMES[0]:
            continue  # one speaks for all
        kind = "MEDMNIST" if kind in medmnist.NAMES else kind
        of_kind = _options(source)
        places.append(Key(kind, "text", *of_kind.pop("place")))
        for name, about in of_kind.items():
            options.setdefault((name, *about), []).append(kind)
    keys = [
        Key(name, type_, default, f"{meaning} (Of {', '.join(kinds)}.)")
        for (name, type_, default, meaning), kinds in options.items()
    ]
    general = [
        Key(name, type_, default, f"{OF_DATASETS[name]} (Of all.)")
        for name, (type_, default) in OF_ALL_SETS.items()
    ]
    return Section("`dataset`", text, (*places, *keys, *general))


def _options(source: Callable[..., Any]) -> dict[str, tuple]:
    """By parameter of a source: (type, default, meaning); of `place` (default, meaning)."""
    found: dict[str, tuple] = {}
    for name, parameter in inspect.signature(source).parameters.items():
        needed = parameter.default is inspect.Parameter.empty
        default = None if needed else _yaml(parameter.default)
        if name == "place":
            found[name] = (default, OF_DATASETS[name])
        else:
            found[name] = (_type(parameter.annotation), default, OF_DATASETS[name])
    return found


def _generators() -> Section:
    text = (
        "`generators` maps names of your own to generators. The keys below are there for all "
        "kinds, those of each kind follow. Presets: "
        + "; ".join(
            f"{kind}: {', '.join(f'`{name}`' for name in starts)}"
            for kind, (_, starts) in registry.KINDS.items()
            if starts
        )
        + "."
    )
    types_ = {"kind": "text", "preset": "text", "seeds": "list of whole number from 0"}
    defaults = {"kind": None, "preset": "null", "seeds": "[0]"}
    keys = tuple(Key(name, types_[name], defaults[name], OF_GENERATORS[name]) for name in types_)
    return Section("`generators`", text, keys)


def _recipes() -> Section:
    text = (
        "`recipe` is a name, a mapping of the keys that follow, or the path of a YAML file of "
        "either, as `equigrid tune` writes it. With `extends: NAME` a mapping gives only what "
        "differs, with `name: TEXT` it says what tables call it. Without a recipe it is "
        "`default`, which follows the images' size and the base's. "
        f"Names: `{DEFAULT}`, {', '.join(f'`{name}`' for name in RECIPES)}. "
        f"Classifiers: {', '.join(f'`{name}`' for name in MODELS)}, or `timm/NAME`. "
        f"Presets of whole grids: {', '.join(f'`{name}`' for name in presets())}."
    )
    return Section("`recipe`", text, ())


# Markdown -----------------------------------------------------------------------------------------


def _default(text: str | None) -> str:
    if text is None:
        return "*required*"
    return text if text == "its defaults" else f"`{text}`"


def _filled(text: str) -> str:
    """A paragraph, wrapped."""
    lines = textwrap.wrap(
        " ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
