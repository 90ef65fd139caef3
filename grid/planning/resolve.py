"""What the world decides about a spec: the dataset's fingerprint and shape, and every name looked
up.

`resolve` reads the store (never the dataset's images); `plan` then needs nothing but its result.
What it found is recorded with a run; `resolve` from a record looks at nothing but the store.
"""

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

from equigrid.classifiers import names, recipes
from equigrid.classifiers.recipes import Augmentation, Recipe
from equigrid.generators import registry
from equigrid.generators.base_config import GeneratorConfig
from equigrid.grid.datasets import catalogue
from equigrid.grid.errors import UserError, near
from equigrid.grid.ids import content_id
from equigrid.grid.jobs import generator
from equigrid.grid.jobs.classifier import Classifier
from equigrid.grid.jobs.kinds import on_slots
from equigrid.grid.planning import pretrained, recording
from equigrid.grid.planning.recording import Recorded
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store, layout
from equigrid.payloads import Frozen

T = TypeVar("T")
RECIPE_CHANGES = 4  # that a name lists


@dataclass(frozen=True)
class GeneratorChoice:
    """One entry of the spec's `generators`: a configuration and the seeds to train it with."""

    name: str
    config: GeneratorConfig
    seeds: tuple[int, ...]
    recorded: dict[str, Any] | None = None  # what its files said when the grid ran

    @cached_property
    def mapping(self) -> dict[str, Any]:
        """The whole configuration as JSON."""
        return self.config.model_dump(mode="json")

    @cached_property
    def training(self) -> dict[str, Any]:
        """What of the configuration determines the training. Once: a file of weights is hashed for
        it.
        """
        return self.recorded["training"] if self.recorded else self.config.trained_identity()

    @cached_property
    def sampling(self) -> dict[str, Any]:
        """What of the configuration determines the sampling."""
        return self.recorded["sampling"] if self.recorded else self.config.sampling_payload()

    def shares(
        self, shape: catalogue.Shape, repeated: tuple[int, ...] = ()
    ) -> tuple[int, ...] | None:
        """The classes' shares of its pools; None for equal ones. repeated: training images of each
        class that are copies of others. Raises UserError.
        """
        copies = repeated or (0,) * len(shape.classes)
        counts = [n - again for n, again in zip(shape.train_counts, copies, strict=True)]
        try:
            return self.config.shares(shape.classes, counts)
        except ValueError as error:
            raise UserError(f"generators.{self.name}: {error}") from error

    def capacity(
        self, class_names: tuple[str, ...], shares: tuple[int, ...] | None = None
    ) -> int | None:
        """How many images a pool of these shares can have; None: as many as are asked for."""
        if self.recorded:
            return self.recorded["capacity"]
        return self.config.capacity(class_names, shares)

    def capacity_of(self, label: int, class_names: tuple[str, ...]) -> int | None:
        """How many images a pool of one class alone can have; None: as many as are asked for. (A
        grid that is recorded was planned once: its amounts are not asked about again.)
        """
        if self.recorded:
            return None
        return self.config.capacity(class_names, one_class(label, len(class_names)))


def shares_of(
    choice: GeneratorChoice, spec: GridSpec, shape: catalogue.Shape, repeated: tuple[int, ...] = ()
) -> tuple[int, ...] | None:
    """The classes' shares of a generator's pools in a grid, which zero-shot has a say in; None for
    equal ones. repeated: as in `GeneratorChoice.shares`. Raises UserError.
    """
    unseen = spec.zero_shot and spec.zero_shot.shares(shape.classes, len(shape.classes))
    return unseen or choice.shares(shape, repeated)


def one_class(label: int, classes: int) -> tuple[int, ...] | None:
    """The shares of a pool of one class alone; None in a set that has no other."""
    return None if classes == 1 else tuple(int(label == one) for one in range(classes))


