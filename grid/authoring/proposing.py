"""A first spec for a set of images on one machine: size, generator, recipe, bases and seeds."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equigrid.classifiers.recipes import DEFAULT
from equigrid.generators.quality.config import LEAST_IMAGES
from equigrid.grid.authoring import looking
from equigrid.grid.authoring.machine import Machine
from equigrid.grid.datasets import subsets
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.errors import UserError
from equigrid.grid.spec import GridSpec

SIDES = (8, 16, 28, 32, 64)
LARGEST = {"cpu": 32, "gpu": 64}  # side of what a generator is trained on from scratch within a day
SMALL = 16  # up to this side the digits' networks serve
LARGEST_BASE = {"cpu": 1_000, "gpu": 20_000}
MULTIPLES = [1, 2, 4]  # synthetic images, of the base
PER_CLASS = 5  # images of each class that the smaller base has at least
UNEVEN = 3  # times as many images in the largest class as in the smallest


@dataclass(frozen=True)
class Proposal:
    """A spec's mapping, in the order in which it is written. why: comments by their key; about: the
    lines that head the file.
    """

    spec: dict[str, Any]
    why: dict[str, str]
    about: tuple[str, ...]


def propose(
    place: str,
    machine: Machine,
    *,
    name: str | None = None,
    group: str | None = None,
    size: int | None = None,
) -> Proposal:
    """A spec for the set at `place`. Raises UserError."""
    found, shape = _sized(
        looking.look(place, {} if group is None else {"group": group}), machine, size
    )
    kind = "gpu" if machine.gpus else "cpu"
    sizes, amounts = _bases(shape, kind)
    generator, why_generator = _generator(shape, kind)
    classifier, why_recipe = _classifier(shape, kind)
    uneven = max(shape.train_counts) > UNEVEN * min(shape.train_counts)
    spec: dict[str, Any] = {
        "name": name or _name(found.source.name),
        "dataset": found.dataset,
        "classifiers": [classifier],
        "recipe": DEFAULT,
        "generators": {"edm": generator},
        "subset_seeds": [0, 1, 2] if kind == "gpu" else [0, 1],
        "seeds": [0, 1, 2],
        "blocks": [{"n_base": sizes, **amounts, "syn": {"edm": MULTIPLES}, "copies": [1, 2]}],
    }
    if kind == "cpu":
        spec["execution"] = {"gpus": 0}
        spec["quality"] = {"inception": "off", "vit": "off"}
    if min(shape.n_train, max(MULTIPLES) * sizes[0]) >= max(LEAST_IMAGES, len(shape.classes)):
        own = {"extractor": "classifier"} if kind == "cpu" else {}
        spec["quality"] = {**spec.get("quality", {}), "metrics": "all", **own}
    why = {f"dataset.{option}": text for option, text in found.why.items()}
    why |= {
        "classifiers": "what is trained on every mix",
        "recipe": why_recipe,
        "generators": why_generator,
        "subset_seeds": "which images are the base: each, at each base size, has a generator",
        "seeds": "what a trial draws",
        "blocks": "base sizes, and what is added to them as multiples of the base: real images, "
        "synthetic ones, and copies of the base as the control",
        "execution": "on this machine's cores",
        "quality": _why_quality(kind),
    }
    return Proposal(spec, why, _about(found, shape, machine, uneven))


def _why_quality(kind: str) -> str:
    if kind == "gpu":
        return "measures with intervals, in DINOv2's features where images are in colour"
    return "without the networks that Inception Score and FID download"


def checked(proposal: Proposal) -> GridSpec:
    """The spec of a proposal, which `plan` accepts. Raises UserError, with what is in its way."""
    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve
    from equigrid.grid.spec import load

    spec = load(proposal.spec)
    plan(resolve(spec, None))
    return spec


# Images -------------------------------------------------------------------------------------------


def _sized(
    found: looking.Found, machine: Machine, wanted: int | None
) -> tuple[looking.Found, Shape]:
    """The set at a size that this machine can learn to generate, and in grey if it is."""
    largest = LARGEST["gpu" if machine.gpus else "cpu"]
    kind = found.dataset if isinstance(found.dataset, str) else next(iter(found.dataset))
    shape = found.source.shape
    if isinstance(found.dataset, dict) and looking.takes(kind, "size"):
        reason = None if wanted is None else "as asked for"
        if reason is None:
            reason, wanted = _reason_to_resize(found, shape, largest)
        if reason is not None:
            found = found.with_(reason, size=wanted)
            shape = found.source.shape
    elif wanted is not None and (shape is None or {wanted} != {shape.height, shape.width}):
        raise UserError(f"init: --size: {kind} is stored as it is; leave --size out")
    if shape is None:
        found.source.contents()  # says why none can be decoded
        raise UserError(f"init: {found.source.name}: set its size, e.g. --size 32")
    if isinstance(found.dataset, dict) and looking.takes(kind, "channels"):
        found, shape = _in_grey(found, shape)
    return found, shape


def _in_grey(found: looking.Found, shape: Shape) -> tuple[looking.Found, Shape]:
    if shape.channels != 3 or not looking.grey(found.source):
        return found, shape
    found = found.with_("the images are grey", channels=1)
    return found, found.source.shape or shape


def _reason_to_resize(
    found: looking.Found, shape: Shape | None, largest: int
) -> tuple[str | None, int | None]:
    if shape is None:
        return None, None
    sides = (shape.height, shape.width)
    side = max([s for s in SIDES if s <= min(*sides, largest)], default=SIDES[0])
    try:
        if found.source.check:
            found.source.check()
    except UserError:
        return "the images have several sizes: resized, and cropped to a square", side
    if max(sides) > largest:
        return (
            f"they are {sides[0]}×{sides[1]}: from scratch, {largest} is what can be learnt here",
            side,
        )
    if min(sides) < SIDES[0]:
        return "the smallest that the generator takes", side
    return None, None


# Networks -----------------------------------------------------------------------------------------


def _generator(shape: Shape, kind: str) -> tuple[dict[str, Any], str]:
    """An EDM whose levels divide the images."""
    sides = (shape.height, shape.width)
    network: dict[str, int | list[int]] = {}
    if max(sides) <= SMALL:
        multipliers = [2] * _levels(sides, 2)
        if len(multipliers) != 2:
            network["channel_mult"] = multipliers
        return {"kind": "edm", "preset": "digits", **_part("network", network)}, (
            "closed set: trained from scratch on the base alone; about half a minute on a core"
        )
    if kind == "cpu":
        patch = 2 if all(side % 2 == 0 and side >= 16 for side in sides) else 1
        inner = (sides[0] // patch, sides[1] // patch)
        if patch != 2:
            network["patch"] = patch
        if (levels := _levels(inner, 3)) != 3:
            network["channel_mult"] = [1, 2, 4][:levels]
        return {"kind": "edm", "preset": "cifar10-2cores", **_part("network", network)}, (
            "closed set: trained from scratch on the base alone; about 1.5 hours of a core for "
            "each base size and subset seed at 32×32 (on a GPU write preset: cifar10-bases)"
        )
    levels = _levels(sides, 4 if max(sides) > 32 else 3)
    if levels != 3 or sides[0] != 32:
        network["channel_mult"] = [1, 2, 2, 2] if levels == 4 else [2] * levels
        heights = [sides[0] >> level for level in range(levels)]
        network["attn_resolutions"] = [min(heights, key=lambda height: abs(height - 16))]
    return {"kind": "edm", "preset": "cifar10-bases", **_part("network", network)}, (
        "closed set: trained from scratch on the base alone, on at least ten million images"
    )


def _part(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return {name: values} if values else {}


def _levels(sides: tuple[int, int], most: int) -> int:
    """Levels of a U-Net, each of half the size: both sides must divide, and 4 pixels be left."""
    levels = 1
    while (
        levels < most and all(side % 2**levels == 0 for side in sides) and min(sides) >> levels >= 4
    ):
        levels += 1
    return levels


def _classifier(shape: Shape, kind: str) -> tuple[str, str]:
    """A network for such images, and what is to be said of the default recipe."""
    side = max(shape.height, shape.width)
    why = (
        "the default recipe for images of this size: in all arms of a base the same number of "
        "steps, so that more images are not more training; `equigrid tune` finds your own"
    )
    if side <= SMALL:
        return "digits-cnn", why
    why += (
        "; it mirrors images: where that changes what they show, write {extends: default, "
        f"augmentation: {{crop_padding_px: {side // 8}, flip: false}}}}"
    )
    if side > LARGEST["gpu"]:
        return "resnet50", why
    return "resnet20" if kind == "cpu" else "resnet110", why


# Amounts ------------------------------------------------------------------------------------------


def _bases(shape: Shape, kind: str) -> tuple[list[int], dict[str, list[Any]]]:
    """Base sizes, each with every class in it, and the real images that are there to add."""
    counts = np.asarray(shape.train_counts)
    n, smallest = int(counts.sum()), subsets.smallest_complete(counts)
    large = max(_round(min(n / 3.1, LARGEST_BASE[kind])), smallest)  # some may be copies
    small = max(_round(large / 4), smallest)
    several = small < large and small >= PER_CLASS * len(counts)
    sizes = [small, large] if several else [large]
    multiples = [
        m for m in (0.5, 1, 2) if round(m * sizes[0]) >= 1 and round(m * large) + large <= n
    ]
    if multiples:
        return sizes, {"real": multiples}
    return sizes, {"real": ["all"]} if large < n else {}


def _round(x: float) -> int:
    """Down to two digits that count."""
    unit = 10 ** max(0, len(str(int(x))) - 2)
    return max(1, int(x) // unit * unit)


# Words --------------------------------------------------------------------------------------------


def _name(text: str) -> str:
    """A name that a grid can have."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(text).name).strip("-._")[:64]
    return clean or "mine"


