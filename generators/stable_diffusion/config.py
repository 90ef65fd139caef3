"""The Stable Diffusion generator's configuration: frozen, validated where it is built, free of
torch.

The defaults are the paper's: five images per caption, the bottom 20% by CLIP's zero-shot confidence
dropped. `equigrid.generators.stable_diffusion.presets` names the versions.
"""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from equigrid.generators.base_config import Flops, GeneratorConfig, Precision
from equigrid.generators.stable_diffusion import prompts, sources, words
from equigrid.generators.stable_diffusion.flops import CLIP_L14, PIPELINES
from equigrid.payloads import Frozen

Template = Literal["c", "c,bg", "c,rel"]


class Captions(Frozen):
    """Prompts by a language model that continues examples: c -> caption, (c, bg) -> caption, (c,
    rel) -> caption.
    """

    # fmt: off
    original: ClassVar = (
        "language_model", "revision", "templates", "images_per_caption", "examples_per_caption",
        "max_new_tokens", "temperature", "top_p", "examples", "backgrounds", "relations",
    )
    # fmt: on

    language_model: str
    """A folder or a hub id of a causal language model; it completes text, so a base model will
    do.
    """
    revision: str = "main"
    """Of the language model, on its hub."""
    templates: tuple[Template, ...] = ("c", "c,bg", "c,rel")
    """Taken in turn, caption by caption."""
    images_per_caption: int = Field(5, ge=1)
    """Images that are made from one caption."""
    examples_per_caption: int = Field(3, ge=1)
    """In-context examples, drawn anew for each caption."""
    max_new_tokens: int = Field(60, ge=1)
    """Length of a caption."""
    temperature: float = Field(0.9, gt=0)
    """Of the words' distribution."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Words are drawn from the likeliest that have this probability together."""
    examples: str | None = None
    """A JSON file in place of our examples, of the same form: template -> list of [given,
    caption].
    """
    backgrounds: str | None = None
    """A text file in place of our list of backgrounds, one a line."""
    relations: str | None = None
    """A text file in place of our list of relations, one a line."""

    @field_validator("templates")
    @classmethod
    def _once(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if not templates or len(set(templates)) != len(templates):
            raise ValueError(f"{list(templates)}: one or more of 'c', 'c,bg', 'c,rel', each once")
        return templates

    def words(self) -> words.Words:
        """Examples, backgrounds and relations; ValueError for a file that is missing or of another
        form.
        """
        return words.read(self.examples, self.backgrounds, self.relations)

    def payload(self) -> dict:
        """What determines a caption beside class, number and seed."""
        paths = {"language_model", "revision", "examples", "backgrounds", "relations"}
        own = self.identity(exclude=paths)
        identity = sources.identity("captions.language_model", self.language_model, self.revision)
        return {**own, "language_model": identity, "words_sha256": self.words().digest()}


class Sampler(Frozen):
    """How the pipeline is called."""

    original: ClassVar = ("steps", "guidance", "height", "width", "batch")

    steps: int = Field(50, ge=1, le=10_000)
    """Of the scheduler."""
    guidance: float = Field(7.5, ge=0)
    """Classifier-free guidance scale."""
    height: int | None = Field(None, ge=8, multiple_of=8)
    """Of the image as the pipeline makes it, before it is resized to the dataset's; null for its
    own size.
    """
    width: int | None = Field(None, ge=8, multiple_of=8)
    """Side of the images that are made, before they are resized; null: the model's own."""
    batch: int = Field(8, ge=1)
    """Images at once.  Changes pixels by rounding alone, so it is no part of what identifies a
    pool.
    """


class ClipFilter(Frozen):
    """Keeps images whose zero-shot confidence, CLIP's softmax over all classes' prompts, is not in
    the bottom part.

    The bottom part's upper end is measured on `calibration_per_class` images of each class, made
    for that alone.
    """

    original: ClassVar = ("model", "revision", "prompt", "drop", "scope", "calibration_per_class")

    model: str
    """A folder or a hub id of a CLIP model with its processor."""
    revision: str = "main"
    """Of the model, on its hub."""
    prompt: str = "a photo of {a} {c}."
    """Text of a class: {a} is its article, {c} its name."""
    drop: float = 0.2
    """Part of the images that is dropped."""
    scope: Literal["class", "all"] = "class"
    """class: the bottom part of each class; all: that of all classes together (labels stay balanced
    either way).
    """
    calibration_per_class: int = Field(100, ge=2)
    """Real images of each class that the threshold is taken from."""

    @field_validator("prompt")
    @classmethod
    def _prompt(cls, prompt: str) -> str:
        return prompts.checked_template(prompt)

    @field_validator("drop")
    @classmethod
    def _keeps_some(cls, drop: float) -> float:
        if not 0 <= drop < 1:
            raise ValueError(
                "a filter that drops this part keeps nothing; drop lies in [0, 1), such as 0.2"
            )
        return drop

    def payload(self) -> dict:
        """What determines an image's confidence, and how many images calibrate it."""
        identity = sources.identity("clip_filter.model", self.model, self.revision)
        return {
            "model": identity,
            "prompt": self.prompt,
            "calibration_per_class": self.calibration_per_class,
            **self.added(),
        }


class Compute(Frozen):
    """How, not what, is computed: changes results by rounding alone and never enters an id."""

    precision: Precision = "auto"
    """Of the pipeline; auto is fp16 on a CUDA device, fp32 on a CPU."""


class StableDiffusionConfig(GeneratorConfig):
    """An open-set generator: a text-to-image pipeline of diffusers, prompted with the classes'
    names.
    """

    # fmt: off
    original: ClassVar = (
        "kind", "setting", "pipeline", "revision", "prompt", "captions", "rename", "sampler",
        "clip_filter", "compute",
    )
    # fmt: on

    kind: Literal["stable-diffusion"] = "stable-diffusion"
    """Names it."""
    setting: Literal["open"] = "open"
    """closed: the generator saw the base subset only; open: it may have seen other data."""
    pipeline: str
    """A folder with model_index.json, as diffusers saves it, or a hub id."""
    revision: str = "main"
    """Of a hub id: a branch or, to fix the weights, a commit."""
    prompt: str | None = None
    """With {c} for the class's name and {a} for its article, a or an.  Either this or
    `captions`.
    """
    captions: Captions | None = None
    rename: dict[str, str] = {}
    """Words for prompts in place of the dataset's class names."""
    sampler: Sampler = Sampler()
    clip_filter: ClipFilter | None = None
    compute: Compute = Compute()

    @field_validator("setting", mode="before")
    @classmethod
    def _open(cls, setting: str) -> str:
        if setting == "closed":
            raise ValueError(
                "the pipeline was trained on other images than the base subset; "
                "Stable Diffusion is open"
            )
        return setting

    @field_validator("prompt")
    @classmethod
    def _prompt(cls, prompt: str | None) -> str | None:
        return None if prompt is None else prompts.checked_template(prompt)

    @model_validator(mode="after")
    def _one_prompt(self) -> "StableDiffusionConfig":
        if (self.prompt is None) == (self.captions is None):
            have = "neither" if self.prompt is None else "both"
            raise ValueError(
                f"prompts come from either 'prompt' or 'captions', got {have}; "
                "set one, null the other"
            )
        return self

    def names(self, class_names: tuple[str, ...], classes: int) -> tuple[str, ...]:
        """The classes in words, in the order of labels; ValueError if a prompt cannot be made of
        them.
        """
        return prompts.names(class_names, self.rename, classes)

    def check_own(
        self,
        height: int,
        width: int,
        channels: int,
        classes: int,
        n_images: int,
        class_names: tuple[str, ...],
    ) -> None:
        self.names(class_names, classes)
        if self.clip_filter is not None and classes < 2:
            raise ValueError(
                f"clip_filter: confidence among {classes} class tells nothing; drop the filter"
            )
        self.sampling_payload()  # every file named is looked up

    def cost_facts(
        self, height: int, width: int, channels: int, classes: int, n_images: int | None
    ) -> dict[str, int]:
        """Evaluations are two a step with guidance."""
        steps, guided = self.sampler.steps, self.sampler.guidance > 1
        facts = {"sampling_batch": self.sampler.batch, "sampler_steps": steps}
        return {**facts, "evaluations_per_image": steps * (2 if guided else 1)}

    def flops(
        self, height: int, width: int, channels: int, classes: int, n_images: int
    ) -> Flops | None:
        """Candidates that the filter drops are made too, and so are those that calibrate it.
        Language model and text encoders are left out: less than a hundredth.
        """
        known = PIPELINES.get(self.pipeline)
        if known is None:
            return None
        evaluations = self.cost_facts(height, width, channels, classes, None)
        candidate = evaluations["evaluations_per_image"] * known.evaluation + known.decoder
        if self.clip_filter is None:
            return Flops(0, candidate, True)
        candidate += CLIP_L14
        calibration = self.clip_filter.calibration_per_class * classes * candidate
        return Flops(calibration, candidate / (1 - self.clip_filter.drop), True)

    def training_payload(self) -> dict:
        """The pipeline, and with a filter all that determines the images of its calibration."""
        if self.clip_filter is None:
            return {"kind": self.kind, "pipeline": self._pipeline(), "rev": REV}
        return self._images_payload()

    def sampling_payload(self) -> dict:
        """All that determines candidates, and which of them are kept."""
        kept = self.clip_filter and self.clip_filter.model_dump(
            mode="json", include={"drop", "scope"}
        )
        return {**self._images_payload(), "kept": kept}

    def _images_payload(self) -> dict:
        return {
            "kind": self.kind,
            "pipeline": self._pipeline(),
            "prompt": self.prompt,
            "captions": self.captions and self.captions.payload(),
            "rename": dict(self.rename),
            "sampler": self.sampler.identity(exclude=("batch",)),
            "clip_filter": self.clip_filter and self.clip_filter.payload(),
            "rev": REV,
        }

    def _pipeline(self) -> dict:
        return sources.identity("pipeline", self.pipeline, self.revision)


REV = 1
"""Raised when a change of the code changes pixels by more than rounding."""
