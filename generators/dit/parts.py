"""The parts of a DiT's configuration: networks, trainings, sampler. Free of torch."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from equigrid.generators import base_config
from equigrid.generators.base_config import Betas
from equigrid.payloads import Frozen

LEVEL_WIDTHS = {1: (1,), 2: (1, 2), 4: (1, 2, 4), 8: (1, 2, 4, 4)}
"""For each downsampling of the autoencoder, its levels' widths in units of base_channels (Rombach
et al. 2022).
"""

_FEATURE_LOSSES = ("perceptual", "lpips", "feature_loss")


class Network(Frozen):
    """Size of the transformer, Peebles and Xie 2023, Table 1."""

    original: ClassVar[tuple[str, ...]] = ("depth", "width", "heads", "patch")

    depth: int = Field(28, ge=1)
    """Transformer blocks."""
    width: int = Field(1152, ge=4)
    """Of each token."""
    heads: int = Field(16, ge=1)
    """Of attention."""
    patch: Literal[2, 4, 8] = 2
    """Side of a token, in latent pixels."""

    @model_validator(mode="after")
    def _divides(self) -> "Network":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be divisible by the {self.heads} heads")
        if self.width % 4:
            raise ValueError(
                f"width {self.width} must be divisible by 4 (sines and cosines of rows and columns)"
            )
        return self


class Schedule(Frozen):
    """A training's budget and learning rate, in optimiser steps."""

    # fmt: off
    original: ClassVar[tuple[str, ...]] = (
        "steps", "full_at_images", "least_steps", "batch", "lr", "lr_rampup_part", "lr_decay_part",
        "betas", "weight_decay",
    )
    # fmt: on

    steps: int = Field(400_000, ge=1)
    """Of the whole training."""
    full_at_images: int | None = Field(None, ge=1)
    """With fewer images than this, steps shrink in proportion; null keeps them."""
    least_steps: int = Field(1, ge=1)
    """Below this steps do not shrink."""
    batch: int = Field(256, ge=1)
    """Images per step over all devices together."""
    lr: float = Field(1e-4, gt=0)
    """Learning rate."""
    lr_rampup_part: float = Field(0.0, ge=0, le=1)
    """The part of the steps over which the rate rises linearly from zero."""
    lr_decay_part: float = Field(0.0, ge=0, le=1)
    """The part of the steps, at the end, over which it falls linearly to zero."""
    betas: Betas = (0.9, 0.999)
    """Of Adam's moments."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's."""

    def for_images(self, n_images: int) -> Self:
        """The schedule that a base of n_images gets, written out."""
        if self.full_at_images is None:
            return self
        part = min(n_images / self.full_at_images, 1.0)
        steps = max(round(self.steps * part), min(self.least_steps, self.steps))
        return self.model_copy(update={"steps": steps, "full_at_images": None})


class Training(Schedule):
    """The transformer's training; the defaults are published (batch, lr, AdamW, EMA), but for the
    steps.
    """

    original: ClassVar[tuple[str, ...]] = ("ema_decay", "label_dropout")

    ema_decay: float = Field(0.9999, ge=0, lt=1)
    """The part of the averaged weights that a step keeps; (1 + n) / (10 + n) after n steps while
    that is less.
    """
    label_dropout: float = Field(0.1, ge=0, lt=1)
    """Probability with which an image is shown without its label, for classifier-free guidance."""


class Discriminator(Frozen):
    """A patch discriminator (Isola et al. 2017) with group norm, against which the autoencoder
    trains.
    """

    original: ClassVar[tuple[str, ...]] = ("base_channels", "layers", "starts_at_part", "weight")

    base_channels: int = Field(64, ge=8, multiple_of=8)
    """Width of the first layer."""
    layers: int = Field(3, ge=1, le=6)
    """Convolutions of stride 2."""
    starts_at_part: float = Field(0.5, ge=0, le=1)
    """The part of the autoencoder's steps before which there is no discriminator; 1 for none at
    all.
    """
    weight: float = Field(0.1, ge=0)
    """Of the adversarial loss, beside the L1 loss per pixel value.  Fixed: an adaptive weight would
    depend on how many images a device takes at once.
    """


class VAETraining(Schedule):
    """The autoencoder's training.  The paper does not state its own: these values are our
    choice.
    """

    original: ClassVar[tuple[str, ...]] = ("steps", "batch", "betas", "kl_weight", "discriminator")

    steps: int = Field(100_000, ge=1)
    """Of the whole training."""
    batch: int = Field(64, ge=1)
    betas: Betas = (0.5, 0.9)
    """Of Adam's moments."""
    kl_weight: float = Field(1e-6, ge=0)
    """Of the divergence of an image's latents from a standard normal, beside its L1 loss, both
    summed.
    """
    discriminator: Discriminator = Discriminator()


class VAE(Frozen):
    """The autoencoder, retrained on the base subset."""

    # fmt: off
    original: ClassVar[tuple[str, ...]] = (
        "downsample", "base_channels", "layers_per_block", "latent_channels", "norm_groups",
        "attention", "weights", "training",
    )
    # fmt: on

    downsample: Literal[1, 2, 4, 8] = 8
    """Pixels per latent pixel in each direction (f)."""
    base_channels: int = Field(128, ge=1)
    """Width of the first level."""
    layers_per_block: int = Field(2, ge=1)
    """Residual layers of each level."""
    latent_channels: int = Field(4, ge=1)
    """Of the latent images."""
    norm_groups: int = Field(32, ge=1)
    """Of the group norms."""
    attention: bool = True
    """Self-attention in the middle block."""
    weights: str | None = None
    """A folder in diffusers' format with a pre-trained autoencoder, beside the top's `weights`;
    open set only.
    """
    training: VAETraining = VAETraining()

    @model_validator(mode="before")
    @classmethod
    def _no_feature_loss(cls, values: Any) -> Any:
        for name in _FEATURE_LOSSES:
            if isinstance(values, dict) and values.get(name):
                raise ValueError(
                    f"{name} {values[name]!r} would be a feature loss from a network trained on "
                    "other images (ImageNet), which opens the closed set; leave it out, "
                    "L1 and the discriminator are what there is"
                )
        return values

    @model_validator(mode="after")
    def _groups_fit(self) -> "VAE":
        if self.base_channels % self.norm_groups:
            raise ValueError(
                f"base_channels {self.base_channels} must be divisible by "
                f"norm_groups {self.norm_groups}"
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.base_channels * width for width in LEVEL_WIDTHS[self.downsample])


class Sampler(Frozen):
    """Ancestral sampling with the learned variance (Nichol and Dhariwal 2021) and classifier-free
    guidance.
    """

    original: ClassVar[tuple[str, ...]] = ("steps", "guidance", "guidance_channels", "batch")

    steps: int = Field(250, ge=1, le=1000)
    """Steps kept of the 1,000 of training."""
    guidance: float = Field(4.0, ge=0)
    """Conditional plus (guidance - 1) times what the label adds; 1 for no guidance."""
    guidance_channels: Literal["all", "three"] = "all"
    """Latent channels on which it acts; three is what the released code did."""
    batch: int = Field(64, ge=1)
    """Images at once.  Changes pixels by rounding alone, so it is no part of what identifies a
    pool.
    """

    @property
    def evaluations(self) -> int:
        """Of the network, per image: two a step, with the label and without, or one where nothing
        is guided.
        """
        return self.steps * (1 if self.guidance == 1 else 2)


class Compute(base_config.Compute):
    """How, not what, is computed: changes results by rounding alone and never enters an id."""

    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Activations computed twice instead of kept; auto is on where a batch does not fit the device
    otherwise.
    """
