"""The EDM generator's configuration: frozen, validated where it is built, free of torch.

The defaults are the published class-conditional CIFAR-10 setting (Karras et al. 2022, Table 1,
Table 7 "DDPM++ cond. CIFAR-10", Appendix F); `equigrid.generators.edm.presets` names the others.
"""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from equigrid.generators.base_config import TRAINING_PASSES, Betas, Compute, Flops, TrainedConfig
from equigrid.generators.common import hub, weights
from equigrid.generators.common.digests import sha256
from equigrid.generators.edm.layout import Layout, flops, layout, parameters
from equigrid.payloads import Frozen

AUGMENTATION_LABELS = {
    "x_flip": 1,
    "y_flip": 1,
    "scale": 1,
    "rotate": 2,
    "stretch": 2,
    "translate": 2,
    "shift": 2,
}
"""Conditioning labels per kind of augmentation, in the order in which the network takes them."""

PUBLISHED_AUGMENTATIONS = ("x_flip", "y_flip", "scale", "rotate", "stretch", "translate")


class Network(Frozen):
    """Size of the U-Net, Karras et al. 2022, Table 8."""

    # fmt: off
    original: ClassVar = (
        "model_channels", "channel_mult", "embedding_mult", "num_blocks", "attn_resolutions",
        "dropout", "patch", "sigma_data",
    )
    # fmt: on

    model_channels: int = Field(128, ge=4)
    """Width of the first level."""
    channel_mult: tuple[int, ...] = (2, 2, 2)
    """Width per level in units of model_channels; each further level halves the resolution."""
    embedding_mult: int = Field(4, ge=1)
    """Width of the embedding of noise and class, in units of model_channels."""
    num_blocks: int = Field(4, ge=0)
    """Residual blocks of each level."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Heights, in pixels (in patches where patch is above 1), of the levels with self-attention;
    the middle block always has it.
    """
    dropout: float = Field(0.13, ge=0, lt=1)
    """In every residual block."""
    patch: int = Field(1, ge=1)
    """Squares of patch x patch pixels enter and leave as channels: 2 makes the network 4 times
    cheaper. Not in the publication, for budgets of a core or two.
    """
    sigma_data: float = Field(0.5, gt=0)
    """Assumed deviation of the pixels in [-1, 1]."""

    @field_validator("channel_mult")
    @classmethod
    def _levels(cls, mult: tuple[int, ...]) -> tuple[int, ...]:
        if not mult or min(mult) < 1:
            raise ValueError(
                f"{list(mult)}: one positive whole number per level, such as [2, 2, 2]"
            )
        return mult


class Augmentation(Frozen):
    """Non-leaking augmentation: applied to training images and told to the network as labels."""

    original: ClassVar = ("kinds", "probability", "shift_pixels")

    kinds: tuple[str, ...] = PUBLISHED_AUGMENTATIONS
    """Which; each draw is told to the network, so that it does not leak into samples."""
    probability: float = Field(0.12, ge=0, le=1)
    """Of each kind, except x_flip, which is always drawn (Karras et al. 2022, Table 6)."""
    shift_pixels: int = Field(1, ge=1)
    """Largest whole-pixel shift of kind "shift", in either direction of either axis."""

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        for kind in kinds:
            if kind not in AUGMENTATION_LABELS:
                raise ValueError(
                    f"{kind!r} is not a kind of augmentation; there are "
                    f"{', '.join(AUGMENTATION_LABELS)}"
                )
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"{list(kinds)} names a kind twice")
        return tuple(kind for kind in AUGMENTATION_LABELS if kind in kinds)

    @property
    def labels(self) -> int:
        """Length of an image's vector of augmentation labels."""
        return sum(AUGMENTATION_LABELS[kind] for kind in self.kinds)


