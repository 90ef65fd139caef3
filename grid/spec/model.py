"""What a user asks for: a grid of blocks over one dataset, validated where it is made."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from equigrid.classifiers.zero_shot.config import ZeroShotConfig
from equigrid.generators.quality.config import QualityConfig
from equigrid.grid.errors import near
from equigrid.grid.spec.amounts import Amounts, OneAmount, as_tuple, distinct
from equigrid.grid.spec.trackers import validate_trackers
from equigrid.payloads import Frozen


def _seeds(value):
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        several = f"{list(range(value))} for {value} seeds, or " if 1 < value <= 10 else ""
        raise ValueError(
            f"{value}: how many, or which? Write {several}[{value}] for the seed {value}"
        )
    return as_tuple(value)


Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, strict=True)], ...],
    BeforeValidator(_seeds),
    Field(min_length=1),
]
# Of a source.
DatasetOption = str | int | float | list[str | int | float] | dict[str | int, str] | None
Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _base_size(value: object) -> int | Literal["all"]:
    if value == "all":
        return "all"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"{value!r} is no base size; write a number of images from 0 up, or all")


BaseSize = Annotated[int | Literal["all"], BeforeValidator(_base_size)]


class Mixed(Frozen):
    """Real and synthetic images added together: `{real: 1, syn: {edm: 2}}`, one generator each."""

    real: OneAmount
    syn: dict[str, OneAmount]

    @model_validator(mode="after")
    def _one_generator(self) -> "Mixed":
        if len(self.syn) != 1:
            named = ", ".join(self.syn) or "none"
            raise ValueError(f"syn: a mix has images of one generator, got {named}")
        if any(amount.is_rest for amount in self.syn.values()):
            raise ValueError("syn: all means the real images that are left; write a multiple")
        return self

    @property
    def generator(self) -> str:
        return next(iter(self.syn))


class Block(Frozen):
    """A product: each base size with each of the amounts to add, for all classifiers and seeds.

    nominal: the base's size in ratios and fits, where a publication rounds it. base: whether the
    base alone is run too, which every comparison with it needs. recipe: in place of the grid's.
    mixes: pairs of amounts that are added together, the inside of the accuracy surface.
    """

    n_base: Annotated[tuple[BaseSize, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    nominal: Annotated[int, Field(ge=1, strict=True)] | None = None
    base: bool = True
    recipe: str | dict | None = None
    real: Amounts = ()
    syn: dict[str, Amounts] = {}
    copies: Amounts = ()
    mixes: Annotated[tuple[Mixed, ...], BeforeValidator(as_tuple)] = ()

    @field_validator("n_base")
    @classmethod
    def _each_once(cls, value: tuple) -> tuple:
        return distinct(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nominal is not None and len(self.n_base) > 1:
            raise ValueError("nominal names one size; give the block one n_base")
        for name, amounts in (*self.syn.items(), ("copies", self.copies)):
            if any(amount.is_rest for amount in amounts):
                raise ValueError(
                    f"{name}: all means the real images that are left; "
                    "write a multiple or '13000 images'"
                )
        if 0 in self.n_base:
            adds = [*self.real, *(amount for amounts in self.syn.values() for amount in amounts)]
            adds += [amount for mix in self.mixes for amount in (mix.real, *mix.syn.values())]
            if self.copies or any(amount.multiple is not None for amount in adds):
                raise ValueError(
                    "n_base 0 has no multiples and no copies; write amounts as '13000 images'"
                )
        return self


class Workers(Frozen):
    """Devices for one training of each kind."""

    generator: Annotated[int, Field(ge=1)] = 1
    trial: Annotated[int, Field(ge=1)] = 1


class Execution(Frozen):
    """How a grid runs: never part of an id.

    A slot holds `gpus` (1, or a fraction) and `cpus` for its life; `threads` is PyTorch's number of
    threads in it. On CPU a result is bitwise the same only for equal `threads`. `slots` bounds
    their number. workers: devices for one training, by kind of job; more than one make a worker
    group (DistributedDataParallel).
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
    def _whole_or_fraction(cls, value: float | Literal["auto"]) -> float | Literal["auto"]:
        if value != "auto" and value > 1:
            raise ValueError(
                f"{value} GPUs for a slot: a slot is one device or a fraction; see workers for more"
            )
        return value

    def workers_of(self, kind: str) -> int:
        """Devices that a job of a kind runs on at once; more than one are a worker group."""
        return getattr(self.workers, kind, 1)

    @property
    def most_workers(self) -> int:
        """Devices that the largest job of the grid needs at once."""
        return max(self.workers.model_dump().values())


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


def _off_is_none(value):
    return None if value == "off" else value


class GridSpec(Frozen):
    """A whole grid. `dataset` is a source's name, or a mapping of its kind to its place, with
    options after it.

    quality: what is measured of every pool; `off` for nothing. reference_images: of the training
    set, for the grid's own classifier, in whose features pools are measured and drawn; none: all.
    zero_shot: trials train on real images of the seen classes, and are tested on the unseen, of
    which they see synthetic images alone. expected_seconds: of one job of a kind, on the hardware
    that the preset names, for `plan` until the store has seen some finish. prices: what a
    device-hour costs, by a part of the device's name (`H200: 3.5`); `default` for all others.
    """

    name: Name
    dataset: str | Annotated[dict[str, DatasetOption], Field(min_length=1)]
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
    expected_seconds: dict[str, Annotated[float, Field(ge=0)] | None] = {}
    trackers: dict[str, str] = {}
    prices: dict[str, Annotated[float, Field(ge=0)]] = {}
    currency: str = "USD"
    notes: str = ""

    @field_validator("trackers")
    @classmethod
    def _places(cls, places: dict[str, str]) -> dict[str, str]:
        validate_trackers(places)
        return places

    @field_validator("classifiers", "seeds", "subset_seeds")
    @classmethod
    def _each_once(cls, value: tuple) -> tuple:
        return distinct(value)

    @model_validator(mode="after")
    def _generators_exist(self) -> Self:
        for i, block in enumerate(self.blocks):
            named = [("syn", name) for name in block.syn]
            named += [(f"mixes.{k}.syn", mix.generator) for k, mix in enumerate(block.mixes)]
            for place, name in named:
                if name not in self.generators:
                    known = f"{', '.join(self.generators) or 'none'}{near(name, self.generators)}"
                    raise ValueError(
                        f"blocks.{i}.{place}.{name}: no such generator; generators has: {known}"
                    )
        return self

    @model_validator(mode="after")
    def _zero_shot_arms(self) -> Self:
        for i, block in enumerate(self.blocks if self.zero_shot else ()):
            if block.real or block.copies or block.mixes or self.validation:
                what = "validation" if self.validation else f"blocks.{i}"
                raise ValueError(
                    f"{what}: zero_shot is of synthetic images alone; leave out real, copies, mixes, validation"
                )
        return self

    @model_validator(mode="after")
    def _domain_gap_within_classes(self) -> Self:
        if self.zero_shot and self.domain_gap:
            why = (
                "zero_shot's real images are of the seen classes, its pools of all: "
                "classes would tell sides apart"
            )
            raise ValueError(
                f"domain_gap: {why}; leave it out, "
                "and measure the pools in a grid without zero_shot"
            )
        return self
