"""The table of all kinds of job, in the order in which they run. To add one: CONTRIBUTING.md."""

from typing import Any

from equigrid.grid.jobs import (
    domain_gap,
    generator,
    ingest,
    quality,
    reference_classifier,
    shard,
    trial,
)
from equigrid.grid.jobs.kind import JobKind

KINDS: dict[str, JobKind[Any]] = {
    kind.name: kind
    for kind in (
        ingest.KIND,
        generator.KIND,
        shard.KIND,
        reference_classifier.KIND,
        trial.KIND,
        quality.KIND,
        domain_gap.KIND,
    )
}


def on_slots() -> dict[str, JobKind[Any]]:
    """The kinds that slots and worker groups run: all but the reading of the dataset."""
    return {name: kind for name, kind in KINDS.items() if kind.body is not None}


def rank(name: str) -> int:
    """The place of a kind in the order in which they run."""
    return [*KINDS].index(name)
