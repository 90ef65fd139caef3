"""How a pipeline is adapted to the base subset: parts of the configuration, free of torch."""

from typing import Literal

from pydantic import Field, field_validator

from equigrid.payloads import Frozen


class Adaptation(Frozen):
    """Low-rank adapters (LoRA, Hu et al. 2022) of the denoiser, trained on the base subset alone;
    the pipeline's own weights stay as they are.
    """

    rank: int = Field(16, ge=1)
    """Of each adapter. Its output is added as it is: alpha is the rank."""
    layers: Literal["attention", "all"] = "attention"
    """Which layers have one: the attention's projections, or every linear layer and convolution."""
    tokens: bool = False
    """Textual inversion (Gal et al. 2023): a token of its own for each class stands for {c}, and
    what the text encoders take it for is learned too. It begins as the class's name.
    """
    steps: int = Field(1000, ge=1)
    """Of the whole training."""
    batch: int = Field(8, ge=1)
    """Images per step over all devices together."""
    lr: float = Field(1e-4, gt=0)
    """Learning rate of the adapters."""
    token_lr: float = Field(5e-4, gt=0)
    """Learning rate of the tokens."""
    lr_rampup_part: float = Field(0.0, ge=0, le=1)
    """The part of the steps over which the rates rise linearly from zero."""
    lr_decay_part: float = Field(0.0, ge=0, le=1)
    """The part of the steps, at the end, over which they fall linearly to zero."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, of the adapters."""
    prompt_dropout: float = Field(0.1, ge=0, lt=1)
    """Probability with which an image is shown without its prompt, for classifier-free guidance."""
    flips: bool = False
    """Whether half of the training images are mirrored, left to right."""

    def rate(self, step: int) -> float:
        """The learning rate of the adapters in the step after `step` steps."""
        up, down = self.lr_rampup_part * self.steps, self.lr_decay_part * self.steps
        rising = min((step + 1) / up, 1.0) if up else 1.0
        falling = min((self.steps - step) / down, 1.0) if down else 1.0
        return self.lr * min(rising, falling)


class Variation(Frozen):
    """Image-to-image: each image of the pool begins as one of the base, of its class, with noise
    (SDEdit, Meng et al. 2022; DA-Fusion, Trabucco et al. 2024).
    """

    strength: float = 0.5
    """How much noise: the part of the sampler's steps that are taken. Near 0 a copy of the source
    through the autoencoder, 1 noise alone, as without `variation`.
    """

    @field_validator("strength")
    @classmethod
    def _in_range(cls, strength: float) -> float:
        if not 0 < strength <= 1:
            raise ValueError("strength lies in (0, 1], such as 0.5")
        return strength

    def steps(self, steps: int) -> int:
        """How many of the sampler's steps are taken."""
        return int(steps * self.strength)
