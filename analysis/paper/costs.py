"""The paper's Table 8: what making an image took. Without pandas, since planning asks for it."""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).parent / "tables" / "costs.csv"


class PublishedCost(NamedTuple):
    """A row: `machine` is a card, `generator` one of edm, sd2, sd3, dit."""

    machine: str
    generator: str
    sampling_steps: int
    batch_size: int
    memory_mb: int
    seconds_per_image: float


@cache
def costs() -> tuple[PublishedCost, ...]:
    """All rows of Table 8."""
    with TABLE.open(encoding="utf-8") as lines:
        return tuple(
            PublishedCost(
                machine=row["machine"],
                generator=row["generator"],
                sampling_steps=int(row["sampling_steps"]),
                batch_size=int(row["batch_size"]),
                memory_mb=int(row["memory_mb"]),
                seconds_per_image=float(row["seconds_per_image"]),
            )
            for row in csv.DictReader(lines)
        )
