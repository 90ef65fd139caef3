"""A search for a generator's duration and guidance: which trainings, and all that determines it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from equigrid.generators import registry
from equigrid.generators.base_config import GeneratorConfig
from equigrid.grid.errors import UserError, near
from equigrid.grid.ids import content_id, seed_of
from equigrid.grid.jobs import generator_candidate, reference_classifier
from equigrid.grid.jobs.candidate import Candidate
from equigrid.grid.jobs.generator import GeneratorPayload
from equigrid.grid.jobs.generator_candidate import Measuring
from equigrid.grid.jobs.grid_facts import GridFacts
from equigrid.grid.jobs.request import Request
from equigrid.grid.planning.graph import Job, Plan
from equigrid.grid.spec import GridSpec
from equigrid.grid.spec.tuning import Tune, Varied
from equigrid.grid.tuning.space import (
    LENGTH,
    Dimension,
    Values,
    applied,
    as_json,
    known_names,
    present,
    space_of,
)

WORST = -1e12  # far from any distance
SEARCHED = ("training.", "sampler.")
GUIDANCE, CHURN = "sampler.guidance", "sampler.S_churn"


@dataclass(frozen=True)
class Aim:
    """The generator, by its name in the spec, whose duration and guidance are searched. space: what
    they may be; None: what docs/tuning.md lists.
    """

    generator: str
    space: Mapping[str, Varied] | None = None


@dataclass(frozen=True)
class GeneratorTraining:
    """One training of each candidate: a generator of the grid, of which the duration and the
    sampler are the candidate's.
    """

    job: Job

    @property
    def payload(self) -> GeneratorPayload:
        return self.job.payload

    @property
    def cell(self) -> str:
        """What it learns from, in words."""
        return f"{self.payload.n_images:,} real images"


@dataclass(frozen=True)
class GeneratorStudy:
    """The search for a generator of a grid. arm: its name in the spec. reference: trains the
    classifier in whose features it is looked at.
    """

    arm: str
    trainings: tuple[GeneratorTraining, ...]
    space: tuple[Dimension, ...]
    config: GeneratorConfig
    measuring: Measuring
    reference: Job
    wish: Tune

    sign = -1.0  # of what is shown: a distance, of which the least is the best
    train_part = staticmethod(generator_candidate.train_part)

    @property
    def metric(self) -> str:
        """What is measured, in words."""
        return "FID" if self.measuring.networks.get("inception") else "feature distance"

    @property
    def known(self) -> str:
        """What it starts from, in words."""
        return f"generators.{self.arm}"

    @property
    def id(self) -> str:
        """Of all that determines it, but the number of candidates: a search can be gone on with."""
        return content_id(
            "study",
            {
                "generator": self.config.model_dump(mode="json"),
                "trainings": [training.job.id for training in self.trainings],
                "space": [as_json(dimension) for dimension in self.space],
                "validation": self.measuring.validation.model_dump(mode="json"),
                "reference": self.measuring.reference,
                "metric": self.metric,
                "n": self.measuring.n,
                "looks": self.wish.looks,
                "reduction": self.wish.reduction,
                "seed": self.wish.seed,
            },
        )

    @property
    def most_progress(self) -> int:
        """Looks at a candidate that is trained to its end."""
        return self.wish.looks * len(self.trainings)

    @property
    def own(self) -> Values | None:
        """The spec's own generator as values of the space; None where it lies outside."""
        return present(self.config, self.space)

    @property
    def needs(self) -> list[str]:
        """The ids of the jobs whose outputs its trainings read, but for its classifier's."""
        return [need for training in self.trainings for need in training.job.needs]

    def recipe_with(self, values: Values | None) -> GeneratorConfig:
        """The configuration with a candidate's values; None: the spec's own. Raises ValueError."""
        return self.config if values is None else applied(self.config, values)

    def candidate(
        self, values: Values | None, requests: tuple[Request[Any], ...], replicate: int = 0
    ) -> Candidate:
        """As `equigrid.grid.tuning.study.Study.candidate`."""
        config = self.recipe_with(values)
        identity = {"study": self.id, "values": values, "replicate": replicate}
        own = content_id("candidate", identity)
        mapping = config.model_dump(mode="json")
        return Candidate(
            id=own, study=self.id, values=values or {}, replicate=replicate,
            label="own" if values is None else "tuned", metric=self.metric,
            looks=self.wish.looks, worst=WORST, measuring=self.measuring,
            requests=tuple(
                replace(
                    request, id=own,
                    payload=replace(request.payload, mapping=mapping, seed=seed_of(own, "seed")),
                )
                for request in requests
            ),
        )  # fmt: skip


def generator_study(
    spec: GridSpec,
    wish: Tune,
    name: str,
    the_plan: Plan,
    facts: GridFacts,
    space: Mapping[str, Varied] | None,
) -> GeneratorStudy:
    """The search for one generator of a grid. Raises UserError."""
    resolved = the_plan.resolved
    if name not in resolved.generators:
        has = f"generators has: {', '.join(resolved.generators) or 'none'}"
        raise UserError(f"--generator: {name!r} is none of the grid's; {has}"
                        f"{near(name, resolved.generators)}")  # fmt: skip
    config = resolved.generators[name].config
    trainings = _trainings(the_plan, name)
    if not registry.BACKENDS[config.kind].previews or not trainings:
        right = "a search is of an EDM or a DiT that is trained on the base"
        raise UserError(f"--generator: {name} is not trained here, or by no block; {right}")
    names = [LENGTH, *(one for one in known_names(type(config)) if one.startswith(SEARCHED))]
    wished = default_space(config) if space is None else space
    dimensions = space_of(wished, config, "--space", names)
    reference = reference_classifier.planned(facts)
    validation, quality = spec.validation, spec.quality
    assert validation is not None, "it was checked"
    shape = facts.shape
    n = shape.n_val if validation.images == "own" else validation.images
    networks = quality.networks(*shape.image) if quality else {"inception": False, "vit": False}
    measuring = Measuring(validation=validation, reference=reference.id, networks=networks, n=n)
    return GeneratorStudy(name, trainings, dimensions, config, measuring, reference, wish)


def _trainings(the_plan: Plan, name: str) -> tuple[GeneratorTraining, ...]:
    """Of each base size, the smallest first, the training with the first of all seeds."""
    chosen: dict[int, GeneratorTraining] = {}
    for job in the_plan.of_kind("generator"):
        payload: GeneratorPayload = job.payload
        if payload.name == name and payload.n_images:
            chosen.setdefault(payload.n_images, GeneratorTraining(job))
    return tuple(training for _, training in sorted(chosen.items()))


def default_space(config: GeneratorConfig) -> dict[str, Varied]:
    """What is searched where nobody says: half and twice the duration, and the sampler's guidance,
    or for a kind without one how much noise it adds on its way.
    """
    names = set(known_names(type(config)))
    space: dict[str, Varied] = {LENGTH: (0.5, 1.0, 2.0)}
    if GUIDANCE in names and _takes(config, GUIDANCE, 2.0):
        space[GUIDANCE] = (1.0, 1.5, 2.0, 3.0)
    elif CHURN in names:
        space[CHURN] = (0.0, 10.0, 40.0)
    return space


def _takes(config: GeneratorConfig, name: str, value: Any) -> bool:
    try:
        applied(config, {name: value})
    except ValueError:
        return False
    return True