@dataclass(frozen=True)
class Resolved:
    """A spec with everything named in it looked up.

    `dataset` is None until the source was ingested with its present content ("fingerprint
    pending"); `shape` is then the source's own word, or None where only reading it will tell.
    zero_shot, quality: what determines a zero-shot trial and the measuring of a pool, where that
    was recorded; None asks the files that the spec names. classifiers: by their names in rows.
    pretrained: what was found of those with weights, as it is recorded. recorded: whether this is
    of a grid that was planned once, as its record says.
    """

    spec: GridSpec
    source: catalogue.Source
    dataset: catalogue.Dataset | None
    shape: catalogue.Shape | None
    recipes: dict[str, Recipe]
    domain_recipe: Recipe
    generators: dict[str, GeneratorChoice]
    zero_shot: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None
    classifiers: dict[str, Classifier] = field(default_factory=dict)
    pretrained: tuple[dict[str, Any], ...] = ()
    recorded: bool = False

    @property
    def recipe_name(self) -> str:
        """The grid's own recipe, in `recipes`."""
        return recipe_name(self.spec.recipe)

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint if self.dataset else "pending"

    def augmentations(self, number: int) -> dict[str, Augmentation]:
        """Those of a block, by name: the recipe's own with what they change. Raises UserError."""
        block = self.spec.blocks[number]
        own = self.recipes[recipe_name(block.recipe or self.spec.recipe)].augmentation
        where = f"blocks.{number}.augmentations"
        return {
            name: _named(f"{where}.{name}", partial(recipes.augmented, own, changes))
            for name, changes in block.augmentations.items()
        }

    def with_dataset(self, dataset: catalogue.Dataset) -> "Resolved":
        """With what reading the source has told. Raises UserError as `resolve` does."""
        by_name, domain_recipe = _recipes(self.spec, dataset.shape)
        found = replace(
            self, dataset=dataset, shape=dataset.shape, recipes=by_name, domain_recipe=domain_recipe
        )
        if self.shape is None:  # what only its images could tell
            _check(found, dataset.shape)
        return found


def resolve(spec: GridSpec, store: Store | None, record: Recorded | None = None) -> Resolved:
    """Looks up everything `spec` names; `store` None plans without one. Raises UserError.

    record: what a run of the grid found. Parts of the spec that it knows are taken from there, and
    nothing outside the store is looked at for them.
    """
    _check_kinds("expected_seconds", spec.expected_seconds, on_slots())
    grouped = [name for name, kind in on_slots().items() if kind.many_devices]
    _check_kinds("execution.workers", spec.execution.workers, grouped)
    split = quality = None
    if record and spec.zero_shot:
        split = record.of_zero_shot(spec.zero_shot.identity())
    if record and spec.quality:
        quality = record.of_quality(spec.quality.identity())
    if split is None and (zero_shot := spec.zero_shot):
        encoder = catalogue.expanded(zero_shot.text_encoder, "zero_shot.text_encoder")
        spec = spec.model_copy(
            update={"zero_shot": zero_shot.model_copy(update={"text_encoder": encoder})}
        )
    source, dataset = _dataset(spec, store, record)
    shape = dataset.shape if dataset else source.shape
    choices = {name: _generator(name, entry, record) for name, entry in spec.generators.items()}
    by_name, domain_recipe = _recipes(spec, shape)
    found = Resolved(
        spec, source, dataset, shape, by_name, domain_recipe, choices,
        split and split["payload"], quality, *_classifiers(spec, record), record is not None,
    )  # fmt: skip
    for i in range(len(spec.blocks)):
        found.augmentations(i)
    _check_closed_set(found)
    if not found.recorded:
        _check_devices(found)
    if spec.quality and found.quality is None:
        _named("quality", spec.quality.check_files)
    if shape:
        _check(found, shape)
    return found


