"""What planning makes of a spec: jobs, the cells that they fill, and pools."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from equigrid.grid.jobs.job import Job
from equigrid.grid.jobs.pool import Pool
from equigrid.grid.planning.resolve import Resolved
from equigrid.grid.store import layout

__all__ = ["Cell", "Job", "Plan", "Pool"]


class Cell(NamedTuple):
    """A place in the grid; amounts in images. `trial_id` is the job that fills it. by_class: what
    was added of each class, where the spec says so by class.
    """

    trial_id: str
    arm: str
    n_base: int
    n_nominal: int
    n_real_added: int
    n_syn: int
    n_copies: int
    generator: str | None
    setting: str | None
    generator_seed: int | None
    classifier: str
    recipe: str
    subset_seed: int
    seed: int
    by_class: tuple[int, ...] | None = None
    augmentation: str | None = None
    pretrained: str | None = None

    @property
    def n_total(self) -> int:
        return self.n_base + self.n_real_added + self.n_syn + self.n_copies

    def __str__(self) -> str:
        added = ""
        for n, what in ((self.n_real_added, "real"), (self.n_copies, "copies")):
            added += f" + {n:,} {what}" if n else ""
        if self.n_syn:
            added += f" + {self.n_syn:,} {self.generator} (generator seed {self.generator_seed})"
        added += " by class" if self.by_class else ""
        if self.augmentation:
            added += f" with {self.augmentation}"
        seeds = f"subset {self.subset_seed}, seed {self.seed}"
        return f"{self.n_base:,} real{added}, {self.classifier}, {seeds}"


@dataclass(frozen=True)
class Plan:
    """Jobs in an order in which each comes after what it needs, and the cells they fill. wanted:
    ids of jobs that are run for themselves, beside those whose kind is.
    """

    resolved: Resolved
    jobs: dict[str, Job]
    cells: list[Cell]
    pools: dict[str, Pool]
    wanted: frozenset[str] = frozenset()

    def of_kind(self, kind: str) -> Iterator[Job]:
        return (job for job in self.jobs.values() if job.kind == kind)

    def cells_by_trial(self) -> dict[str, list[Cell]]:
        by_trial: dict[str, list[Cell]] = {}
        for cell in self.cells:
            by_trial.setdefault(cell.trial_id, []).append(cell)
        return by_trial

    def dataset_folders(self) -> set[str]:
        """The folders of a store in which its dataset lies."""
        source, dataset = self.resolved.source, self.resolved.dataset
        shards = (*dataset.train, *dataset.val, *dataset.test) if dataset else ()
        folders = {layout.dataset_folder(ref.manifest) for ref in shards}
        return {source.key, source.shards_key, *folders}
