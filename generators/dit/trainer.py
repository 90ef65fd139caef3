"""What both trainings have in common: AdamW, and a learning rate that is a function of the
steps.
"""

import torch
from torch import nn

from equigrid.generators.dit.parts import Compute, Schedule
from equigrid.generators.dit.schedules import learning_rate
from equigrid.generators.trainer.learner import Learner
from equigrid.generators.trainer.trainer import Batch, Trainer


class DiTTrainer(Trainer[Batch]):
    """A stage of the training, by a schedule; without averages unless `rates` says otherwise."""

    def __init__(self, schedule: Schedule, compute: Compute, *, seed: int, device: torch.device):
        super().__init__(
            steps=schedule.steps,
            batch=schedule.batch,
            compute=compute,
            seed=seed,
            device=device,
            gradient_checkpointing=compute.gradient_checkpointing,
        )
        self.schedule = schedule

    def learner(self, network: nn.Module, **options: bool) -> Learner:
        """A network of this stage, moved to the device, with its optimiser; options as
        `Learner`'s.
        """
        optimizer = torch.optim.AdamW(
            network.to(self.device).parameters(),
            lr=self.schedule.lr,
            betas=self.schedule.betas,
            weight_decay=self.schedule.weight_decay,
            fused=True,
        )
        return Learner(network, optimizer, precision=self.precision, **options)

    def rates(self) -> tuple[float, float]:
        return learning_rate(self.schedule, self.step), 0.0
