"""The network in training: its batches, its loss, and the rates of its steps."""

import numpy as np
import torch

from equigrid.generators.common.rng import seed_of
from equigrid.generators.edm.config import EDMConfig, Training
from equigrid.generators.edm.network import EDMNetwork, initialise
from equigrid.generators.edm.schedules import ema_decay, learning_rate
from equigrid.generators.edm.steps import Batch, batch_of, losses
from equigrid.generators.edm.weights import forward_flops, network_for
from equigrid.generators.trainer.compilation import compiles_training
from equigrid.generators.trainer.devices import memory_format
from equigrid.generators.trainer.learner import Learner
from equigrid.generators.trainer.trainer import Trainer


class DenoiserTrainer(Trainer[Batch]):
    """Karras et al. 2022: the denoiser, trained at random noise levels, and its average."""

    COLUMNS = ("loss",)

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        config: EDMConfig,
        *,
        classes: int,
        seed: int,
        device: torch.device,
    ):
        training = config.training
        super().__init__(
            steps=training.steps,
            batch=training.batch,
            compute=config.compute,
            seed=seed,
            device=device,
        )
        self.config = config
        self.images = torch.tensor(images, device=device)
        self.labels = torch.tensor(labels, device=device)
        height, width, channels = images.shape[1:]
        shape = height, width, channels
        network = network_for(config, shape=shape, classes=classes)
        network.to_empty(device="cpu")
        initialise(network, torch.Generator().manual_seed(seed_of(seed, "initial weights")))
        self.layout = memory_format(self.precision, device)
        network.to(device).to(memory_format=self.layout)
        self.learner = Learner(
            network,
            _optimizer(network, training),
            precision=self.precision,
            averages=True,
            compiled=compiles_training(
                config.compute,
                device,
                lambda: training.total_nimg * forward_flops(config, shape, classes),
            ),
        )
        self.learners = {"denoiser": self.learner}

    def batch(self) -> Batch:
        return batch_of(
            self.images, self.labels, self.config, seed=self.seed, step=self.step, part=self.part
        )

    def losses_of(self, part: Batch, share: float, *, full: bool = False) -> torch.Tensor:
        noisy = part.noisy.contiguous(memory_format=self.layout)
        with self.autocast():
            denoised = self.learner.forward(
                noisy, part.sigma, part.labels, part.augment, part.dropout_keys
            )
        loss = share * losses(denoised, part, self.config.network.sigma_data).mean()
        self.learner.backward(loss)
        return loss.detach()[None] / part.clean[0].numel()  # per pixel value

    def rates(self) -> tuple[float, float]:
        nimg = self.step * self.batch_size
        return learning_rate(self.config.training, nimg), ema_decay(self.config.training, nimg)


def _optimizer(network: EDMNetwork, training: Training) -> torch.optim.Optimizer:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[training.optimizer](
        network.parameters(),
        lr=training.lr,
        betas=training.betas,
        eps=training.eps,
        weight_decay=training.weight_decay,
        fused=True,
    )
