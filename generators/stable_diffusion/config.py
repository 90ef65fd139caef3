"""The Stable Diffusion generator's configuration: frozen, validated where it is built, free of
torch.

The defaults are the paper's: five images per caption, the bottom 20% by CLIP's zero-shot confidence
dropped. `equigrid.generators.stable_diffusion.presets` names the versions.
"""

from importlib.util import find_spec
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from equigrid.generators.base_config import Flops, GeneratorConfig, Precision
from equigrid.generators.stable_diffusion import prompts, sources, words
from equigrid.generators.stable_diffusion.adaptation import Adaptation, Variation
from equigrid.generators.stable_diffusion.flops import CLIP_L14, adapting, known
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
    lora_scale: float = Field(1.0, ge=0)
    """With `adaptation`, the scale of its adapters; 0 leaves the pipeline as it was released."""


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
    training_precision: Precision = "auto"
    """Of the pipeline while it is adapted; auto is bf16 on a CUDA device, fp32 on a CPU. Adapters
    are float32.
    """
    microbatch: int | None = Field(None, ge=1)
    """Most images of a training step that a device takes at once; null for its whole part of the
    batch. Halved by itself when memory does not suffice.
    """
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Activations computed twice instead of kept; auto is on where a batch does not fit the device
    otherwise.
    """


class StableDiffusionConfig(GeneratorConfig):
    """A text-to-image pipeline of diffusers, prompted with the classes' names: as it is (open set),
    or adapted to each base.
    """

    # fmt: off
    original: ClassVar = (
        "kind", "setting", "pipeline", "revision", "prompt", "captions", "rename", "sampler",
        "clip_filter", "compute",
    )
    # fmt: on

    kind: Literal["stable-diffusion"] = "stable-diffusion"
    """Names it."""
    setting: Literal["open", "adapted"] = "open"
    """open: the pipeline as it was released; adapted: with `adaptation` or `variation`, so that it
    knows the base subset too.
    """
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
    adaptation: Adaptation | None = None
    """Adapters that are trained on the base subset; null for the pipeline as it was released."""
    variation: Variation | None = None
    """Images that begin as images of the base; null for images that begin as noise."""

    untrained: ClassVar = frozenset(("balance", "variation"))

    @field_validator("setting", mode="before")
    @classmethod
    def _open(cls, setting: str) -> str:
        if setting == "closed":
            raise ValueError(
                "the pipeline was trained on other images than the base subset; "
                "Stable Diffusion is open, or adapted"
            )
        return setting

    @model_validator(mode="before")
    @classmethod
    def _adapted(cls, given: Any) -> Any:
        parts = ("adaptation", "variation")
        if isinstance(given, dict) and any(given.get(part) is not None for part in parts):
            return {"setting": "adapted", **given}
        return given

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

    @model_validator(mode="after")
    def _setting_fits(self) -> "StableDiffusionConfig":
        adapts = self.adaptation is not None or self.variation is not None
        if adapts != (self.setting == "adapted"):
            knows = "know the base subset" if adapts else "are what makes a pipeline adapted"
            right = "leave setting out" if adapts else "write one, or leave setting out"
            raise ValueError(
                f"setting {self.setting!r}: 'adaptation' and 'variation' {knows}; {right}"
            )
        if self.adaptation is not None and self.captions is not None:
            raise ValueError(
                "captions: an adaptation learns one prompt for each class; write 'prompt', and "
                "captions: null"
            )
        if self.adaptation is None and self.sampler.lora_scale != 1:
            raise ValueError(
                f"sampler.lora_scale {self.sampler.lora_scale:g} is of an adaptation's adapters; "
                "leave it out"
            )
        if self.variation is not None and self.variation.steps(self.sampler.steps) < 1:
            raise ValueError(
                f"variation.strength {self.variation.strength:g} of {self.sampler.steps} steps is "
                f"no step; at least {1 / self.sampler.steps:g}, or more sampler.steps"
            )
        return self

    @property
    def varies_base(self) -> bool:
        return self.variation is not None

    def for_a_look(self) -> "StableDiffusionConfig":
        """Without a filter, which is calibrated later, and from noise alone."""
        return self.model_copy(update={"clip_filter": None, "variation": None})

    def names(self, class_names: tuple[str, ...], classes: int) -> tuple[str, ...]:
        """The classes in words, in the order of labels; ValueError if a prompt cannot be made of
        them. With learned tokens, and nothing else that reads them, any name will do.
        """
        learned = self.adaptation is not None and self.adaptation.tokens
        any_name = learned and self.clip_filter is None
        return prompts.names(class_names, self.rename, classes, any_name=any_name)

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
        if self.learns_from_base:
            if n_images < 1:
                raise ValueError("a pipeline cannot be adapted to no images")
            sources.check_adaptable(self.pipeline)
        self.sampling_payload()  # every file named is looked up

    def batches(self) -> dict[str, int]:
        return {"adaptation.batch": self.adaptation.batch} if self.adaptation else {}

    def cost_facts(
        self, height: int, width: int, channels: int, classes: int, n_images: int | None
    ) -> dict[str, int]:
        """Evaluations are two a step with guidance; of a variation's steps those that are taken."""
        steps, guided = self.sampler.steps, self.sampler.guidance > 1
        if self.variation is not None:
            steps = self.variation.steps(steps)
        facts = {"sampling_batch": self.sampler.batch, "sampler_steps": steps}
        facts |= {"evaluations_per_image": steps * (2 if guided else 1)}
        if self.adaptation is not None and n_images is not None:
            steps, batch = self.adaptation.steps, self.adaptation.batch
            facts |= {"training_batch": batch, "training_steps": steps}
            facts |= {"training_nimg": steps * batch}
        return facts

    def remarks(self) -> list[str]:
        """Where what an adaptation needs is not installed here."""
        if self.adaptation is None or find_spec("peft") is not None:
            return []
        return ["adaptation needs the package peft where the grid runs: equigrid[stable-diffusion]"]

    def flops(
        self, height: int, width: int, channels: int, classes: int, n_images: int
    ) -> Flops | None:
        """Candidates that the filter drops are made too, and so are those that calibrate it.
        Language model, text encoders and adapters are left out: some hundredths at most. n_images:
        of the base.
        """
        pipeline = known(self.pipeline)
        if pipeline is None:
            return None
        training = 0.0
        if self.adaptation is not None:
            views = 2 if self.adaptation.flips else 1
            training = adapting(pipeline, self.adaptation.steps * self.adaptation.batch)
            training += n_images * views * pipeline.encoder
        evaluations = self.cost_facts(height, width, channels, classes, None)
        candidate = evaluations["evaluations_per_image"] * pipeline.evaluation
        candidate += pipeline.decoder
        if self.variation is not None:
            candidate += pipeline.encoder
        if self.clip_filter is None:
            return Flops(training, candidate, True)
        candidate += CLIP_L14
        calibration = self.clip_filter.calibration_per_class * classes * candidate
        return Flops(training + calibration, candidate / (1 - self.clip_filter.drop), True)

    def training_payload(self) -> dict:
        """The pipeline, with an adaptation what its images and prompts are, and with a filter all
        that determines the images of its calibration.
        """
        if self.clip_filter is not None:
            return self._images_payload()
        own = {"kind": self.kind, "pipeline": self._pipeline(), "rev": REV}
        if self.adaptation is not None:
            size = {"height": self.sampler.height, "width": self.sampler.width}
            own |= {"prompt": self.prompt, "rename": dict(self.rename), **size}
        return own

    def sampling_payload(self) -> dict:
        """All that determines candidates, and which of them are kept."""
        kept = self.clip_filter and self.clip_filter.model_dump(
            mode="json", include={"drop", "scope"}
        )
        return {**self._images_payload(), "kept": kept}

    def _images_payload(self) -> dict:
        varied = {"variation": self.variation.identity()} if self.variation is not None else {}
        return {
            **varied,
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
