"""Training from scratch on the base subset alone: first the autoencoder, then the transformer on its latents."""

from collections.abc import Callable

import numpy as np
import torch

from generators.backends import Artefacts, ignore
from generators.dit.autoencoding import AutoencoderStage
from generators.dit.config import DiTConfig
from generators.dit.denoising import TransformerStage
from generators.dit.journal import MEASURES, Journal
from generators.dit.latents import Latents
from generators.dit.learner import Stage, State
from generators.dit.weights import from_files, joined, part_of
from generators.edm.devices import group

AUTOENCODER, TRANSFORMER = "autoencoder", "transformer"


def train(
    images: np.ndarray,
    labels: np.ndarray,
    config: DiTConfig,
    *,
    classes: int,
    seed: int,
    device: str | torch.device = "cpu",
    resume: State | None = None,
    checkpoint: Callable[[int, Callable[[], State]], None] = ignore,
    log: Callable[[dict], None] = ignore,
    artefacts: Artefacts | None = None,
) -> dict[str, torch.Tensor]:
    """Train both networks and return what `sample` takes (`generators.dit.weights`), on the CPU, float32.

    As `generators.edm.training.train`; steps are counted over both stages. artefacts: where latents are kept, by
    shards of 4,096 images; those of another autoencoder or with other bytes are made again.

    With config.weights nothing is trained: the files' weights are returned, checked.

    Raises LossNotFinite, and ValueError for images, labels or a configuration that do not fit.
    """
    _check(images, labels, config, classes)
    if config.weights is not None:
        return from_files(config, shape=images.shape[1:], classes=classes)
    config = config.for_images(len(images))
    device = torch.device(device)
    leads = group()[0] == 0
    run = _Run(Journal(log if leads else ignore), checkpoint if leads else ignore)
    if resume is not None and resume["stage"] == TRANSFORMER:
        vae = part_of(resume["average"], "vae")
    else:
        first = AutoencoderStage(images, config, seed=seed, device=device)
        run(AUTOENCODER, first, before=0, resume=resume)
        vae, resume = first.weights(), None
        del first  # and with it the discriminator and the optimisers' moments
    latents = Latents(images, config, vae, {} if artefacts is None else artefacts, device=device)
    second = TransformerStage(latents, torch.from_numpy(labels), config, classes=classes, seed=seed, device=device)

    def complete(average: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What sampling takes: the networks and what was measured."""
        return joined(dit=average, vae=vae, measured=latents.measured)

    def beside(learners: dict[str, State]) -> State:
        return {"average": complete(learners[TRANSFORMER]["average"])}

    measures = dict(zip(MEASURES, (float(latents.measured["psnr_db"]), float(latents.measured["scale"]))))
    before = config.vae.training.steps
    run(TRANSFORMER, second, before=before, resume=resume, beside=beside, measures=measures)
    return complete(second.learners[TRANSFORMER].averaged())


class _Run:
    """Takes a stage to its last step, with log rows and checkpoints."""

    def __init__(self, journal: Journal, checkpoint: Callable):
        self.journal, self.checkpoint = journal, checkpoint

    def __call__(
        self,
        name: str,
        stage: Stage,
        *,
        before: int,
        resume: State | None,
        beside: Callable[[dict[str, State]], State] = lambda learners: {},
        measures: dict[str, float] | None = None,
    ) -> None:
        """before: steps of earlier stages. beside: what a state holds besides. measures: for a row of their own."""
        if resume is not None:
            _restore(stage, resume, before)
        stage.prepare()
        self.journal.begin(name, stage, before)
        if measures and resume is None:
            self.journal.end("latents", **measures)

        def make_state() -> State:
            self.journal.look()  # a state after a bad loss would be no good state
            learners = {key: learner.state() for key, learner in stage.learners.items()}
            self.journal.saved = self.journal.step
            return {"stage": name, "step": self.journal.step, "learners": learners, **beside(learners)}

        while stage.step < stage.schedule.steps:
            self.journal.note(stage.advance())
            self.checkpoint(self.journal.step, make_state)
        self.journal.end()
        self.journal.stage = None  # its networks and moments make room for the next stage's


def _restore(stage: Stage, state: State, before: int) -> None:
    done = state["step"] - before
    if done > stage.schedule.steps:
        last = before + stage.schedule.steps
        raise ValueError(f"the saved state is that of step {state['step']}, past the stage's last step, {last}")
    for key, learner in stage.learners.items():
        learner.restore(state["learners"][key])
    stage.step = done


def _check(images: np.ndarray, labels: np.ndarray, config: DiTConfig, classes: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images are (N, H, W, C) uint8, got {images.shape} {images.dtype}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"labels are ({len(images)},) int64, got {labels.shape} {labels.dtype}")
    config.check(*images.shape[1:], classes, len(images))
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"labels lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
