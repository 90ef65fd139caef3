"""What a user asks for: a grid of blocks over one dataset, validated where it is read.

`load(source)` takes a preset's name, a YAML file, or a mapping. All mistakes in it are
`UserError`s: one line that says what, where (file, line, key) and what would be right.
"""

import difflib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from equigrid.classifiers.zero_shot.config import ZeroShotConfig
from equigrid.generators.quality.config import QualityConfig
from equigrid.grid.errors import UserError
from equigrid.grid.spec.trackers import validate_trackers
from equigrid.payloads import Frozen

PRESETS = Path(__file__).parent / "presets"
_YAML_BOOL = "tag:yaml.org,2002:bool"


@dataclass(frozen=True)
class Amount:
    """How much to add: a `multiple` of the base size, a fixed number of `images`, or, where neither
    is set, all the real images that are left.
    """

    multiple: float | None = None
    images: int | None = None

    @property
    def is_rest(self) -> bool:
        return self.multiple is None and self.images is None

    def count(self, n_base: int, left: int) -> int:
        """Images to add to a base of (nominally) `n_base`, of which `left` are left; multiples are
        rounded.
        """
        if self.is_rest:
            return left
        return self.images if self.images is not None else round(self.multiple * n_base)

    def as_written(self) -> float | str:
        """The amount as a spec writes it."""
        if self.is_rest:
            return "all"
        return f"{self.images} images" if self.images is not None else self.multiple

    def __str__(self) -> str:
        return f"{self.multiple:g}" if self.multiple is not None else self.as_written()


def _amount(value) -> Amount:
    if isinstance(value, Amount):
        return value
    if value == "all":
        return Amount()
    text = re.fullmatch(r"\s*([\d_,]+)\s*images?\s*", value) if isinstance(value, str) else None
    if text:
        value, amount = int(re.sub("[_,]", "", text[1])), "images"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value, amount = float(value), "multiple"
    else:
        raise ValueError(
            f"{value!r} is no amount; write a multiple of n_base (0.5, 2), '13000 images', or all"
        )
    if not math.isfinite(value) or value <= 0:
        raise ValueError(
            f"{value:g} is no amount to add; it must be above 0 (the base alone is always run)"
        )
    return Amount(**{amount: value})


def _as_tuple(value):
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _distinct(values: tuple) -> tuple:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"{value} is there twice; name each once")
    return values


Amounts = Annotated[
    tuple[Annotated[Amount, BeforeValidator(_amount), PlainSerializer(Amount.as_written)], ...],
    BeforeValidator(lambda value: _distinct(tuple(_amount(item) for item in _as_tuple(value)))),
]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, strict=True)], ...],
    BeforeValidator(_as_tuple),
    Field(min_length=1),
]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _base_size(value):
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"{value!r} is no base size; write a number of images from 0 up, or all")


BaseSize = Annotated[int | Literal["all"], BeforeValidator(_base_size)]