def _about(found: looking.Found, shape: Shape, machine: Machine, uneven: bool) -> tuple[str, ...]:
    colour = "grey" if shape.channels == 1 else "in colour"
    size = f"{shape.height}×{shape.width} {colour}"
    lines = [
        f"{found.source.name}: {shape.n_train:,} training and {shape.n_test:,} test images of "
        f"{len(shape.classes)} classes, {size}.",
        f"A first grid for this machine ({machine}), as `equigrid init` proposes it: every value "
        "may be changed; all keys are in docs/spec.md.",
    ]
    if uneven:
        counts = sorted(zip(shape.train_counts, shape.classes))
        least, most = counts[0], counts[-1]
        lines.append(
            f"The classes are uneven: {most[0]:,} of {most[1]!r}, {least[0]:,} of {least[1]!r}. "
            "Look at balanced accuracy (`equigrid report --metric balanced_accuracy`); a recipe "
            "such as `{extends: default, class_weights: balanced}` lets all classes weigh the "
            "same, the generator's `balance: as_data` makes synthetic images in the same "
            "proportions."
        )
    if max(shape.height, shape.width) > LARGEST["gpu" if machine.gpus else "cpu"]:
        lines.append(
            "These images are large for a generator that is trained from scratch here, and such a "
            "file has no option `size`: write them smaller first."
        )
    lines += [line[0].upper() + line[1:] + "." for line in found.source.told]
    return tuple(lines)