def _recipes(spec: GridSpec, shape: catalogue.Shape | None) -> tuple[dict[str, Recipe], Recipe]:
    """The recipes of a spec by name, and that of its domain gap. Raises UserError."""
    side = max(shape.height, shape.width) if shape else None  # `default` depends on it

    def looked_up(where: str, named: str | dict) -> Recipe:
        return _named(where, lambda: recipes.recipe(named, side))

    recipe = looked_up("recipe", spec.recipe)
    by_name = {recipe_name(spec.recipe): recipe}
    for i, block in enumerate(spec.blocks):
        if block.recipe is not None:
            by_name[recipe_name(block.recipe)] = looked_up(f"blocks.{i}.recipe", block.recipe)
    gap = spec.domain_gap
    if gap and gap.recipe:
        return by_name, looked_up("domain_gap.recipe", gap.recipe)
    return by_name, recipe


def record_of(spec: GridSpec, resolved: Resolved) -> Recorded:
    """What was found for `spec`, whose dataset is in the store, as plain values.

    spec: as it is recorded, with its $VARIABLES.
    """
    dataset, shape, zero_shot = resolved.dataset, resolved.shape, resolved.spec.zero_shot
    assert dataset is not None, "what is pending is not recorded"
    assert shape is not None, "a dataset has one"
    quality, split = resolved.spec.quality, resolved.zero_shot
    if split is None and zero_shot is not None:
        split = zero_shot.payload(shape.classes, len(shape.classes))
    measured = None
    if quality is not None:
        measured = resolved.quality or {
            "payload": quality.payload(*shape.image),
            "networks": quality.networks(*shape.image),
        }
    facts = Recorded(
        dataset={
            "entry": spec.dataset,
            "key": layout.dataset_folder(dataset.manifest),
            "source": recording.facts_of(resolved.source),
        },
        generators={
            name: {
                "entry": spec.generators[name],
                "mapping": choice.mapping,
                "training": choice.training,
                "sampling": choice.sampling,
                "capacity": choice.capacity(
                    shape.classes,
                    shares_of(
                        choice, spec, shape, dataset.repeated_counts if dataset.repeated else ()
                    ),
                ),
            }
            for name, choice in resolved.generators.items()
        },
        zero_shot=_part(spec.zero_shot, {"payload": split}),
        quality=_part(spec.quality, measured),
        classifiers=list(resolved.pretrained),
    )
    return Recorded(**json.loads(json.dumps(asdict(facts))))  # lists for tuples, as it is stored


def _part(wanted: Frozen | None, facts: dict | None) -> dict | None:
    """Without later keys that are as before: what older releases recorded is still known."""
    return None if wanted is None else {"entry": wanted.identity(), **(facts or {})}


def _dataset(
    spec: GridSpec, store: Store | None, record: Recorded | None
) -> tuple[catalogue.Source, catalogue.Dataset | None]:
    """The source, and the ingested set where there is one."""
    if store and record and (facts := record.of_dataset(spec.dataset)):
        dataset = catalogue.lookup(store, facts["key"])
        if dataset is not None:
            return recording.source_of(facts["source"]), dataset
    source = catalogue.source(spec.dataset)
    dataset = catalogue.lookup(store, source.key) if store else None
    if dataset is None and source.check:
        source.check()
    return source, dataset


def _check(found: Resolved, shape: catalogue.Shape) -> None:
    """Raises UserError where a part of the spec cannot be made for images of that shape."""
    spec, choices = found.spec, found.generators
    size = (shape.height, shape.width, shape.channels, len(shape.classes))
    for each in reversed(found.recipes.values()):
        # What a classifier sees, after the crop.
        seen = (*each.input_size(shape.height, shape.width), *size[2:])
        for i, classifier in enumerate(found.classifiers.values()):
            _named(f"classifiers.{i}", partial(classifier.check, *seen))
    if spec.zero_shot:
        for i, classifier in enumerate(found.classifiers.values()):
            if classifier.weights:
                why = "pre-trained weights may have seen the unseen classes"
                raise UserError(f"classifiers.{i}: {why}; zero_shot trains from scratch")
        if found.zero_shot is None:
            check_split = partial(spec.zero_shot.check, shape.classes, len(shape.classes))
            _named("zero_shot", check_split)
        for name, choice in choices.items():
            if choice.config.learns_from_base:
                which = "an adapted" if choice.config.setting == "adapted" else "a closed-set"
                why = f"{which} generator has not seen the unseen classes"
                raise UserError(f"zero_shot: generators.{name}: {why}; use open-set ones")
        for name, choice in choices.items():
            if choice.config.balance != "equal":
                why = "zero-shot trials take images of the unseen classes alone, in equal parts"
                raise UserError(f"generators.{name}.balance: {why}; leave balance out")
    for name, choice in choices.items():
        if choice.recorded is None:
            suits = partial(choice.config.check, *size, shape.n_train, shape.classes)
            _named(f"generators.{name}", suits)
    if spec.quality and found.quality is None:
        _named("quality", partial(spec.quality.check_extractor, *shape.image))
    _check_augmentations(found, shape)
    if spec.zero_shot and not found.recorded:
        _check_zero_shot(found)


