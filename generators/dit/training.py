"""Training from scratch on the base subset alone: first the autoencoder, then the transformer on
its latents.
"""

from functools import partial

import numpy as np
import torch

from equigrid.generators.calls import State, TrainCall
from equigrid.generators.dit.autoencoding import AutoencoderTrainer
from equigrid.generators.dit.config import DiTConfig
from equigrid.generators.dit.denoising import TransformerTrainer
from equigrid.generators.dit.latents import Latents
from equigrid.generators.dit.weights import from_files, joined, part_of
from equigrid.generators.trainer.devices import on_rank_0
from equigrid.generators.trainer.loop import check_data, check_step, run
from equigrid.generators.trainer.trainer import Trainer
from equigrid.generators.trainer.training_log import TrainingLog

COLUMNS = (*AutoencoderTrainer.COLUMNS, *TransformerTrainer.COLUMNS, "psnr_db", "latent_scale")
AUTOENCODER, TRANSFORMER = "autoencoder", "transformer"


def train(
    images: np.ndarray, labels: np.ndarray, config: DiTConfig, call: TrainCall
) -> dict[str, torch.Tensor]:
    """Train both networks; weights by the names of `equigrid.generators.dit.weights`, float32; see
    `equigrid.generators.registry.train`.

    Steps are counted over both stages.  Latents are kept as artefacts, by shards of 4,096 images;
    those of another autoencoder or with other bytes are made again.
    """
    check_data(images, labels, config, call.classes)
    if config.weights is not None:
        return from_files(config, shape=images.shape[1:], classes=call.classes)
    config, device = config.for_images(len(images)), torch.device(call.device)
    before, resume, checkpoint = config.vae.training.steps, call.resume, on_rank_0(call.checkpoint)
    training_log = TrainingLog(on_rank_0(call.log), COLUMNS, resume=resume)
    if resume is not None and resume["stage"] == TRANSFORMER:
        vae = part_of(resume["average"], "vae")
    else:
        first = AutoencoderTrainer(images, config, seed=call.seed, device=device)
        _begin(training_log, AUTOENCODER, first, resume)
        run(first, training_log, checkpoint, partial(_state, AUTOENCODER, first))
        vae, resume = first.weights(), None
        del first  # and with it the discriminator and the optimisers' moments
    latents = Latents(images, config, vae, call.artefacts, device=device)
    second = TransformerTrainer(
        latents,
        torch.from_numpy(labels),
        config,
        classes=call.classes,
        seed=call.seed,
        device=device,
    )
    _begin(training_log, TRANSFORMER, second, resume, before=before)
    if resume is None:
        measured = latents.measured
        training_log.row(
            "latents", psnr_db=float(measured["psnr_db"]), latent_scale=float(measured["scale"])
        )

    def complete(average: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What sampling takes: the networks and what was measured."""
        return joined(dit=average, vae=vae, measured=latents.measured)

    def make_state() -> State:
        state = _state(TRANSFORMER, second, before)
        return {**state, "average": complete(state["learners"][TRANSFORMER]["average"])}

    run(second, training_log, checkpoint, make_state)
    return complete(second.learners[TRANSFORMER].averaged())


def _begin(
    training_log: TrainingLog, name: str, trainer: Trainer, resume: State | None, *, before: int = 0
) -> None:
    """Take the state, if there is one, and settle what is taken at once; before: steps of earlier
    stages.
    """
    if resume is not None:
        check_step(resume["step"], before + trainer.steps)
        for key, learner in trainer.learners.items():
            learner.restore(resume["learners"][key])
        trainer.step = resume["step"] - before
    trainer.prepare()
    training_log.begin(trainer, name=name, before=before)


def _state(name: str, trainer: Trainer, before: int = 0) -> State:
    learners = {key: learner.state() for key, learner in trainer.learners.items()}
    return {"stage": name, "step": before + trainer.step, "learners": learners}
