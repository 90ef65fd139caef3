"""GPU-hours of CIFAR-10's grid (the paper's Tables 9 to 11), computed from what benchmarks/gpu.py
measured on a device.

    python benchmarks/hours.py gpu-figures      # the folder of its figures

What is to be done is counted in the plan of the preset `cifar10`: images that its EDMs see, images
that they make, images that its trials see. How fast is measured: EDM's training and sampling of the
published network, and ResNet-110's best way to train the three seeds of a cell. A figure that is
not there leaves its part empty, and with it the sum. Not counted: measures of pools, and images
that they alone need; t-SNE, reading the set, what a run waits for.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu import is_figure, lines

GRID = "cifar10"
EVALUATION = 1 / 3  # of a training step's cost, an image: its forward pass
SEEDS = 3  # of a cell, which train together
TARGET_H = 6.0
PARTS = ("EDM training", "EDM sampling", "trials")


@dataclass(frozen=True)
class Work:
    """Of a grid. trained, made: images that EDMs see in training, and make. seen: images that
    trials see in training, with those of their test by what these cost. evaluations: of the
    network, for an image that is made.
    """

    trained: float
    made: float
    seen: float
    evaluations: int


def work(name: str = GRID) -> Work:
    """Counted in the plan of a preset. The images of imported sets need not be at hand: trials with
    as many others cost the same.
    """
    from safetensors.torch import save_file

    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve
    from equigrid.grid.spec import GridSpec, load

    mapping = load(name).model_dump(mode="json")
    trained = [one for one, entry in mapping["generators"].items() if entry["kind"] == "edm"]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        save_file({}, weights)  # of what is never sampled here
        stand_in = {"kind": "edm", "setting": "open", "weights": str(weights)}
        for one in mapping["generators"].keys() - set(trained):
            mapping["generators"][one] = stand_in
        mapping |= {"quality": None, "domain_gap": None}
        the_plan = plan(resolve(GridSpec.model_validate(mapping), None))
    shape = the_plan.resolved.shape
    assert shape is not None, "the set is known"
    own = {pool.id for pool in the_plan.pools.values() if pool.generator in trained}
    facts = [
        the_plan.resolved.generators[one].config.cost_facts(
            *shape.image, len(shape.classes), job.payload.subset.n
        )
        for one in trained
        for job in the_plan.of_kind("generator")
        if job.payload.name == one and job.payload.subset
    ]
    (evaluations,) = {fact["evaluations_per_image"] for fact in facts}
    seen = 0.0
    for job in the_plan.of_kind("trial"):
        n, recipe = job.payload.n_total, job.payload.recipe
        seen += n * recipe.total_steps(n) / recipe.steps_per_epoch(n) + shape.n_test * EVALUATION
    return Work(
        trained=sum(fact["training_nimg"] for fact in facts),
        made=sum(job.payload.size for job in the_plan.of_kind("shard") if job.payload.pool in own),
        seen=seen,
        evaluations=evaluations,
    )


def hours(wanted: Work, found: Iterable[dict[str, Any]]) -> dict[str, float | None]:
    """Of each of PARTS, and `all`; None where a figure is not there. found: lines of
    benchmarks/gpu.py, of one device; the newest of each figure counts, those of `--tiny` do not.
    Raises ValueError for figures of several devices.
    """
    newest = {
        (line["phase"], line["what"]): line
        for line in found
        if is_figure(line) and not line.get("tiny")
    }
    if len(devices := {line["device"] for line in newest.values()}) > 1:
        raise ValueError(f"figures of several devices: {', '.join(sorted(devices))}")
    rates = {
        "EDM training": newest.get(("edm", "EDM training, equigrid"), {}).get("training"),
        "EDM sampling": newest.get(("edm", "EDM sampling, equigrid"), {}).get("images_per_s"),
        "trials": max(map(_rate_of_trials, newest.values()), default=0.0) or None,
    }
    amounts = dict(zip(PARTS, (wanted.trained, wanted.made, wanted.seen)))
    parts = {part: rate and amounts[part] / rate / 3600 for part, rate in rates.items()}
    every = [part for part in parts.values() if part is not None]
    return {**parts, "all": sum(every) if len(every) == len(PARTS) else None}


def _rate_of_trials(line: dict[str, Any]) -> float:
    """Images/s of a way in which the trials of a cell can train; 0 of anything else."""
    what = line["what"]
    if line["phase"] == "classifiers":
        branches = re.fullmatch(r"graph of (\d+) branches", what)
        if what in ("eager", "graph") or (branches and int(branches[1]) <= SEEDS):
            return line["images_per_s"]
    packed = re.fullmatch(r"\d+ processes of (\d+) branches", what)
    if line["phase"] == "packed" and packed and int(packed[1]) <= SEEDS:
        return line["images_per_s"]
    return 0.0


def told(wanted: Work, found: dict[str, float | None], device: str) -> str:
    """A table for benchmarks/README.md."""
    amounts = dict(zip(PARTS, (wanted.trained, wanted.made, wanted.seen)))
    rows = ["| part | images | GPU-hours | device |", "|---|---|---|---|"]
    for part, value in found.items():
        images = f"{amounts[part] / 1e6:,.1f} million" if part in amounts else ""
        rows.append(f"| {part} | {images} | {'' if value is None else f'{value:.1f}'} | {device} |")
    if (total := found["all"]) is not None:
        verdict = "within" if total <= TARGET_H else "beyond"
        rows += ["", f"{verdict} the {TARGET_H:g} GPU-hours that were aimed at"]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of benchmarks/gpu.py's figures")
    found = lines(parser.parse_args().folder)
    wanted = work()
    devices = sorted({line["device"] for line in found if is_figure(line)})
    print(told(wanted, hours(wanted, found), ", ".join(devices) or "not measured"))


if __name__ == "__main__":
    main()
