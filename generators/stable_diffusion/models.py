"""Pre-trained parts, loaded from folders or the hub: the pipeline, the language model, CLIP.

Weights come from safetensors files alone, never from pickles, and no code of a repository is run.
Each part is kept for the next call in this process, and let go before another takes its place.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from equigrid.generators.stable_diffusion import adapters, sources, tokens
from equigrid.generators.stable_diffusion.config import Captions, ClipFilter, StableDiffusionConfig
from equigrid.generators.trainer.devices import precision_of

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CALLED_WITH = {
    "prompt", "height", "width", "num_inference_steps", "guidance_scale", "generator",
    "output_type",
}  # fmt: skip


class _Kept:
    """A loader that keeps its last result."""

    def __init__(self, load: Callable[..., Any]):
        self.load = load
        self.key: tuple[Any, ...] | None = None
        self.value: Any = None

    def __call__(self, *key: Any) -> Any:
        if key != self.key:
            self.release()  # first, so that two never share the memory
            self.value, self.key = self.load(*key), key
        return self.value

    def release(self) -> None:
        self.key = self.value = None


@dataclass(frozen=True)
class _Learned:
    """What an adaptation learned, to be put into a pipeline; equal where the tensors are."""

    digest: str
    scale: float
    names: tuple[str, ...]
    config: StableDiffusionConfig = field(compare=False)
    weights: Mapping[str, torch.Tensor] = field(compare=False)

    def put_in(self, pipeline: Any) -> None:
        own = self.config.adaptation
        assert own is not None, "it learned"
        if own.tokens:
            tokens.put_in(pipeline, self.names, tokens.of(dict(self.weights)))
        adapters.load(pipeline, adapters.of(dict(self.weights)), own, self.scale)


def pipeline(
    config: StableDiffusionConfig,
    device: torch.device,
    names: tuple[str, ...] = (),
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Any:
    """The configured diffusers pipeline on the device, without its safety checker (which blackens
    images).

    names: the classes in words. weights: what the adaptation learned, where there is one.
    """
    precision = precision_of(config.compute.precision, device, auto="fp16")
    learned = None
    if config.adaptation is not None:
        scale = config.sampler.lora_scale
        learned = _Learned(_digest(weights or {}), scale, names, config, weights or {})
    made = _pipelines(config.pipeline, config.revision, precision, str(device), learned)
    if config.learns_from_base:
        sources.check_class(type(made).__name__)
    return made


def pipeline_to_adapt(config: StableDiffusionConfig, device: torch.device) -> Any:
    """The same without what is learned, in the training's precision; the caller's own."""
    precision = precision_of(config.compute.training_precision, device, auto="bf16")
    made = _load_pipeline(config.pipeline, config.revision, precision, str(device), None)
    sources.check_class(type(made).__name__)
    return made


def beginning_with_images(pipeline: Any) -> Any:
    """The image-to-image pipeline of a text-to-image pipeline's own parts."""
    import diffusers

    made_by = getattr(diffusers, sources.ADAPTABLE[type(pipeline).__name__])
    made = made_by(**{**pipeline.components, **_without_checker(made_by)})
    made.set_progress_bar_config(disable=True)
    return made


def asked_size(pipeline: Any, config: StableDiffusionConfig) -> tuple[int | None, int | None]:
    """(height, width) to ask for, None for the pipeline's own; ValueError if its autoencoder cannot
    take it.
    """
    multiple = pipeline.vae_scale_factor * getattr(pipeline, "patch_size", 1)
    for key in ("height", "width"):
        value = getattr(config.sampler, key)
        if value is not None and value % multiple:
            raise ValueError(
                f"sampler.{key} {value}: this pipeline's autoencoder takes multiples of {multiple}"
            )
    return config.sampler.height, config.sampler.width


