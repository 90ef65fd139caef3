"""What planning learned of the world for a grid, kept in the store beside its spec.

A dataset's fingerprint and a generator's identity follow from files that lie elsewhere: they may be
touched, moved or gone once a grid has run. Whoever only reads results plans with these facts, so
that what a store says does not depend on such a place.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from equigrid.grid.datasets.sources.base import Contents, Source
from equigrid.grid.errors import UserError
from equigrid.grid.store import Store, documents, layout

KEPT = ("name", "state", "classes", "allow_broken", "local", "class_ids", "told", "duplicates",
        "split_here", "grouped")  # fmt: skip


@dataclass(frozen=True)
class Recorded:
    """The facts of one grid, as JSON, each part with its `entry`: the spec's words that it is of.

    dataset: `key` and `source`. generators, by name: `mapping`, `training`, `sampling`, `capacity`.
    zero_shot: `payload`. quality: `payload` and `networks`. These two are None where the spec has
    none. classifiers, of those that are pre-trained: what `equigrid.grid.planning.pretrained.facts`
    finds.
    """

    dataset: dict[str, Any]
    generators: dict[str, dict[str, Any]]
    zero_shot: dict[str, Any] | None
    quality: dict[str, Any] | None
    classifiers: list[dict[str, Any]] = field(default_factory=list)

    def of_dataset(self, entry: str | dict) -> dict[str, Any] | None:
        """The facts of the dataset, if they are of these words."""
        return _of(self.dataset, entry)

    def of_generator(self, name: str, entry: dict) -> dict[str, Any] | None:
        """The facts of a generator, if they are of these words."""
        return _of(self.generators.get(name), entry)

    def of_classifier(self, entry: dict) -> dict[str, Any] | None:
        """The facts of a pre-trained classifier, if there are any of these words."""
        return next((one for one in self.classifiers if one["entry"] == entry), None)

    def of_zero_shot(self, entry: dict) -> dict[str, Any] | None:
        """What determines a zero-shot trial, if it is of these words."""
        return _of(self.zero_shot, entry)

    def of_quality(self, entry: dict) -> dict[str, Any] | None:
        """What determines the measuring of a pool, if it is of these words."""
        return _of(self.quality, entry)


def _of(found: dict[str, Any] | None, entry: str | dict) -> dict[str, Any] | None:
    return found if found and found["entry"] == entry else None


def read(store: Store, grid: str) -> Recorded | None:
    """The facts that the last run of a grid recorded; None if there are none, or (which is told) if
    they are damaged. Raises StoreError.
    """
    content = documents.readable(store, layout.planned(grid), documents.PlannedRecord)
    if content is None:
        return None
    facts = content.model_dump()
    return Recorded(**{one.name: facts[one.name] for one in fields(Recorded)})


def write(store: Store, grid: str, facts: Recorded) -> None:
    """Records them, unless they are there already. Raises StoreError."""
    if read(store, grid) != facts:
        store.put_json(layout.planned(grid), asdict(facts))


def facts_of(source: Source) -> dict[str, Any]:
    """What a source says of itself, as JSON."""
    return {name: getattr(source, name) for name in KEPT}


def source_of(facts: dict[str, Any]) -> Source:
    """The source that said so. Its images cannot be read: look it up in the spec for that."""

    def contents() -> Contents:
        raise UserError(f"dataset {facts['name']}: this plan is a record; run the grid to read it")

    known = {name: facts[name] for name in KEPT}
    plain: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in known.items()
    }
    return Source(contents=contents, **plain)
