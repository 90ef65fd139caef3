"""What a user asks for: a grid of blocks over one dataset, validated where it is made."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from equigrid.classifiers.models.pretraining import PretrainedClassifier
from equigrid.classifiers.zero_shot.config import ZeroShotConfig
from equigrid.generators.quality.config import QualityConfig
from equigrid.grid.errors import near
from equigrid.grid.spec.amounts import (
    MOST,
    Added,
    Amount,
    Amounts,
    ByClass,
    OneAdded,
    OneAmount,
    as_tuple,
    distinct,
)
from equigrid.grid.spec.trackers import validate_trackers
from equigrid.grid.spec.tuning import Tune
from equigrid.grid.text import holds_credentials, redacted, unwritable
from equigrid.payloads import Frozen


def _seeds(value: object) -> tuple:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        several = f"{list(range(value))} for {value} seeds, or " if 1 < value <= 10 else ""
        raise ValueError(
            f"{value}: how many, or which? Write {several}[{value}] for the seed {value}"
        )
    return as_tuple(value)


MOST_SEED = 2**63 - 1  # of a column of results
MOST_OF_A_MACHINE = 10_000  # cores, threads, devices: beyond, it is a slip

Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, le=MOST_SEED, strict=True)], ...],
    BeforeValidator(_seeds),
    Field(min_length=1),
]
# Of a source.
DatasetOption = str | int | float | list[str | int | float] | dict[str | int, str | int] | None
# The tags are forms of a value, which messages leave out.
Classifier = Annotated[
    Annotated[str, Tag("str")] | Annotated[PretrainedClassifier, Tag("dict[pretrained]")],
    Discriminator(lambda value: "str" if isinstance(value, str) else "dict[pretrained]"),
]
Classifiers = Annotated[tuple[Classifier, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _base_size(value: object) -> int | Literal["all"]:
    if value == "all":
        return "all"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return value
    raise ValueError(f"{value!r} is no base size; write a number of images from 0 up, or all")


BaseSize = Annotated[int | Literal["all"], BeforeValidator(_base_size)]


def _is_rest(amount: Amount | ByClass) -> bool:
    return isinstance(amount, Amount) and amount.is_rest


def _is_relative(amount: Amount | ByClass) -> bool:
    """Whether it takes a base to say how many images these are."""
    return amount.relative if isinstance(amount, ByClass) else amount.multiple is not None


class Mixed(Frozen):
    """Real and synthetic images added together: `{real: 1, syn: {edm: 2}}`, one generator each."""

    real: OneAmount
    """Real images to add."""
    syn: dict[str, OneAdded]
    """Synthetic images to add to them, of one generator: an amount, or amounts by class."""

    @model_validator(mode="after")
    def _one_generator(self) -> "Mixed":
        if len(self.syn) != 1:
            named = ", ".join(self.syn) or "none"
            raise ValueError(f"syn: a mix has images of one generator, got {named}")
        if any(_is_rest(amount) for amount in self.syn.values()):
            raise ValueError("syn: all means the real images that are left; write a multiple")
        return self

    @property
    def generator(self) -> str:
        return next(iter(self.syn))


def _by_own_names(value: object) -> object:
    """A list of presets, each under its own name."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return {name: name for name in distinct(tuple(value))}
    return value