def size(pipeline: Any, config: StableDiffusionConfig) -> tuple[int, int]:
    """(height, width) of its images."""
    denoiser = getattr(pipeline, adapters.part(pipeline))
    own = int(denoiser.config["sample_size"]) * pipeline.vae_scale_factor
    height, width = asked_size(pipeline, config)
    return height or own, width or own


def language_model(config: Captions, device: torch.device) -> tuple[Any, Any]:
    """(tokenizer, causal language model) of `captions.language_model`, in bf16 where a CUDA device
    has it.
    """
    return _language_models(config.language_model, config.revision, str(device))


def clip(config: ClipFilter, device: torch.device) -> tuple[Any, Any]:
    """(processor, CLIP model in float32) of `clip_filter.model`."""
    return _clips(config.model, config.revision, str(device))


def release() -> None:
    """Let go of everything kept, so that the device's memory is free for other work."""
    for kept in (_pipelines, _language_models, _clips):
        kept.release()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    made = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        made.update(name.encode())
        made.update(weights[name].contiguous().numpy().data)
    return made.hexdigest()


def _without_checker(made_by: type) -> dict[str, Any]:
    """What leaves a pipeline's safety checker out, of those that have one."""
    taken = signature(made_by.__init__).parameters  # type: ignore[misc]  # of this very class
    no_checker = {"safety_checker": None, "requires_safety_checker": False}
    return {option: value for option, value in no_checker.items() if option in taken}


def _load_pipeline(
    source: str, revision: str, precision: str, device: str, learned: _Learned | None
) -> Any:
    import diffusers
    from diffusers.models.modeling_utils import ModelMixin

    with sources.loading("pipeline", source, "model_index.json and safetensors weights"):
        folder = source
        if not sources.is_folder("pipeline", source):
            # Of a repository's many variants, this fetches what the pipeline needs.
            download = diffusers.DiffusionPipeline.download
            folder = sources.fetched(download, source, revision=revision, use_safetensors=True)
        index = json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))
        name = index.get("_class_name")
        made_by = getattr(diffusers, str(name), None)
        if made_by is None or _CALLED_WITH - set(signature(made_by.__call__).parameters):
            raise ValueError(
                f"{name} is no text-to-image pipeline, such as StableDiffusionPipeline"
            )
        made = made_by.from_pretrained(
            folder,
            torch_dtype=_DTYPES[precision],
            use_safetensors=True,
            **_without_checker(made_by),
        )
    for part in made.components.values():
        # Without accelerate, diffusers leaves some parts (Stable Diffusion 3's transformer) as
        # their files have them. Text encoders keep what transformers gave them: T5 needs some
        # layers in float32.
        if isinstance(part, ModelMixin):
            part.to(_DTYPES[precision])  # type: ignore[arg-type]  # diffusers' decorator hides what `to` takes
    made.set_progress_bar_config(disable=True)
    made.to(device)
    if learned is not None:
        learned.put_in(made)
    return made


def _load_language_model(source: str, revision: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    precision = precision_of("auto", torch.device(device), auto="bf16")
    with sources.loading(
        "captions.language_model", source, "config.json, a tokenizer and safetensors weights"
    ):
        folder = sources.local("captions.language_model", source, revision)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=_DTYPES[precision], use_safetensors=True
        )
    model.to(device)  # type: ignore[arg-type]  # transformers' decorator hides what `to` takes
    return tokenizer, model.eval()


def _load_clip(source: str, revision: str, device: str) -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPProcessor

    with sources.loading(
        "clip_filter.model", source, "config.json, a processor and safetensors weights"
    ):
        folder = sources.local("clip_filter.model", source, revision)
        processor = CLIPProcessor.from_pretrained(folder)
        model = CLIPModel.from_pretrained(folder, use_safetensors=True)
    model.to(device)  # type: ignore[arg-type]  # transformers' decorator hides what `to` takes
    return processor, model.eval()


_pipelines = _Kept(_load_pipeline)
_language_models = _Kept(_load_language_model)
_clips = _Kept(_load_clip)
