"""A candidate of a search for a generator's duration and guidance: trained on each base, and looked
at by the distance of what it makes from held-out training images.

The distance is FID where the spec's `quality` has Inception's weights, else the Fréchet distance in
the features of the grid's own classifier. The test split is never looked at.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from equigrid.grid.ids import seed_of
from equigrid.grid.jobs import inputs, reference_classifier
from equigrid.grid.jobs.candidate import Candidate, Progress, Report, checkpoints_of, note
from equigrid.grid.jobs.checkpoints import Saving
from equigrid.grid.jobs.generator import Artefacts
from equigrid.grid.jobs.provenance import device_of
from equigrid.grid.jobs.request import Request
from equigrid.grid.spec import Validation
from equigrid.grid.store import Store, layout

if TYPE_CHECKING:
    from equigrid.generators.quality.measure import Networks, Summary


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How a generator is looked at. validation: which training images it is held against.
    reference: the id of the grid's own classifier. networks: as a spec's `quality` has them. n:
    images that are made for each look.
    """

    validation: Validation
    reference: str
    networks: Mapping[str, bool | str]
    n: int


def train_part(known: Progress, part: int, report: Report) -> None:
    """One training of a generator, from its last checkpoint on; looked at while it goes on."""
    from equigrid.generators import registry

    candidate, store = known.candidate, known.store
    request = candidate.requests[part]
    config, device = registry.config(dict(request.payload.mapping)), device_of(request)
    images, labels = _images(request)
    facts = config.cost_facts(*request.image_shape, request.classes, len(labels))
    steps = facts.get("training_steps", 0) + facts.get("autoencoder_steps", 0)
    every = -(-steps // candidate.looks)
    distance = _distance_to_held_out(store, candidate, request, device)
    kept = checkpoints_of(store, candidate, part)

    def look(step: int, weights: dict[str, Any]) -> None:
        progress = round(candidate.looks * (part + step / steps), 4)
        if progress > known.reached:
            pool = _sampled(weights, config, request, candidate, device)
            found = {"step": step, "nimg": step * facts.get("training_batch", 0)}
            note(known, part, progress, -distance(*pool), found, report)

    def checkpoint(step: int, make_state: Callable[[], dict[str, Any]]) -> None:
        due = step % every == 0 and step < steps
        if due and "average" in (state := make_state()):
            look(step, state["average"])
        saving(step, make_state)

    with Saving(kept, every_s=request.checkpoint_every_s, steps=steps) as saving:
        weights = registry.train(
            images, labels, config, classes=request.classes, class_names=request.class_names,
            seed=seed_of(candidate.id, "training", part), device=device, resume=kept.load(),
            checkpoint=checkpoint,
            artefacts=Artefacts(
                store, layout.candidate_artefacts(candidate.study, candidate.id, part)
            ),
        )  # fmt: skip
    look(steps, weights)


def _images(request: Request[Any]) -> tuple[np.ndarray, np.ndarray]:
    wanted = inputs.learned_parts(request, request.payload.subset, request.payload.outside)
    assert wanted is not None, "what learns from nothing is not searched"
    own = request.payload.outside is not None and request.payload.outside.own
    return inputs.gathered(request, wanted, own_outside=own)


def _sampled(
    weights: dict[str, Any], config: Any, request: Request[Any], candidate: Candidate, device: str
) -> tuple[np.ndarray, np.ndarray]:
    from equigrid.generators import registry

    compute = config.compute.model_copy(update={"compile": "off"})
    return registry.sample(
        weights, config.model_copy(update={"compute": compute}), classes=request.classes,
        class_names=request.class_names, shape=request.image_shape, start=0,
        stop=_measuring(candidate).n, seed=seed_of(candidate.id, "pool"), device=device,
    )  # fmt: skip


def _measuring(candidate: Candidate) -> Measuring:
    assert isinstance(candidate.measuring, Measuring), "a search of a generator says how it looks"
    return candidate.measuring


def _distance_to_held_out(
    store: Store, candidate: Candidate, request: Request[Any], device: str
) -> Callable[[np.ndarray, np.ndarray], float]:
    """Measures images (n, H, W, C) uint8 with labels (n,) against those held out."""
    from equigrid.classifiers.features import Features
    from equigrid.generators.quality import measure as measuring
    from equigrid.generators.quality.statistics import frechet_distance

    how = _measuring(candidate)
    features = Features(reference_classifier.load(store, how.reference, request, device), device)
    networks = measuring.load_networks(**how.networks, features=features, device=device)

    def summary(parts: Any) -> "Summary":
        return measuring.summarise(parts, _one(networks), classes=request.classes)

    if how.validation.images == "own":
        held = inputs.whole(request.val)
    else:
        held = inputs.parts(request.train, inputs.held_out_indices(request, how.validation.images))
    real = summary(inputs.blocks(held))
    name = "inception" if networks.inception else "features"

    def distance(images: np.ndarray, labels: np.ndarray) -> float:
        made = summary([(images, labels)])
        return float(
            frechet_distance(getattr(made, name).gaussian(), getattr(real, name).gaussian())
        )

    return distance


def _one(networks: "Networks") -> "Networks":
    """Only the network that the distance is measured in."""
    from dataclasses import replace

    if networks.inception:
        return replace(networks, vit=None, features=None)
    return replace(networks, vit=None)
