"""What a denoiser learns: how latents are noised, and what it is to say of them."""

from typing import Any, Protocol

import torch


class Objective(Protocol):
    """levels: how noisy each of n images becomes, float32, drawn on the CPU; of the hardest step
    for memory too.
    """

    def levels(self, n: int, generator: torch.Generator) -> torch.Tensor: ...

    def noised(
        self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(noisy latents, the target, the timesteps that the network is told); all (n, C, h, w)
        float32, but (n,) the last.
        """
        ...


class Diffusion:
    """Stable Diffusion 1.x and 2 (Rombach et al. 2022): the noise, or v (Salimans and Ho 2022), at
    a step drawn uniformly; by the pipeline's own schedule.
    """

    def __init__(self, scheduler: Any):
        from diffusers import DDPMScheduler

        self.chain = DDPMScheduler.from_config(scheduler.config)
        self.steps = int(self.chain.config["num_train_timesteps"])
        self.predicts = self.chain.config["prediction_type"]
        if self.predicts not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"pipeline: its scheduler's prediction_type is {self.predicts!r}; an adaptation "
                "knows epsilon and v_prediction"
            )

    def levels(self, n: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(0, self.steps, (n,), generator=generator).float()

    def noised(
        self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        t = levels.long()
        noisy = self.chain.add_noise(clean, noise, t)
        target = noise if self.predicts == "epsilon" else self.chain.get_velocity(clean, noise, t)
        return noisy, target, t


class Flow:
    """Stable Diffusion 3 (Esser et al. 2024): a straight path from image to noise, whose direction
    is the target; its place is drawn logit-normal (Section 3.1) and shifted as the pipeline's
    schedule is (Eq. 23).
    """

    def __init__(self, scheduler: Any):
        self.steps = int(scheduler.config["num_train_timesteps"])
        self.shift = float(scheduler.config["shift"])

    def levels(self, n: int, generator: torch.Generator) -> torch.Tensor:
        place = torch.randn(n, generator=generator).sigmoid()
        return self.shift * place / (1 + (self.shift - 1) * place)

    def noised(
        self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        share = levels.view(-1, 1, 1, 1)
        return (1 - share) * clean + share * noise, noise - clean, levels * self.steps


def objective(pipeline: Any) -> Objective:
    """What a pipeline's denoiser learned, and goes on to learn."""
    if hasattr(pipeline, "transformer"):
        return Flow(pipeline.scheduler)
    return Diffusion(pipeline.scheduler)
