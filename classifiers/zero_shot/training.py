"""A zero-shot trial: train on seen classes and synthetic images of unseen ones, test on the
unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from equigrid.classifiers.compute import Speed
from equigrid.classifiers.data.mix import Mix
from equigrid.classifiers.data.stream import StreamedMix
from equigrid.classifiers.evaluation import Evaluation, evaluate
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.classifiers.training.loop import Checkpoint, Log, State, Trained, ignore, train
from equigrid.classifiers.zero_shot.config import ZeroShotConfig, check_split
from equigrid.classifiers.zero_shot.joint import JointSpace


@dataclass(frozen=True)
class ZeroShot:
    """Accuracies in percent on test images.

    among_unseen: of unseen classes' images, with the unseen classes as candidates (the paper's).
    among_all: of the same images, with all classes. seen_among_all: of seen classes' images, with
    all classes; None where the test set has none. per_class: among_unseen for each class, nan for
    seen ones. temperature: as learnt. trained: the training; its module has all classes as
    candidates.
    """

    among_unseen: float
    among_all: float
    seen_among_all: float | None
    per_class: list[float]
    n_train: int
    n_test: int
    temperature: float
    trained: Trained = field(repr=False, compare=False)


def zero_shot(
    mix: Mix | StreamedMix,
    test: Mix,
    *,
    unseen: Sequence[int],
    text_features: np.ndarray,
    config: ZeroShotConfig,
    model: str,
    recipe: ResolvedRecipe,
    seed: int,
    device: torch.device | str,
    candidates: Sequence[int] | None = None,
    resume: State | None = None,
    checkpoint: Checkpoint = ignore,
    log: Log = ignore,
    speed: Speed = Speed(),  # noqa: B008 - frozen
) -> ZeroShot:
    """Train an image encoder and two projections from scratch, and classify the unseen classes'
    test images.

    mix: real images of the seen classes, and synthetic ones of the unseen (or none of these). test:
    real images. Both with the dataset's labels. text_features: (classes, width) float32, in the
    order of labels, frozen. model: any classifier; its last layer gives way to the joint space.
    candidates: the classes that compete in training, None for those that the mix holds (which a
    StreamedMix does not tell). The rest as `equigrid.classifiers.training.loop.train`, whose loop
    this is: cross-entropy over cosine similarities.

    Raises ValueError as `train` does, for features that do not fit, and for a split without two
    classes either side.
    """
    classes = _classes(text_features, config)
    unseen = check_split(unseen, classes)
    if candidates is None:
        if isinstance(mix, StreamedMix):
            raise ValueError("a StreamedMix does not tell its classes: give candidates")
        candidates = np.unique(mix.labels()).tolist()
    if recipe.label_smoothing and len(candidates) < classes:
        raise ValueError(
            f"label_smoothing {recipe.label_smoothing} would teach classes "
            "without images: set it to 0"
        )
    texts = torch.tensor(text_features, dtype=torch.float32)

    def head(width: int) -> JointSpace:
        return JointSpace(
            width, texts, joint=config.joint, temperature=config.temperature, candidates=candidates
        )

    trained = train(
        mix, model=model, recipe=recipe, classes=classes, seed=seed, device=device, head=head,
        resume=resume, checkpoint=checkpoint, log=log, speed=speed,
    )  # fmt: skip
    return _tested(trained, test, unseen, classes, device, mix.n_total)


def _classes(text_features: np.ndarray, config: ZeroShotConfig) -> int:
    if text_features.ndim != 2 or text_features.shape[1] != config.text_width:
        shape = list(text_features.shape)
        raise ValueError(
            f"text_features are (classes, text_width {config.text_width}), got {shape}"
        )
    if not np.isfinite(text_features).all():
        raise ValueError("text_features hold values that are not finite")
    return len(text_features)


def _tested(
    trained: Trained,
    test: Mix,
    unseen: Sequence[int],
    classes: int,
    device: torch.device | str,
    n_train: int,
) -> ZeroShot:
    space = next(part for part in trained.module.modules() if isinstance(part, JointSpace))
    everything, seen = range(classes), sorted(set(range(classes)) - set(unseen))
    theirs, others = rows(test, unseen), rows(test, seen)
    if theirs is None:
        raise ValueError(f"the test set holds no image of the unseen classes {list(unseen)}")

    def result(mix: Mix, candidates: Sequence[int]) -> Evaluation:
        space.choose(candidates)
        return evaluate(trained.module, mix, classes=classes, device=device)

    among = result(theirs, unseen)
    return ZeroShot(
        among_unseen=among.top1,
        among_all=result(theirs, everything).top1,
        seen_among_all=result(others, everything).top1 if others else None,
        per_class=among.per_class,
        n_train=n_train,
        n_test=theirs.n_total,
        temperature=1 / space.scale.item(),
        trained=trained,
    )


def rows(mix: Mix, classes: Sequence[int], most: int | None = None) -> Mix | None:
    """The mix's images of these classes, the first `most` of them (all), in its order; None if
    there are none.
    """
    parts, left = [], mix.n_total if most is None else most
    for part in mix.parts:
        own = part.indices[np.isin(part.labels[part.indices], list(classes))][:left]
        left -= len(own)
        parts.append((part.images, part.labels, own))
    return Mix(parts) if any(len(own) for _, _, own in parts) else None
