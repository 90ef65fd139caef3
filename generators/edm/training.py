"""Training an EDM from scratch on the base subset alone."""

import numpy as np
import torch

from equigrid.generators.calls import TrainCall
from equigrid.generators.edm.config import EDMConfig
from equigrid.generators.edm.trainer import DenoiserTrainer
from equigrid.generators.edm.weights import from_file
from equigrid.generators.trainer.devices import on_rank_0
from equigrid.generators.trainer.loop import check_data, check_step, run
from equigrid.generators.trainer.training_log import TrainingLog


def train(
    images: np.ndarray, labels: np.ndarray, config: EDMConfig, call: TrainCall
) -> dict[str, torch.Tensor]:
    """The averaged (EMA) weights of a trained network, float32; see
    `equigrid.generators.registry.train`.

    The images are kept on the device.  A state holds step, weights, average, moments and scaler.
    """
    check_data(images, labels, config, call.classes)
    if config.weights is not None:
        return from_file(config, shape=images.shape[1:], classes=call.classes)
    config, device = config.for_images(len(images)), torch.device(call.device)
    trainer = DenoiserTrainer(
        images, labels, config, classes=call.classes, seed=call.seed, device=device
    )
    if call.resume is not None:
        check_step(call.resume["step"], trainer.steps)
        trainer.learner.restore(call.resume)
        trainer.step = call.resume["step"]
    trainer.prepare()
    training_log = TrainingLog(on_rank_0(call.log), trainer.COLUMNS, resume=call.resume)
    training_log.begin(trainer)
    run(
        trainer,
        training_log,
        on_rank_0(call.checkpoint),
        lambda: {"step": trainer.step, **trainer.learner.state()},
    )
    return trainer.learner.averaged()
