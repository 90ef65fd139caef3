"""Pre-trained parts, loaded from folders or the hub: the pipeline, the language model, CLIP.

Weights come from safetensors files alone, never from pickles, and no code of a repository is run.
Each part is kept for the next call in this process, and let go before another takes its place.
"""

import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from equigrid.generators.stable_diffusion import sources
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


def pipeline(config: StableDiffusionConfig, device: torch.device) -> Any:
    """The configured diffusers pipeline on the device, without its safety checker (which blackens
    images).
    """
    precision = precision_of(config.compute.precision, device, auto="fp16")
    return _pipelines(config.pipeline, config.revision, precision, str(device))


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


def _load_pipeline(source: str, revision: str, precision: str, device: str) -> Any:
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
        no_checker = {"safety_checker": None, "requires_safety_checker": False}
        taken = signature(made_by.__init__).parameters
        options = {option: value for option, value in no_checker.items() if option in taken}
        made = made_by.from_pretrained(
            folder, torch_dtype=_DTYPES[precision], use_safetensors=True, **options
        )
    for part in made.components.values():
        # Without accelerate, diffusers leaves some parts (Stable Diffusion 3's transformer) as
        # their files have them. Text encoders keep what transformers gave them: T5 needs some
        # layers in float32.
        if isinstance(part, ModelMixin):
            part.to(_DTYPES[precision])  # type: ignore[arg-type]  # diffusers' decorator hides what `to` takes
    made.set_progress_bar_config(disable=True)
    return made.to(device)


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
