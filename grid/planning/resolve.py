"""What the world decides about a spec: the dataset's fingerprint and shape, and every name looked
up.

`resolve` reads the store (never the dataset's images); `plan` then needs nothing but its result.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

from equigrid.classifiers import names, recipes
from equigrid.classifiers.recipes import Recipe
from equigrid.generators import registry
from equigrid.generators.base_config import GeneratorConfig
from equigrid.grid.datasets import catalogue
from equigrid.grid.errors import UserError, near
from equigrid.grid.jobs.kinds import on_slots
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class GeneratorChoice:
    """One entry of the spec's `generators`: a configuration and the seeds to train it with."""

    name: str
    config: GeneratorConfig
    seeds: tuple[int, ...]

    @cached_property
    def mapping(self) -> dict[str, Any]:
        """The whole configuration as JSON."""
        return self.config.model_dump(mode="json")

    @cached_property
    def training(self) -> dict[str, Any]:
        """What of the configuration determines the training. Once: a file of weights is hashed for
        it.
        """
        return self.config.trained_identity()

    @cached_property
    def sampling(self) -> dict[str, Any]:
        """What of the configuration determines the sampling."""
        return self.config.sampling_payload()


@dataclass(frozen=True)
class Resolved:
    """A spec with everything named in it looked up.

    `dataset` is None until the source was ingested with its present content ("fingerprint
    pending"); `shape` is then the source's own word, or None where only reading it will tell.
    """

    spec: GridSpec
    source: catalogue.Source
    dataset: catalogue.Dataset | None
    shape: catalogue.Shape | None
    recipes: dict[str, Recipe]
    domain_recipe: Recipe
    generators: dict[str, GeneratorChoice]

    @property
    def recipe_name(self) -> str:
        """The grid's own recipe, in `recipes`."""
        return recipe_name(self.spec.recipe)

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint if self.dataset else "pending"

    def with_dataset(self, dataset: catalogue.Dataset) -> "Resolved":
        return replace(self, dataset=dataset, shape=dataset.shape)


def resolve(spec: GridSpec, store: Store | None) -> Resolved:
    """Looks up everything `spec` names; `store` None plans without one. Raises UserError."""
    if zero_shot := spec.zero_shot:
        encoder = catalogue.expanded(zero_shot.text_encoder, "zero_shot.text_encoder")
        spec = spec.model_copy(
            update={"zero_shot": zero_shot.model_copy(update={"text_encoder": encoder})}
        )
    _check_kinds("expected_seconds", spec.expected_seconds, on_slots())
    grouped = [name for name, kind in on_slots().items() if kind.many_devices]
    _check_kinds("execution.workers", spec.execution.workers, grouped)
    source = catalogue.source(spec.dataset)
    dataset = catalogue.lookup(store, source.key) if store else None
    if dataset is None and source.check:
        source.check()
    shape = dataset.shape if dataset else source.shape
    choices = {name: _generator(name, entry) for name, entry in spec.generators.items()}
    recipe = _named("recipe", lambda: recipes.recipe(spec.recipe))
    by_name = {recipe_name(spec.recipe): recipe}
    for i, block in enumerate(spec.blocks):
        if block.recipe is not None:
            own = _named(f"blocks.{i}.recipe", partial(recipes.recipe, block.recipe))
            by_name[recipe_name(block.recipe, f"custom {i}")] = own
    gap = spec.domain_gap
    domain_recipe = recipe
    if gap and gap.recipe:
        domain_recipe = _named("domain_gap.recipe", partial(recipes.recipe, gap.recipe))
    if shape:
        size = (shape.height, shape.width, shape.channels, len(shape.classes))
        for each in reversed(by_name.values()):
            # What a classifier sees, after the crop.
            seen = (*each.input_size(shape.height, shape.width), *size[2:])
            for i, classifier in enumerate(spec.classifiers):
                _named(f"classifiers.{i}", partial(names.check, classifier, *seen))
        if gap and gap.classifier:
            smallest = min([*gap.patches, min(seen[:2])])
            check = partial(names.check, gap.classifier, smallest, smallest, *seen[2:])
            _named("domain_gap.classifier", check)
        if spec.zero_shot:
            check_split = partial(spec.zero_shot.check, shape.classes, len(shape.classes))
            _named("zero_shot", check_split)
            if closed := [
                name for name, choice in choices.items() if choice.config.setting == "closed"
            ]:
                why = "a closed-set generator has not seen the unseen classes"
                raise UserError(f"zero_shot: generators.{closed[0]}: {why}; use open-set ones")
        for name, choice in choices.items():
            suits = partial(choice.config.check, *size, shape.n_train, shape.classes)
            _named(f"generators.{name}", suits)
    return Resolved(spec, source, dataset, shape, by_name, domain_recipe, choices)


def recipe_name(recipe: str | dict, custom: str = "custom") -> str:
    """What rows call a recipe: its name, or `custom` for a mapping."""
    return recipe if isinstance(recipe, str) else custom


def _generator(name: str, entry: dict) -> GeneratorChoice:
    entry = {
        key: catalogue.expanded(value, f"generators.{name}.{key}") for key, value in entry.items()
    }
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
    return GeneratorChoice(
        name, _named(f"generators.{name}", lambda: registry.config(entry)), tuple(seeds)
    )


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