class Training(Frozen):
    """Budget, optimiser and noise distribution of training.  Amounts in training images
    ("nimg").
    """

    # fmt: off
    original: ClassVar = (
        "total_nimg", "full_at_images", "least_nimg", "batch", "optimizer", "lr", "betas", "eps",
        "weight_decay", "lr_rampup_nimg", "lr_decay_nimg", "ema_halflife_nimg", "ema_rampup_ratio",
        "P_mean", "P_std", "augmentation",
    )
    # fmt: on

    total_nimg: int = Field(200_000_000, ge=1)
    """Images that the training sees, with repetitions."""
    full_at_images: int | None = Field(None, ge=1)
    """Of fewer images than this, total_nimg, lr_rampup_nimg and lr_decay_nimg shrink in proportion;
    null keeps them."""
    least_nimg: int = Field(1, ge=1)
    """Below this total_nimg does not shrink."""
    batch: int = Field(512, ge=1)
    """Images per step over all devices together."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """AdamW decays weights apart from the gradient."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate."""
    betas: Betas = (0.9, 0.999)
    """Of Adam's moments."""
    eps: float = Field(1e-8, gt=0)
    """Of Adam's denominator."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's."""
    lr_rampup_nimg: int = Field(10_000_000, ge=0)
    """Over the first so many images the rate rises linearly."""
    lr_decay_nimg: int = Field(0, ge=0)
    """Over the last so many images the rate falls linearly to zero; 0, as published, keeps it
    constant.
    """
    ema_halflife_nimg: int = Field(500_000, ge=1)
    """Half-life of the moving average of the weights, in images; samples are made with the
    average.
    """
    ema_rampup_ratio: float | None = Field(0.05, gt=0)
    """The half-life is at most this part of the images seen so far; null for no ramp-up."""
    P_mean: float = -1.2
    """Mean of ln(sigma)."""
    P_std: float = Field(1.2, gt=0)
    """ln(sigma) ~ N(P_mean, P_std**2), Karras et al. 2022, Table 1."""
    augmentation: Augmentation = Augmentation()

    def for_images(self, n_images: int) -> "Training":
        """The durations that a base of n_images gets, written out."""
        if self.full_at_images is None:
            return self
        part = min(max(n_images / self.full_at_images, self.least_nimg / self.total_nimg), 1.0)
        names = ("total_nimg", "lr_rampup_nimg", "lr_decay_nimg")
        shrunk = {name: round(getattr(self, name) * part) for name in names}
        return self.model_copy(update={**shrunk, "full_at_images": None})

    @property
    def steps(self) -> int:
        return -(-self.total_nimg // self.batch)


class Sampler(Frozen):
    """Karras et al. 2022, Algorithm 2 (Algorithm 1 where S_churn is 0, the default)."""

    # fmt: off
    original: ClassVar = (
        "steps", "sigma_min", "sigma_max", "rho", "S_churn", "S_min", "S_max", "S_noise", "batch",
    )
    # fmt: on

    steps: int = Field(18, ge=1, le=10_000)
    """Heun steps, the last of them Euler's."""
    sigma_min: float = Field(0.002, gt=0)
    """The lowest noise level."""
    sigma_max: float = Field(80.0, gt=0)
    """The highest, where sampling starts."""
    rho: float = Field(7.0, gt=0)
    """Spacing of the levels between them."""
    S_churn: float = Field(0.0, ge=0)
    """Noise that is added at each step; 0: none."""
    S_min: float = Field(0.0, ge=0)
    """The lowest level at which it is added."""
    S_max: float | None = Field(None, gt=0)
    """Noise is added while sigma is in [S_min, S_max]; null for no upper end."""
    S_noise: float = Field(1.0, gt=0)
    """Its deviation."""
    batch: int = Field(256, ge=1)
    """Images at once.  Changes pixels by rounding alone, so it is no part of what identifies a
    pool.
    """

    @model_validator(mode="after")
    def _ordered(self) -> "Sampler":
        if not self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min {self.sigma_min} must lie below sigma_max {self.sigma_max}"
            )
        return self

    @property
    def evaluations(self) -> int:
        """Of the network, per image."""
        return 2 * self.steps - 1


