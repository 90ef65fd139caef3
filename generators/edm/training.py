"""Training an EDM from scratch on the base subset alone."""

import numpy as np
import torch

from generators.calls import TrainCall
from generators.devices import on_rank_0
from generators.edm.config import EDMConfig
from generators.edm.stage import DenoiserStage
from generators.edm.weights import from_file
from generators.journal import Journal
from generators.training import check_data, check_step, run


def train(images: np.ndarray, labels: np.ndarray, config: EDMConfig, call: TrainCall) -> dict[str, torch.Tensor]:
    """The averaged (EMA) weights of a trained network, float32; see `generators.backends.train`.

    The images are kept on the device.  A state holds step, weights, average, moments and scaler.
    """
    check_data(images, labels, config, call.classes)
    if config.weights is not None:
        return from_file(config, shape=images.shape[1:], classes=call.classes)
    config, device = config.for_images(len(images)), torch.device(call.device)
    stage = DenoiserStage(images, labels, config, classes=call.classes, seed=call.seed, device=device)
    if call.resume is not None:
        check_step(call.resume["step"], stage.steps)
        stage.learner.restore(call.resume)
        stage.step = call.resume["step"]
    stage.prepare()
    journal = Journal(on_rank_0(call.log), stage.COLUMNS, resume=call.resume)
    journal.begin(stage)
    run(stage, journal, on_rank_0(call.checkpoint), lambda: {"step": stage.step, **stage.learner.state()})
    return stage.learner.averaged()