def _check_zero_shot(found: Resolved) -> None:
    """Raises UserError for recipes and classifiers by which no zero-shot trial can be made."""
    spec = found.spec
    assert spec.zero_shot, "asked for"
    for name, recipe in found.recipes.items():
        if recipe.label_smoothing and any(block.base for block in spec.blocks):
            what = f"{recipe.label_smoothing:g} would teach the base classes without images"
            raise UserError(f"recipe {name}: label_smoothing: {what}; write 0, or base: false")
    for i, classifier in enumerate(found.classifiers.values()):
        _named(f"classifiers.{i}", partial(names.check_head, classifier.model, linear=True))


def _check_devices(found: Resolved) -> None:
    """Raises UserError for generators that cannot be computed on the devices that `execution`
    says.
    """
    execution = found.spec.execution
    workers = execution.workers_of(generator.KIND.name)
    if execution.gpus == 0:
        check_without_gpus(found, "execution.gpus is 0")
    for name, choice in found.generators.items():
        for key, batch in choice.config.batches().items():
            if batch % workers:
                what = f"{batch} cannot be divided by the {workers} workers of a generator"
                raise UserError(f"generators.{name}.{key}: {what} (execution.workers)")


def check_without_gpus(found: Resolved, why: str) -> None:
    """Raises UserError for a generator that needs a GPU. why: there is none."""
    for name, choice in found.generators.items():
        if key := choice.config.fp16():
            what = f"fp16 needs a CUDA device, and {why}; write fp32, bf16 or auto"
            raise UserError(f"generators.{name}.{key}: {what}")


def _check_augmentations(found: Resolved, shape: catalogue.Shape) -> None:
    """Raises UserError for augmentations that images of that shape, or their classifiers, or a
    zero-shot grid cannot have.
    """
    for name, recipe in found.recipes.items():
        _named(f"recipe {name}: augmentation", partial(recipe.augmentation.check, *shape.image))
        if found.spec.zero_shot and recipe.augmentation.mixes:
            why = "zero_shot compares images with texts, and a mixed image has none"
            raise UserError(f"recipe {name}: augmentation: {why}; leave out mixup and cutmix")
    for i in range(len(found.spec.blocks)):
        for name, augmentation in found.augmentations(i).items():
            where = f"blocks.{i}.augmentations.{name}"
            _named(where, partial(augmentation.check, *shape.image))
            if (padding := augmentation.crop_padding_px) > min(shape.image[:2]):
                what = f"crop_padding_px {padding} is more than a side of the images"
                raise UserError(f"{where}: {what}, {shape.height}×{shape.width}")
            size = (*augmentation.seen(shape.height, shape.width), shape.channels)
            for classifier in found.classifiers.values():
                _named(where, partial(classifier.check, *size, len(shape.classes)))


