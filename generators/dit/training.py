"""Training from scratch on the base subset alone: first the autoencoder, then the transformer on its latents."""

from functools import partial

import numpy as np
import torch

from generators.calls import State, TrainCall
from generators.devices import on_rank_0
from generators.dit.autoencoding import AutoencoderStage
from generators.dit.config import DiTConfig
from generators.dit.denoising import TransformerStage
from generators.dit.latents import Latents
from generators.dit.weights import from_files, joined, part_of
from generators.journal import Journal
from generators.stages import Stage
from generators.training import check_data, check_step, run

COLUMNS = (*AutoencoderStage.COLUMNS, *TransformerStage.COLUMNS, "psnr_db", "latent_scale")
AUTOENCODER, TRANSFORMER = "autoencoder", "transformer"


def train(images: np.ndarray, labels: np.ndarray, config: DiTConfig, call: TrainCall) -> dict[str, torch.Tensor]:
    """Train both networks; weights by the names of `generators.dit.weights`, float32; see `generators.backends.train`.

    Steps are counted over both stages.  Latents are kept as artefacts, by shards of 4,096 images; those of another
    autoencoder or with other bytes are made again.
    """
    check_data(images, labels, config, call.classes)
    if config.weights is not None:
        return from_files(config, shape=images.shape[1:], classes=call.classes)
    config, device = config.for_images(len(images)), torch.device(call.device)
    before, resume, checkpoint = config.vae.training.steps, call.resume, on_rank_0(call.checkpoint)
    journal = Journal(on_rank_0(call.log), COLUMNS, resume=resume)
    if resume is not None and resume["stage"] == TRANSFORMER:
        vae = part_of(resume["average"], "vae")
    else:
        first = AutoencoderStage(images, config, seed=call.seed, device=device)
        _begin(journal, AUTOENCODER, first, resume)
        run(first, journal, checkpoint, partial(_state, AUTOENCODER, first))
        vae, resume = first.weights(), None
        del first  # and with it the discriminator and the optimisers' moments
    latents = Latents(images, config, vae, call.artefacts, device=device)
    options = {"classes": call.classes, "seed": call.seed, "device": device}
    second = TransformerStage(latents, torch.from_numpy(labels), config, **options)
    _begin(journal, TRANSFORMER, second, resume, before=before)
    if resume is None:
        measured = latents.measured
        journal.row("latents", psnr_db=float(measured["psnr_db"]), latent_scale=float(measured["scale"]))

    def complete(average: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What sampling takes: the networks and what was measured."""
        return joined(dit=average, vae=vae, measured=latents.measured)

    def make_state() -> State:
        state = _state(TRANSFORMER, second, before)
        return {**state, "average": complete(state["learners"][TRANSFORMER]["average"])}

    run(second, journal, checkpoint, make_state)
    return complete(second.learners[TRANSFORMER].averaged())


def _begin(journal: Journal, name: str, stage: Stage, resume: State | None, *, before: int = 0) -> None:
    """Take the state, if there is one, and settle what is taken at once; before: steps of earlier stages."""
    if resume is not None:
        check_step(resume["step"], before + stage.steps)
        for key, learner in stage.learners.items():
            learner.restore(resume["learners"][key])
        stage.step = resume["step"] - before
    stage.prepare()
    journal.begin(stage, name=name, before=before)


def _state(name: str, stage: Stage, before: int = 0) -> State:
    learners = {key: learner.state() for key, learner in stage.learners.items()}
    return {"stage": name, "step": before + stage.step, "learners": learners}
