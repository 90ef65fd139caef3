"""What a plan says beside its table: how the dataset was understood, what defaults cost, and what
is made and never trained on.
"""

from collections import defaultdict
from dataclasses import dataclass

from equigrid.generators import registry
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.resolve import Resolved

_WORTH_SAYING = (1_000, 0.2)  # images, and their part of all: shards are made whole


def remarks(plan: Plan) -> list[str]:
    """A line each."""
    resolved = plan.resolved
    dataset = resolved.dataset
    told = dataset.told if dataset else resolved.source.told
    lines = [f"{resolved.source.name}: {line}" for line in told]
    lines += [f"warning: {line}" for line in (dataset.warnings if dataset else ())]
    lines += _unused_outside(resolved)
    lines += _without_equal_steps(resolved)
    lines += [
        f"{one.name} starts from {one.weights.told}: other people's data, an open set in every arm"
        for one in resolved.classifiers.values()
        if one.weights
    ]
    for name, choice in resolved.generators.items():
        if choice.recorded is None:  # else its files may be gone
            lines += [f"warning: generators.{name}: {line}" for line in choice.config.remarks()]
        if cost := _cost_of_defaults(resolved, name):
            lines.append(cost)
    lines += _by_class(plan)
    lines += _not_measured(resolved)
    return lines + [line for name, amounts in _made(plan).items() if (line := amounts.text(name))]


_SHOWN = 8  # classes in a line


def _by_class(plan: Plan) -> list[str]:
    """Of each arm with amounts by class, how many images these are."""
    names = plan.resolved.shape.classes if plan.resolved.shape else ()
    lines: dict[str, None] = {}
    for cell in plan.cells:
        if not cell.by_class:
            continue
        added = [(n, name) for n, name in zip(cell.by_class, names, strict=True) if n]
        some = ", ".join(f"{n:,} of {name}" for n, name in added[:_SHOWN])
        more = f" and {len(added) - _SHOWN} more classes" if len(added) > _SHOWN else ""
        what = f"{cell.n_base + cell.n_real_added:,} real + {cell.generator or 'copies'} by class"
        lines[f"{what}: {some}{more}, {sum(cell.by_class):,} together"] = None
    return [*lines]


def _unused_outside(resolved: Resolved) -> list[str]:
    """A line where images are kept apart that no generator is trained on."""
    choices = resolved.generators.values()
    if resolved.spec.outside is None or any(one.config.learns_from_outside for one in choices):
        return []
    return [
        "warning: outside: images are kept apart, and no generator is trained on them; write "
        "trained_on: outside in one of generators"
    ]


def _not_measured(resolved: Resolved) -> list[str]:
    """A line where `quality` is on, and pools lack classes that it compares with."""
    zero_shot = resolved.spec.zero_shot
    if resolved.spec.quality is None or zero_shot is None or zero_shot.pools == "all":
        return []
    why = "it compares with real images of every class; write quality: off"
    return [f"quality: pools of the unseen classes alone are not measured: {why}"]


def _without_equal_steps(resolved: Resolved) -> list[str]:
    """A line for each block whose augmentations have nothing at as many steps beside them."""
    found = []
    for i, block in enumerate(resolved.spec.blocks):
        like = block.augmentation_steps_of
        amounts = [amount for of_one in (*block.syn.values(), block.copies) for amount in of_one]
        if block.augmentations and like not in amounts:
            what = f"nothing is added whose steps they make (augmentation_steps_of {like})"
            right = f"add {like} to copies or to one of syn"
            found.append(f"warning: blocks.{i}.augmentations: {what}; {right}")
    return found


@dataclass
class _Amounts:
    """Images of a generator's pools, all together: made, trained on, drawn for training (in a
    zero-shot grid whose pools have all classes with those of the seen ones), measured.
    """

    made: int = 0
    trained: int = 0
    drawn: int = 0
    measured: int = 0

    def text(self, name: str) -> str | None:
        """What of the images is never trained on, and why; None where that is little."""
        unused = self.made - self.trained
        if unused < _WORTH_SAYING[0] or unused < _WORTH_SAYING[1] * self.made:
            return None
        said = f"generators.{name}: {self.made:,} images are made and {self.trained:,} trained on"
        why = []
        if self.drawn > self.trained:
            of_seen = self.drawn - self.trained
            why.append(
                f"{of_seen:,} are of classes whose real images are seen (zero_shot: "
                "{pools: unseen} makes the others alone)"
            )
        if (beyond := self.made - self.drawn) >= _WORTH_SAYING[0] and self.measured > self.drawn:
            why.append(
                f"{beyond:,}, {beyond / self.made:.0%} of the sampling, are only measured"
                " (quality.images, domain_gap.images)"
            )
        return f"{said}: {'; '.join(why)}" if why else said


def _made(plan: Plan) -> dict[str, _Amounts]:
    """By the generator's name."""
    trials = plan.cells_by_trial()
    most: dict[tuple[str, bool], int] = defaultdict(int)  # by pool, and whether it is trained on
    made: dict[str, int] = defaultdict(int)
    for job in plan.jobs.values():
        parts = getattr(job.payload, "syn_by_class", ()) or (getattr(job.payload, "syn", None),)
        for part in filter(None, parts):
            most[part.pool, job.id in trials] = max(most[part.pool, job.id in trials], part.n)
        if hasattr(job.payload, "pool"):  # a shard
            made[job.payload.pool] += job.payload.size
    found: dict[str, _Amounts] = defaultdict(_Amounts)
    for pool in plan.pools.values():
        amounts = found[pool.generator]
        amounts.made += made[pool.id]
        amounts.trained += most[pool.id, True]
        amounts.drawn += _drawn(plan.resolved, most[pool.id, True])
        amounts.measured += most[pool.id, False]
    return dict(found)


def _drawn(resolved: Resolved, n: int) -> int:
    """Images from a pool's start that hold n to train on."""
    zero_shot, shape = resolved.spec.zero_shot, resolved.shape
    if zero_shot is None or zero_shot.pools == "unseen" or shape is None:
        return n
    classes = len(shape.classes)
    return -(-n // len(zero_shot.unseen_labels(shape.classes, classes))) * classes


def _cost_of_defaults(resolved: Resolved, name: str) -> str | None:
    """What a generator that is trained without a preset takes: the defaults are a paper's, not a
    laptop's.
    """
    entry, shape = resolved.spec.generators[name], resolved.shape
    presets = registry.KINDS[entry["kind"]][1]
    if not shape or not presets or "preset" in entry:
        return None
    config = resolved.generators[name].config
    facts = config.cost_facts(*shape.image, len(shape.classes), shape.n_train)
    if not facts.get("training_nimg") or "parameters" not in facts:  # a pipeline states no size
        return None
    size = f"{facts['parameters'] / 1e6:,.1f} million parameters"
    images = f"{facts['training_nimg'] / 1e6:,.1f} million images"
    return (
        f"generators.{name}: no preset: by its defaults {size} are trained on {images}, "
        f"for each base size and seed; presets: {', '.join(presets)}"
    )