class Block(Frozen):
    """A product: each base size with each of the amounts to add, for all classifiers and seeds."""

    n_base: Annotated[tuple[BaseSize, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """Real images that a base holds; `all` is the whole training set. 0: synthetic images alone."""
    nominal: Annotated[int, Field(ge=1, le=MOST, strict=True)] | None = None
    """The base's size in ratios and fits, where a publication rounds it."""
    base: bool = True
    """Whether the base alone is run too, which every comparison with it needs."""
    recipe: str | dict | None = None
    """In place of the grid's."""
    real: Amounts = ()
    """Real images to add."""
    syn: dict[str, Added] = {}
    """Synthetic images to add, of each generator: amounts, or by class `{rare: 5, others: 0}` or
    `to_balance`.
    """
    copies: Added = ()
    """Images of the base to repeat: the control, class-balanced as synthetic images are, or by
    class as they are.
    """
    mixes: Annotated[tuple[Mixed, ...], BeforeValidator(as_tuple)] = ()
    """Pairs of amounts that are added together: the inside of the accuracy surface."""
    augmentations: Annotated[dict[Name, str | dict], BeforeValidator(_by_own_names)] = {}
    """Augmentations of the base alone, as rivals of what is added to it: by names of your own, each
    a preset's name, or settings that are put over those of the recipe. A list names presets.
    """
    augmentation_steps_of: OneAmount = Amount(multiple=1.0)
    """The amount of added images whose number of optimizer steps a training with one of
    `augmentations` makes: as long as with so many synthetic images or copies.
    """
    subset_seeds: Seeds | None = None
    """In place of the grid's: one place of a grid can be repeated more often than others."""
    seeds: Seeds | None = None
    """In place of the grid's."""
    generator_seeds: Seeds | None = None
    """In place of each generator's own `seeds`."""

    @field_validator("n_base", "subset_seeds", "seeds", "generator_seeds")
    @classmethod
    def _each_once(cls, value: tuple | None) -> tuple | None:
        return value if value is None else distinct(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nominal is not None and len(self.n_base) > 1:
            raise ValueError("nominal names one size; give the block one n_base")
        like = ("augmentation_steps_of", (self.augmentation_steps_of,))
        for name, amounts in (*self.syn.items(), ("copies", self.copies), like):
            if any(_is_rest(amount) for amount in amounts):
                raise ValueError(
                    f"{name}: all means the real images that are left; "
                    "write a multiple or '13000 images'"
                )
        if 0 in self.n_base:
            adds: list[Amount | ByClass] = [*self.real, *self.copies]
            adds += [amount for amounts in self.syn.values() for amount in amounts]
            adds += [amount for mix in self.mixes for amount in (mix.real, *mix.syn.values())]
            if self.augmentations:
                raise ValueError(
                    "augmentations: n_base 0 has no images to augment; leave them out there"
                )
            if self.copies or any(_is_relative(amount) for amount in adds):
                raise ValueError(
                    "n_base 0 has no multiples and no copies; write amounts as '13000 images'"
                )
        return self


class Execution(Frozen):
    """How a grid runs, in slots that each hold a device: never part of an id."""

    cpus: Annotated[float, Field(gt=0, le=MOST_OF_A_MACHINE)] = 1
    """That a slot holds for its life."""
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """That a slot holds: 1, a fraction, or 0; auto: one, shared by trials where memory and
    speed allow.
    """
    together: Annotated[int, Field(ge=1, le=MOST_OF_A_MACHINE)] | Literal["auto"] = "auto"
    """Trials of one mix, other seeds, that a slot trains step by step beside each other; auto: on a
    GPU as many as memory and speed allow, on a CPU one.
    """
    threads: Annotated[int, Field(ge=1, le=MOST_OF_A_MACHINE)] = 1
    """PyTorch's in a slot. On CPU a result is bitwise the same only for equal threads."""
    slots: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Most at once; null: as many as the machines hold, or those that an autoscaler may bring."""
    workers: dict[str, Annotated[int, Field(ge=1, le=MOST_OF_A_MACHINE)]] = {}
    """Devices for one training, by kind of job: generator, trial; more than one make a worker group
    (DistributedDataParallel).
    """
    retries: Annotated[int, Field(ge=0, le=MOST_OF_A_MACHINE)] = 3
    """Of a job that a lost machine or process took with it."""
    checkpoint_every_s: Annotated[float, Field(ge=0, le=1e9)] = 120
    """Seconds between a training's checkpoints; more where they would hold it up by 2% of its time.
    0: after every step.
    """
    hung_after_s: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Seconds without a sign of progress after which a job counts as hung: its process is ended,
    and it is tried again, `retries` times. Null: it is told of after half an hour, and goes on.
    """
    energy: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None
    """The country whose electricity is used, as ISO 3166 writes it in three letters (`DEU`): then
    codecarbon counts each job's energy and CO2. Null: nothing is counted.
    """

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
        return self.workers.get(kind, 1)

    @property
    def most_workers(self) -> int:
        """Devices that the largest job of the grid needs at once."""
        return max(self.workers.values(), default=1)


class Validation(Frozen):
    """Images that no training and no generator sees, to select by: `val_top1` in the results."""

    original: ClassVar = ("images", "every_epochs")

    images: Annotated[int, Field(ge=1, le=MOST, strict=True)] | Literal["own"]
    """So many of the training set, the same for every seed, or `own`: the split that the
    dataset brings.
    """
    every_epochs: Annotated[int, Field(ge=1, le=MOST, strict=True)] = 10
    """How often a training is measured on them."""


class Outside(Frozen):
    """Real images that are kept apart from every base, addition, validation and
    test, as a stand-in for other people's data: the open set in small.
    """

    images: Annotated[int, Field(ge=1, strict=True)] | Literal["own"]
    """So many of the training set, in proportion to the classes, the same for every seed; or `own`:
    the validation split that the dataset brings, such as one made by `val` and `group`, which keeps
    groups whole. A generator with `trained_on: outside` learns from them, and from them alone.
    """


class DomainGap(Frozen):
    """A classifier that tells real images from synthetic ones, for every pool."""

    original: ClassVar = ("images", "patches", "classifier", "recipe", "held_out", "tsne")

    images: Annotated[int, Field(ge=10, le=MOST, strict=True)] | None = None
    """On each side; null: as many as there are on both."""
    patches: tuple[Annotated[int, Field(ge=1, strict=True)], ...] = ()
    """Sides of squares, in pixels, that are told apart too."""
    classifier: str | None = None
    """Null: the grid's first."""
    recipe: str | dict | None = None
    """Null: the grid's own."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The part of each side that is tested on."""
    tsne: Annotated[int, Field(ge=0, le=MOST, strict=True)] = 0
    """Images of each side in the t-SNE figure, of those held out."""


def _off_is_none(value: object) -> object:
    return None if value == "off" else value


def _texts(value: object) -> Iterator[str]:
    """All texts in a mapping or list, also in one that holds itself."""
    left, seen = [value], set()
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            left.extend(chain.from_iterable(one.items()) if isinstance(one, Mapping) else one)


class GridSpec(Frozen):
    """A whole grid."""

    name: Name
    """The grid's name: in the store, in tables and for commands. Letters, digits, `.`, `_`, `-`."""
    dataset: str | Annotated[dict[str, DatasetOption], Field(min_length=1)]
    """A source's name, or a mapping of its kind to its place, with options after it."""
    recipe: str | dict = "default"
    """How classifiers train: a name, a mapping, or a file of either (`tuned.yaml`)."""
    classifiers: Classifiers
    """What is trained on every mix: names, which start from scratch, or mappings with pre-trained
    weights.
    """
    closed_set: bool = False
    """Whether no trial may know other people's data: true refuses open-set generators, pre-trained
    classifiers and zero_shot.
    """
    generators: dict[Name, dict] = {}
    """Sources of synthetic images, by names of your own."""
    subset_seeds: Seeds = (0,)
    """Which images are the base: one generator is trained for each."""
    seeds: Seeds = (0, 1, 2)
    """What a trial draws: initial weights, order, augmentation."""
    validation: Validation | None = None
    """Images to select by, which no training sees."""
    outside: Outside | None = None
    """Images that no training but that of `trained_on: outside` generators sees."""
    quality: Annotated[QualityConfig | None, BeforeValidator(_off_is_none)] = QualityConfig()
    """What is measured of every pool; `off` for nothing."""
    domain_gap: DomainGap | None = None
    """A classifier of real against synthetic images for every pool."""
    reference_images: Annotated[int, Field(ge=1, le=MOST, strict=True)] | None = None
    """Of the training set, for the grid's own classifier, in whose features pools are measured
    and drawn; null: all.
    """
    zero_shot: ZeroShotConfig | None = None
    """Trials train on real images of the seen classes, and are tested on the unseen, of which
    they see synthetic images alone.
    """
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]
    """What is run: base sizes, and the amounts to add to them."""
    tune: Tune | None = None
    """How `equigrid tune` searches a recipe; never part of an id, and a run does not look at it."""
    execution: Execution = Execution()
    """How it runs; never part of an id."""
    expected_seconds: dict[str, Annotated[float, Field(ge=0, le=1e12)] | None] = {}
    """Of one job of a kind, on the hardware that the preset names, for `plan` until the store has
    seen some finish.
    """
    trackers: dict[str, str] = {}
    """Where runs are followed: tensorboard, trackio, mlflow or wandb, each with its place."""
    prices: dict[str, Annotated[float, Field(ge=0, le=1e12)]] = {}
    """What a device-hour costs, by a part of the device's name (`H200: 3.5`); `default` for all
    others.
    """
    currency: str = "USD"
    """Of the prices, as tables name it."""
    notes: str = ""
    """Yours."""

    @model_validator(mode="before")
    @classmethod
    def _without_credentials(cls, data: Any) -> Any:
        """A spec is kept in stores and shown in reports."""
        for text in _texts(data):
            if found := unwritable(text):
                raise ValueError(f"{redacted(text)[:100]!r} holds {found}, which no name can")
            if holds_credentials(text):
                right = "which do not belong in a spec; use the environment"
                raise ValueError(f"{redacted(text)[:500]} holds credentials, {right}")
        return data

    @field_validator("trackers")
    @classmethod
    def _places(cls, places: dict[str, str]) -> dict[str, str]:
        validate_trackers(places)
        return places

    @field_validator("seeds", "subset_seeds")
    @classmethod
    def _each_once(cls, value: tuple) -> tuple:
        return distinct(value)

    @field_validator("classifiers")
    @classmethod
    def _each_classifier_once(cls, value: tuple) -> tuple:
        distinct(tuple(one if isinstance(one, str) else one.model_dump_json() for one in value))
        return value

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
            apart = "validation" if self.validation else "outside" if self.outside else None
            if any(isinstance(one, ByClass) for amounts in block.syn.values() for one in amounts):
                why = "zero_shot takes images of the unseen classes alone, in equal parts"
                raise ValueError(f"blocks.{i}.syn: amounts by class: {why}; write one amount")
            if block.real or block.copies or block.mixes or block.augmentations or apart:
                raise ValueError(
                    f"{apart or f'blocks.{i}'}: zero_shot is of synthetic images alone; leave out "
                    "real, copies, mixes, augmentations, validation, outside"
                )
        return self

    @model_validator(mode="after")
    def _domain_gap_within_classes(self) -> Self:
        if self.zero_shot and self.domain_gap:
            why = (
                "zero_shot's real images are of the seen classes, its pools of others too: "
                "classes would tell sides apart"
            )
            raise ValueError(
                f"domain_gap: {why}; leave it out, "
                "and measure the pools in a grid without zero_shot"
            )
        return self