class Block(Frozen):
    """A product: each base size with each of the amounts to add, for all classifiers and seeds.

    nominal: the base's size in ratios and fits, where a publication rounds it. base: whether the
    base alone is run too, which every comparison with it needs. recipe: in place of the grid's.
    """

    n_base: Annotated[tuple[BaseSize, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
    nominal: Annotated[int, Field(ge=1, strict=True)] | None = None
    base: bool = True
    recipe: str | dict | None = None
    real: Amounts = ()
    syn: dict[str, Amounts] = {}
    copies: Amounts = ()

    @field_validator("n_base")
    @classmethod
    def _each_once(cls, value):
        return _distinct(value)

    @model_validator(mode="after")
    def _consistent(self):
        if self.nominal is not None and len(self.n_base) > 1:
            raise ValueError("nominal names one size; give the block one n_base")
        for name, amounts in (*self.syn.items(), ("copies", self.copies)):
            if any(amount.is_rest for amount in amounts):
                raise ValueError(
                    f"{name}: all means the real images that are left; write a multiple or '13000 images'"
                )
        if 0 in self.n_base:
            adds = [*self.real, *(amount for amounts in self.syn.values() for amount in amounts)]
            if self.copies or any(amount.multiple is not None for amount in adds):
                raise ValueError(
                    "n_base 0 has no multiples and no copies; write amounts as '13000 images'"
                )
        return self


class Workers(Frozen):
    """Devices for one training of each kind. More than one makes a worker group
    (DistributedDataParallel).
    """

    generator: Annotated[int, Field(ge=1)] = 1
    trial: Annotated[int, Field(ge=1)] = 1


class Execution(Frozen):
    """How a grid runs: never part of an id.

    A slot holds `gpus` (1, or a fraction) and `cpus` for its life; `threads` is PyTorch's number of
    threads in it. On CPU a result is bitwise the same only for equal `threads`. `slots` bounds
    their number.
    """

    cpus: Annotated[float, Field(gt=0)] = 1
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    threads: Annotated[int, Field(ge=1)] = 1
    slots: Annotated[int, Field(ge=1)] | None = None
    workers: Workers = Workers()
    retries: Annotated[int, Field(ge=0)] = 3
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 120

    @field_validator("gpus")
    @classmethod
    def _whole_or_fraction(cls, value):
        if value != "auto" and value > 1:
            raise ValueError(
                f"{value} GPUs for a slot: a slot is one device or a fraction; see workers for more"
            )
        return value


class Validation(Frozen):
    """Images that no training and no generator sees, to select by: `val_top1` in the results.

    images: so many of the training set, the same for every seed, or `own`: the split that the
    dataset brings.
    """

    original: ClassVar = ("images", "every_epochs")

    images: Annotated[int, Field(ge=1, strict=True)] | Literal["own"]
    every_epochs: Annotated[int, Field(ge=1, strict=True)] = 10


class DomainGap(Frozen):
    """A classifier of real against synthetic images for every pool, on whole images and on patches.

    images: on each side; none: as many as there are on both. patches: sides of squares, in pixels.
    classifier, recipe: the grid's first and the grid's own where none is named. held_out: the part
    of each side that is tested on. tsne: images of each side in the t-SNE figure, of those held
    out.
    """

    original: ClassVar = ("images", "patches", "classifier", "recipe", "held_out", "tsne")

    images: Annotated[int, Field(ge=10, strict=True)] | None = None
    patches: tuple[Annotated[int, Field(ge=1, strict=True)], ...] = ()
    classifier: str | None = None
    recipe: str | dict | None = None
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    tsne: Annotated[int, Field(ge=0, strict=True)] = 0


class Expected(Frozen):
    """Seconds of one job on the hardware the preset names, for `plan` until the store has seen some
    finish.
    """

    generator: float | None = None
    shard: float | None = None
    reference: float | None = None
    trial: float | None = None
    quality: float | None = None
    domain: float | None = None


def _off_is_none(value):
    return None if value == "off" else value


class GridSpec(Frozen):
    """A whole grid. `dataset` is a source's name, or a mapping of its kind to its place, with
    options after it.

    quality: what is measured of every pool; `off` for nothing. reference_images: of the training
    set, for the grid's own classifier, in whose features pools are measured and drawn; none: all.
    zero_shot: trials train on real images of the seen classes, and are tested on the unseen, of
    which they see synthetic images alone. prices: what a device-hour costs, by a part of the
    device's name (`H200: 3.5`); `default` for all others.
    """

    name: Name
    dataset: str | Annotated[dict[str, str | int | list[str] | None], Field(min_length=1)]
    recipe: str | dict
    classifiers: Names
    generators: dict[Name, dict] = {}
    subset_seeds: Seeds = (0,)
    seeds: Seeds = (0, 1, 2)
    validation: Validation | None = None
    quality: Annotated[QualityConfig | None, BeforeValidator(_off_is_none)] = QualityConfig()
    domain_gap: DomainGap | None = None
    reference_images: Annotated[int, Field(ge=1, strict=True)] | None = None
    zero_shot: ZeroShotConfig | None = None
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]
    execution: Execution = Execution()
    expected_seconds: Expected = Expected()
    trackers: dict[str, str] = {}
    prices: dict[str, Annotated[float, Field(ge=0)]] = {}
    currency: str = "USD"
    notes: str = ""

    @field_validator("trackers")
    @classmethod
    def _places(cls, places):
        validate_trackers(places)
        return places

    @field_validator("classifiers", "seeds", "subset_seeds")
    @classmethod
    def _each_once(cls, value):
        return _distinct(value)

    @model_validator(mode="after")
    def _generators_exist(self):
        for i, block in enumerate(self.blocks):
            for name in block.syn:
                if name not in self.generators:
                    known = f"{', '.join(self.generators) or 'none'}{near(name, self.generators)}"
                    raise ValueError(
                        f"blocks.{i}.syn.{name}: no such generator; generators has: {known}"
                    )
        return self

    @model_validator(mode="after")
    def _zero_shot_arms(self):
        for i, block in enumerate(self.blocks if self.zero_shot else ()):
            if block.real or block.copies or self.validation:
                what = "validation" if self.validation else f"blocks.{i}"
                raise ValueError(
                    f"{what}: zero_shot is of synthetic images alone; leave out real, copies, validation"
                )
        return self

    @model_validator(mode="after")
    def _domain_gap_within_classes(self):
        if self.zero_shot and self.domain_gap:
            why = "zero_shot's real images are of the seen classes, its pools of all: classes would tell sides apart"
            raise ValueError(
                f"domain_gap: {why}; leave it out, and measure the pools in a grid without zero_shot"
            )
        return self


def near(name: str, names) -> str:
    """`; did you mean 'x'?` for the nearest of `names`, or nothing."""
    found = difflib.get_close_matches(str(name), [str(n) for n in names], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def presets() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load(source: str | Path | dict) -> GridSpec:
    """The spec in a preset (by name), in a YAML file, or in a mapping. Raises UserError."""
    if isinstance(source, dict):
        return _validate(source, "spec", {})
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = PRESETS / f"{source}.yaml"
        if str(source) not in presets():
            known = ", ".join(presets())
            raise UserError(
                f"{source}: no such preset, and no .yaml file; presets: {known}{near(source, presets())}"
            )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    try:
        tree = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else str(source)
        raise UserError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(data, dict):
        raise UserError(
            f"{source}: a spec is a mapping with name, dataset, recipe, classifiers and blocks"
        )
    return _validate(data, str(source), _lines(tree))


class _Loader(yaml.SafeLoader):
    """Safe loading that refuses a key given twice, which YAML's readers otherwise let pass, and in
    which on, off, yes and no are words, as in YAML 1.2: `quality: off` and `compile: on` mean what
    they say.
    """

    yaml_implicit_resolvers = {
        first: [
            (tag, pattern) for tag, pattern in resolvers if tag != _YAML_BOOL or first in "tTfF"
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"the key {key.value!r} is there twice; name each once"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _lines(node, path: tuple = ()) -> dict[tuple, int]:
    """The line (from 1) of every key and list item, by its path of keys."""
    lines = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines.update(_lines(value, (*path, key.value)))
            lines[(*path, key.value)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines.update(_lines(item, (*path, str(i))))
    return lines


def _validate(data: dict, source: str, lines: dict[tuple, int]) -> GridSpec:
    try:
        return GridSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    path = tuple(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        message = f"unknown key; known: {', '.join(known)}{near(path[-1], known)}"
    elif first["type"] == "missing":
        message = "is missing; it is required"
    else:
        value = first.get("input")
        if not first["msg"].startswith("Value error") and isinstance(value, str | int | float):
            message = f"{value!r}: {message[0].lower()}{message[1:]}"
    where = path
    while where and where not in lines:  # the nearest thing that stands in the file
        where = where[:-1]
    line = f":{lines[where]}" if where in lines and where else ""
    key = ".".join(part for part in path if part not in ("int", "literal['all']"))
    raise UserError(f"{source}{line}: {key + ': ' if key else ''}{message}")


def _keys_at(path: tuple[str, ...]) -> list[str]:
    if path[:1] == ("blocks",):
        return list(Block.model_fields)
    parts = {
        "validation": Validation, "quality": QualityConfig, "domain_gap": DomainGap, "zero_shot": ZeroShotConfig,
    }  # fmt: skip
    if path and path[0] in parts:
        return list(parts[path[0]].model_fields)
    if path[:2] == ("execution", "workers"):
        return list(Workers.model_fields)
    if path[:1] == ("execution",):
        return list(Execution.model_fields)
    if path[:1] == ("expected_seconds",):
        return list(Expected.model_fields)
    return list(GridSpec.model_fields)
