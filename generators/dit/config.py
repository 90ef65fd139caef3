"""The DiT generator's configuration: frozen, validated where it is built, free of torch.

The defaults are DiT-XL/2 (Peebles and Xie 2023, Tables 1 and 4) on an autoencoder of the size of
Stable Diffusion's (Rombach et al. 2022, KL, f = 8), which is trained here too;
`equigrid.generators.dit.presets` names the other sizes.
"""

from typing import ClassVar, Literal

from pydantic import model_validator

from equigrid.generators.base_config import TRAINING_PASSES, Flops, TrainedConfig
from equigrid.generators.dit import released, sizes
from equigrid.generators.dit.parts import VAE, Compute, Network, Sampler, Schedule, Training


class DiTConfig(TrainedConfig):
    """A class-conditional latent diffusion transformer with its own autoencoder, or released ones
    from files.
    """

    # fmt: off
    original: ClassVar = (
        "kind", "setting", "weights", "class_indices", "network", "vae", "training", "flips",
        "sampler", "compute",
    )
    # fmt: on

    kind: Literal["dit"] = "dit"
    """Names it."""
    setting: Literal["closed", "open"] = "closed"
    """closed: autoencoder and transformer see the base subset only; open: released ones, trained on
    other data.
    """
    weights: str | None = None
    """A folder in diffusers' format (`transformer/`, `vae/`), or a transformer's folder or
    safetensors file beside `vae.weights`; then nothing is trained.
    """
    class_indices: tuple[int, ...] | None = None
    """With `weights`: the network's class for each class of the dataset; null for the same
    numbers.
    """
    network: Network = Network()
    vae: VAE = VAE()
    training: Training = Training()
    flips: bool = True
    """Whether half of the training images are mirrored, left to right."""
    sampler: Sampler = Sampler()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _setting_fits(self) -> "DiTConfig":
        named = {"weights": self.weights, "vae.weights": self.vae.weights}
        if self.setting == "closed":
            for key, path in named.items():
                if path is not None:
                    raise ValueError(
                        f"{key} {path!r} is pre-trained: a closed-set generator learns from the "
                        "base subset alone; leave it out, or write setting: open"
                    )
        if self.setting == "open" and self.weights is None and not self.learns_from_outside:
            raise ValueError(
                "setting 'open' needs 'weights', or trained_on: outside: a DiT trained here sees "
                "the base subset only"
            )
        if self.class_indices is not None and self.weights is None:
            raise ValueError("class_indices are for released 'weights'")
        if self.sampler.guidance != 1 and self.weights is None and self.training.label_dropout == 0:
            raise ValueError(
                "guidance needs a label_dropout above 0: without, "
                "the network knows no image unlabelled"
            )
        return self

    def latent_side(self, height: int, width: int) -> int:
        """Side of the square of latents at an image size; ValueError if the networks cannot take
        it.
        """
        if height != width:
            raise ValueError(f"image size {height}x{width}: the transformer takes square images")
        factor = self.vae.downsample * self.network.patch
        if height % factor:
            raise ValueError(
                f"image size {height}x{width} must be divisible by {factor}: "
                f"vae.downsample {self.vae.downsample} times network.patch {self.network.patch}"
            )
        return height // self.vae.downsample

    def check_own(
        self,
        height: int,
        width: int,
        channels: int,
        classes: int,
        n_images: int,
        class_names: tuple[str, ...],
    ) -> None:
        self.latent_side(height, width)
        if self.weights is not None:
            released.latent_scale(self.weights, self.vae.weights)  # looks for all of the files
            if self.class_indices is not None and len(self.class_indices) != classes:
                raise ValueError(
                    f"class_indices has {len(self.class_indices)} entries, "
                    f"the dataset {classes} classes"
                )
            return
        if n_images < 1:
            raise ValueError("a DiT cannot be trained on no images")
        layers = self.vae.training.discriminator.layers
        if height < 3 * 2**layers:
            raise ValueError(
                f"image size {height}x{width} is too small for vae.training.discriminator.layers "
                f"{layers}, which need {3 * 2**layers} pixels"
            )

    def batches(self) -> dict[str, int]:
        if self.weights:
            return {}
        return {
            "vae.training.batch": self.vae.training.batch,
            "training.batch": self.training.batch,
        }

    def for_images(self, n_images: int) -> "DiTConfig":
        """The configuration with the durations that a base of n_images gets; `train` uses it by
        itself.
        """
        vae = self.vae.model_copy(update={"training": self.vae.training.for_images(n_images)})
        return self.model_copy(update={"training": self.training.for_images(n_images), "vae": vae})

    def cost_facts(
        self, height: int, width: int, channels: int, classes: int, n_images: int | None
    ) -> dict[str, int]:
        """parameters, training_* and evaluations are the transformer's, guidance included.

        Beside them autoencoder_parameters (the discriminator apart), autoencoder_batch,
        autoencoder_steps and autoencoder_nimg.
        """
        facts = {
            "parameters": sizes.transformer(
                self.network, channels=self.vae.latent_channels, classes=classes
            ),
            "autoencoder_parameters": sizes.autoencoder(self.vae, channels=channels),
            "sampling_batch": self.sampler.batch,
            "sampler_steps": self.sampler.steps,
            "evaluations_per_image": self.sampler.evaluations,
        }
        if self.weights is None and n_images is not None:
            chosen = self.for_images(n_images)
            stages: dict[str, Schedule] = {
                "training": chosen.training,
                "autoencoder": chosen.vae.training,
            }
            for name, of in stages.items():
                facts |= {
                    f"{name}_batch": of.batch,
                    f"{name}_steps": of.steps,
                    f"{name}_nimg": of.steps * of.batch,
                }
        return facts

    def flops(self, height: int, width: int, channels: int, classes: int, n_images: int) -> Flops:
        """The discriminator sees an image three times in a step: once for the autoencoder, and one
        real and one made for itself. (Its share is a hundredth.)
        """
        side, latent = self.latent_side(height, width), self.vae.latent_channels
        forward = sizes.transformer_flops(self.network, side=side, channels=latent)
        encoder = sizes.encoder_flops(self.vae, side=height, channels=channels)
        decoder = sizes.decoder_flops(self.vae, side=height, channels=channels)
        facts = self.cost_facts(height, width, channels, classes, n_images)
        training: float = TRAINING_PASSES * forward * facts.get("training_nimg", 0)
        if stage := facts.get("autoencoder_nimg"):
            settings = self.vae.training.discriminator
            judge = sizes.discriminator_flops(settings, side=height, channels=channels)
            judged = 3 * judge * (1 - settings.starts_at_part)
            training += TRAINING_PASSES * stage * (encoder + decoder + judged)
            training += n_images * encoder * (2 if self.flips else 1)  # the latents that are kept
        per_image = facts["evaluations_per_image"] * forward + decoder
        return Flops(training, per_image, self.network.width >= 256)

    def training_payload(self) -> dict:
        """Networks and trainings, or in place of them the SHA-256 of the files of released
        weights.
        """
        if self.weights is not None:
            return {
                "kind": self.kind,
                "files_sha256": released.digests(self.weights, self.vae.weights),
            }
        parts = self.identity(
            include={"kind", "network", "training", "flips", "vae"}, exclude={"vae": {"weights"}}
        )
        return {**parts, "rev": TRAINING_REV}

    def sampling_payload(self) -> dict:
        """Networks, sampler and classes: weights from files do not tell all of it."""
        sampler = self.sampler.identity(exclude=("batch",))
        vae = self.vae.identity(exclude=("training", "weights"))
        network = self.network.identity()
        parts = {
            "network": network,
            "vae": vae,
            "sampler": sampler,
            "class_indices": self.class_indices,
        }
        return {"kind": self.kind, **parts, "rev": SAMPLING_REV}


TRAINING_REV = 1
"""Raised when a change of the code changes trained weights by more than rounding."""
SAMPLING_REV = 1
"""Raised when a change of the code changes pixels by more than rounding."""
