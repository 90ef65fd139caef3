"""Open-set pools: Stable Diffusion with prompts or captions, and a CLIP filter."""