class EDMConfig(TrainedConfig):
    """A class-conditional EDM generator: trained on the base subset, or with weights from a
    file.
    """

    original: ClassVar = ("kind", "setting", "weights", "network", "training", "sampler", "compute")

    kind: Literal["edm"] = "edm"
    """Names it."""
    setting: Literal["closed", "open"] = "closed"
    """closed: the generator saw the base subset only; open: it may have seen other data."""
    weights: str | None = None
    """A safetensors file with a network's state dict; then nothing is trained."""
    network: Network = Network()
    training: Training = Training()
    sampler: Sampler = Sampler()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _setting_fits(self) -> "EDMConfig":
        if self.weights is None and self.setting == "open" and not self.learns_from_outside:
            raise ValueError(
                "setting 'open' needs 'weights', or trained_on: outside: an EDM trained here sees "
                "the base subset only"
            )
        return self

    def layout(self, height: int, width: int) -> Layout:
        """The network's blocks at an image size; ValueError if it cannot take it."""
        patch = self.network.patch
        if height % patch or width % patch:
            raise ValueError(
                f"image size {height}x{width} does not divide into patches "
                f"of {patch}x{patch} pixels"
            )
        return layout(
            height=height // patch,
            width=width // patch,
            model_channels=self.network.model_channels,
            channel_mult=self.network.channel_mult,
            num_blocks=self.network.num_blocks,
            attn_resolutions=self.network.attn_resolutions,
        )

    def check_own(
        self,
        height: int,
        width: int,
        channels: int,
        classes: int,
        n_images: int,
        class_names: tuple[str, ...],
    ) -> None:
        self.layout(height, width)
        if n_images < 1 and self.weights is None:
            raise ValueError("an EDM cannot be trained on no images")
        if self.weights is not None and not Path(hub.local(self.weights)).is_file():
            raise ValueError(f"weights: there is no file {self.weights!r}")
        if self.weights is not None:
            weights.check_file(hub.local(self.weights), "weights")

    def batches(self) -> dict[str, int]:
        return {} if self.weights else {"training.batch": self.training.batch}

    def for_images(self, n_images: int) -> "EDMConfig":
        """The configuration with the durations that a base of n_images gets; `train` uses it by
        itself.
        """
        return self.model_copy(update={"training": self.training.for_images(n_images)})

    def cost_facts(
        self, height: int, width: int, channels: int, classes: int, n_images: int | None
    ) -> dict[str, int]:
        facts = {
            "parameters": parameters(
                self.layout(height, width),
                image_channels=channels * self.network.patch**2,
                classes=classes,
                augment_labels=self.training.augmentation.labels,
                embedding_mult=self.network.embedding_mult,
            ),
            "sampling_batch": self.sampler.batch,
            "sampler_steps": self.sampler.steps,
            "evaluations_per_image": self.sampler.evaluations,
        }
        if self.weights is not None or n_images is None:
            return facts
        training = self.training.for_images(n_images)
        return {**facts, "training_batch": training.batch, "training_steps": training.steps,
                "training_nimg": training.steps * training.batch}  # fmt: skip

    def flops(self, height: int, width: int, channels: int, classes: int, n_images: int) -> Flops:
        forward = flops(
            self.layout(height, width),
            image_channels=channels * self.network.patch**2,
            classes=classes,
            embedding_mult=self.network.embedding_mult,
        )
        facts = self.cost_facts(height, width, channels, classes, n_images)
        training = TRAINING_PASSES * forward * facts.get("training_nimg", 0)
        wide = self.network.model_channels >= 64
        return Flops(training, facts["evaluations_per_image"] * forward, wide)

    def training_payload(self) -> dict:
        """Network and training, or in place of both the SHA-256 of the file of weights."""
        if self.weights is not None:
            return {"kind": self.kind, "weights_sha256": sha256(hub.local(self.weights), "weights")}
        parts = self.identity(include=("kind", "network", "training"))
        return {**parts, "rev": TRAINING_REV}

    def sampling_payload(self) -> dict:
        """Sampler and network: weights from a file do not tell all of it (attention,
        sigma_data).
        """
        sampler = self.sampler.identity(exclude=("batch",))
        network = self.network.identity(exclude=("dropout",))
        return {"kind": self.kind, "network": network, "sampler": sampler, "rev": SAMPLING_REV}


TRAINING_REV = 1
"""Raised when a change of the code changes trained weights by more than rounding."""
SAMPLING_REV = 1
"""Raised when a change of the code changes pixels by more than rounding."""
