"""A job, and what it is told: a typed payload, of which a part makes its id.

The id of a job is a hash of its payload's `identity()`: of the fields that determine the output. A
field that says how or where alone is marked HOW and stays out. A field that a payload gains later
has a default that means "as before", and stays out of the identity while it holds that: so a new
field gives no finished job another id. The fields without a default are those from the start.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache, lru_cache
from typing import Any

from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.payloads import Frozen

HOW: Mapping[str, Any] = {"how": True}  # dataclasses.field(metadata=HOW): never part of an identity
FLAT: Mapping[str, Any] = {"flat": True}  # a mapping whose items stand in the identity themselves


class Identified:
    """A frozen dataclass, by keywords alone, of which an id is made."""

    def identity(self) -> dict[str, Any]:
        """What determines the output, as JSON."""
        found: dict[str, Any] = {}
        kind: type = type(self)
        for name, before, flat in _determining(kind):
            value = getattr(self, name)
            if value != before:
                found.update(value if flat else {name: _json(value)})
        return found


class Payload(Identified):
    """What the body of a job is told of it."""


@dataclass(frozen=True, slots=True)
class Job:
    """Work with one output. kind: a name in `equigrid.grid.jobs.kinds`. stage: what Ray's dashboard
    calls it.
    """

    id: str
    kind: str
    needs: tuple[str, ...]
    payload: Any
    stage: str


# What several payloads have in them ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Subset(Identified):
    """Real images: the first n in the order that `subset_seed` gives (None: of all or no images,
    where there is but one order). held_out: images that validation keeps. classes: the labels that
    it is of, where not of all. kept_apart: images that are `Outside`.
    """

    n: int
    subset_seed: int | None
    held_out: int = 0
    classes: tuple[int, ...] | None = None
    kept_apart: int = 0


@dataclass(frozen=True, kw_only=True)
class Outside(Identified):
    """Real images that stand in for other people's data: no base, addition, validation or test has
    one. The first n training images in an order of their own, of those that validation does not
    keep (`held_out`); own: the dataset's own validation split, which then is all of them.
    """

    n: int
    held_out: int = 0
    own: bool = False


@dataclass(frozen=True, kw_only=True)
class Synthetic(Identified):
    """The first n images of a pool, or in a zero-shot trial the first n of unseen classes."""

    pool: str
    n: int


@dataclass(frozen=True, kw_only=True)
class Stream(Identified):
    """Images that do not fit a device: `window` shards of them are at hand at a time."""

    window: int


# From fields to JSON ------------------------------------------------------------------------------


@cache
def _determining(kind: type) -> list[tuple[str, Any, bool]]:
    """Of the fields that determine the output: name, the value that means "as before", and whether
    it is FLAT.
    """
    found = []
    for field in fields(kind):
        if not field.metadata.get("how"):
            factory = field.default_factory
            before = field.default if factory is MISSING else factory()
            found.append((field.name, before, bool(field.metadata.get("flat"))))
    return found


def _json(value: Any) -> Any:
    if isinstance(value, Identified):
        return value.identity()
    if isinstance(value, ResolvedRecipe):
        return _recipe(value)
    if isinstance(value, Frozen):
        return value.identity()
    return [_json(item) for item in value] if isinstance(value, tuple) else value


@lru_cache(maxsize=4096)
def _recipe(recipe: ResolvedRecipe) -> dict[str, Any]:
    """Once for all trials of one recipe."""
    return recipe.payload()
