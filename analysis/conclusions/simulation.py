"""Results tables with a known answer, to check that the analysis finds it: planted surfaces,
planted noise.

For tests and for the coverage study of `benchmarks/fits.py`; nothing of it enters a result.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.schema import to_frame
from equigrid.analysis.settings import Settings

_EPSILON = 1e-6


@dataclass(frozen=True)
class Planted:
    """Eq. 11 at each base size, and how seeds scatter about it. Standard deviations in points.

    `surfaces`: n_base -> (b1, b2, b3, b4). `real`, `syn`, `copies`: amounts as multiples of n_base.
    A subset seed shifts all cells of a base size (`subset_sd`) and brings a generator that shifts
    the synthetic cells (`generator_sd`) and tilts them along log(n_syn / n_base)
    (`generator_tilt_sd`); trials scatter by `trial_sd`. `noise_scale`: factors per base size for
    all of these.
    """

    surfaces: dict[int, tuple[float, float, float, float]]
    real: tuple[float, ...] = (1.0, 2.0, 3.0)
    syn: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0)
    copies: tuple[float, ...] = ()
    subset_seeds: int = 3
    seeds: int = 3
    subset_sd: float = 0.3
    generator_sd: float = 0.3
    generator_tilt_sd: float = 0.1
    trial_sd: float = 0.3
    noise_scale: dict[int, float] = field(default_factory=dict)
    dataset: str = "planted"
    n_total: int = 50_000

    def settings(self, **changes: Any) -> Settings:
        """Settings under which the truth is defined."""
        fixed = {
            "dataset_sizes": {self.dataset: self.n_total},
            "real_ratios": {self.dataset: self.real},
            "epsilon": _EPSILON,
        }
        return Settings(**{**fixed, **changes})

    def without_noise(self) -> "Planted":
        """The same surfaces, measured exactly once."""
        return Planted(
            self.surfaces, self.real, self.syn, self.copies, subset_seeds=1, seeds=1, subset_sd=0.0,
            generator_sd=0.0, generator_tilt_sd=0.0, trial_sd=0.0, dataset=self.dataset,
            n_total=self.n_total,
        )  # fmt: skip

    def truth(self, **changes: Any) -> tuple[float, float]:
        """(c1, c2) that the procedure gives without noise."""
        curve = analyse(
            self.without_noise().table(0), settings=self.settings(replicates=0, **changes)
        ).curves[0]
        if curve.c1.value is None or curve.c2.value is None:
            raise ValueError(
                f"the planted surfaces have no equivalence: {'; '.join(curve.reasons)}"
            )
        return curve.c1.value, curve.c2.value

    def table(self, seed: int) -> pd.DataFrame:
        """One simulated results table in the columns of the schema."""
        rng = np.random.default_rng([seed, 20_260_101])
        rows = []
        for n_base in self.surfaces:
            scale = self.noise_scale.get(n_base, 1.0)
            for subset_seed in range(self.subset_seeds):
                effects = (
                    rng.normal(size=3)
                    * scale
                    * (self.subset_sd, self.generator_sd, self.generator_tilt_sd)
                )
                for arm, real, syn, copies in self._cells(n_base):
                    mean = self._accuracy(n_base, real, syn) + effects[0]
                    if arm == "syn":
                        mean += effects[1] + effects[2] * np.log(syn / n_base)
                    for s in range(self.seeds):
                        top1 = mean + rng.normal() * self.trial_sd * scale
                        rows.append(self._row(n_base, arm, real, syn, copies, subset_seed, s, top1))
        return to_frame(rows)

    def _accuracy(self, n_base: int, real: int, syn: int) -> float:
        b1, b2, b3, b4 = self.surfaces[n_base]
        n_real = n_base + real
        return (
            b1 * np.log(n_real + _EPSILON)
            + b2 * np.log(syn + _EPSILON)
            + b3 * np.log(n_real + syn + _EPSILON)
            + b4
        )

    def _cells(self, n_base: int) -> list[tuple[str, int, int, int]]:
        return [
            ("base", 0, 0, 0),
            *(("real", round(x * n_base), 0, 0) for x in self.real),
            *(("syn", 0, round(x * n_base), 0) for x in self.syn),
            *(("copies", 0, 0, round(x * n_base)) for x in self.copies),
        ]

    def _row(
        self,
        n_base: int,
        arm: str,
        real: int,
        syn: int,
        copies: int,
        subset_seed: int,
        seed: int,
        top1: float,
    ) -> dict:
        has_generator = arm == "syn"
        return {
            "trial_id": f"{n_base}-{arm}-{real}-{syn}-{copies}-{subset_seed}-{seed}",
            "attempt": "1", "status": "ok", "grid": "planted", "dataset": self.dataset,
            "fingerprint": "planted", "arm": arm, "setting": "closed" if has_generator else None,
            "generator": "planted" if has_generator else None, "classifier": "planted",
            "recipe": "planted", "n_total": n_base + real + syn + copies, "n_base": n_base,
            "n_nominal": n_base, "n_real_added": real, "n_syn": syn, "n_copies": copies,
            "subset_seed": subset_seed, "generator_seed": 0 if has_generator else None,
            "seed": seed, "rev": 1, "top1": top1,
        }  # fmt: skip


# Surfaces of the shape and size that the paper's CIFAR-10 tables have (Tables 9 and 10, Eq. 11),
# rounded: planted numbers, not results.
LIKE_CIFAR10 = {
    500: (8.8, 0.03, 6.4, -61.8),
    5_000: (7.1, 0.18, 3.9, -16.3),
    25_000: (3.1, 0.04, 2.1, 38.2),
}