def _classifiers(
    spec: GridSpec, record: Recorded | None
) -> tuple[dict[str, Classifier], tuple[dict[str, Any], ...]]:
    """The spec's classifiers by their names in rows, and what was found of those with weights."""
    chosen, facts = {}, []
    for i, entry in enumerate(spec.classifiers):
        if isinstance(entry, str):
            chosen[entry] = Classifier.named(entry)
            continue
        words = entry.model_dump(mode="json")
        found = record.of_classifier(words) if record else None
        if found is None:
            where = f"classifiers.{i}"
            place = catalogue.expanded(entry.pretrained, f"{where}.pretrained")
            filled = entry.model_copy(update={"pretrained": place})
            found = {"entry": words, **_named(where, partial(pretrained.facts, filled))}
        facts.append(found)
        classifier = pretrained.classifier(entry, found)
        chosen[classifier.name] = classifier
    return chosen, tuple(facts)


def _check_closed_set(found: Resolved) -> None:
    """Raises UserError for what brings other people's data into a grid that is to have none."""
    if not found.spec.closed_set:
        return
    refused = [
        f"generators.{name} is open-set"
        for name, choice in found.generators.items()
        if choice.config.setting != "closed"
    ]
    refused += [
        f"classifiers.{i} ({classifier.name}) starts from pre-trained weights"
        for i, classifier in enumerate(found.classifiers.values())
        if classifier.weights
    ]
    refused += ["zero_shot has a pre-trained text encoder"] if found.spec.zero_shot else []
    if refused:
        right = "leave them out, or leave closed_set out"
        raise UserError(f"closed_set: {'; '.join(refused)}; {right}")


def recipe_name(recipe: str | dict) -> str:
    """What rows call a recipe: its name, or for a mapping its `name`, or what it changes: `digits
    with steps 15`.

    Mappings that differ have different names: of what a name leaves out, a hash stands in it.
    """
    if isinstance(recipe, str):
        return recipe
    if recipe.get("name"):  # several of one name are told apart
        return f"{recipe['name']} ({content_id('recipe', recipe)[-6:]})"
    told = [
        f"{key} {value}"
        for key, value in recipe.items()
        if key != "extends" and isinstance(value, str | int | float)
    ]
    changes = sum(key != "extends" for key in recipe)
    if len(told) < changes or len(told) > RECIPE_CHANGES:
        told = [*told[:RECIPE_CHANGES], f"and more ({content_id('recipe', recipe)[-6:]})"]
    own = f"{recipe['extends']} with" if "extends" in recipe else "own:"
    return f"{own} {', '.join(told)}" if told else str(recipe.get("extends", "own"))


def _generator(name: str, entry: dict, record: Recorded | None) -> GeneratorChoice:
    facts = record.of_generator(name, entry) if record else None
    if facts is None:
        entry = {
            key: catalogue.expanded(value, f"generators.{name}.{key}")
            for key, value in entry.items()
        }
    else:
        entry = dict(entry)
    seeds = entry.pop("seeds", [0])
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(type(s) is int and s >= 0 for s in seeds)
    ):
        raise UserError(
            f"generators.{name}.seeds: {seeds!r}; write a list of whole numbers from 0 up"
        )
    if len(set(seeds)) < len(seeds):
        raise UserError(f"generators.{name}.seeds: {seeds} has a seed twice; name each once")
    config = _named(f"generators.{name}", lambda: _config(entry, facts))
    return GeneratorChoice(name, config, tuple(seeds), facts)


def _config(entry: dict, facts: dict[str, Any] | None) -> GeneratorConfig:
    if facts is None:
        return registry.config(entry)
    mapping = facts["mapping"]
    try:
        return registry.config(mapping)
    except ValueError:  # a kind that looks at files: as it was valid when it ran, so it stays
        config = registry.KINDS[mapping["kind"]][0].model_construct(**mapping)
    try:
        config.model_dump(warnings="error")
    except ValueError as error:  # no file's fault: a value is not of its type
        raise TypeError(f"generators: {error}") from error
    return config


def _check_kinds(where: str, given: Iterable[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            what = f"{name!r} is no such kind of job; known: {', '.join(known)}{near(name, known)}"
            raise UserError(f"{where}: {what}")


def _named(where: str, action: Callable[[], T]) -> T:
    """`action()`; a ValueError of it becomes a UserError that says where."""
    try:
        return action()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
