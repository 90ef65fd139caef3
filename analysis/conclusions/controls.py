"""Gains: of synthetic over base, over copies (the control for the number of steps), of real, and
class by class.
"""

from dataclasses import dataclass

import numpy as np

from equigrid.analysis.data.cells import BaseData
from equigrid.analysis.data.estimates import Estimate, percentile_estimate


@dataclass(frozen=True)
class Gain:
    """Mean accuracy of one cell less that of a reference, in points, with its interval."""

    arm: str
    over: str  # "base" or "copies"
    n_base: float  # nominal
    scale: float  # added images / nominal base size
    gain: Estimate
    trials: int

    def to_json(self) -> dict:
        """Plain values."""
        return {**self.__dict__, "gain": self.gain.to_json()}


def cell_gains(bases: list[BaseData], draws: list[np.ndarray], level: float) -> list[Gain]:
    """Every cell over its base; and every synthetic cell over the copies cell of equal size, where
    there is one.
    """
    gains = []
    for base, drawn in zip(bases, draws):
        for k in range(len(base.mean)):
            if base.arm[k] == "base":
                continue
            references = [("base", np.nonzero(base.arm == "base")[0])]
            if base.arm[k] == "syn":
                same = (base.arm == "copies") & np.isclose(base.n_copies, base.n_syn[k])
                references.append(("copies", np.nonzero(same)[0]))
            for over, found in references:
                if len(found):
                    gain = percentile_estimate(
                        base.mean[k] - base.mean[found[0]], drawn[:, k] - drawn[:, found[0]], level
                    )
                    trials = int(base.trials[k])
                    gains.append(
                        Gain(
                            str(base.arm[k]),
                            over,
                            base.n_nominal,
                            float(base.scale[k]),
                            gain,
                            trials,
                        )
                    )
    return gains


def pooled_gain(
    bases: list[BaseData],
    draws: list[np.ndarray],
    level: float,
    *,
    arm: str = "syn",
    over: str = "base",
) -> Estimate | None:
    """Mean gain over all cells of an arm that have a reference: each base size first, then their
    mean.
    """
    values, drawn_values = [], []
    for base, drawn in zip(bases, draws):
        pairs = _pairs(base, arm, over)
        if pairs:
            cells, references = (np.array(side) for side in zip(*pairs))
            values.append((base.mean[cells] - base.mean[references]).mean())
            drawn_values.append((drawn[:, cells] - drawn[:, references]).mean(axis=1))
    if not values:
        return None
    return percentile_estimate(float(np.mean(values)), np.mean(drawn_values, axis=0), level)


def _pairs(base: BaseData, arm: str, over: str) -> list[tuple[int, int]]:
    pairs = []
    for k in np.nonzero(base.arm == arm)[0]:
        if over == "base":
            found = np.nonzero(base.arm == "base")[0]
        else:
            found = np.nonzero((base.arm == "copies") & np.isclose(base.n_copies, base.n_syn[k]))[0]
        pairs += [(int(k), int(f)) for f in found[:1]]
    return pairs


def harmful_steps(bases: list[BaseData], draws: list[np.ndarray], level: float) -> list[str]:
    """Sentences on steps from fewer to more synthetic images that lower the accuracy with an
    interval below zero, and one on the number of those within the noise. The level is corrected for
    the number of steps (Bonferroni).
    """
    steps = [step for base, drawn in zip(bases, draws) for step in _steps(base, drawn)]
    sentences, within = [], 0
    for base, before, after, change in steps:
        estimate = percentile_estimate(
            base.mean[after] - base.mean[before], change, 1 - (1 - level) / len(steps)
        )
        harm = estimate.value is not None and estimate.value < 0
        if harm and estimate.high is not None and estimate.bounded and estimate.high < 0:
            sentences.append(
                f"base {base.n_nominal:,.0f}: more synthetic images do harm from "
                f"{base.n_syn[before]:,.0f} to {base.n_syn[after]:,.0f}: "
                f"{estimate.text(2)} points (corrected for {len(steps)} steps)"
            )
        elif harm:
            within += 1
    if within:
        sentences.append(
            f"at {within} of {len(steps)} steps more synthetic images lower the mean, within the "
            "noise"
        )
    return sentences


def _steps(base: BaseData, drawn: np.ndarray) -> list[tuple[BaseData, int, int, np.ndarray]]:
    """(base, cell before, cell after, drawn change) from no synthetic image to the most."""
    order = [*np.nonzero(base.arm == "base")[0], *np.nonzero(base.arm == "syn")[0]]
    return [(base, k, m, drawn[:, m] - drawn[:, k]) for k, m in zip(order, order[1:])]
